package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Each step compares what an explanation says with what the next read does.
func TestExplainForetellsTheNextRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		p := testPolicy()
		p.StaleWhileRevalidate = time.Minute
		c := newCluster(t, 3, o, p)
		owner, reader := c.members[0], c.members[2]
		want := func(what string, d *Dataset, w kv.NextRead) {
			t.Helper()
			if got := d.Explain("k").Next; got != w {
				t.Errorf("%s: got %+v, want %+v", what, got, w)
			}
		}
		want("nothing cached, not the owner", reader, kv.NextRead{Action: kv.ActFetch, From: "member-0", Successor: "member-1"})
		want("nothing cached, the successor", c.members[1], kv.NextRead{Action: kv.ActFetch, From: "member-0"})
		want("nothing cached, the owner", owner, kv.NextRead{Action: kv.ActLoad, Successor: "member-1"})
		o.Slow(time.Second / 2)
		go func() { _, _ = reader.Get(t.Context(), "k", kv.ReadOptions{}) }()
		synctest.Wait()
		want("a fetch is running", reader, kv.NextRead{Action: kv.ActJoin, From: "member-0", Successor: "member-1"})
		want("a load is running", owner, kv.NextRead{Action: kv.ActJoin, Successor: "member-1"})
		time.Sleep(time.Second / 2)
		synctest.Wait()
		o.Slow(0)
		want("a copy", reader, kv.NextRead{Action: kv.ActHit})
		expect(t, get(t, reader, "k"), "v", kv.SourceLocalHit)
		want("an entry", owner, kv.NextRead{Action: kv.ActHit})
		loads := owner.Stats().LoadsBegun.Load()
		for range 10 {
			owner.Explain("k")
		}
		if n := owner.Stats().LoadsBegun.Load(); n != loads || owner.Stats().Hit.Load() != 0 {
			t.Errorf("explanations made %d loads and %d hits, want none", n-loads, owner.Stats().Hit.Load())
		}
		time.Sleep(p.TTL)
		want("past ttl", owner, kv.NextRead{Action: kv.ActRevalidate, Detail: kv.DetailRevalidating})
		if a := get(t, owner, "k"); !a.Stale || a.Detail != kv.DetailRevalidating {
			t.Errorf("past ttl: got %+v", a)
		}
		synctest.Wait()
		o.Fail(errDown)
		time.Sleep(p.TTL + p.StaleWhileRevalidate)
		want("past stale_while_revalidate", owner, kv.NextRead{Action: kv.ActLoad, Successor: "member-1", Stale: true})
		if a := get(t, owner, "k"); !a.Stale || a.Detail != kv.DetailOriginError {
			t.Errorf("past stale_while_revalidate: got %+v", a)
		}
		want("the origin fails", owner, kv.NextRead{Action: kv.ActStale, Detail: kv.DetailOriginError})
		owner.Explain("k") // does not take the turn of the next reader
		time.Sleep(staleRetry)
		want("it is tried again", owner, kv.NextRead{Action: kv.ActLoad, Successor: "member-1", Stale: true})
	})
}

func TestLastFailureOfAKeyIsKnownUntilItIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		want := func(what, key string, kind kv.Kind, ago time.Duration) {
			t.Helper()
			got, err := d.LastFailure(key)
			if (err != nil) != (kind != 0) || err != nil && (kv.KindOf(err) != kind || got != ago) {
				t.Errorf("%s: got %v, %v; want kind %d, %v", what, got, err, kind, ago)
			}
		}
		want("at the start", "k", 0, 0)
		o.Fail(errDown)
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{}); err == nil {
			t.Fatal("got no error while the origin fails")
		}
		time.Sleep(time.Second)
		want("after a failed load", "k", kv.KindUnavailable, time.Second)
		want("of another key", "other", 0, 0)
		o.Fail(nil)
		get(t, d, "k")
		want("after a load", "k", 0, 0)

		o.Fail(errDown)
		for i := range 5 * maxFailures {
			_, _ = d.Get(t.Context(), fmt.Sprint("key-", i), kv.ReadOptions{})
		}
		if n, most := d.fetcher.failures.keys.Len(), 2*maxFailures; n > most {
			t.Errorf("%d failures are remembered, want at most %d", n, most)
		}
		want("the latest", fmt.Sprint("key-", 5*maxFailures-1), kv.KindUnavailable, 0)
		time.Sleep(time.Duration(failureLife))
		want("long ago", fmt.Sprint("key-", 5*maxFailures-1), 0, 0)
	})
}
