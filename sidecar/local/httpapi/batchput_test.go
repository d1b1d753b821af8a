package httpapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// rowResult is the result of one row.
type rowResult struct {
	Key     string
	Version int64
	Error   *apierror.Problem
}

func batchPut(t *testing.T, s *localtest.Server, dataset, rows string) []rowResult {
	t.Helper()
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Post("/v1/"+dataset+":batchPut", `{"rows":[`+rows+`]}`))
	resp, body := c.Response("POST")
	var got struct{ Results []rowResult }
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v: %s", resp.StatusCode, err, body)
	}
	checkDocumented(t, "POST /v1/"+dataset+":batchPut ", resp, "")
	return got.Results
}

func TestBatchPutHasOneResultPerRowInOrder(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/rows/b"))
	resp, _ := c.Response("GET")
	etag := fmt.Sprintf("%q", resp.Header.Get("ETag"))
	long := strings.Repeat("k", kv.MaxKeyBytes+1)
	got := batchPut(t, s, "rows", `{"key":"new","value":{ "value": 1 }, "idempotencyKey":"1"}, {"key":"a","value":{"value":2},"ifVersion":1},
		{"key":"b","value":{"value":3},"ifMatch":`+etag+`}, {"key":"c","value":{},"ifMatch":"*"}, {"key":"d","value":{},"ifNoneMatch":"*"},
		{"delete":true,"key":"a/b"}, {"key":"","value":{}}, {"key":"`+long+`","value":{}}, {"key":"e","value":{},"ifMatch":"x"},
		{"key":"f","valueBase64":"eyJ2IjoxfQ=="}, {"key":"g","value":{},"ifVersion":7}, {"key":"h","delete":true,"ifNoneMatch":"*"},
		{"key":"i","value":{},"ifVersion":1,"ifMatch":"*"}`)
	want := []struct {
		version int64
		problem string
	}{{1, ""}, {2, ""}, {2, ""}, {0, "precondition-failed"}, {1, ""}, {0, ""}, {0, "invalid-key"}, {0, "invalid-key"}, {0, "malformed-request"},
		{1, ""}, {0, "conflict"}, {0, "malformed-request"}, {0, "malformed-request"}}
	if len(got) != len(want) {
		t.Fatalf("got %d results", len(got))
	}
	for i, w := range want {
		problem := ""
		if got[i].Error != nil {
			problem = strings.TrimPrefix(got[i].Error.Type, apierror.BaseURI)
		}
		if got[i].Version != w.version || problem != w.problem {
			t.Errorf("row %d: got version %d, problem %q %v; want %d, %q", i, got[i].Version, problem, got[i].Error, w.version, w.problem)
		}
	}
	for key, value := range map[string]string{"new": `{ "value": 1 }`, "f": `{"v":1}`} { // bytes as they were sent
		c.Send(localtest.Get("/v1/rows/" + key))
		if _, body := c.Response("GET"); body != value {
			t.Errorf("%s: got %q, want %q", key, body, value)
		}
	}
	again := batchPut(t, s, "rows", `{"key":"new","value":{ "value": 1 }, "idempotencyKey":"1"}`)
	if again[0].Version != 1 {
		t.Errorf("a retry has written version %d", again[0].Version)
	}
	failed := batchPut(t, s, "spoiled", `{"key":"unknown","value":1}, {"key":"column","value":1}, {"key":"ok","value":1}`)
	if e := failed[0].Error; e == nil || e.Type != apierror.BaseURI+"outcome-unknown" || e.ID == "" {
		t.Errorf("got %+v", e)
	}
	if e := failed[1].Error; e == nil || len(e.Errors) != 1 || e.Errors[0].Column != "unit" || failed[2].Error != nil {
		t.Errorf("got %+v, %+v", e, failed[2].Error)
	}
}

