package cnfmetrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const goodBody = `{"cnf_id":"CNF-001","timestamp":"2026-01-02T03:04:05.000006Z","metric_type":"cpu.total","value":12.5,` +
	`"unit":"percent","status":"ok"}`

func newHTTPDoor(t *testing.T, s source) *httpClient {
	t.Helper()
	return &httpClient{t, "http://" + newSidecar(t, s).http}
}

func TestHTTP(t *testing.T) {
	base := newHTTPDoor(t, origintest.New(nil)).base // the requests build on each other
	body := func(from, to string) string { return strings.Replace(goodBody, from, to, 1) }
	for _, c := range []struct {
		request, body string
		status        int
		want          string // in the body
	}{
		{"POST /cnfmetrics/v1/metrics", goodBody, 201, `"version":`},
		{"POST /cnfmetrics/v1/metrics", goodBody, 409, "problems/exists"},
		{"GET /cnfmetrics/v1/metrics/CNF-001", "", 200, strings.TrimSuffix(goodBody, "}")},
		{"GET /cnfmetrics/v1/metrics/CNF%2D001?no_cache=true&min_version=0", "", 200, `"value":12.5`},
		{"GET /cnfmetrics/v1/metrics/none", "", 404, "problems/not-found"},
		{"GET /cnfmetrics/v1/metrics/", "", 400, `{"field":"cnf_id","detail":"is missing"}`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?min_version=9223372036854775807", "", 412, "version-not-reached"},
		{"GET /cnfmetrics/v1/metrics/CNF-001?min_version=-1", "", 400, `{"field":"min_version","detail":"is negative`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?min_version=", "", 400, `{"field":"min_version"`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?no_cache=yes", "", 400, `{"field":"no_cache"`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?no_cahe=true", "", 400, `{"field":"no_cahe","detail":"is not a parameter`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?=true", "", 400, `{"field":"query","detail":"is not a parameter`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?no_cache=true&no_cache=true", "", 400, "occurs 2 times"},
		{"GET /cnfmetrics/v1/metrics/CNF-001?a=%zz", "", 400, `{"field":"query"`},
		{"GET /cnfmetrics/v1/metrics/CNF-001?a=1;b=2", "", 400, `{"field":"query"`},
		{"GET /cnfmetrics/v1/metrics/%ff", "", 400, `{"field":"cnf_id","detail":"is not UTF-8"}`},
		{"GET /cnfmetrics/v1/metrics?page_size=2", "", 200, `{"metrics":[` + strings.TrimSuffix(goodBody, "}")},
		{"GET /cnfmetrics/v1/metrics?status=warn", "", 200, `{"metrics":[],"next_page_token":""}`},
		{"GET /cnfmetrics/v1/metrics?page_size=2147483648", "", 400, `{"field":"page_size"`},
		{"GET /cnfmetrics/v1/metrics?page_size=0", "", 200, `"next_page_token":""`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("12.5", "13"), 200, `"value":13`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body(`"cnf_id":"CNF-001",`, ""), 200, `"cnf_id":"CNF-001"`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body(`}`, `,"version":1}`), 409, "problems/conflict"},
		{"PUT /cnfmetrics/v1/metrics/CNF-002", goodBody, 400, `{"field":"cnf_id","detail":"is not the one in the path"}`},
		{"PUT /cnfmetrics/v1/metrics/CNF-002", body("CNF-001", "CNF-002"), 404, "problems/not-found"},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", "", 400, `"detail":"body is not a JSON object","errors":[{"field":"body",`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("}", ""), 400, `"detail":"body is not JSON: it ends prematurely","errors"`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", goodBody + "x", 400, "something after"},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("12.5", "NaN"), 400, "body is not JSON: invalid"},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("12.5", "1e999"), 400, `{"field":"value","detail":"is not a finite`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("12.5", `"12.5"`), 400, `{"field":"value","detail":"is not a finite`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body(`"value":12.5,`, ""), 400, `{"field":"value","detail":"is missing"}`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("value", "Value"), 400, `{"field":"Value","detail":"is not a field`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("12.5", `1,"value":2`), 400, `has \"value\" twice`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("T03", " 03"), 400, `{"field":"timestamp","detail":"is not an RFC 3339`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body(".000006Z", ",000006Z"), 400, `"timestamp","detail":"is not an RFC 3339`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body(`"ok"`, "null"), 400, `{"field":"status","detail":"is not a string"}`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("03:04:05.000006Z", "05:04:05.0000069+02:00"), 200, "T03:04:05.000006Z"},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":["CNF-001","none"]}`, 200, `{"cnf_id":"none","error":{"type":`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":["CNF-001"],"x":1}`, 400, `{"field":"x"`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":["CNF-001"],"":1}`, 400, `{"field":"body","detail":"is not a field`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":"CNF-001"}`, 400, `{"field":"cnf_ids","detail":"is not a list`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":["a",null]}`, 400, `{"field":"cnf_ids[1]","detail":"is not a`},
		{"PUT /cnfmetrics/v1/metrics/CNF-001", body("percent", `\ud800`), 400, `{"field":"unit","detail":"has half of a surrogate`},
		{"PUT /cnfmetrics/v1/metrics/%EF%BF%BD", body("CNF-001", `\ud800`), 400, `{"field":"cnf_id","detail":"has half`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":["a","\ud800"]}`, 400, `{"field":"cnf_ids","detail":"has half`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":[]}`, 400, `{"field":"cnf_ids","detail":"has 0 ids`},
		{"POST /cnfmetrics/v1/metrics:batchShow", `{"cnf_ids":["a"],"cnf_ids":["b"]}`, 400,
			`"errors":[{"field":"body","detail":"has \"cnf_ids\" twice"}]}`},
		{"POST /cnfmetrics/v1/metrics:batchShow?x=1", `{"cnf_ids":["a"]}`, 400, `{"field":"x"`},
		{"DELETE /cnfmetrics/v1/metrics/CNF-001?version=1", "", 409, "problems/conflict"},
		{"DELETE /cnfmetrics/v1/metrics/CNF-001?idempotency_id=", "", 400, `{"field":"idempotency_id","detail":"is empty"}`},
		{"DELETE /cnfmetrics/v1/metrics/CNF-001", "", 200, `{"version":`},
		{"DELETE /cnfmetrics/v1/metrics/CNF-001", "", 404, "problems/not-found"},
		{"PATCH /cnfmetrics/v1/metrics/CNF-001", "{}", 405, "method-not-allowed"},
		{"DELETE /cnfmetrics/v1/metrics", "", 405, "method-not-allowed"},
		{"GET /cnfmetrics/v1/metrics:batchShow", "", 405, "method-not-allowed"},
		{"GET /cnfmetrics/v2/metrics", "", 404, "no-such-route"},
		{"GET /cnfmetrics/openapi.json", "", 200, `"openapi": "3.1.0"`},
	} {
		t.Run(c.request, func(t *testing.T) {
			d := &httpClient{t, base}
			method, target, _ := strings.Cut(c.request, " ")
			code, header, answer := d.call(method, target, c.body)
			if code != c.status || !strings.Contains(string(answer), c.want) {
				t.Errorf("%d %s\nwant %d with %s", code, answer, c.status, c.want)
			}
			if header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control: %s", header.Get("Cache-Control"))
			}
			checkDocumented(t, c.request, code, header, answer)
		})
	}
}

