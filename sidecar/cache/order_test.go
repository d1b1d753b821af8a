package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// lateWriter says only after a while what came of a write.
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

// selves has each member think that it owns the keys.
func selves(c *cluster) { c.order = func(from int) (int, int) { return from, from } }

func TestWriteDoesNotReplaceWhatWasReadWhileItWasUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		o.Unversioned()
		c := newCluster(t, 2, lateWriter{o}, testPolicy())
		selves(c)
		c.deaf.Store(true)
		overtaken(t, o, c)
		if a := get(t, c.members[0], "k"); string(a.Value) != "later" {
			t.Errorf("read %q after %q", a.Value, "later")
		}
	})
}

func TestTagOfWhatWasLoadedAtTheSameTimeIsNoFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		o.Unversioned()
		c := newCluster(t, 2, lateWriter{o}, testPolicy())
		selves(c)
		c.deaf.Store(true)
		overtaken(t, o, c)
		c.order = func(int) (int, int) { return 1, 1 } // which holds what was written
		if a := get(t, c.members[0], "k"); string(a.Value) != "later" {
			t.Errorf("read %q after %q", a.Value, "later")
		}
	})
}

func TestLoadDoesNotReplaceWhatWasReadWhileItWasUnderWay(t *testing.T) {
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
				load.Go(func() { _, _ = member.Serve(t.Context(), Query{Dataset: "test", Key: "k", Failover: true}) })
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

func TestRowThatWasGoneDoesNotComeBackAfterASweep(t *testing.T) {
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

func TestRowThatWasGoneDoesNotComeBackAfterAPrefixWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		reader := c.members[2]
		get(t, reader, "k")
		for _, d := range c.members {
			d.ApplyInvalidation(Invalidation{Dataset: "test", Prefix: true})
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

func TestAbsentCopyDoesNotHideThatTheRowWasDeletedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		o.Unversioned()
		c := newCluster(t, 3, o, testPolicy())
		c.deaf.Store(true)
		reader := c.members[2]
		get(t, reader, "k") // the copy ends, and stays
		time.Sleep(2 * time.Second)
		o.Set("k", "v") // around the cache
		c.order = func(int) (int, int) { return 1, 0 }
		get(t, c.members[1], "k")
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 0, 1 }
		if _, err := reader.Write(t.Context(), Change{Key: "k", Delete: true}); err != nil {
			t.Fatal(err)
		}
		c.order = func(int) (int, int) { return 1, 0 } // which was not told
		if a := get(t, reader, "k"); !a.NotFound {
			t.Errorf("read %q after its deletion", a.Value)
		}
	})
}

func TestKeysThatNeverWereHaveNoFloors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		for i := range 100 {
			get(t, d, fmt.Sprint(i))
		}
		time.Sleep(2 * time.Second)
		d.Sweep()
		if n, _ := d.Bounds(); n != 0 {
			t.Errorf("%d floors of keys that never were", n)
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
			if _, err := d.Write(t.Context(), Change{Key: "k", Delete: true}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(tick)
		d.ApplyInvalidation(Invalidation{Key: "other/", Prefix: true}) // keys share epochs
		writes.Wait()
		if a := get(t, d, "k"); !a.NotFound {
			t.Errorf("read %q after its deletion", a.Value)
		}
	})
}

func TestFloorsOutliveALowerTTL(t *testing.T) {
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
		for i := range 3 { // floors of other keys make room
			put(t, reader, fmt.Sprint(i), "v")
			time.Sleep(5 * time.Second)
		}
		c.order = func(int) (int, int) { return 0, 1 } // which holds the old one for an hour
		if a := get(t, reader, "k"); string(a.Value) != "new" {
			t.Errorf("read %q after %q", a.Value, "new")
		}
	})
}

// detour is an origin that some queries reach late.
type detour struct {
	*origintest.Fake
	before atomic.Int64 // nanoseconds
}

func (o *detour) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	time.Sleep(time.Duration(o.before.Load()))
	return o.Fake.Load(ctx, keys)
}

func TestRowThatWasSeenToBeGoneByALoadThatIsNotKeptDoesNotComeBack(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := &detour{Fake: origintest.New(map[string]string{"k": "old"})}
			if !versioned {
				o.Unversioned()
			}
			d := newDataset(t, o, nil, testPolicy())
			var reads sync.WaitGroup
			o.before.Store(int64(20 * tick))
			reads.Go(func() {
				if a, err := d.Get(t.Context(), "k", ReadOptions{NoCache: true}); err != nil || !a.NotFound {
					t.Errorf("got %q, %v; want the deletion", a.Value, err)
				}
			})
			time.Sleep(tick)
			d.ApplyInvalidation(Invalidation{Dataset: "test", Key: "k"}) // so the first load is not kept
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

func TestOlderAbsenceIsNoWorseThanTheOneThatWasSeen(t *testing.T) {
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
		if a, err := reader.Get(t.Context(), "k", ReadOptions{NoCache: true}); err != nil || !a.NotFound {
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
			t.Errorf("%d hops; want 1", n)
		}
	})
}
