package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// batchEntry is the result of one key.
type batchEntry struct {
	Value       json.RawMessage
	ValueBase64 []byte
	ETag        string
	Source      string
	MaxAge      *int64
	Stale       bool
	Error       *apierror.Problem
}

func batchGet(t *testing.T, s *localtest.Server, dataset, keys string) []batchEntry {
	t.Helper()
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Post("/v1/"+dataset+":batchGet", `{"keys":[`+keys+`]}`))
	resp, body := c.Response("POST")
	var got struct{ Results []batchEntry }
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %v: %s", resp.StatusCode, err, body)
	}
	checkDocumented(t, "POST /v1/"+dataset+":batchGet ", resp, "")
	return got.Results
}

func TestBatchHasOneResultPerKeyInOrder(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	got := batchGet(t, s, "cnf-metrics", `"b","none","","a","x/y","empty"`)
	if len(got) != 6 {
		t.Fatalf("%d results", len(got))
	}
	if string(got[0].Value) != `{"cnf_id":"b"}` || got[0].ETag == "" || *got[0].MaxAge < 3000 || got[0].Source != "load" {
		t.Errorf("found: %+v", got[0])
	}
	if got[1].Error == nil || got[1].Error.Type != apierror.BaseURI+"not-found" || got[1].Value != nil {
		t.Errorf("not found: %+v", got[1])
	}
	if got[2].Error == nil || got[2].Error.Type != apierror.BaseURI+"invalid-key" {
		t.Errorf("empty key: %+v", got[2])
	}
	if string(got[3].Value) != `{"cnf_id":"a"}` {
		t.Errorf("after failures: %+v", got[3])
	}
	if got[4].Value != nil || string(got[4].ValueBase64) != "slash" {
		t.Errorf("not JSON: %+v", got[4])
	}
	if got[5].ValueBase64 == nil || len(got[5].ValueBase64) != 0 || got[5].Error != nil {
		t.Errorf("empty value: %+v", got[5])
	}
	if got := batchGet(t, s, "blobs", `"a"`); string(got[0].ValueBase64) != `{"cnf_id":"a"}` {
		t.Errorf("bytes that look like JSON: %+v", got[0])
	}
}

func TestBatchMarksStaleValues(t *testing.T) {
	got := batchGet(t, localtest.Start(t, local.Config{}), "failing", `"stale","ok"`)
	if !got[0].Stale || got[0].Error != nil || string(got[0].ValueBase64) != "stale" || got[1].Stale {
		t.Errorf("%+v", got)
	}
}

func TestBatchErrorsSayWhenToRetry(t *testing.T) {
	got := batchGet(t, localtest.Start(t, local.Config{}), "failing", `"overloaded","panic","ok"`)
	if e := got[0].Error; e == nil || e.Status != 429 || e.RetryAfter != 2 {
		t.Errorf("overloaded: %+v", e)
	}
	if e := got[1].Error; e == nil || e.Type != apierror.BaseURI+"internal" || strings.Contains(e.Detail, "canary") {
		t.Errorf("panic: %+v", e)
	}
	if string(got[2].ValueBase64) != "ok" {
		t.Errorf("beside a panic: %+v", got[2])
	}
}

// The bytes of a value do not change: < and & are not escaped.
func TestBatchDoesNotRewriteValues(t *testing.T) {
	value := `{"a":"<&>"}`
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: localtest.NewDataset(t, "d", origintest.New(map[string]string{"k": value})), JSON: true})
	if got := batchGet(t, s, "d", `"k"`); string(got[0].Value) != value {
		t.Errorf("%s", got[0].Value)
	}
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Post("/v1/d:batchGet", `{"keys":["k"]}`))
	if _, body := c.Response("POST"); !strings.Contains(body, value) {
		t.Errorf("%s", body)
	}
}