func TestHTTPHeaders(t *testing.T) {
	d := newHTTPDoor(t, origintest.New(nil))
	for _, c := range []struct{ request, body, header, want string }{
		{"POST /cnfmetrics/v1/metrics", strings.Replace(goodBody, "CNF-001", "a/b ü?", 1), "Location",
			"/cnfmetrics/v1/metrics/a%2Fb%20%C3%BC%3F"},
		{"GET /cnfmetrics/v1/metrics/a%2Fb%20%C3%BC%3F", "", "Age", "0"},
		{"GET /cnfmetrics/v1/metrics/a/b%20%C3%BC%3F", "", "Content-Type", "application/json"},
		{"HEAD /cnfmetrics/v1/metrics/a/b%20%C3%BC%3F", "", "Age", "0"},
		{"PATCH /cnfmetrics/v1/metrics/a", "", "Allow", "DELETE, GET, HEAD, PUT"},
		{"PATCH /cnfmetrics/v1/metrics", "", "Allow", "GET, HEAD, POST"},
		{"GET /cnfmetrics/v1/metrics:batchShow", "", "Allow", "POST"},
		{"GET /cnfmetrics/v1/metrics/none", "", "Content-Type", "application/problem+json"},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		if _, header, _ := d.call(method, target, c.body); header.Get(c.header) != c.want {
			t.Errorf("%s: %s is %q, want %q", c.request, c.header, header.Get(c.header), c.want)
		}
	}
}

