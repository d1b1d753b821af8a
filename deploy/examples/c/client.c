/* Does through the sidecar of its pod what applications do: read, write on a condition, read a batch, and watch. It uses libcurl and
 * cJSON.
 *
 * Build: cc -o client client.c -lcurl -lcjson
 * Usage: client get DATASET KEY | replace DATASET KEY VALUE [ETAG] | batch DATASET KEY... | watch DATASET KEY
 */
#define _POSIX_C_SOURCE 200809L

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum {
	TIMEOUT = 10, /* seconds; longer than the sidecar takes to answer */
	IDLE = 60,    /* seconds; longer than the time between two heartbeats of a watch */
	MAX_RETRIES = 30,
};

static void *checked(void *memory)
{
	if (memory == NULL) {
		fputs("out of memory\n", stderr);
		exit(1);
	}
	return memory;
}

/* text is a string that grows. */
struct text {
	char *bytes; /* NULL while it is empty */
	size_t length;
};

static size_t append(const char *bytes, size_t size, size_t count, void *text)
{
	struct text *t = text;
	size_t n = size * count;

	t->bytes = checked(realloc(t->bytes, t->length + n + 1));
	memcpy(t->bytes + t->length, bytes, n);
	t->length += n;
	t->bytes[t->length] = '\0';
	return n;
}

/* format returns a new string, to free. */
static char *format(const char *pattern, ...)
{
	va_list args, again;
	int n;
	char *s;

	va_start(args, pattern);
	va_copy(again, args);
	n = vsnprintf(NULL, 0, pattern, args);
	va_end(args);
	s = checked(malloc((size_t)n + 1));
	vsnprintf(s, (size_t)n + 1, pattern, again);
	va_end(again);
	return s;
}

/* url returns the address of an operation, and of a key unless that is NULL; free it. */
static char *url(const char *dataset, const char *operation, const char *key)
{
	const char *sidecar = getenv("RINGSIDE_HTTP");
	char *escaped = key == NULL ? NULL : checked(curl_easy_escape(NULL, key, 0));
	char *s = format("%s/v1/%s%s%s", sidecar == NULL ? "http://localhost:7070" : sidecar, dataset, operation,
			 escaped == NULL ? "" : escaped);

	curl_free(escaped);
	return s;
}

/* response is what the sidecar sent. */
struct response {
	CURLcode code; /* of the transport */
	long status;
	curl_off_t retry_after; /* seconds; 0: a retry does not help */
	char etag[256], age[32], stale[8], version[32];
	struct text body;
};

/* header_value copies the value of a header field if the line is that field. */
static void header_value(const char *line, size_t n, const char *name, char *value, size_t room)
{
	size_t skip = strlen(name);

	if (n < skip + 3 || strncasecmp(line, name, skip) != 0 || line[skip] != ':')
		return;
	for (skip++; skip < n && line[skip] == ' '; skip++)
		;
	while (n > skip && (line[n - 1] == '\r' || line[n - 1] == '\n'))
		n--;
	if (n - skip < room) {
		memcpy(value, line + skip, n - skip);
		value[n - skip] = '\0';
	}
}

static size_t header(char *line, size_t size, size_t count, void *response)
{
	struct response *r = response;
	size_t n = size * count;

	header_value(line, n, "ETag", r->etag, sizeof r->etag);
	header_value(line, n, "Age", r->age, sizeof r->age);
	header_value(line, n, "Ringside-Stale", r->stale, sizeof r->stale);
	header_value(line, n, "Ringside-Version", r->version, sizeof r->version);
	return n;
}

/* send makes one request, without a retry. method is NULL for GET. */
static struct response send_request(const char *address, const char *method, const char *body, const char *field)
{
	struct response r = {.code = CURLE_OK};
	CURL *curl = checked(curl_easy_init());
	struct curl_slist *fields = NULL;

	if (body != NULL)
		fields = checked(curl_slist_append(fields, "Content-Type: application/json"));
	if (field != NULL)
		fields = checked(curl_slist_append(fields, field));
	curl_easy_setopt(curl, CURLOPT_URL, address);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, fields);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, &r);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &r.body);
	if (method != NULL) {
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
	}
	r.code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &r.status);
	curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &r.retry_after);
	curl_slist_free_all(fields);
	curl_easy_cleanup(curl);
	if (r.body.bytes == NULL)
		append("", 1, 0, &r.body);
	return r;
}

