package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

func batchOver(t *testing.T, s *started, dataset, keys string) []batchEntry {
	t.Helper()
	c := dial(t, "tcp", s.http)
	c.send(post("/v1/"+dataset+":batchGet", `{"keys":[`+keys+`]}`))
	resp, body := c.answer("POST")
	var got struct{ Results []batchEntry }
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %v: %s", resp.StatusCode, err, body)
	}
	checkDocumented(t, "POST /v1/"+dataset+":batchGet ", resp, "")
	return got.Results
}

func TestBatchAnswersInOrderAndEachOnItsOwn(t *testing.T) {
	s := start(t, Config{})
	got := batchOver(t, s, "cnf-metrics", `"b","none","","a","x/y","empty"`)
	if len(got) != 6 {
		t.Fatalf("%d results", len(got))
	}
	if string(got[0].Value) != `{"cnf_id":"b"}` || got[0].ETag == "" || *got[0].MaxAge < 3000 || got[0].Source != "load" {
		t.Errorf("found: %+v", got[0])
	}
	if got[1].Error == nil || got[1].Error.Type != apierror.BaseURI+"absent" || got[1].Value != nil {
		t.Errorf("absent: %+v", got[1])
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
	if got := batchOver(t, s, "blobs", `"a"`); string(got[0].ValueBase64) != `{"cnf_id":"a"}` {
		t.Errorf("bytes that look like JSON: %+v", got[0])
	}
}

func TestBatchSaysWhatIsStale(t *testing.T) {
	got := batchOver(t, start(t, Config{}), "failing", `"stale","ok"`)
	if !got[0].Stale || got[0].Error != nil || string(got[0].ValueBase64) != "stale" || got[1].Stale {
		t.Errorf("%+v", got)
	}
}

func TestBatchErrorsSayWhenToTryAgain(t *testing.T) {
	got := batchOver(t, start(t, Config{}), "failing", `"overloaded","panic","ok"`)
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

// A value leaves as it came, byte for byte: no escaping of < and &.
func TestBatchDoesNotRewriteValues(t *testing.T) {
	value := `{"a":"<&>"}`
	s := start(t, Config{}, Served{Dataset: newDataset(t, "d", origintest.New(map[string]string{"k": value})), JSON: true})
	if got := batchOver(t, s, "d", `"k"`); string(got[0].Value) != value {
		t.Errorf("%s", got[0].Value)
	}
	c := dial(t, "tcp", s.http)
	c.send(post("/v1/d:batchGet", `{"keys":["k"]}`))
	if _, body := c.answer("POST"); !strings.Contains(body, value) {
		t.Errorf("%s", body)
	}
}

func TestBatchDropsValuesThatExceedTheAnswer(t *testing.T) {
	const size = 1000
	d := scripted{name: "d", get: func(context.Context, string, cache.ReadOptions) (cache.Answer, error) {
		return cache.Answer{Value: make([]byte, size)}, nil
	}}
	s := New(Config{MaxBatchBytes: 10*size - 1}, NewCatalog())
	got := s.readAll(t.Context(), d, make20(), cache.ReadOptions{})
	held, refused := 0, 0
	for _, o := range got {
		held += len(o.answer.Value)
		if errors.Is(o.err, errBatchBytes) {
			refused++
		}
	}
	if held != 9*size || refused != 11 {
		t.Errorf("%d bytes and %d refused; want %d and 11", held, refused, 9*size)
	}
	f := s.fail(errBatchBytes)
	if n := s.stats.BatchTruncated.Load(); n != 1 {
		t.Errorf("%d refused keys counted, of the one that was told", n)
	}
	if f.Type != apierror.BatchTooLarge {
		t.Errorf("%+v", f)
	}
}

func make20() (keys []string) {
	for i := range 20 {
		keys = append(keys, fmt.Sprint(i))
	}
	return keys
}