func TestUnsupportedConditionIsRejected(t *testing.T) {
	d := newHTTPDoor(t, origintest.New(nil))
	d.call(http.MethodPost, collection, goodBody)
	for _, header := range []string{
		"Ringside-Min-Version", "Content-Range", "If-Match", "If-None-Match", "Ringside-If-Version", "Idempotency-Key",
	} {
		for _, request := range []string{"POST " + collection, "PUT " + pathOf("CNF-001"), "DELETE " + pathOf("CNF-001")} {
			method, target, _ := strings.Cut(request, " ")
			code, answered, answer := d.callWith(http.Header{header: {`"7"`}}, method, target, bodyOf(method))
			if code != http.StatusBadRequest || !strings.Contains(string(answer), `"field":"`+header+`"`) {
				t.Errorf("%s with %s: %d %s", request, header, code, answer)
			}
			checkDocumented(t, request, code, answered, answer)
		}
		if header == "If-Match" || header == "Ringside-Min-Version" {
			continue // see TestHeadersOfRead
		}
		if code, _, answer := d.callWith(http.Header{header: {`"7"`}}, http.MethodGet, pathOf("CNF-001"), ""); code != http.StatusOK {
			t.Errorf("GET with %s: %d %s", header, code, answer)
		}
	}
}

func TestBodyWithWrongMediaTypeIsRejected(t *testing.T) {
	d := newHTTPDoor(t, origintest.New(nil))
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"Content-Type", "text/plain", 415}, {"Content-Type", "application/json; charset=utf-8", 201}, {"Content-Type", "/", 415},
		{"Content-Type", "application/x-www-form-urlencoded", 409}, {"X", "no type at all", 409},
		{"Content-Encoding", "gzip", 415}, {"Content-Encoding", "Identity", 409},
	} {
		code, header, b := d.callWith(http.Header{c.name: {c.value}}, "POST", collection, goodBody)
		if code != c.status {
			t.Errorf("%s: %s: %d %s, want %d", c.name, c.value, code, b, c.status)
		}
		checkDocumented(t, "POST "+collection, code, header, b)
	}
	if code, _, b := d.callWith(http.Header{"Content-Type": {"text/plain"}}, "POST", batchShow, `{"cnf_ids":["a"]}`); code != 415 {
		t.Errorf("batch: %d %s", code, b)
	}
}

// Headers of a read have their effect, or are rejected with the parameter to use.
func TestHeadersOfRead(t *testing.T) {
	o := origintest.New(nil)
	d := newHTTPDoor(t, o)
	if code, _, b := d.call("POST", collection, goodBody); code != 201 {
		t.Fatalf("%d %s", code, b)
	}
	target := collection + "/CNF-001"
	d.call("GET", target, "")
	for _, c := range []struct {
		name, value, target string
		status              int
		want                string // in the body
		loads               int64
	}{
		{"Cache-Control", "no-cache", target, 200, "", 1},
		{"Cache-Control", "max-age=0", target, 200, "", 1},
		{"Cache-Control", `foo, MAX-AGE="0" , bar`, target, 200, "", 1},
		{"Cache-Control", "max-age=10, min-fresh=3, no-transform, max-age=", target, 200, "", 0},
		{"Cache-Control", "only-if-cached", target, 400, `"field":"Cache-Control"`, 0},
		{"Cache-Control", "max-stale=10", target, 400, `"field":"Cache-Control"`, 0},
		{"Ringside-Min-Version", "1", target, 400, `use the parameter min_version`, 0},
		{"Ringside-Min-Version", "1", collection, 400, `use the parameter min_version`, 0},
		{"If-Match", `"x"`, target, 400, `"field":"If-Match"`, 0},
		{"If-None-Match", `"x"`, target, 200, "", 0},
	} {
		before := o.Queries()
		code, header, b := d.callWith(http.Header{c.name: {c.value}}, "GET", c.target, "")
		if code != c.status || !strings.Contains(string(b), c.want) || o.Queries()-before != c.loads {
			t.Errorf("%s: %s: %d %s, %d loads", c.name, c.value, code, b, o.Queries()-before)
		}
		checkDocumented(t, "GET "+c.target, code, header, b)
	}
}

