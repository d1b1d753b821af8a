package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// numbered returns n keys, and rows for them.
func numbered(n int) (keys []string, rows map[string]string) {
	rows = map[string]string{}
	for i := range n {
		keys = append(keys, fmt.Sprint("k-", i))
		rows[keys[i]] = fmt.Sprint("v-", i)
	}
	return keys, rows
}

// getMany reads keys and fails the test on a wrong value.
func getMany(t *testing.T, d *Dataset, keys []string, rows map[string]string) []kv.Result {
	t.Helper()
	results := d.GetMany(t.Context(), keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
	for i, key := range keys {
		if r := results[i]; r.Err != nil || string(r.Answer.Value) != rows[key] {
			t.Errorf("%s is %q, %v; want %q", key, r.Answer.Value, r.Err, rows[key])
		}
	}
	return results
}

func TestKeysOfOneOwnerAreOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(kv.MaxBatchKeys + 2)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		c := newCluster(t, 2, o, testPolicy())
		began := time.Now()
		getMany(t, c.members[1], keys, rows)
		if n := c.batches.Load(); n != 2 {
			t.Errorf("%d requests for %d keys; want 2", n, len(keys))
		}
		if took := time.Since(began); took != 10*tick {
			t.Errorf("took %v; want the time of one load", took)
		}
		if n := o.Keys(); n != int64(len(keys)) {
			t.Errorf("%d keys were loaded; want %d, each once", n, len(keys))
		}
	})
}

func TestOwnKeysOfABatchAreOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(1000)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		d := newDataset(t, o, nil, testPolicy())
		began := time.Now()
		getMany(t, d, append(keys, keys[0]), rows)
		if took := time.Since(began); took != 10*tick {
			t.Errorf("took %v; want the time of one load", took)
		}
		if n := o.Queries(); n != 1 {
			t.Errorf("%d queries; want 1", n)
		}
	})
}

func TestServedKeysOfABatchAreOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, keys[0])
		time.Sleep(tick)
		var qs []kv.Query
		for i, key := range keys {
			qs = append(qs, kv.Query{Dataset: "test", Key: key, NoCache: i < 2})
		}
		results := d.ServeMany(t.Context(), append(qs, kv.Query{Key: "none", MemoryOnly: true}, kv.Query{}), kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
		for i, key := range keys {
			if r := results[i]; r.Err != nil || string(r.Answer.Value) != rows[key] || r.Answer.Source != kv.SourceLoad {
				t.Errorf("%s is %q from %v, %v; want %q from a load", key, r.Answer.Value, r.Answer.Source, r.Err, rows[key])
			}
		}
		expectKind(t, results[100].Err, kv.KindNotCached)
		expectKind(t, results[101].Err, kv.KindInvalidKey)
		if n, asked := o.Queries(), o.Keys(); n != 2 || asked != 101 {
			t.Errorf("%d queries of %d keys; want the first one, and one of all 100", n, asked)
		}
	})
}

func TestEachKeyOfABatchHasItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(3)
		c := newCluster(t, 2, origintest.New(rows), testPolicy())
		get(t, c.members[0], keys[0])
		get(t, c.members[1], keys[1])
		for i, want := range [][]kv.Source{{kv.SourceHit, kv.SourceHit, kv.SourceLoad}, {kv.SourcePeerHit, kv.SourceLocalHit, kv.SourcePeerHit}} {
			time.Sleep(tick)
			for n, r := range getMany(t, c.members[i], keys, rows) {
				if r.Answer.Source != want[n] {
					t.Errorf("member %d: %s is from %v; want %v", i, keys[n], r.Answer.Source, want[n])
				}
			}
		}
		if s := c.members[1].Stats(); s.LocalHit.Load() != 1 || s.PeerHit.Load() != 2 {
			t.Errorf("%d local hits and %d peer hits; want 1 and 2", s.LocalHit.Load(), s.PeerHit.Load())
		}
	})
}

func TestOptionsHoldForEachKeyOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(3)
		o := origintest.New(rows)
		c := newCluster(t, 2, o, testPolicy())
		d := c.members[1]
		for _, r := range d.GetMany(t.Context(), keys, kv.ReadOptions{OnlyIfCached: true}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes}) {
			expectKind(t, r.Err, kv.KindNotCached)
		}
		getMany(t, d, append(keys, "", "not\x00a key")[:3], rows)
		time.Sleep(tick)
		o.Set(keys[0], "new")
		for i, r := range d.GetMany(t.Context(), keys, kv.ReadOptions{NoCache: true}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes}) {
			if r.Err != nil || r.Answer.Source != kv.SourceLoad || i == 0 && string(r.Answer.Value) != "new" {
				t.Errorf("no-cache: got %q from %v, %v; want a load", r.Answer.Value, r.Answer.Source, r.Err)
			}
		}
		time.Sleep(tick)
		for _, r := range d.GetMany(t.Context(), keys, kv.ReadOptions{MinVersion: 1 << 40}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes}) {
			expectKind(t, r.Err, kv.KindVersion)
		}
		results := d.GetMany(t.Context(), []string{"", "not\x00a key", keys[0]}, kv.ReadOptions{}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
		expectKind(t, results[0].Err, kv.KindInvalidKey)
		expectKind(t, results[1].Err, kv.KindInvalidKey)
		expect(t, results[2].Answer, "new", kv.SourceLocalHit)
		if n := c.batches.Load(); n != 3 {
			t.Errorf("%d requests; want one for the misses, one for no-cache and one for the version", n)
		}
	})
}

// A reader of one key and a batch share the flight, whichever is first.
func TestBatchesAndReadersShareFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(10)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		c := newCluster(t, 2, o, testPolicy())
		for _, d := range c.members {
			var readers sync.WaitGroup
			readers.Go(func() { get(t, d, keys[0]) })
			synctest.Wait()
			readers.Go(func() { getMany(t, d, keys, rows) })
			synctest.Wait()
			readers.Go(func() { get(t, d, keys[9]) })
			readers.Go(func() { getMany(t, d, keys, rows) })
			readers.Wait()
		}
		if n := o.Keys(); n != 10 {
			t.Errorf("%d keys loaded; want each of 10 once", n)
		}
	})
}

func TestBatchUsesStaleAnswersAfterAFailedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(300)
		o := origintest.New(rows)
		c := newCluster(t, 2, o, testPolicy())
		d := c.members[1]
		getMany(t, d, keys, rows)
		time.Sleep(time.Minute)
		o.Fail(errDown)
		for _, r := range getMany(t, d, keys, rows) {
			if !r.Answer.Stale {
				t.Error("an answer is not stale while the origin fails")
			}
		}
		queries, fetches := o.Queries(), d.Stats().PeerFetches.Load()
		for range 10 {
			getMany(t, d, keys, rows)
		}
		if n, asked := o.Queries()-queries, d.Stats().PeerFetches.Load()-fetches; n != 0 || asked != 0 {
			t.Errorf("%d more queries and %d peer fetches right after the origin has failed; want none", n, asked)
		}
		defer o.Block()()
		o.Fail(nil)
		time.Sleep(2 * time.Second)
		began := time.Now()
		getMany(t, d, keys, rows)
		if took := time.Since(began); took > staleWait {
			t.Errorf("a batch of stale entries waited %v for a slow origin; want at most %v", took, staleWait)
		}
	})
}

func TestOwnerOfABatchIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		o := origintest.New(rows)
		c := newCluster(t, 3, o, testPolicy())
		c.away[0].Store(true)
		getMany(t, c.members[2], keys, rows)
		if n, asked := c.members[2].Stats().Successor.Load(), c.batches.Load(); n != 100 || asked != 2 {
			t.Errorf("%d of 100 keys went to the successor in %d requests; want all in 2, owner included", n, asked)
		}
		c.away[1].Store(true)
		more, rows := numbered(200)
		for key, value := range rows {
			o.Set(key, value)
		}
		before := o.Queries()
		getMany(t, c.members[2], more[100:], rows)
		if n := o.Queries() - before; n != 1 {
			t.Errorf("%d queries for 100 keys whose owner and successor are away; want 1", n)
		}
	})
}

// brief is a member whose answers to batches have room for one value.
type brief struct {
	link
	mu    sync.Mutex
	alone int // requests for single keys
	at    int // … at this moment
	peak  int
}

