package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestReadYourWritesWithoutInvalidations(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "0"})
			if !versioned {
				o.Unversioned()
			}
			c := newCluster(t, 3, o, testPolicy())
			c.publicationsLost.Store(true)
			for i := range 20 {
				owner := i % 3 // the ring changes all the time, and old owners hold old entries
				c.order = func(int) (int, int) { return owner, (owner + 1) % 3 }
				writer, value := c.members[rand.N(3)], fmt.Sprint(i)
				put(t, writer, "k", value)
				if a := get(t, writer, "k"); string(a.Value) != value {
					t.Fatalf("round %d: read %q after having written %q", i, a.Value, value)
				}
				time.Sleep(tick)
			}
		})
	}
}

func TestMonotonicReadsOverAChangeOfOwner(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "old"})
			if !versioned {
				o.Unversioned()
			}
			c := newCluster(t, 3, o, testPolicy())
			get(t, c.members[0], "k")
			time.Sleep(100 * tick)
			o.Set("k", "new") // around the cache
			c.order = func(int) (int, int) { return 1, 0 }
			if a := get(t, c.members[2], "k"); string(a.Value) != "new" {
				t.Fatalf("got %q", a.Value)
			}
			time.Sleep(2 * time.Second) // the copy has ended
			c.order = func(int) (int, int) { return 0, 1 }
			if a := get(t, c.members[2], "k"); string(a.Value) != "new" || a.Stale {
				t.Errorf("versioned %v: read %q after %q; stale: %v", versioned, a.Value, "new", a.Stale)
			}
		})
	}
}

func TestMonotonicReadsOfEvictedEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(tick)
		o.Set("k", "new")
		c.order = func(int) (int, int) { return 1, 0 }
		get(t, c.members[2], "k")
		c.members[2].store.Resize(0)
		c.members[2].store.Resize(1 << 20)
		c.order = func(int) (int, int) { return 0, 1 }
		if a := get(t, c.members[2], "k"); string(a.Value) != "new" {
			t.Errorf("read %q after %q", a.Value, "new")
		}
	})
}

func TestFetchOfAnUnchangedValueIsNoLoad(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "v"})
			if !versioned {
				o.Unversioned()
			}
			c := newCluster(t, 2, slowly{o}, testPolicy())
			for range 5 {
				get(t, c.members[1], "k")
				time.Sleep(1100 * time.Millisecond) // the copy ends, the owner's entry lives
			}
			if o.Queries() != 1 {
				t.Errorf("versioned %v: %d queries; want 1", versioned, o.Queries())
			}
		})
	}
}

// slowly is an origin that takes a millisecond, so that times are no longer all the same.
type slowly struct{ *origintest.Fake }

func (s slowly) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	time.Sleep(tick)
	return s.Fake.Load(ctx, keys)
}

// scripted is an owner whose answers come when their gates are opened.
type scripted struct {
	kv.NoPeers
	noBatches
	answers []kv.Answer
	gates   []chan struct{}
	asked   int
}

func newScripted(answers ...kv.Answer) *scripted {
	s := &scripted{answers: answers}
	for range answers {
		s.gates = append(s.gates, make(chan struct{}))
	}
	return s
}

func (s *scripted) Route(string, string) kv.Route { return kv.Route{Owner: s} }
func (s *scripted) ID() string                    { return "scripted" }

func (s *scripted) Write(context.Context, kv.Change) (kv.Answer, error) {
	return kv.Answer{}, kv.ErrUnreachable
}

func (s *scripted) WriteMany(_ context.Context, cs []kv.Change) []kv.Outcome {
	return each(s.Write, cs)
}

func (s *scripted) Fetch(context.Context, kv.Query) (kv.Answer, error) {
	n := s.asked
	s.asked++
	<-s.gates[n]
	return s.answers[n], nil
}

func TestReaderThatJoinsAnOlderFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, young := kv.Answer{Value: []byte("1"), Version: 1, Fresh: time.Minute}, kv.Answer{Value: []byte("2"), Version: 2, Fresh: time.Minute}
		s := newScripted(young, old, young)
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		var early sync.WaitGroup
		early.Go(func() { // its flight is detached, and its answer not stored
			if a := get(t, d, "k"); a.Version != 2 {
				t.Errorf("got version %d", a.Version)
			}
		})
		synctest.Wait()
		d.ApplyInvalidation(kv.Invalidation{Key: "k", Version: 1})
		go func() { _, _ = d.Get(t.Context(), "k", kv.ReadOptions{}) }()
		synctest.Wait()
		close(s.gates[0])
		early.Wait()
		late := make(chan kv.Answer)
		go func() { late <- get(t, d, "k") }()
		synctest.Wait()
		close(s.gates[1])
		close(s.gates[2])
		if a := <-late; a.Version != 2 {
			t.Errorf("version %d was read after 2 had been", a.Version)
		}
	})
}

