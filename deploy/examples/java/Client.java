import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.annotations.SerializedName;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.OptionalLong;

/**
 * Does through the sidecar of its pod what applications do: read, write on a condition, read a batch, and watch.
 *
 * <p>Usage: java Client get DATASET KEY | replace DATASET KEY VALUE [ETAG] | batch DATASET KEY... | watch DATASET KEY
 */
public final class Client {
    private static final String SIDECAR = Objects.requireNonNullElse(System.getenv("RINGSIDE_HTTP"), "http://localhost:7070");
    private static final Duration TIMEOUT = Duration.ofSeconds(10); // longer than the sidecar takes to answer
    private static final int MAX_RETRIES = 30;
    private static final Gson GSON = new Gson();
    private static final HttpClient HTTP =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(TIMEOUT).build();

    /** An error of the sidecar as JSON (RFC 9457). */
    private static final class Document {
        String type;
        String detail;

        /** Rely on the name of the type alone, such as "not-found". */
        String name() {
            return type.replace("https://ringside.dev/problems/", "");
        }
    }

    /** An error of the sidecar. A retry helps after retryAfter seconds, or not at all. */
    private static final class Problem extends IOException {
        private static final long serialVersionUID = 1;
        final String name;
        final transient OptionalLong retryAfter;

        Problem(HttpResponse<String> response) {
            this(GSON.fromJson(response.body(), Document.class), response.headers().firstValueAsLong("Retry-After"));
        }

        private Problem(Document document, OptionalLong retryAfter) {
            super("error " + document.name() + ": " + document.detail);
            this.name = document.name();
            this.retryAfter = retryAfter;
        }
    }

    /** The result of one key of a batch, and a state event of a watch. */
    private static final class State {
        String key;
        JsonElement value;
        boolean stale;

        @SerializedName("error")
        Document problem;

        @Override
        public String toString() {
            if (problem != null) {
                return key + ": " + (problem.name().equals("not-found") ? "not found" : "error " + problem.name());
            }
            return key + ": " + (stale ? "stale: " : "value: ") + value;
        }
    }

    private static final class Batch {
        List<State> results;
    }

    private static String escape(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }

    private static HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(SIDECAR + "/v1/" + path));
    }

    private static HttpRequest.Builder ofKey(String dataset, String key) {
        return request(dataset + "/" + escape(key)).timeout(TIMEOUT);
    }

    /** Makes one request, without a retry. */
    private static HttpResponse<String> send(HttpRequest request) throws IOException, InterruptedException {
        HttpResponse<String> response = HTTP.send(request, BodyHandlers.ofString());
        if (response.statusCode() >= 300) {
            throw new Problem(response);
        }
        return response;
    }

    /** Repeats a read while the sidecar is overloaded or the database is down (429, 503), or the sidecar is restarting. */
    private static HttpResponse<String> read(HttpRequest request) throws IOException, InterruptedException {
        for (int attempt = 0; ; attempt++) {
            OptionalLong after = OptionalLong.of(1);
            try {
                return send(request);
            } catch (IOException error) {
                if (error instanceof Problem) {
                    after = ((Problem) error).retryAfter;
                }
                if (after.isEmpty() || attempt == MAX_RETRIES) { // it does not change when it is repeated
                    throw error;
                }
            }
            System.err.println("unavailable, trying again in " + after.getAsLong() + " s");
            Thread.sleep(Duration.ofSeconds(after.getAsLong()).toMillis());
        }
    }

    private static void get(String dataset, String key) throws IOException, InterruptedException {
        HttpResponse<String> response;
        try {
            response = read(ofKey(dataset, key).build());
        } catch (Problem problem) {
            if (!problem.name.equals("not-found")) {
                throw problem;
            }
            System.out.println("not found"); // an answer like any other
            return;
        }
        boolean stale = response.headers().firstValue("Ringside-Stale").orElse("").equals("true");
        if (stale) { // the database is down: use it, and know its age
            System.out.print("stale, " + response.headers().firstValue("Age").orElse("?") + " s old: ");
        } else {
            System.out.print("value: ");
        }
        System.out.println(response.body());
    }

    /**
     * Writes a value if nobody else has changed the row since it was read, or since it had the given ETag. A write is not repeated:
     * after a lost response, read the row to find out whether it was made, or send an Idempotency-Key.
     */
    private static void replace(String dataset, String key, String value, String etag) throws IOException, InterruptedException {
        if (etag == null) {
            etag = read(ofKey(dataset, key).build()).headers().firstValue("ETag").orElseThrow();
        }
        HttpRequest put = ofKey(dataset, key).PUT(BodyPublishers.ofString(value))
                .header("If-Match", etag).header("Content-Type", "application/json").build();
        try {
            System.out.println("written, version " + send(put).headers().firstValue("Ringside-Version").orElse("unknown"));
        } catch (Problem problem) {
            if (!problem.name.equals("precondition-failed")) {
                throw problem;
            }
            System.out.println("condition failed"); // read it again, and decide again
        }
    }

    /** Reads many keys in one request. Each has a result of its own: some may fail. */
    private static void batch(String dataset, List<String> keys) throws IOException, InterruptedException {
        String body = GSON.toJson(Map.of("keys", keys));
        HttpRequest post = request(dataset + ":batchGet").timeout(TIMEOUT)
                .header("Content-Type", "application/json").POST(BodyPublishers.ofString(body)).build();
        GSON.fromJson(send(post).body(), Batch.class).results.forEach(System.out::println);
    }

    /** Prints each change of a key, forever. After an interruption it resumes with the id of the last event. */
    private static void watch(String dataset, String key) throws InterruptedException {
        Map<String, String> event = new HashMap<>();
        String[] last = {null};
        while (true) {
            HttpRequest.Builder request = request(dataset + ":watch?key=" + escape(key));
            if (last[0] != null) {
                request.header("Last-Event-ID", last[0]);
            }
            event.clear();
            try {
                HttpResponse<java.util.stream.Stream<String>> response = HTTP.send(request.build(), BodyHandlers.ofLines());
                if (response.statusCode() != 200) {
                    throw new IOException("status " + response.statusCode());
                }
                try (var lines = response.body()) { // a program that must notice a silent connection reads heartbeats: lines ":"
                    lines.forEach(line -> last[0] = follow(line, event, last[0]));
                }
            } catch (IOException | java.io.UncheckedIOException error) {
                System.err.println("interrupted: " + error.getMessage());
            }
            System.err.println("resuming");
            Thread.sleep(1000);
        }
    }

    /** Takes one line of server-sent events, and returns the id of the last event. */
    private static String follow(String line, Map<String, String> event, String last) {
        if (!line.isEmpty()) {
            String[] field = line.split(": ", 2);
            if (field.length == 2) {
                event.put(field[0], field[1]);
            }
            return last;
        }
        String name = event.get("event");
        if (name != null) { // current: all states were sent; reset: they come again
            System.out.println(name.equals("state") ? GSON.fromJson(event.get("data"), State.class) : name);
            last = event.getOrDefault("id", last);
        }
        event.clear();
        return last;
    }

    public static void main(String[] args) throws InterruptedException {
        try {
            if (args.length == 3 && args[0].equals("get")) {
                get(args[1], args[2]);
            } else if ((args.length == 4 || args.length == 5) && args[0].equals("replace")) {
                replace(args[1], args[2], args[3], args.length == 5 ? args[4] : null);
            } else if (args.length >= 3 && args[0].equals("batch")) {
                batch(args[1], Arrays.asList(args).subList(2, args.length));
            } else if (args.length == 3 && args[0].equals("watch")) {
                watch(args[1], args[2]);
            } else {
                System.err.println("usage: Client get|replace|batch|watch DATASET KEY...");
                System.exit(2);
            }
        } catch (IOException error) {
            System.err.println(error);
            System.exit(1);
        }
    }

    private Client() {}
}
