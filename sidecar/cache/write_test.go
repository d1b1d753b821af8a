package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// put writes and fails the test on an error.
func put(t testing.TB, d *Dataset, key, value string) kv.Answer {
	t.Helper()
	a, err := d.Write(t.Context(), kv.Change{Key: key, Value: []byte(value)})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return a
}

func expectKind(t testing.TB, err error, want kv.Kind) {
	t.Helper()
	if err == nil || kv.KindOf(err) != want {
		t.Errorf("got kind %d (%v); want %d", kv.KindOf(err), err, want)
	}
}

func TestWriteIsSeenByEveryMemberAtOnce(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "old"})
			if !versioned {
				o.Unversioned()
			}
			c := newCluster(t, 5, o, testPolicy())
			for writer := range c.members {
				for _, d := range c.members {
					get(t, d, "k")
				}
				time.Sleep(tick)
				value := fmt.Sprint("new-", writer)
				if a := put(t, c.members[writer], "k", value); string(a.Value) != value {
					t.Errorf("the write answers %q; want what is written", a.Value)
				}
				time.Sleep(tick)
				for i, d := range c.members {
					if a := get(t, d, "k"); string(a.Value) != value {
						t.Errorf("member %d reads %q after a write through %d; want %q", i, a.Value, writer, value)
					}
				}
			}
		})
	}
}

func TestOwnerKeepsWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 3, o, testPolicy())
		written := put(t, c.members[2], "k", "v")
		time.Sleep(tick)
		a := get(t, c.members[0], "k")
		expect(t, a, "v", kv.SourceHit)
		if a.Version != written.Version || a.Fresh <= 0 || o.Queries() != 0 {
			t.Errorf("version %d, fresh for %v, %d queries; want %d and none", a.Version, a.Fresh, o.Queries(), written.Version)
		}
	})
}

func TestLoadThatBeganBeforeAWriteIsNotStored(t *testing.T) {
	const races = 2000
	stored := 0
	for range races {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "old"})
			c := newCluster(t, 3, o, testPolicy())
			release := o.Block()
			var readers sync.WaitGroup
			for _, d := range c.members {
				readers.Go(func() { get(t, d, "k") }) // these may read either
			}
			synctest.Wait()
			put(t, c.members[rand.N(3)], "k", "new")
			release()
			readers.Wait()
			time.Sleep(tick)
			for _, d := range c.members {
				if a := get(t, d, "k"); string(a.Value) != "new" {
					stored++
				}
			}
		})
	}
	if stored != 0 {
		t.Errorf("%d fills of %d races were stored after the write", stored, races)
	}
}

func TestTwoWritesAtOnceLeaveTheLaterOneOrNothing(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "0"})
			if !versioned {
				o.Unversioned()
			}
			d := newDataset(t, o, nil, testPolicy())
			first := o.BlockAnswers() // the first is committed, and told late
			var writes sync.WaitGroup
			writes.Go(func() { put(t, d, "k", "1") })
			synctest.Wait()
			second := o.BlockAnswers()
			writes.Go(func() { put(t, d, "k", "2") })
			synctest.Wait()
			second()
			synctest.Wait()
			time.Sleep(tick)
			first()
			writes.Wait()
			if a := get(t, d, "k"); string(a.Value) != "2" {
				t.Errorf("versioned %v: got %q; the later write is 2", versioned, a.Value)
			}
		})
	}
}

// thoughtful is an origin that reports late that nothing was written.
type thoughtful struct{ *origintest.Fake }

func (th thoughtful) Write(ctx context.Context, _ origin.Change) (origin.Value, error) {
	<-ctx.Done()
	time.Sleep(100 * tick)
	return origin.Value{}, ctx.Err()
}

func TestReadOnlyDataset(t *testing.T) {
	d := newDataset(t, readOnly{origintest.New(nil)}, nil, testPolicy())
	_, err := d.Write(t.Context(), kv.Change{Key: "k"})
	expectKind(t, err, kv.KindReadOnly)
}

type readOnly struct{ f *origintest.Fake }

func (r readOnly) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return r.f.Load(ctx, keys)
}

func TestCallerThatGivesUpLeavesItsWriteAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		release := o.BlockWrites()
		ctx, cancel := context.WithCancel(t.Context())
		value := []byte("new")
		failed := make(chan error)
		go func() {
			_, err := c.members[1].Write(ctx, kv.Change{Key: "k", Value: value})
			failed <- err
		}()
		synctest.Wait()
		cancel()
		expectKind(t, <-failed, kv.KindUnknown)
		copy(value, "xxx") // the caller's memory is used again
		release()
		synctest.Wait()
		time.Sleep(tick)
		if a := get(t, c.members[1], "k"); string(a.Value) != "new" {
			t.Errorf("got %q: the write ended with its caller, or wrote what the caller did not say", a.Value)
		}
	})
}

func TestWritesThatTheOriginRefusesAreDefinite(t *testing.T) {
	for want, err := range map[kv.Kind]error{
		kv.KindUnavailable:  errDown,
		kv.KindOverloaded:   origin.ErrOverloaded,
		kv.KindInvalidKey:   origin.ErrInvalidKey,
		kv.KindInvalidValue: &origin.ValueError{Column: "unit", Reason: "it is too long"},
		kv.KindConflict:     origin.ErrConflict,
	} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(nil)
			o.FailWrites(err)
			_, got := newDataset(t, o, nil, testPolicy()).Write(t.Context(), kv.Change{Key: "k"})
			expectKind(t, got, want)
			if !errors.Is(got, err) {
				t.Errorf("got %v; want it to wrap %v", got, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		o := thoughtful{origintest.New(nil)}
		_, got := newDataset(t, o, nil, testPolicy()).Write(t.Context(), kv.Change{Key: "k"})
		expectKind(t, got, kv.KindUnavailable) // the origin says that nothing was written
	})
}

func TestWriteGoesAroundAnOwnerThatIsAway(t *testing.T) {
	for _, away := range [][]int{{0}, {0, 1}} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "old"})
			c := newCluster(t, 4, o, testPolicy())
			for _, d := range c.members {
				get(t, d, "k")
			}
			for _, i := range away {
				c.away[i].Store(true)
			}
			c.publicationsLost.Store(true) // no member is subscribed to the writer
			put(t, c.members[2], "k", "new")
			time.Sleep(tick)
			for _, i := range []int{2, 3} {
				if a := get(t, c.members[i], "k"); string(a.Value) != "new" {
					t.Errorf("%v are away: member %d reads %q", away, i, a.Value)
				}
			}
		})
	}
}

func TestWriteThatComesTooLateIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := d.ServeWrite(ctx, kv.Change{Key: "k", Value: []byte("v")})
		expectKind(t, err, kv.KindUnavailable)
		if synctest.Wait(); o.Writes() != 0 {
			t.Error("it was made")
		}
	})
}

func TestWriteAfterCloseIsNotOfUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		d.Close()
		_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v")})
		expectKind(t, err, kv.KindUnavailable)
	})
}
