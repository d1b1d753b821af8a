package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// ending is an origin whose rows all end at one time.
type ending struct {
	*origintest.Fake
	at time.Time
}

func (o ending) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	results, err := o.Fake.Load(ctx, keys)
	for i := range results {
		results[i].Value.Expires = o.at
	}
	return results, err
}

// Neither the owner nor another member answers with an entry after its row has ended, and the row itself is an answer.
func TestEntriesEndWithTheirRowsOnAllMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := ending{origintest.New(map[string]string{"k": "v"}), time.Now().Add(500 * time.Millisecond)}
		p := testPolicy()
		p.TTL, p.LocalTTL, p.StaleWhileRevalidate = time.Hour, time.Hour, 0
		cl := newCluster(t, 2, o, p)
		loads := int64(0)
		expectLoads := func(more int64) {
			t.Helper()
			if got := o.Queries() - loads; got != more {
				t.Errorf("%d loads, want %d", got, more)
			}
			loads = o.Queries()
		}
		for _, d := range cl.members {
			if a := get(t, d, "k"); a.Fresh <= 0 || a.Fresh > 500*time.Millisecond {
				t.Errorf("fresh for %v, want at most 500ms", a.Fresh)
			}
		}
		expectLoads(1)
		time.Sleep(499 * time.Millisecond)
		for _, d := range cl.members {
			get(t, d, "k")
		}
		expectLoads(0)
		time.Sleep(2 * time.Millisecond)
		for _, d := range cl.members {
			if a := get(t, d, "k"); string(a.Value) != "v" || a.Stale || a.Fresh > 0 {
				t.Errorf("after the end: got %+v, want the row, which must not be used again", a)
			}
		}
		expectLoads(2)
	})
}