// Another member breaks the protocol: it answers with less than it is asked for.
func TestMemberThatHasOnlyOlderValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := slices.Repeat([]kv.Answer{{Value: []byte("1"), Version: 1, Age: time.Second, Fresh: time.Minute}}, 1+2*maxRounds)
		answers[0] = kv.Answer{Value: []byte("2"), Version: 2, Fresh: time.Minute}
		s := newScripted(answers...)
		for _, gate := range s.gates {
			close(gate)
		}
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		get(t, d, "k")
		d.ExpireFrom("scripted")
		time.Sleep(tick)
		if a := get(t, d, "k"); a.Version != 2 || !a.Stale {
			t.Errorf("got %+v; want version 2, which was read before, as a stale answer", a)
		}
		if a, err := d.Get(t.Context(), "k", kv.ReadOptions{}); kv.KindOf(err) != kv.KindUnavailable {
			t.Errorf("got %+v, %v; want an error: version 2 was read before", a, err)
		}
	})
}

func TestStaleAnswerIsNotOlderThanWhatWasWrittenHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		c.order = func(int) (int, int) { return 1, 0 }
		get(t, c.members[1], "k") // it will be the successor
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 0, 1 }
		c.publicationsLost.Store(true)
		writer := c.members[2]
		if _, err := writer.Write(t.Context(), kv.Change{Key: "k", Delete: true}); err != nil {
			t.Fatal(err)
		}
		get(t, writer, "k")
		for i := range 10 { // what was absent is swept, and generations of bounds pass
			time.Sleep(15 * time.Second)
			put(t, writer, fmt.Sprint("other-", i), "v")
			writer.Sweep()
		}
		o.Fail(errDown)
		c.away[0].Store(true)
		a, err := writer.Get(t.Context(), "k", kv.ReadOptions{})
		if err == nil && !a.NotFound {
			t.Errorf("%q is read, stale %v, after it was deleted here", a.Value, a.Stale)
		}
	})
}

func TestLateStaleAnswerDoesNotRestoreADeletedRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(kv.Answer{Value: []byte("old"), Version: 1, Stale: true, Age: time.Second}, kv.Answer{NotFound: true, Fresh: tick})
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		time.Sleep(2 * time.Second)
		var early sync.WaitGroup
		early.Go(func() { _, _ = d.Get(t.Context(), "k", kv.ReadOptions{}) })
		synctest.Wait()
		d.fetcher.fetches.ForgetAll()
		close(s.gates[1])
		if a := get(t, d, "k"); !a.NotFound {
			t.Fatalf("got %+v", a)
		}
		time.Sleep(tick)
		close(s.gates[0])
		early.Wait()
		b := d.store.BoundOf("k")
		if old := (&entries.Entry{Version: 1, Value: []byte("old")}); b.Allows(old, d.now()-int64(time.Second)) {
			t.Errorf("after it was seen to be gone, %+v admits the row as it was", b)
		}
		if q := d.fetcher.queryFor(&job{read: read{key: "k", bound: b}}, kv.Attempt{}); q.MinVersion != 0 || q.MaxAge == 0 {
			t.Errorf("got the request %+v to another member", q)
		}
	})
}

func TestDeletionOfNothingIsNotUndoneByANewOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[1], "k")
		get(t, c.members[2], "k")
		time.Sleep(tick)
		o.Delete("k") // around the cache
		c.publicationsLost.Store(true)
		if _, err := c.members[1].Write(t.Context(), kv.Change{Key: "k", Delete: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 2, 0 } // which has a copy
		if a := get(t, c.members[1], "k"); !a.NotFound {
			t.Errorf("%q is read by the client that deleted it", a.Value)
		}
	})
}

// lateWriter reports the outcome of a write late.
type lateWriter struct{ *origintest.Fake }

func (l lateWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	v, err := l.Fake.Write(ctx, c)
	time.Sleep(100 * tick)
	return v, err
}

// overtaken has member 0, which owns the key, write "earlier" and, before it knows, read "later".
func overtaken(t *testing.T, o *origintest.Fake, c *cluster) {
	t.Helper()
	var write sync.WaitGroup
	write.Go(func() { put(t, c.members[0], "k", "earlier") })
	time.Sleep(10 * tick)
	get(t, c.members[1], "k")
	time.Sleep(10 * tick)
	o.Set("k", "later")
	time.Sleep(10 * tick)
	if a := get(t, c.members[0], "k"); string(a.Value) != "later" {
		t.Fatalf("got %q", a.Value)
	}
	write.Wait()
}