func (b *brief) FetchBatch(ctx context.Context, qs []kv.Query) []kv.Outcome {
	outcomes := make([]kv.Outcome, len(qs))
	for i := range outcomes {
		outcomes[i].Alone = i > 0
	}
	outcomes[0].Answer, outcomes[0].Err = b.link.Fetch(ctx, qs[0])
	return outcomes
}

func (b *brief) Fetch(ctx context.Context, q kv.Query) (kv.Answer, error) {
	b.mu.Lock()
	b.alone++
	b.at++
	b.peak = max(b.peak, b.at)
	b.mu.Unlock()
	time.Sleep(tick)
	defer func() { b.mu.Lock(); b.at--; b.mu.Unlock() }()
	return b.link.Fetch(ctx, q)
}

func TestLargeValuesOfABatchAreFetchedAloneAndFewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		o := origintest.New(rows)
		b := &brief{link: link{newCluster(t, 1, o, testPolicy()), 0}}
		d := newDataset(t, o, ownedBy{Peer: b}, testPolicy())
		getMany(t, d, keys, rows)
		if b.alone != 99 || b.peak != maxAlone {
			t.Errorf("%d requests for single keys, %d at a time; want 99 and %d", b.alone, b.peak, maxAlone)
		}
	})
}

// noBatches is a part of members that answer no batches.
type noBatches struct{}

func (noBatches) FetchBatch(context.Context, []kv.Query) []kv.Outcome {
	return nil
}

func TestBatchWithoutOutcomesIsFetchedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, _ := numbered(2)
		d := newDataset(t, origintest.New(nil), ownedBy{Peer: said{Answer: kv.Answer{Value: []byte("v"), Fresh: time.Second}}}, testPolicy())
		getMany(t, d, keys, map[string]string{keys[0]: "v", keys[1]: "v"})
	})
}

// A new owner asks the previous one for the keys of a batch with one request.
func TestBatchAfterAChangeOfOwnerIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(10)
		o := origintest.New(rows)
		c := newCluster(t, 2, o, testPolicy())
		getMany(t, c.members[0], keys[:5], rows)
		c.order, c.prev = func(int) (int, int) { return 1, 0 }, 0
		time.Sleep(tick)
		getMany(t, c.members[1], keys, rows)
		if n, asked, requests := o.Queries(), o.Keys(), c.batches.Load(); n != 2 || asked != 10 || requests != 1 {
			t.Errorf("%d queries of %d keys after %d requests; want each key once, in 2 queries, after 1 request", n, asked, requests)
		}
	})
}

func TestHandoverOfALargeBatchIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(kv.MaxBatchKeys + 1)
		o := origintest.New(rows)
		c := newCluster(t, 2, o, testPolicy())
		getMany(t, c.members[0], keys, rows)
		before := o.Keys()
		c.order, c.prev = func(int) (int, int) { return 1, 0 }, 0
		time.Sleep(tick)
		getMany(t, c.members[1], keys, rows)
		if n := o.Keys() - before; n != 0 {
			t.Errorf("%d keys were loaded that the previous owner has; want none", n)
		}
	})
}

// partly is a ring in which another member owns the key "theirs".
type partly struct {
	kv.NoPeers
	owner kv.Peer
}

func (p partly) Route(_, key string) kv.Route {
	if key == "theirs" {
		return kv.Route{Owner: p.owner}
	}
	return kv.Route{}
}

func TestFrozenMemberDoesNotDelayTheKeysOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"mine": "old"})
		o.Slow(10 * tick)
		d := newDataset(t, o, partly{owner: silent{}}, testPolicy())
		var readers sync.WaitGroup
		readers.Go(func() { get(t, d, "mine") })
		time.Sleep(5 * tick)
		ctx, cancel := context.WithTimeout(t.Context(), 100*tick)
		defer cancel()
		results := d.GetMany(ctx, []string{"theirs", "mine"}, kv.ReadOptions{NoCache: true}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
		expectKind(t, results[0].Err, kv.KindDeadline)
		if r := results[1]; r.Err != nil || string(r.Answer.Value) != "old" {
			t.Errorf("got %q, %v after the first load had begun too early; want the value", r.Answer.Value, r.Err)
		}
		readers.Wait()
	})
}