func TestRawBatchPut(t *testing.T) {
	row := func(rest string) string {
		return localtest.Post("/v1/rows:batchPut", `{"rows":[{"key":"never","value":{}`+rest)
	}
	ok := `{"rows":[{"key":"never","value":{}}]}`
	s := localtest.StartWritable(t, local.Config{})
	for name, test := range map[string]struct {
		request, problem, detail string
	}{
		"no rows":            {localtest.Post("/v1/rows:batchPut", `{"rows":[]}`), "invalid-batch", "1 to 1000 rows"},
		"too many rows":      {localtest.Post("/v1/rows:batchPut", `{"rows":[`+strings.Repeat(`{"key":"a","delete":true},`, 1001)+`1]}`), "invalid-batch", "at most 1000 rows"},
		"a key twice":        {row(`},{"key":"never","value":1}]}`), "invalid-batch", "rows 0 and 1 have the same key"},
		"an id twice":        {row(`,"idempotencyKey":"i"},{"key":"b","value":1,"idempotencyKey":"i"}]}`), "invalid-batch", "same idempotency id"},
		"not JSON":           {row(``), "invalid-batch", "must be one JSON object"},
		"something after":    {row(`}]} {}`), "invalid-batch", "after the object"},
		"another member":     {row(`,"ifversion":1}]}`), "invalid-batch", `row 0 has \"ifversion\"`},
		"a member twice":     {row(`,"key":"b"}]}`), "invalid-batch", `\"key\" twice`},
		"no value":           {localtest.Post("/v1/rows:batchPut", `{"rows":[{"key":"a"}]}`), "invalid-batch", "needs one of value"},
		"two values":         {row(`,"delete":true}]}`), "invalid-batch", "needs one of value"},
		"no key":             {localtest.Post("/v1/rows:batchPut", `{"rows":[{"value":1}]}`), "invalid-batch", "has no key"},
		"not deleted":        {localtest.Post("/v1/rows:batchPut", `{"rows":[{"key":"a","delete":false}]}`), "invalid-batch", "is not true"},
		"an empty condition": {row(`,"ifMatch":""}]}`), "invalid-batch", "empty condition"},
		"an empty id":        {row(`,"idempotencyKey":""}]}`), "invalid-batch", "is empty"},
		"an odd id":          {row(`,"idempotencyKey":"\u007f"}]}`), "invalid-batch", "other characters"},
		"a long id":          {row(`,"idempotencyKey":"` + strings.Repeat("i", 129) + `"}]}`), "invalid-batch", "more than 128 bytes"},
		"not base64":         {localtest.Post("/v1/rows:batchPut", `{"rows":[{"key":"a","valueBase64":"?"}]}`), "invalid-batch", "valueBase64 of row 0"},
		"half a surrogate":   {localtest.Post("/v1/rows:batchPut", `{"rows":[{"key":"\ud800","value":1}]}`), "invalid-batch", "surrogate"},
		"a condition of all": {localtest.Post("/v1/rows:batchPut", ok, "If-Match: *"), "malformed-request", "give each row"},
		"an id of all":       {localtest.Post("/v1/rows:batchPut", ok, "Idempotency-Key: x"), "malformed-request", "give each row"},
		"another type":       {localtest.Post("/v1/rows:batchPut", ok, "Content-Type: text/csv"), "unsupported-media-type", "application/json"},
		"packed":             {localtest.Post("/v1/rows:batchPut", ok, "Content-Encoding: gzip"), "unsupported-media-type", ""},
		"another origin":     {localtest.Post("/v1/rows:batchPut", ok, "Origin: http://evil.example"), "cross-site", ""},
		"another method":     {localtest.Put("/v1/rows:batchPut", ok), "method-not-allowed", ""},
		"an unknown dataset": {localtest.Post("/v1/row:batchPut", ok), "unknown-dataset", ""},
		"read-only":          {localtest.Post("/v1/blobs:batchPut", ok), "read-only", ""},
	} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(test.request)
		resp, body := c.Response("POST")
		localtest.CheckProblem(t, resp, body, test.problem)
		if !strings.Contains(body, test.detail) {
			t.Errorf("%s: got %s, want %s", name, body, test.detail)
		}
		checkDocumented(t, "POST /v1/rows:batchPut ", resp, apierror.BaseURI+test.problem)
	}
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/rows/never"))
	if resp, body := c.Response("GET"); resp.StatusCode != 404 {
		t.Errorf("a batch that was refused has written %s", body)
	}
}
