package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func expectDataError(t *testing.T, d *Dataset, cause origin.DataCause) {
	t.Helper()
	_, err := d.Get(t.Context(), "k", kv.ReadOptions{})
	expectKind(t, err, kv.KindDataError)
	if origin.CauseOf(err) != cause || kv.RetryAfter(err) != 0 {
		t.Errorf("got %v, retry after %v; want the cause %v, and no retry", err, kv.RetryAfter(err), cause)
	}
}

// A second row of a key may lock a user out: the value that was cached before must not be served instead.
func TestDataErrorReplacesACachedValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v", "other": "w"})
		p := testPolicy()
		p.StaleWhileRevalidate = time.Minute
		d := newDataset(t, o, nil, p)
		get(t, d, "k")
		o.Spoil("k", origin.SeveralRows)
		time.Sleep(p.TTL)
		if a := get(t, d, "k"); !a.Stale { // while the load runs
			t.Errorf("got %+v; want the stale value at once", a)
		}
		synctest.Wait()
		queries := o.Queries()
		expectDataError(t, d, origin.SeveralRows)
		if _, ok := d.Cached("k", kv.ReadOptions{}); ok {
			t.Error("a data error is taken for a value in memory")
		}
		results := d.GetMany(t.Context(), []string{"k", "other"}, kv.ReadOptions{}, kv.BatchLimit{Bytes: 100})
		expectKind(t, results[0].Err, kv.KindDataError)
		if results[1].Err != nil {
			t.Errorf("another key of the batch: %v", results[1].Err)
		}
		if n := o.Queries() - queries; n != 1 { // of the other key
			t.Errorf("%d queries within negative_ttl; want 1", n)
		}
		if e := d.Explain("k"); e.DataError != "several-rows" || e.Absent || e.Fresh > p.NegativeTTL {
			t.Errorf("explained as %+v", e)
		}
		o.Fail(errDown) // an outage does not bring the value back
		time.Sleep(p.NegativeTTL)
		_, err := d.Get(t.Context(), "k", kv.ReadOptions{})
		expectKind(t, err, kv.KindUnavailable)
		o.Fail(nil)
		o.Restore("k")
		expect(t, get(t, d, "k"), "v", kv.SourceLoad)
		stats := d.Stats()
		if n, loads := stats.DataError.Load(), stats.AllDataErrors(); n != 2 || loads != 1 || stats.LoadErrors.Load() != 1 {
			t.Errorf("%d reads and %d loads with a data error, %d failed loads; want 2, 1 and 1", n, loads, stats.LoadErrors.Load())
		}
	})
}

func TestDataErrorIsCachedByEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		o.Spoil("k", origin.TooLarge)
		p := testPolicy()
		p.NegativeTTL, p.LocalTTL = 10*time.Second, time.Second
		c := newCluster(t, 3, o, p)
		for range 5 {
			for _, d := range c.members {
				expectDataError(t, d, origin.TooLarge)
			}
			time.Sleep(1500 * time.Millisecond)
		}
		if n := o.Queries(); n != 1 {
			t.Errorf("%d queries within negative_ttl; want 1", n)
		}
		o.Set("k", "smaller")
		c.members[0].ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: "k", Version: 1}) // as a feed reports it
		c.members[2].ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: "k", Version: 1})
		expect(t, get(t, c.members[2], "k"), "smaller", kv.SourceLoad)
	})
}

func TestWriteReplacesADataError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		etag := get(t, d, "k").ETag
		time.Sleep(tick)
		o.Spoil("k", origin.InvalidVersion)
		_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("w"), If: kv.Condition{ETag: etag}})
		expectKind(t, err, kv.KindDataError)
		expectDataError(t, d, origin.InvalidVersion)
		o.Restore("k")
		if _, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("w")}); err != nil {
			t.Fatal(err)
		}
		expect(t, get(t, d, "k"), "w", kv.SourceHit)
	})
}