/* read_key repeats a read while the sidecar is overloaded or the database is down (429, 503), or the sidecar is restarting. */
static struct response read_key(const char *address)
{
	for (int attempt = 0;; attempt++) {
		struct response r = send_request(address, NULL, NULL, NULL);
		unsigned after = r.code == CURLE_OK ? (unsigned)r.retry_after : 1;

		if ((r.code == CURLE_OK && r.status < 300) || after == 0 || attempt == MAX_RETRIES)
			return r; /* it does not change when it is repeated */
		fprintf(stderr, "unavailable, trying again in %u s\n", after);
		free(r.body.bytes);
		sleep(after);
	}
}

/* name_of returns the name of the type of a problem (RFC 9457), such as "not-found". Rely on this alone. */
static const char *name_of(const cJSON *problem)
{
	static const char prefix[] = "https://ringside.dev/problems/";
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(problem, "type"));

	if (type == NULL)
		return "unknown";
	return strncmp(type, prefix, strlen(prefix)) == 0 ? type + strlen(prefix) : type;
}

/* fails reports whether r is an error. If it is the expected one, it prints text; otherwise it ends the program. */
static bool fails(const struct response *r, const char *expected, const char *text)
{
	cJSON *problem;

	if (r->code != CURLE_OK) {
		fprintf(stderr, "%s\n", curl_easy_strerror(r->code));
		exit(1);
	}
	if (r->status < 300)
		return false;
	problem = cJSON_Parse(r->body.bytes);
	if (expected == NULL || strcmp(name_of(problem), expected) != 0) {
		const char *detail = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(problem, "detail"));

		fprintf(stderr, "error %s: %s\n", name_of(problem), detail == NULL ? "" : detail);
		exit(1);
	}
	cJSON_Delete(problem);
	puts(text);
	return true;
}

static void get(const char *dataset, const char *key)
{
	char *address = url(dataset, "/", key);
	struct response r = read_key(address);

	if (fails(&r, "not-found", "not found")) { /* an answer like any other */
		free(r.body.bytes);
		free(address);
		return;
	}
	if (strcmp(r.stale, "true") == 0) /* the database is down: use it, and know its age */
		printf("stale, %s s old: %s\n", r.age, r.body.bytes);
	else
		printf("value: %s\n", r.body.bytes);
	free(r.body.bytes);
	free(address);
}

/* replace writes a value if nobody else has changed the row since it was read, or since it had the given ETag. A write is not
 * repeated: after a lost response, read the row to find out whether it was made, or send an Idempotency-Key. */
static void replace(const char *dataset, const char *key, const char *value, const char *etag)
{
	char *address = url(dataset, "/", key);
	struct response before = {.code = CURLE_OK}, r;
	char *condition;

	if (etag == NULL) {
		before = read_key(address);
		fails(&before, NULL, NULL);
		etag = before.etag;
	}
	condition = format("If-Match: %s", etag);
	r = send_request(address, "PUT", value, condition);
	if (!fails(&r, "precondition-failed", "condition failed")) /* read it again, and decide again */
		printf("written, version %s\n", r.version);
	free(condition);
	free(before.body.bytes);
	free(r.body.bytes);
	free(address);
}

/* show prints the result of one key of a batch, or a state event of a watch. */
static void show(const cJSON *state)
{
	const char *key = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(state, "key"));
	const cJSON *problem = cJSON_GetObjectItemCaseSensitive(state, "error");
	bool stale = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(state, "stale"));
	char *value;

	if (problem != NULL) {
		bool absent = strcmp(name_of(problem), "not-found") == 0;

		printf("%s: %s%s\n", key, absent ? "" : "error ", absent ? "not found" : name_of(problem));
		return;
	}
	value = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(state, "value"));
	printf("%s: %s: %s\n", key, stale ? "stale" : "value", value == NULL ? "" : value);
	cJSON_free(value);
}

