package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestReadTimesAreByResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		o.Slow(500 * time.Millisecond)
		get(t, d, "k")
		get(t, d, "none")
		o.Slow(0)
		o.Fail(errDown)
		if _, err := d.Get(t.Context(), "other", kv.ReadOptions{}); err == nil {
			t.Fatal("got no error while the origin fails")
		}
		time.Sleep(time.Minute)
		if a := get(t, d, "k"); !a.Stale {
			t.Fatalf("got %+v, want a stale value", a)
		}
		for result, want := range map[kv.ReadResult]float64{
			kv.ResultLoad: .5, kv.ResultNegative: .5, kv.ResultError: 0, kv.ResultStale: 0,
		} {
			if s := d.Stats().ReadTime[result].Snapshot(); s.Count != 1 || s.Sum != want {
				t.Errorf("%s: got %d reads of %v s in all, want one of %v s", result, s.Count, s.Sum, want)
			}
		}
		if s := d.Stats().AnswerAge.Snapshot(); s.Count != 3 || s.Sum < 61 || s.Sum > 63 {
			t.Errorf("got %d ages of %v s in all, want 3: .5 s, .5 s and a minute", s.Count, s.Sum)
		}
	})
}

func TestHitsAreSampled(t *testing.T) {
	d := newDataset(t, origintest.New(map[string]string{"k": "v"}), nil, testPolicy())
	get(t, d, "k")
	const hits = 128_000
	for i := range hits {
		if i%2 == 0 {
			get(t, d, "k")
		} else if _, ok := d.Cached("k", kv.ReadOptions{}); !ok {
			t.Fatal("got no value from memory")
		}
	}
	s := d.Stats().ReadTime[kv.ResultHit].Snapshot()
	if s.Count%kv.SampledHits != 0 || s.Count < hits/2 || s.Count > 2*hits {
		t.Errorf("the samples stand for %d hits, want about %d", s.Count, hits)
	}
	if ages := d.Stats().AnswerAge.Snapshot(); ages.Count != s.Count+1 {
		t.Errorf("got %d ages, want those of %d hits and of one load", ages.Count, s.Count)
	}
}
