package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
)

// put writes and fails the test on an error.
func put(t testing.TB, d *Dataset, key, value string) Answer {
	t.Helper()
	a, err := d.Write(t.Context(), Change{Key: key, Value: []byte(value)})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return a
}

func expectKind(t testing.TB, err error, want Kind) {
	t.Helper()
	if err == nil || KindOf(err) != want {
		t.Errorf("got kind %d (%v); want %d", KindOf(err), err, want)
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
		expect(t, a, "v", SourceHit)
		if a.Version != written.Version || a.Fresh <= 0 || o.Queries() != 0 {
			t.Errorf("version %d, fresh for %v, %d queries; want %d and none", a.Version, a.Fresh, o.Queries(), written.Version)
		}
	})
}

func TestReadYourWritesWhenNobodyIsTold(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "0"})
			if !versioned {
				o.Unversioned()
			}
			c := newCluster(t, 3, o, testPolicy())
			c.deaf.Store(true)
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
			if a := get(t, c.members[2], "k"); string(a.Value) != "new" {
				t.Errorf("versioned %v: read %q after %q", versioned, a.Value, "new")
			}
		})
	}
}

func TestMonotonicReadsOfWhatHadToMakeRoom(t *testing.T) {
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

func TestHopForWhatIsUnchangedIsNoLoad(t *testing.T) {
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

func TestFillBegunBeforeAWriteIsNeverStoredAfterIt(t *testing.T) {
	const races = 10_000
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

func TestConditions(t *testing.T) {
	old := etagOf([]byte("v"))
	for name, c := range map[string]struct {
		change Change
		want   Kind // 0: written
	}{
		"version":              {Change{Key: "k", If: Condition{Version: 1}}, 0},
		"another version":      {Change{Key: "k", If: Condition{Version: 2}}, KindConflict},
		"etag":                 {Change{Key: "k", If: Condition{ETag: old}}, 0},
		"another etag":         {Change{Key: "k", If: Condition{ETag: `"x"`}}, KindConflict},
		"etag of what is not":  {Change{Key: "none", If: Condition{ETag: old}}, KindConflict},
		"absent":               {Change{Key: "none", If: Condition{Absent: true}}, 0},
		"not absent":           {Change{Key: "k", If: Condition{Absent: true}}, KindConflict},
		"present":              {Change{Key: "k", If: Condition{Present: true}}, 0},
		"not present":          {Change{Key: "none", If: Condition{Present: true}}, KindConflict},
		"delete":               {Change{Key: "k", Delete: true, If: Condition{Version: 1}}, 0},
		"delete another":       {Change{Key: "k", Delete: true, If: Condition{Version: 3}}, KindConflict},
		"delete what is not":   {Change{Key: "none", Delete: true}, 0},
		"two":                  {Change{Key: "k", If: Condition{Version: 1, Present: true}}, KindInvalidValue},
		"delete the absent":    {Change{Key: "k", Delete: true, If: Condition{Absent: true}}, KindInvalidValue},
		"delete with a value":  {Change{Key: "k", Delete: true, Value: []byte("v")}, KindInvalidValue},
		"large":                {Change{Key: "k", Value: make([]byte, MaxValueBytes+1)}, KindInvalidValue},
		"long id":              {Change{Key: "k", ID: string(make([]byte, MaxIDBytes+1))}, KindInvalidValue},
		"empty key":            {Change{}, KindInvalidKey},
		"key with a NUL byte":  {Change{Key: "\x00"}, KindInvalidKey},
		"key that is not UTF8": {Change{Key: "\xff"}, KindInvalidKey},
	} {
		for member := range 2 { // the owner, and another
			t.Run(fmt.Sprint(name, " through ", member), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := origintest.New(map[string]string{"k": "v"})
					cl := newCluster(t, 2, o, testPolicy())
					_, err := cl.members[member].Write(t.Context(), c.change)
					if c.want != 0 {
						expectKind(t, err, c.want)
					} else if err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestConditionOnTheETagNeedsVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Unversioned()
		d := newDataset(t, o, nil, testPolicy())
		_, err := d.Write(t.Context(), Change{Key: "k", If: Condition{ETag: etagOf([]byte("v"))}})
		expectKind(t, err, KindInvalidValue)
	})
}

func TestETagIsComparedWithTheRowAndNotWithTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		held := get(t, d, "k")
		time.Sleep(tick)
		o.Set("k", "new") // around the cache
		_, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v"), If: Condition{ETag: held.ETag}})
		expectKind(t, err, KindConflict)
	})
}

func TestETagOfTheRowWhileAnOlderEntryIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(tick)
		version := o.Set("k", "new") // around the cache
		a, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v"), If: Condition{ETag: etagOf([]byte("new"))}})
		if err != nil || a.Version != version+1 {
			t.Errorf("got %+v, %v", a, err)
		}
	})
}

func TestAfterAConflictWhatIsThereIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		held := get(t, c.members[1], "k")
		time.Sleep(tick)
		o.Set("k", "new") // around the cache
		_, err := c.members[1].Write(t.Context(), Change{Key: "k", If: Condition{Version: held.Version}})
		expectKind(t, err, KindConflict)
		for _, d := range c.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("%q is read; want what the write was in conflict with", a.Value)
			}
		}
	})
}

// thoughtful is an origin that needs a moment to say that nothing was written.
type thoughtful struct{ *origintest.Fake }

func (th thoughtful) Write(ctx context.Context, _ origin.Change) (origin.Value, error) {
	<-ctx.Done()
	time.Sleep(100 * tick)
	return origin.Value{}, ctx.Err()
}

func TestReadOnlyDataset(t *testing.T) {
	d := newDataset(t, readOnly{origintest.New(nil)}, nil, testPolicy())
	_, err := d.Write(t.Context(), Change{Key: "k"})
	expectKind(t, err, KindReadOnly)
}

type readOnly struct{ f *origintest.Fake }

func (r readOnly) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return r.f.Load(ctx, keys)
}

func TestUnknownOutcomeDropsTheKeyEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		for _, d := range c.members {
			get(t, d, "k")
		}
		o.LoseAnswers(true)
		_, err := c.members[1].Write(t.Context(), Change{Key: "k", Value: []byte("new")})
		expectKind(t, err, KindUnknown)
		if RetryAfter(err) == 0 {
			t.Error("nothing says when to try again")
		}
		time.Sleep(tick)
		for i, d := range c.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("member %d reads %q", i, a.Value)
			}
		}
	})
}

func TestWriteThatEndsAfterItsOutcomeWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, &owner{Fake: o}, testPolicy())
		_, err := c.members[1].Write(t.Context(), Change{Key: "k", Value: []byte("new")})
		expectKind(t, err, KindUnknown)
		time.Sleep(tick)              // all are told
		for _, d := range c.members { // the write is not there yet
			get(t, d, "k")
		}
		time.Sleep(3 * time.Second) // now it is
		for i, d := range c.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("member %d reads %q: it was told before the write had ended", i, a.Value)
			}
		}
	})
}

// owner loses the connection at once, and the database commits a second later.
type owner struct{ *origintest.Fake }

func (o *owner) Write(_ context.Context, c origin.Change) (origin.Value, error) {
	time.AfterFunc(time.Second, func() { o.Set(c.Key, string(c.Data)) })
	return origin.Value{}, origin.ErrUnknown
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
			_, err := c.members[1].Write(ctx, Change{Key: "k", Value: value})
			failed <- err
		}()
		synctest.Wait()
		cancel()
		expectKind(t, <-failed, KindUnknown)
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
	for want, err := range map[Kind]error{
		KindUnavailable:  errDown,
		KindOverloaded:   origin.ErrOverloaded,
		KindInvalidKey:   origin.ErrInvalidKey,
		KindInvalidValue: &origin.ValueError{Column: "unit", Reason: "it is too long"},
		KindConflict:     origin.ErrConflict,
	} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(nil)
			o.FailWrites(err)
			_, got := newDataset(t, o, nil, testPolicy()).Write(t.Context(), Change{Key: "k"})
			expectKind(t, got, want)
			if !errors.Is(got, err) {
				t.Errorf("got %v; want it to wrap %v", got, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		o := thoughtful{origintest.New(nil)}
		_, got := newDataset(t, o, nil, testPolicy()).Write(t.Context(), Change{Key: "k"})
		expectKind(t, got, KindUnavailable) // the origin says that nothing was written
	})
}

func TestSameIDWritesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 3, o, testPolicy())
		change := Change{Key: "k", Value: []byte("v"), ID: "id-1"}
		var writes sync.WaitGroup
		for i := range 30 {
			writes.Go(func() {
				if a, err := c.members[i%3].Write(t.Context(), change); err != nil || a.Version != 1 {
					t.Errorf("got version %d, %v", a.Version, err)
				}
			})
		}
		writes.Wait()
		time.Sleep(time.Minute)
		if a, err := c.members[1].Write(t.Context(), change); err != nil || a.Version != 1 || o.Writes() != 1 {
			t.Errorf("sent again: version %d, %v, after %d writes", a.Version, err, o.Writes())
		}
		change.Value = []byte("other")
		_, err := c.members[1].Write(t.Context(), change)
		expectKind(t, err, KindIDReused)
		time.Sleep(11 * time.Minute)
		if _, err := c.members[1].Write(t.Context(), change); err != nil || o.Writes() != 2 {
			t.Errorf("an id is remembered for ever: %v, %d writes", err, o.Writes())
		}
	})
}

func TestIDsThatAreRememberedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		for i := range 3 * maxOutcomes {
			if _, err := d.Write(t.Context(), Change{Key: "k", ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if n := d.writer.outcomes.outcomes.Len(); n > 2*maxOutcomes {
			t.Errorf("%d ids are remembered; want %d at most", n, 2*maxOutcomes)
		}
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
			c.deaf.Store(true) // nobody follows who makes the write
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

func TestMinVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old", "other": "v"})
		c := newCluster(t, 3, o, testPolicy())
		c.deaf.Store(true)
		for _, d := range c.members {
			get(t, d, "k")
		}
		time.Sleep(tick)
		version := o.Set("k", "new") // around the cache
		for i, d := range c.members {
			a, err := d.Get(t.Context(), "k", ReadOptions{MinVersion: version})
			if err != nil || string(a.Value) != "new" {
				t.Errorf("member %d: got %q, %v", i, a.Value, err)
			}
		}
		if o.Queries() != 2 {
			t.Errorf("%d queries; want one for all that ask for the new version", o.Queries())
		}
		time.Sleep(tick)
		_, err := c.members[1].Get(t.Context(), "k", ReadOptions{MinVersion: version + 1})
		expectKind(t, err, KindVersion)
		o.Delete("k")
		time.Sleep(tick)
		if a, err := c.members[1].Get(t.Context(), "k", ReadOptions{MinVersion: version + 1}); err != nil || !a.NotFound {
			t.Errorf("a row that is gone: %+v, %v; want absent", a, err)
		}
	})
}

// Waiting does not help where rows have no version, so nobody is told to wait.
func TestMinVersionWhereThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Unversioned()
		d := newDataset(t, o, nil, testPolicy())
		for range 2 {
			_, err := d.Get(t.Context(), "k", ReadOptions{MinVersion: 1})
			expectKind(t, err, KindVersion)
			if RetryAfter(err) != 0 || !strings.Contains(err.Error(), "no version column") {
				t.Errorf("%v, again after %v", err, RetryAfter(err))
			}
		}
	})
}

func TestMinVersionIsNeverAnsweredStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(time.Minute)
		o.Fail(errDown)
		if a := get(t, d, "k"); !a.Stale {
			t.Errorf("got %+v", a)
		}
		_, err := d.Get(t.Context(), "k", ReadOptions{MinVersion: 2})
		expectKind(t, err, KindUnavailable)
	})
}

func TestMaxStale(t *testing.T) {
	p := testPolicy() // ttl 10s, stale_if_error 5m
	for _, c := range []struct {
		after, maxStale time.Duration
		only, down      bool
		stale           bool
		want            Kind // of an error
	}{
		{after: 15 * time.Second, maxStale: 6 * time.Second, stale: true},
		{after: 15 * time.Second, maxStale: 4 * time.Second},
		{after: 15 * time.Second, maxStale: 6 * time.Second, only: true, stale: true},
		{after: 15 * time.Second, maxStale: 4 * time.Second, only: true, want: KindNotCached},
		{after: 15 * time.Second, maxStale: 6 * time.Second, down: true, stale: true},
		{after: 15 * time.Second, maxStale: 4 * time.Second, down: true, want: KindUnavailable},
		{after: 5 * time.Second, maxStale: 0, down: true},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := origintest.New(map[string]string{"k": "v"})
				d := newDataset(t, o, nil, p)
				get(t, d, "k")
				time.Sleep(c.after)
				if c.down {
					o.Fail(errDown)
				}
				before := o.Queries()
				a, err := d.Get(t.Context(), "k", ReadOptions{LimitStale: true, MaxStale: c.maxStale, OnlyIfCached: c.only})
				if c.want != 0 {
					expectKind(t, err, c.want)
					return
				}
				if err != nil || a.Stale != c.stale {
					t.Fatalf("got %+v, %v", a, err)
				}
				if c.stale && a.Took != 0 {
					t.Error("the stale answer was waited for")
				}
				synctest.Wait()
				if refreshed := o.Queries() > before; c.stale && refreshed == c.only {
					t.Errorf("refreshed behind: %v", refreshed)
				}
			})
		})
	}
}