// bodyOf returns the body of a write: a DELETE has none.
func bodyOf(method string) string {
	if method == http.MethodDelete {
		return ""
	}
	return goodBody
}

func TestReadOnlyDatasetHasAllowHeader(t *testing.T) {
	err := &kv.Error{Kind: kv.KindReadOnly, Err: errors.New("it takes no writes")}
	d := &httpClient{t, "http://" + serve(t, scripted{err: err}, nil).http}
	for _, request := range []string{"POST " + collection, "PUT " + pathOf("CNF-001"), "DELETE " + pathOf("CNF-001")} {
		method, target, _ := strings.Cut(request, " ")
		code, header, answer := d.call(method, target, bodyOf(method))
		if code != http.StatusMethodNotAllowed || header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow: %s", request, code, header.Get("Allow"))
		}
		checkDocumented(t, request, code, header, answer)
	}
}

// described is the part of openapi.json with which the tests compare responses.
type described struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Responses map[string]describedResponse `json:"responses"`
		Schemas   map[string]struct {
			Example json.RawMessage `json:"example"`
		} `json:"schemas"`
	} `json:"components"`
}

type describedResponse struct {
	Ref     string                     `json:"$ref"`
	Headers map[string]json.RawMessage `json:"headers"`
	Content map[string]json.RawMessage `json:"content"`
}

