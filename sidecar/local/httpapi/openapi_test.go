package httpapi_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// document is the part of openapi.json that the tests hold answers against.
type document struct {
	OpenAPI    string                                `json:"openapi"`
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Responses map[string]documentedResponse `json:"responses"`
	} `json:"components"`
}

type documentedResponse struct {
	Ref     string                     `json:"$ref"`
	Headers map[string]json.RawMessage `json:"headers"`
	Content map[string]json.RawMessage `json:"content"`
}

func description(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal([]byte(description(t)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d document) response(t *testing.T, path, method string, status int) (documentedResponse, bool) {
	t.Helper()
	var operation struct {
		Responses map[string]documentedResponse `json:"responses"`
	}
	raw, ok := d.Paths[path][method]
	if !ok {
		return documentedResponse{}, false
	}
	if err := json.Unmarshal(raw, &operation); err != nil {
		t.Fatal(err)
	}
	r, ok := operation.Responses[strconv.Itoa(status)]
	if name, isRef := strings.CutPrefix(r.Ref, "#/components/responses/"); isRef {
		r, ok = d.Components.Responses[name]
	}
	return r, ok
}

// template returns the documented path of a request target, or "" for one that has no route.
func template(target string) string {
	switch {
	case target == "/" || target == "/openapi.json" || target == "/v1/datasets":
		return target
	case strings.HasSuffix(target, ":batchGet"):
		return "/v1/{dataset}:batchGet"
	case strings.HasSuffix(target, ":batchPut"):
		return "/v1/{dataset}:batchPut"
	case strings.Contains(target, ":watch?") && strings.Count(target, "/") == 2:
		return "/v1/{dataset}:watch"
	case strings.Contains(target, ":explain") && strings.Count(strings.Split(target, "?")[0], "/") == 2:
		return "/v1/{dataset}:explain"
	case strings.HasSuffix(target, ":invalidate"):
		return "/v1/{dataset}:invalidate"
	case strings.HasPrefix(target, "/v1/") && strings.Count(target, "/") > 2:
		return "/v1/{dataset}/{key}"
	case strings.HasPrefix(target, "/v1/") && !strings.ContainsAny(target[4:], ":?"):
		return "/v1/{dataset}"
	}
	return ""
}

// checkDocumented fails when openapi.json does not know the answer's status, problem type, content type or headers.
func checkDocumented(t *testing.T, request string, resp *http.Response, problemType string) {
	t.Helper()
	words := strings.SplitN(request, " ", 3)
	path := template(words[1])
	if path == "" {
		return
	}
	d, method := readDocument(t), strings.ToLower(words[0])
	if _, ok := d.Paths[path][method]; !ok { // a method that is not there is answered as the one that is
		method = "get"
		if strings.HasSuffix(path, ":batchGet") || strings.HasSuffix(path, ":batchPut") || strings.HasSuffix(path, ":invalidate") || path == "/v1/{dataset}" {
			method = "post"
		}
	}
	r, ok := d.response(t, path, method, resp.StatusCode)
	if !ok {
		t.Fatalf("openapi.json: %s %s has no status %d", method, path, resp.StatusCode)
	}
	content, ok := r.Content[strings.Split(resp.Header.Get("Content-Type"), ",")[0]]
	if !ok && resp.ContentLength != 0 && resp.StatusCode != http.StatusNotModified && resp.StatusCode != http.StatusNoContent {
		t.Errorf("openapi.json: %s %d has no content %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if problemType != "" && !strings.Contains(string(content), `"`+problemType+`"`) {
		t.Errorf("openapi.json: %s %d has no problem type %s", path, resp.StatusCode, problemType)
	}
	general := []string{"Content-Type", "Content-Length", "Date", "Connection"}
	for name := range resp.Header {
		if _, ok := r.Headers[canonicalOf(r.Headers, name)]; !ok && !slices.Contains(general, name) {
			t.Errorf("openapi.json: %s %d has no header %s", path, resp.StatusCode, name)
		}
	}
}

// canonicalOf finds the documented spelling ("ETag") of a name as net/http spells it ("Etag").
func canonicalOf(headers map[string]json.RawMessage, name string) string {
	for documented := range headers {
		if http.CanonicalHeaderKey(documented) == name {
			return documented
		}
	}
	return ""
}

func TestOpenAPIKnowsEveryProblemAndNoOther(t *testing.T) {
	var all []apierror.Type
	for kind := kv.KindInternal; kind <= kv.KindNoAppend; kind++ {
		all = append(all, apierror.TypeOf(kind))
	}
	all = append(all, apierror.NoSuchRoute, apierror.UnknownDataset, apierror.NotFound, apierror.WrongMethod,
		apierror.MalformedRequest, apierror.InvalidBatch, apierror.CrossSite, apierror.RequestTimeout, apierror.BodyTooLarge, apierror.BatchTooLarge,
		apierror.KeyTooLong, apierror.WrongHost, apierror.HeaderTooLarge, apierror.TooManyConnections, apierror.HTTPVersion, apierror.PreconditionFailed, apierror.UnsupportedMediaType,
		apierror.Stopping, apierror.Unauthenticated, apierror.PermissionDenied, apierror.RateLimited, apierror.UnreadableRow)
	known := map[string]bool{}
	for _, p := range all {
		known[apierror.BaseURI+p.Name] = true
		if !strings.Contains(description(t), `"`+apierror.BaseURI+p.Name+`"`) {
			t.Errorf("problem %s is not in openapi.json", p.Name)
		}
	}
	if len(known) != len(all)-1 { // invalid-value is that of two kinds
		t.Errorf("%d problems have %d names", len(all), len(known))
	}
	for _, m := range regexp.MustCompile(apierror.BaseURI+`[a-z-]+`).FindAllString(description(t), -1) {
		if !known[m] {
			t.Errorf("openapi.json has problem %s, the code has not", m)
		}
	}
}

func TestOpenAPIPathsAreTheRoutes(t *testing.T) {
	d := readDocument(t)
	want := map[string][]string{
		"/": {"get", "head"}, "/openapi.json": {"get", "head"}, "/v1/datasets": {"get", "head"},
		"/v1/{dataset}":            {"parameters", "post"},
		"/v1/{dataset}/{key}":      {"delete", "get", "head", "parameters", "post", "put"},
		"/v1/{dataset}:batchGet":   {"parameters", "post"},
		"/v1/{dataset}:batchPut":   {"parameters", "post"},
		"/v1/{dataset}:invalidate": {"parameters", "post"},
		"/v1/{dataset}:watch":      {"get", "head", "parameters"},
		"/v1/{dataset}:explain":    {"get", "head", "parameters"},
	}
	for path, item := range d.Paths {
		var methods []string
		for m := range item {
			methods = append(methods, m)
		}
		slices.Sort(methods)
		if !slices.Equal(methods, want[path]) {
			t.Errorf("%s: %v, want %v", path, methods, want[path])
		}
	}
	if len(d.Paths) != len(want) || !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("OpenAPI %s with %d paths", d.OpenAPI, len(d.Paths))
	}
}

func TestOpenAPIReferencesResolve(t *testing.T) {
	var whole map[string]any
	if err := json.Unmarshal([]byte(description(t)), &whole); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(description(t), -1) {
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