/* batch reads many keys in one request. Each has a result of its own: some may fail. */
static void batch(const char *dataset, const char *const keys[], int n)
{
	char *address = url(dataset, ":batchGet", NULL), *text;
	cJSON *body = checked(cJSON_CreateObject()), *answer;
	const cJSON *state;
	struct response r;

	cJSON_AddItemToObject(body, "keys", checked(cJSON_CreateStringArray(keys, n)));
	text = checked(cJSON_PrintUnformatted(body));
	r = send_request(address, "POST", text, NULL);
	fails(&r, NULL, NULL);
	answer = checked(cJSON_Parse(r.body.bytes));
	cJSON_ArrayForEach(state, cJSON_GetObjectItemCaseSensitive(answer, "results"))
		show(state);
	cJSON_Delete(answer);
	cJSON_Delete(body);
	cJSON_free(text);
	free(r.body.bytes);
	free(address);
}

/* stream is a watch: the bytes of a line that is not complete, and the fields of an event that is not. */
struct stream {
	struct text rest;
	char event[32], id[256];
	char *data;
	time_t received; /* when the last bytes came */
};

static void set(char *field, size_t room, const char *value)
{
	if (strlen(value) < room)
		strcpy(field, value);
}

/* take_line handles one line of server-sent events. A line with a colon alone is a heartbeat. */
static void take_line(struct stream *s, const char *line)
{
	if (strncmp(line, "event: ", 7) == 0) {
		set(s->event, sizeof s->event, line + 7);
	} else if (strncmp(line, "id: ", 4) == 0) {
		set(s->id, sizeof s->id, line + 4);
	} else if (strncmp(line, "data: ", 6) == 0) {
		free(s->data);
		s->data = format("%s", line + 6);
	} else if (line[0] == '\0' && strcmp(s->event, "state") == 0) {
		cJSON *state = cJSON_Parse(s->data);

		show(state);
		cJSON_Delete(state);
		s->event[0] = '\0';
	} else if (line[0] == '\0' && s->event[0] != '\0') {
		puts(s->event); /* current: all states were sent; reset: they come again */
		s->event[0] = '\0';
	}
	fflush(stdout);
}

static size_t take(char *bytes, size_t size, size_t count, void *stream)
{
	struct stream *s = stream;
	size_t n = append(bytes, size, count, &s->rest);
	char *begin = s->rest.bytes, *end;

	s->received = time(NULL);
	while ((end = strchr(begin, '\n')) != NULL) {
		*end = '\0';
		take_line(s, begin);
		begin = end + 1;
	}
	s->rest.length -= (size_t)(begin - s->rest.bytes);
	memmove(s->rest.bytes, begin, s->rest.length + 1);
	return n;
}

/* silent ends a watch on which not even heartbeats arrive. curl calls it about once per second. */
static int silent(void *stream, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct stream *s = stream;

	(void)a, (void)b, (void)c, (void)d;
	return time(NULL) - s->received > IDLE;
}

/* watch prints each change of a key, forever. After an interruption it resumes with the id of the last event. */
static void watch(const char *dataset, const char *key)
{
	char *address = url(dataset, ":watch?key=", key);
	struct stream s = {.data = NULL};

	for (;;) {
		CURL *curl = checked(curl_easy_init());
		char *last = format("Last-Event-ID: %s", s.id);
		struct curl_slist *fields = s.id[0] == '\0' ? NULL : checked(curl_slist_append(NULL, last));

		curl_easy_setopt(curl, CURLOPT_URL, address);
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, fields);
		curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)TIMEOUT);
		curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
		curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, silent);
		curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &s);
		curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
		curl_easy_setopt(curl, CURLOPT_WRITEDATA, &s);
		s.received = time(NULL);
		fprintf(stderr, "resuming: %s\n", curl_easy_strerror(curl_easy_perform(curl)));
		curl_slist_free_all(fields);
		curl_easy_cleanup(curl);
		free(last);
		s.rest.length = 0;
		s.event[0] = '\0';
		sleep(1);
	}
}

int main(int n, char *args[])
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
	if (n == 4 && strcmp(args[1], "get") == 0) {
		get(args[2], args[3]);
	} else if ((n == 5 || n == 6) && strcmp(args[1], "replace") == 0) {
		replace(args[2], args[3], args[4], n == 6 ? args[5] : NULL);
	} else if (n >= 4 && strcmp(args[1], "batch") == 0) {
		batch(args[2], (const char *const *)args + 3, n - 3);
	} else if (n == 4 && strcmp(args[1], "watch") == 0) {
		watch(args[2], args[3]);
	} else {
		fputs("usage: client get|replace|batch|watch DATASET KEY...\n", stderr);
		return 2;
	}
	curl_global_cleanup();
	return 0;
}