func readDescription(t *testing.T) (d described) {
	t.Helper()
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func templateOf(target string) string {
	path, _, _ := strings.Cut(target, "?")
	if strings.HasPrefix(path, collection+"/") {
		return collection + "/{cnf_id}"
	}
	return path
}

// checkDocumented fails unless openapi.json has the status, problem type, content type and headers of a response.
func checkDocumented(t *testing.T, request string, code int, header http.Header, answer []byte) {
	t.Helper()
	method, target, _ := strings.Cut(request, " ")
	d := readDescription(t)
	operations, ok := d.Paths[templateOf(target)]
	if !ok {
		return
	}
	raw, ok := operations[strings.ToLower(method)]
	if !ok {
		raw = operations[map[bool]string{true: "get", false: "post"}[operations["get"] != nil]]
	}
	var operation struct {
		Responses map[string]describedResponse `json:"responses"`
	}
	if err := json.Unmarshal(raw, &operation); err != nil {
		t.Fatal(err)
	}
	r, ok := operation.Responses[strconv.Itoa(code)]
	if name, isRef := strings.CutPrefix(r.Ref, "#/components/responses/"); isRef {
		r = d.Components.Responses[name]
	}
	content, known := r.Content[header.Get("Content-Type")]
	if !ok || !known {
		t.Fatalf("openapi.json: %s has no status %d with %s", request, code, header.Get("Content-Type"))
	}
	var p apierror.Problem
	if header.Get("Content-Type") == "application/problem+json" {
		strict(t, answer, &p)
		if !strings.Contains(string(content), `"`+p.Type+`"`) {
			t.Errorf("openapi.json: %s %d has no problem type %s", request, code, p.Type)
		}
	}
	for name := range header {
		known := slices.Contains([]string{"Content-Type", "Content-Length", "Date", "Connection"}, name)
		if _, ok := r.Headers[name]; !ok && !known {
			t.Errorf("openapi.json: %s %d has no header %s", request, code, name)
		}
	}
}

func TestOpenAPIPathsAreTheRoutes(t *testing.T) {
	want := map[string][]string{
		description:              {"get", "head"},
		collection:               {"get", "head", "post"},
		collection + "/{cnf_id}": {"delete", "get", "head", "parameters", "put"},
		batchShow:                {"post"},
	}
	paths := readDescription(t).Paths
	for path, item := range paths {
		var methods []string
		for m := range item {
			methods = append(methods, m)
		}
		if slices.Sort(methods); !slices.Equal(methods, want[path]) {
			t.Errorf("%s: %v, want %v", path, methods, want[path])
		}
	}
	if len(paths) != len(want) {
		t.Errorf("%d paths", len(paths))
	}
}

// Every operation on metrics may be refused: the caller lacks the permission, or has reached a limit.
func TestRefusalsOfEveryOperationAreDocumented(t *testing.T) {
	d := readDescription(t)
	for path, item := range d.Paths {
		for method, raw := range item {
			if path == description || method == "parameters" {
				continue
			}
			var operation struct {
				Responses map[string]describedResponse `json:"responses"`
			}
			if err := json.Unmarshal(raw, &operation); err != nil {
				t.Fatal(err)
			}
			for _, typ := range []apierror.Type{apierror.Unauthenticated, apierror.PermissionDenied, apierror.CrossSite, apierror.RateLimited} {
				r := d.Components.Responses[strings.TrimPrefix(operation.Responses[strconv.Itoa(typ.Status)].Ref, "#/components/responses/")]
				if !strings.Contains(fmt.Sprintf("%s", r.Content), `"`+apierror.BaseURI+typ.Name+`"`) {
					t.Errorf("%s %s has no status %d with %s", method, path, typ.Status, typ.Name)
				}
			}
		}
	}
}

// Each type of error is in openapi.json and in the table of cnfmetrics.proto, with its code and its status.
func TestEachReasonIsDocumented(t *testing.T) {
	all := []apierror.Type{apierror.InvalidRequest, apierror.NotFound, apierror.AlreadyExists, apierror.UnreadableRow,
		apierror.Stopping}
	for _, kind := range []kv.Kind{kv.KindInternal, kv.KindConflict, kv.KindReadOnly, kv.KindVersion,
		kv.KindUnknown, kv.KindOverloaded, kv.KindUnavailable, kv.KindDeadline} {
		all = append(all, apierror.TypeOf(kind))
	}
	proto := readProto(t)
	for _, r := range all {
		if !strings.Contains(string(openAPI), `"`+apierror.BaseURI+r.Name+`"`) {
			t.Errorf("openapi.json has no problem %s", r.Name)
		}
		code := strings.ToUpper(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(r.Code.String(), "${1}_${2}"))
		line := regexp.MustCompile(`//   ` + code + ` ` + r.Reason + ` .*\n//     ` + strconv.Itoa(r.Status) + ` ` + r.Name + `\s`)
		if !line.MatchString(proto) {
			t.Errorf("cnfmetrics.proto has no %s %s with %d %s", code, r.Reason, r.Status, r.Name)
		}
	}
}

func readProto(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../proto/cnfmetrics/v1/cnfmetrics.proto")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOpenAPIReferencesResolve(t *testing.T) {
	var whole map[string]any
	if err := json.Unmarshal(openAPI, &whole); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(string(openAPI), -1) {
		var at any = whole
		for part := range strings.SplitSeq(m[1], "/") {
			object, _ := at.(map[string]any)
			at = object[part]
		}
		if at == nil {
			t.Errorf("#/%s leads nowhere", m[1])
		}
	}
}

// The examples and the patterns of the description conform to the rules.
func TestOpenAPIExamplesAndPatternsConformToTheRules(t *testing.T) {
	d := newHTTPDoor(t, origintest.New(nil))
	schemas := readDescription(t).Components.Schemas
	for _, c := range []struct{ request, schema string }{
		{"POST " + collection, "NewMetric"},
		{"PUT " + collection + "/CNF-001", "ChangedMetric"},
		{"POST " + batchShow, "BatchRequest"},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		if code, _, body := d.call(method, target, string(schemas[c.schema].Example)); code >= 300 {
			t.Errorf("%s %s: %d %s", c.request, schemas[c.schema].Example, code, body)
		}
	}
	var document struct {
		Components struct {
			Schemas struct {
				NewMetric struct {
					Properties map[string]struct {
						Pattern   string   `json:"pattern"`
						MaxLength int      `json:"maxLength"`
						Enum      []string `json:"enum"`
					} `json:"properties"`
				}
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(openAPI, &document); err != nil {
		t.Fatal(err)
	}
	for _, c := range rules {
		m := toJSON(with(sample("CNF-001"), c.change))
		for field, text := range map[string]string{
			"cnf_id": m.CnfID, "timestamp": m.Timestamp, "metric_type": m.MetricType, "unit": m.Unit, "status": m.Status,
		} {
			p := document.Components.Schemas.NewMetric.Properties[field]
			unicode := regexp.MustCompile(`\\u([0-9a-f]{4})`).ReplaceAllString(p.Pattern, `\x{$1}`)
			fits := regexp.MustCompile(unicode).MatchString(text) && (p.MaxLength == 0 || len([]rune(text)) <= p.MaxLength) &&
				(p.Enum == nil || slices.Contains(p.Enum, text))
			if fits != (c.field != field) {
				t.Errorf("%s: the schema of %s takes %q: %v", c.name, field, text, fits)
			}
		}
	}
}