func TestFailoverOfABatchAnswersEachKeyWhenItIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a": "slow", "b": "fast"})
		c := newCluster(t, 2, o, testPolicy())
		c.away[0].Store(true)
		d := c.members[1]
		var readers sync.WaitGroup
		o.Slow(500 * tick)
		readers.Go(func() { _, _ = d.Serve(t.Context(), kv.Query{Key: "a"}) })
		synctest.Wait()
		o.Slow(10 * tick)
		readers.Go(func() { getMany(t, d, []string{"a", "b"}, map[string]string{"a": "slow", "b": "fast"}) })
		synctest.Wait()
		began := time.Now()
		get(t, d, "b")
		if took := time.Since(began); took != 10*tick {
			t.Errorf("a reader of b waited %v, for the load of a; want the time of its own load", took)
		}
		readers.Wait()
	})
}

func TestSlowKeyOfAServedBatchLeavesTimeToAnswerTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"slow": "s", "held": "h"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "held")
		o.Slow(900 * tick)
		var readers sync.WaitGroup
		readers.Go(func() { get(t, d, "slow") })
		time.Sleep(tick)
		ctx, cancel := context.WithTimeout(t.Context(), d.Policy().LoadTimeout+peerGrace)
		defer cancel()
		results := d.ServeMany(ctx, []kv.Query{{Key: "slow", NoCache: true}, {Key: "held"}}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
		deadline, _ := ctx.Deadline()
		if left := time.Until(deadline); left < peerGrace/2 {
			t.Errorf("got the answers %v before the caller's deadline, want %v", left, peerGrace/2)
		}
		expectKind(t, results[0].Err, kv.KindDeadline)
		expect(t, results[1].Answer, "h", kv.SourceHit)
		readers.Wait()
	})
}

// partlyDown is an origin of which one query of several fails.
type partlyDown struct{ *origintest.Fake }

func (o partlyDown) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	results, err := o.Fake.Load(ctx, keys)
	results[0] = origin.Result{Err: errDown}
	return results, err
}

func TestFailedQueryOfABatchFailsItsKeysOnly(t *testing.T) {
	d := newDataset(t, partlyDown{origintest.New(map[string]string{"b": "2"})}, nil, testPolicy())
	results := d.GetMany(t.Context(), []string{"a", "b", "none"}, kv.ReadOptions{}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
	expectKind(t, results[0].Err, kv.KindUnavailable)
	expect(t, results[1].Answer, "2", kv.SourceLoad)
	if n := d.Stats().LoadErrors.Load(); n != 1 || !results[2].Answer.NotFound {
		t.Errorf("%d load errors, %+v; want 1, and a row that does not exist", n, results[2])
	}
}

type panickingPeer struct{ said }

func (panickingPeer) Fetch(context.Context, kv.Query) (kv.Answer, error) { panic("boom") }

func TestPanicWhileABatchIsFetchedIsAnErrorOfItsKeys(t *testing.T) {
	keys, _ := numbered(20)
	d := newDataset(t, origintest.New(nil), ownedBy{Peer: panickingPeer{}}, testPolicy())
	for _, r := range d.GetMany(t.Context(), keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes}) {
		expectKind(t, r.Err, kv.KindInternal)
	}
}

// The stale value of the first key takes the place of the second one, and the third one, which was dropped for it, fits.
func TestFreshValueThatABatchDroppedIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy() // ttl 10s, stale_if_error 5m
		d := newDataset(t, origintest.New(map[string]string{"a": "666666", "b": "55555", "c": "4444"}), nil, p)
		get(t, d, "a")
		time.Sleep(p.TTL + time.Second)
		get(t, d, "b")
		get(t, d, "c")
		o := kv.ReadOptions{OnlyIfCached: true, LimitStale: true, MaxStale: time.Minute}
		got := d.GetMany(t.Context(), []string{"a", "b", "c"}, o, kv.BatchLimit{Bytes: 10})
		if a := got[0]; a.Err != nil || string(a.Answer.Value) != "666666" || !a.Answer.Stale {
			t.Errorf("a is %+v; want its stale value", a)
		}
		if got[1].Err != kv.ErrBatchBytes {
			t.Errorf("b is %+v; want no room for it", got[1])
		}
		if c := got[2]; c.Err != nil || string(c.Answer.Value) != "4444" || c.Answer.Stale || c.Answer.Source != kv.SourceHit {
			t.Errorf("c is %+v; want its fresh value", c)
		}
	})
}
