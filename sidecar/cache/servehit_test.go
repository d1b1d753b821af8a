package cache

import (
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestServeHitAnswersWhatIsInMemory(t *testing.T) {
	d := newDataset(t, origintest.New(map[string]string{"CNF-001": "value"}), nil, testPolicy())
	key := []byte("CNF-001")
	query := kv.Query{Dataset: "test", Key: view(key)}
	if a, ok := d.ServeHit(query, 100); ok {
		t.Errorf("before the load: got %+v, want nothing", a)
	}
	get(t, d, "CNF-001")
	a, ok := d.ServeHit(query, 5)
	if expect(t, a, "value", kv.SourceHit); !ok || d.Stats().Served.Load() != 1 {
		t.Errorf("got %v, %d counted, want one answer", ok, d.Stats().Served.Load())
	}
	for name, c := range map[string]struct {
		kv.Query
		most int
	}{
		"no-cache":    {kv.Query{Dataset: "test", Key: "CNF-001", NoCache: true}, 100},
		"another key": {kv.Query{Dataset: "test", Key: "CNF-002"}, 100},
		"too large":   {query, 4},
	} {
		if a, ok := d.ServeHit(c.Query, c.most); ok {
			t.Errorf("%s: got %+v, want nothing", name, a)
		}
	}
	if n := d.Stats().Served.Load(); n != 1 {
		t.Errorf("%d answers are counted, want 1", n)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = d.ServeHit(query, 100) }); n != 0 {
		t.Errorf("it allocates %v objects, want 0", n)
	}
}