// selves makes each member the owner of the keys on its own ring.
func selves(c *cluster) { c.order = func(from int) (int, int) { return from, from } }

func TestWriteDoesNotReplaceWhatWasReadWhileItRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		o.Unversioned()
		c := newCluster(t, 2, lateWriter{o}, testPolicy())
		selves(c)
		c.publicationsLost.Store(true)
		overtaken(t, o, c)
		if a := get(t, c.members[0], "k"); string(a.Value) != "later" {
			t.Errorf("read %q after %q", a.Value, "later")
		}
	})
}

func TestTagOfAConcurrentLoadIsNoBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		o.Unversioned()
		c := newCluster(t, 2, lateWriter{o}, testPolicy())
		selves(c)
		c.publicationsLost.Store(true)
		overtaken(t, o, c)
		c.order = func(int) (int, int) { return 1, 1 } // which holds what was written
		if a := get(t, c.members[0], "k"); string(a.Value) != "later" {
			t.Errorf("read %q after %q", a.Value, "later")
		}
	})
}

func TestLoadDoesNotReplaceWhatWasReadWhileItRan(t *testing.T) {
	for _, evicted := range []bool{false, true} {
		for _, versioned := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				o := origintest.New(map[string]string{"k": "old"})
				if !versioned {
					o.Unversioned()
				}
				p := testPolicy()
				p.LocalTTL = 300 * tick
				c := newCluster(t, 2, o, p)
				member, load := c.members[1], sync.WaitGroup{}
				o.Slow(900 * tick)
				load.Go(func() { _, _ = member.Serve(t.Context(), kv.Query{Dataset: "test", Key: "k", Failover: true}) })
				time.Sleep(10 * tick)
				o.Slow(0)
				o.Set("k", "new")
				get(t, member, "k") // by its owner; the copy has ended when the load does
				if evicted {
					member.store.Resize(0)
					member.store.Resize(1 << 20)
				}
				load.Wait()
				if a := get(t, member, "k"); string(a.Value) != "new" {
					t.Errorf("versioned %v, evicted %v: read %q after %q", versioned, evicted, a.Value, "new")
				}
			})
		}
	}
}

func TestDeletedRowDoesNotReturnAfterASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[0], "k")
		get(t, c.members[2], "k")
		o.Delete("k") // around the cache
		time.Sleep(2 * time.Second)
		c.order = func(int) (int, int) { return 1, 0 }
		if a := get(t, c.members[2], "k"); !a.NotFound {
			t.Fatalf("got %q", a.Value)
		}
		time.Sleep(2 * time.Second)
		c.members[2].Sweep()
		c.order = func(int) (int, int) { return 0, 1 } // which was not told
		if a := get(t, c.members[2], "k"); !a.NotFound {
			t.Errorf("read %q after there was none", a.Value)
		}
	})
}

func TestDeletedRowDoesNotReturnAfterAPrefixInvalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		reader := c.members[2]
		get(t, reader, "k")
		for _, d := range c.members {
			d.ApplyInvalidation(kv.Invalidation{Dataset: "test", Prefix: true})
		}
		time.Sleep(tick)
		get(t, c.members[0], "k")
		time.Sleep(tick)
		o.Delete("k") // around the cache
		c.order = func(int) (int, int) { return 1, 0 }
		if a := get(t, reader, "k"); !a.NotFound {
			t.Fatalf("got %q", a.Value)
		}
		time.Sleep(2 * time.Second)
		reader.Sweep()
		c.order = func(int) (int, int) { return 0, 1 } // which was not told
		if a := get(t, reader, "k"); !a.NotFound {
			t.Errorf("read %q after there was none", a.Value)
		}
	})
}

func TestNotFoundCopyDoesNotHideALaterDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		o.Unversioned()
		c := newCluster(t, 3, o, testPolicy())
		c.publicationsLost.Store(true)
		reader := c.members[2]
		get(t, reader, "k") // the copy ends, and stays
		time.Sleep(2 * time.Second)
		o.Set("k", "v") // around the cache
		c.order = func(int) (int, int) { return 1, 0 }
		get(t, c.members[1], "k")
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 0, 1 }
		if _, err := reader.Write(t.Context(), kv.Change{Key: "k", Delete: true}); err != nil {
			t.Fatal(err)
		}
		c.order = func(int) (int, int) { return 1, 0 } // which was not told
		if a := get(t, reader, "k"); !a.NotFound {
			t.Errorf("read %q after its deletion", a.Value)
		}
	})
}

func TestKeysThatNeverExistedHaveNoBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		for i := range 100 {
			get(t, d, fmt.Sprint(i))
		}
		time.Sleep(2 * time.Second)
		d.Sweep()
		if n, _ := d.Bounds(); n != 0 {
			t.Errorf("%d bounds of keys that never existed", n)
		}
	})
}

func TestDeletionOfNothingDropsWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, lateWriter{o}, nil, testPolicy())
		get(t, d, "k")
		o.Delete("k") // around the cache
		var writes sync.WaitGroup
		writes.Go(func() {
			if _, err := d.Write(t.Context(), kv.Change{Key: "k", Delete: true}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(tick)
		d.ApplyInvalidation(kv.Invalidation{Key: "other/", Prefix: true}) // keys share epochs
		writes.Wait()
		if a := get(t, d, "k"); !a.NotFound {
			t.Errorf("read %q after its deletion", a.Value)
		}
	})
}

func TestBoundsOutliveALowerTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		p := testPolicy()
		p.TTL, p.StaleIfError = time.Hour, 0
		c := newCluster(t, 3, o, p)
		get(t, c.members[0], "k")
		time.Sleep(tick)
		o.Set("k", "new") // around the cache
		c.order = func(int) (int, int) { return 1, 0 }
		p.TTL = time.Second
		reader := c.members[2]
		reader.SetPolicy(p)
		get(t, reader, "k")
		reader.store.Resize(0)
		reader.store.Resize(1 << 20)
		for i := range 3 { // bounds of other keys take their room
			put(t, reader, fmt.Sprint(i), "v")
			time.Sleep(5 * time.Second)
		}
		c.order = func(int) (int, int) { return 0, 1 } // which holds the old one for an hour
		if a := get(t, reader, "k"); string(a.Value) != "new" {
			t.Errorf("read %q after %q", a.Value, "new")
		}
	})
}

// slowOrigin is an origin that some queries reach late.
type slowOrigin struct {
	*origintest.Fake
	before atomic.Int64 // nanoseconds
}

func (o *slowOrigin) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	time.Sleep(time.Duration(o.before.Load()))
	return o.Fake.Load(ctx, keys)
}

func TestDeletedRowSeenByAnUnstoredLoadDoesNotReturn(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := &slowOrigin{Fake: origintest.New(map[string]string{"k": "old"})}
			if !versioned {
				o.Unversioned()
			}
			d := newDataset(t, o, nil, testPolicy())
			var reads sync.WaitGroup
			o.before.Store(int64(20 * tick))
			reads.Go(func() {
				if a, err := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true}); err != nil || !a.NotFound {
					t.Errorf("got %q, %v; want the deletion", a.Value, err)
				}
			})
			time.Sleep(tick)
			d.ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: "k"}) // so the first load is not kept
			time.Sleep(tick)
			o.before.Store(0)
			o.Slow(50 * tick)
			reads.Go(func() { get(t, d, "k") }) // has the old row, on a long way back
			time.Sleep(5 * tick)
			o.Slow(0)
			o.Delete("k")
			reads.Wait()
			if a := get(t, d, "k"); !a.NotFound {
				t.Errorf("versioned %v: read %q after it had been seen to be gone", versioned, a.Value)
			}
		})
	}
}

func TestOlderNotFoundIsNotFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		o.Unversioned()
		p := testPolicy()
		p.NegativeTTL = time.Minute
		c := newCluster(t, 3, o, p)
		reader := c.members[2]
		get(t, c.members[0], "k") // absent, from before all
		time.Sleep(tick)
		o.Set("k", "v") // around the cache
		c.order = func(int) (int, int) { return 1, 0 }
		get(t, reader, "k")
		reader.store.Resize(0)
		reader.store.Resize(1 << 20)
		time.Sleep(tick)
		o.Delete("k")
		if a, err := reader.Get(t.Context(), "k", kv.ReadOptions{NoCache: true}); err != nil || !a.NotFound {
			t.Fatalf("got %+v, %v", a, err)
		}
		time.Sleep(2 * time.Second)
		reader.store.Resize(0)
		reader.store.Resize(1 << 20)
		c.order = func(int) (int, int) { return 0, 1 }
		before := reader.Stats().PeerFetches.Load()
		if a := get(t, reader, "k"); !a.NotFound {
			t.Errorf("got %q", a.Value)
		}
		if n := reader.Stats().PeerFetches.Load() - before; n != 1 {
			t.Errorf("%d peer fetches; want 1", n)
		}
	})
}