func TestEntryOfAFormerOwnerIsNoBetterThanACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 1, 0 }
		for _, d := range c.members {
			d.RingChanged()
		}
		c.deaf.Store(true) // it follows nobody yet
		put(t, c.members[1], "k", "new")
		time.Sleep(testPolicy().LocalTTL + tick)
		if a := get(t, c.members[0], "k"); string(a.Value) != "new" {
			t.Errorf("the former owner reads %q", a.Value)
		}
		time.Sleep(testPolicy().TTL)
		get(t, c.members[0], "k")
		get(t, c.members[0], "k") // a hit
		if c.members[0].unsettled.Load() {
			t.Error("hits are looked at twice for ever")
		}
	})
}

func TestGapInTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.TTL, p.GapTTL = time.Hour, time.Second
		o := origintest.New(map[string]string{"k": "0"})
		d := newDataset(t, o, nil, p)
		reads := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			if a := get(t, d, "k"); string(a.Value) != want {
				t.Errorf("got %q; want %q", a.Value, want)
			}
		}
		reads(0, "0")
		o.Set("k", "1")
		reads(time.Second, "1") // the feed has not begun
		d.SetFeedLive(true)
		d.ApplyInvalidation(Invalidation{Prefix: true})
		reads(tick, "1")
		o.Set("k", "2")
		reads(time.Minute, "1") // nobody has told
		d.ApplyInvalidation(Invalidation{Key: "k"})
		reads(tick, "2")
		d.SetFeedLive(false)
		o.Set("k", "3")
		reads(time.Second, "3")
		if d.Stats().FeedGaps.Load() != 1 {
			t.Errorf("%d gaps; want 1", d.Stats().FeedGaps.Load())
		}
	})
}

func TestCopiesOfAMemberThatIsNotFollowedAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[1], "k")
		c.deaf.Store(true)
		put(t, c.members[0], "k", "new")
		expect(t, get(t, c.members[1], "k"), "old", SourceLocalHit)
		c.members[1].ExpireFrom("member-0")
		expect(t, get(t, c.members[1], "k"), "new", SourcePeerHit)
	})
}

func TestInvalidateTellsEveryMember(t *testing.T) {
	for name, s := range map[string]Scope{"keys": {Keys: []string{"a/1"}}, "prefix": {Prefix: "a/"}, "all": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := origintest.New(map[string]string{"a/1": "old"})
				c := newCluster(t, 4, o, testPolicy())
				for _, d := range c.members {
					get(t, d, "a/1")
				}
				c.away[3].Store(true)
				o.Set("a/1", "new")
				told, err := c.members[1].Invalidate(t.Context(), s)
				if err != nil || told.Members != 3 || fmt.Sprint(told.Unreached) != "[member-3]" {
					t.Errorf("got %+v, %v", told, err)
				}
				time.Sleep(tick)
				for i, d := range c.members[:3] {
					if a := get(t, d, "a/1"); string(a.Value) != "new" {
						t.Errorf("member %d reads %q", i, a.Value)
					}
				}
			})
		})
	}
}

func TestOlderAnswerIsNotTakenWhileTheOwnerHasNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[1], "k")
		time.Sleep(tick)
		version := o.Set("k", "new")
		c.members[1].ApplyInvalidation(Invalidation{Key: "k", Version: version}) // and not the owner
		if a := get(t, c.members[1], "k"); string(a.Value) != "new" {
			t.Errorf("got %q", a.Value)
		}
		time.Sleep(tick)
		o.Set("k", "newer")
		c.members[1].ApplyInvalidation(Invalidation{Key: "k"})
		if a := get(t, c.members[1], "k"); string(a.Value) != "newer" {
			t.Errorf("got %q", a.Value)
		}
	})
}

func TestWatchNotesWhatMayHaveChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a": "v", "b": "v"})
		c := newCluster(t, 2, o, testPolicy())
		d := c.members[1]
		get(t, d, "a")
		w := d.Watch([]string{"a", "b"})
		defer w.Close()
		noted := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if len(want) > 0 {
				select {
				case <-w.Ready():
				default:
					t.Errorf("not ready; want %v", want)
				}
			}
			if got := w.Take(); len(got) != len(want) || len(got) == 1 && got[0] != want[0] {
				t.Errorf("got %v; want %v", got, want)
			}
		}
		noted()
		put(t, c.members[0], "a", "new")
		noted("a")
		put(t, d, "b", "new")
		noted("b")
		put(t, d, "c", "new")
		noted()
		get(t, d, "b")
		noted("b") // it is held now
		d.ApplyInvalidation(Invalidation{Prefix: true})
		noted("a", "b")
		d.ExpireFrom("member-0")
		noted("a", "b")
		for range 1000 {
			d.ApplyInvalidation(Invalidation{Key: "a"})
		}
		noted("a")
		w.Close()
		put(t, d, "a", "newest")
		noted()
	})
}

// scripted is an owner whose answers come when their gates are opened.
type scripted struct {
	NoPeers
	noBatches
	answers []Answer
	gates   []chan struct{}
	asked   int
}

func newScripted(answers ...Answer) *scripted {
	s := &scripted{answers: answers}
	for range answers {
		s.gates = append(s.gates, make(chan struct{}))
	}
	return s
}

func (s *scripted) Route(string, string) Route { return Route{Owner: s} }
func (s *scripted) ID() string                 { return "scripted" }

func (s *scripted) Write(context.Context, Change) (Answer, error) { return Answer{}, ErrUnreachable }

func (s *scripted) Fetch(context.Context, Query) (Answer, error) {
	n := s.asked
	s.asked++
	<-s.gates[n]
	return s.answers[n], nil
}

func TestReaderThatJoinsAFlightThatBeganBeforeWhatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, young := Answer{Value: []byte("1"), Version: 1, Fresh: time.Minute}, Answer{Value: []byte("2"), Version: 2, Fresh: time.Minute}
		s := newScripted(young, old, young)
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		var early sync.WaitGroup
		early.Go(func() { // its flight is detached, and its answer not stored
			if a := get(t, d, "k"); a.Version != 2 {
				t.Errorf("got version %d", a.Version)
			}
		})
		synctest.Wait()
		d.ApplyInvalidation(Invalidation{Key: "k", Version: 1})
		go func() { _, _ = d.Get(t.Context(), "k", ReadOptions{}) }()
		synctest.Wait()
		close(s.gates[0])
		early.Wait()
		late := make(chan Answer)
		go func() { late <- get(t, d, "k") }()
		synctest.Wait()
		close(s.gates[1])
		close(s.gates[2])
		if a := <-late; a.Version != 2 {
			t.Errorf("version %d was read after 2 had been", a.Version)
		}
	})
}

func TestFirstReadAfterAnOutageIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		o.Fail(errDown)
		time.Sleep(11 * time.Second)
		if a := get(t, d, "k"); !a.Stale {
			t.Errorf("got %+v in the outage", a)
		}
		o.Fail(nil)
		o.Set("k", "new")
		time.Sleep(time.Minute)
		if a := get(t, d, "k"); a.Stale || string(a.Value) != "new" {
			t.Errorf("a minute after the outage %q is read, stale %v", a.Value, a.Stale)
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
		c.deaf.Store(true)
		writer := c.members[2]
		if _, err := writer.Write(t.Context(), Change{Key: "k", Delete: true}); err != nil {
			t.Fatal(err)
		}
		get(t, writer, "k")
		for i := range 10 { // what was absent is swept, and generations of floors pass
			time.Sleep(15 * time.Second)
			put(t, writer, fmt.Sprint("other-", i), "v")
			writer.Sweep()
		}
		o.Fail(errDown)
		c.away[0].Store(true)
		a, err := writer.Get(t.Context(), "k", ReadOptions{})
		if err == nil && !a.NotFound {
			t.Errorf("%q is read, stale %v, after it was deleted here", a.Value, a.Stale)
		}
	})
}

func TestCopyThatHasEndedIsBetterThanNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[2], "k")
		c.members[2].ExpireFrom("member-0")
		c.away[0].Store(true)
		o.Fail(errDown)
		if a := get(t, c.members[2], "k"); !a.Stale || string(a.Value) != "v" {
			t.Errorf("got %+v; want the stale copy", a)
		}
		_, err := c.members[2].Get(t.Context(), "k", ReadOptions{LimitStale: true})
		expectKind(t, err, KindUnavailable)
	})
}

func TestWriteThatComesTooLateIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := d.ServeWrite(ctx, Change{Key: "k", Value: []byte("v")})
		expectKind(t, err, KindUnavailable)
		if synctest.Wait(); o.Writes() != 0 {
			t.Error("it was made")
		}
	})
}

func TestStaleAnswerThatComesLateDoesNotBringBackWhatWasSeenToBeGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(Answer{Value: []byte("old"), Version: 1, Stale: true, Age: time.Second}, Answer{NotFound: true, Fresh: tick})
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		time.Sleep(2 * time.Second)
		var early sync.WaitGroup
		early.Go(func() { _, _ = d.Get(t.Context(), "k", ReadOptions{}) })
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
		if q := d.fetcher.queryFor(&job{read: read{key: "k", bound: b}}, false); q.MinVersion != 0 || q.MaxAge == 0 {
			t.Errorf("others are asked for %+v", q)
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
		c.deaf.Store(true)
		if _, err := c.members[1].Write(t.Context(), Change{Key: "k", Delete: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 2, 0 } // which has a copy
		if a := get(t, c.members[1], "k"); !a.NotFound {
			t.Errorf("%q is read by who has deleted it", a.Value)
		}
	})
}

func TestCopyThatIsOnItsWayWhenCopiesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(Answer{Value: []byte("old"), Version: 1, Fresh: time.Minute})
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		var reader sync.WaitGroup
		reader.Go(func() { get(t, d, "k") })
		synctest.Wait()
		d.ExpireFrom(s.ID())
		close(s.gates[0])
		reader.Wait()
		if d.Explain("k").Held {
			t.Error("a copy from before is held: of what was missed nobody tells")
		}
	})
}

func TestOutcomeIsForgottenAfterItsTimeAlsoWhenNobodyWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		put := func(id string) {
			if _, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v"), ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		put("first")
		time.Sleep(time.Hour)
		put("second")
		if _, ok := d.writer.outcomes.get(Change{ID: "first"}, d.now()); ok {
			t.Error("the outcome of an hour ago is an answer")
		}
		if _, ok := d.writer.outcomes.get(Change{ID: "second"}, d.now()); !ok {
			t.Error("the latest outcome is forgotten")
		}
	})
}

func TestOtherWriteWithTheIDOfOneThatFailsIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * tick)
		d := newDataset(t, o, nil, testPolicy())
		var first sync.WaitGroup
		first.Go(func() {
			_, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("1"), ID: "x", If: Condition{Absent: true}})
			expectKind(t, err, KindConflict)
		})
		time.Sleep(tick)
		_, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("2"), ID: "x"})
		expectKind(t, err, KindIDReused)
		first.Wait()
	})
}

func TestWriteAfterCloseIsNotOfUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		d.Close()
		_, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v")})
		expectKind(t, err, KindUnavailable)
	})
}

func TestRefusedReadsAreCountedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		o.FailWrites(fmt.Errorf("%w: busy", origin.ErrOverloaded))
		_, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v")})
		expectKind(t, err, KindOverloaded)
		get(t, d, "k")
		time.Sleep(time.Minute)
		o.Fail(fmt.Errorf("%w: busy", origin.ErrOverloaded))
		if a := get(t, d, "k"); !a.Stale { // which is an answer
			t.Errorf("got %+v", a)
		}
		if n := d.Stats().Refused.Load(); n != 0 {
			t.Errorf("%d reads counted as refused; none was", n)
		}
		for range 2 {
			_, err := d.Get(t.Context(), "other", ReadOptions{})
			expectKind(t, err, KindOverloaded)
		}
		if n := d.Stats().Refused.Load(); n != 2 {
			t.Errorf("%d reads counted as refused; want 2", n)
		}
	})
}
