package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
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

// getAll reads keys one after the other, as each of many readers does.
func getAll(t *testing.T, d *Dataset, keys []string, rows map[string]string) {
	t.Helper()
	for _, key := range keys {
		if a := get(t, d, key); string(a.Value) != rows[key] {
			t.Errorf("%s is %q; want %q", key, a.Value, rows[key])
		}
	}
}

func TestKeysOfOneOwnerAreOneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(MaxBatchKeys + 1)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		c := newCluster(t, 2, o, testPolicy())
		began := time.Now()
		c.members[1].Prefetch(keys, ReadOptions{})
		getAll(t, c.members[1], keys, rows)
		if n := c.batches.Load(); n != 2 {
			t.Errorf("%d keys were %d requests; want 2", len(keys), n)
		}
		if took := time.Since(began); took != 10*tick {
			t.Errorf("took %v; want the time of one load", took)
		}
		if n := o.Keys(); n != int64(len(keys)) {
			t.Errorf("%d keys were loaded; want each once", n)
		}
	})
}

func TestOwnKeysOfABatchAreLoadedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(1000)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		d := newDataset(t, o, nil, testPolicy())
		began := time.Now()
		d.Prefetch(keys, ReadOptions{})
		getAll(t, d, keys, rows)
		if took := time.Since(began); took != 10*tick {
			t.Errorf("took %v; want the time of one load", took)
		}
		if n := o.Queries(); n != 1 {
			t.Errorf("%d queries; want 1", n)
		}
	})
}

func TestServedKeysOfABatchAreLoadedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		d := newDataset(t, o, nil, testPolicy())
		qs := make([]Query, len(keys))
		for i, key := range keys {
			qs[i] = Query{Dataset: "test", Key: key}
		}
		get(t, d, keys[0])
		d.PrefetchServed(append(qs, Query{Key: "none", NoCache: true}, Query{Key: "none", MemoryOnly: true}, Query{}))
		for _, q := range qs {
			if a, err := d.Serve(t.Context(), q); err != nil || string(a.Value) != rows[q.Key] {
				t.Errorf("%s is %q, %v", q.Key, a.Value, err)
			}
		}
		if n, asked := o.Queries(), o.Keys(); n != 2 || asked != 100 {
			t.Errorf("%d queries of %d keys; want the first one, and one of all others", n, asked)
		}
	})
}

func TestWhatABatchHasLoadedIsNoHit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(3)
		c := newCluster(t, 2, origintest.New(rows), testPolicy())
		get(t, c.members[0], keys[0])
		get(t, c.members[1], keys[1])
		for i, want := range [][]Source{{SourceHit, SourceHit, SourceLoad}, {SourcePeerHit, SourceLocalHit, SourcePeerHit}} {
			d := c.members[i]
			time.Sleep(tick)
			o := d.Prefetch(keys, ReadOptions{})
			synctest.Wait() // it has ended before the reads begin
			for n, key := range keys {
				if a, err := d.Get(t.Context(), key, o); err != nil || a.Source != want[n] {
					t.Errorf("member %d: %s is from %v, %v; want %v", i, key, a.Source, err, want[n])
				}
			}
		}
		if s := c.members[1].Stats(); s.LocalHit.Load() != 1 || s.PeerHit.Load() != 2 {
			t.Errorf("%d local hits and %d of the owner; want 1 and 2", s.LocalHit.Load(), s.PeerHit.Load())
		}
	})
}

func TestPrefetchAsksForNothingThatAReadWouldNotAskFor(t *testing.T) {
	for _, o := range []ReadOptions{{NoCache: true}, {OnlyIfCached: true}, {MinVersion: 1}} {
		synctest.Test(t, func(t *testing.T) {
			keys, rows := numbered(3)
			c := newCluster(t, 2, origintest.New(rows), testPolicy())
			c.members[1].Prefetch(keys, o)
			synctest.Wait()
			if n := c.batches.Load(); n != 0 {
				t.Errorf("%+v: %d requests", o, n)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(3)
		c := newCluster(t, 2, origintest.New(rows), testPolicy())
		getAll(t, c.members[1], keys, rows)
		c.members[1].Prefetch(append(keys, "", "not\x00a key"), ReadOptions{})
		synctest.Wait()
		if n := c.batches.Load(); n != 0 {
			t.Errorf("%d requests for what is held, or is no key", n)
		}
	})
}

func TestPrefetchLeavesAFailedRefreshAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(3)
		o := origintest.New(rows)
		c := newCluster(t, 2, o, testPolicy())
		getAll(t, c.members[1], keys, rows)
		time.Sleep(time.Minute)
		o.Fail(errDown)
		getAll(t, c.members[1], keys, rows) // stale, and each has tried once
		before := o.Queries()
		hops := c.members[1].Stats().PeerFetches.Load()
		for range 10 {
			c.members[1].Prefetch(keys, ReadOptions{})
			synctest.Wait()
			getAll(t, c.members[1], keys, rows)
		}
		if n, asked := o.Queries()-before, c.members[1].Stats().PeerFetches.Load()-hops; n != 0 || asked != 0 {
			t.Errorf("%d more queries and %d hops to an origin that was just seen to fail", n, asked)
		}
	})
}

func TestOwnerOfABatchIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		c := newCluster(t, 3, origintest.New(rows), testPolicy())
		c.away[0].Store(true)
		c.members[2].Prefetch(keys, ReadOptions{})
		getAll(t, c.members[2], keys, rows)
		if n := c.members[2].Stats().Successor.Load(); n != 100 {
			t.Errorf("%d of 100 keys went to the successor", n)
		}
	})
}

// brief is a member whose answers to batches have room for one value.
type brief struct {
	link
	mu    sync.Mutex
	alone int // fetches that were made by themselves
	at    int // … at this moment
	peak  int
}

func (b *brief) FetchBatch(ctx context.Context, qs []Query) []Outcome {
	outcomes := make([]Outcome, len(qs))
	for i := range outcomes {
		outcomes[i].Alone = i > 0
	}
	outcomes[0].Answer, outcomes[0].Err = b.link.Fetch(ctx, qs[0])
	return outcomes
}

func (b *brief) Fetch(ctx context.Context, q Query) (Answer, error) {
	b.mu.Lock()
	b.alone++
	b.at++
	b.peak = max(b.peak, b.at)
	b.mu.Unlock()
	time.Sleep(tick)
	defer func() { b.mu.Lock(); b.at--; b.mu.Unlock() }()
	return b.link.Fetch(ctx, q)
}

func TestWhatDoesNotFitIntoABatchIsFetchedAloneAndFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		o := origintest.New(rows)
		b := &brief{link: link{newCluster(t, 1, o, testPolicy()), 0}}
		d := newDataset(t, o, ownedBy{Peer: b}, testPolicy())
		d.Prefetch(keys, ReadOptions{})
		getAll(t, d, keys, rows)
		if b.alone != 99 || b.peak != maxAlone {
			t.Errorf("%d fetches alone, %d at a time; want 99 and %d", b.alone, b.peak, maxAlone)
		}
	})
}

// noBatches is a part of members that answer no batches.
type noBatches struct{}

func (noBatches) FetchBatch(context.Context, []Query) []Outcome {
	return nil
}

func TestBatchWithoutOutcomesIsAskedForAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, _ := numbered(2)
		d := newDataset(t, origintest.New(nil), ownedBy{Peer: said{Answer: Answer{Value: []byte("v"), Fresh: time.Second}}}, testPolicy())
		d.Prefetch(keys, ReadOptions{})
		getAll(t, d, keys, map[string]string{keys[0]: "v", keys[1]: "v"})
	})
}

func TestBatchGoesWithoutThoseWhoFindTheirAnswerInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(3)
		c := newCluster(t, 2, origintest.New(rows), testPolicy())
		for _, d := range c.members { // one loads, the other one hops
			get(t, d, keys[1]) // between the look at it and its flight
			p, r := d.newPrefetch(), d.readFor(ReadOptions{}, d.now())
			for _, key := range keys {
				p.begin(key, r)
			}
			p.end()
			getAll(t, d, keys, rows)
		}
		if n := c.batches.Load(); n != 1 {
			t.Errorf("%d requests; want 1", n)
		}
	})
}

func TestGatheringGoesWithoutThoseWhoComeTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gather(func(_ context.Context, qs []int) []int { return qs })
		early, late := g.place(), g.place()
		ctx, cancel := context.WithTimeout(t.Context(), tick)
		defer cancel()
		if a, ok := early.ask(ctx, 7); !ok || a != 7 {
			t.Errorf("got %d, %t", a, ok)
		}
		if _, ok := late.ask(t.Context(), 8); ok {
			t.Error("who came after the others had gone was answered")
		}
		if _, ok := early.ask(t.Context(), 9); ok {
			t.Error("a second question was answered")
		}
	})
}
