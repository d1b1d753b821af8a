package cache

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
)

func TestWritesWithOneIDOnRingsThatDisagreeDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(nil), testPolicy())
		c.order = func(from int) (int, int) { return 1 - from, from }
		c.lag = tick
		var writes sync.WaitGroup
		for _, d := range c.members {
			writes.Go(func() {
				if _, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v"), ID: "id"}); err != nil {
					t.Error(err)
				}
			})
		}
		writes.Wait()
	})
}

func TestOutcomesThatAreRememberedAreBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		value := bytes.Repeat([]byte("v"), MaxValueBytes)
		for i := range 40 {
			if _, err := d.Write(t.Context(), Change{Key: fmt.Sprint(i), Value: value, ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if n := d.writer.outcomes.outcomes.Len() * MaxValueBytes; n == 0 || n > 64<<20/8 {
			t.Errorf("%d bytes are remembered; want at most %d", n, 64<<20/8)
		}
	})
}

// cut loses the answers to writes at once.
type cut struct {
	seenFrom
	to *Dataset
}

func (c cut) Route(string, string) Route { return Route{Owner: cutLink{c.peer(0), c.to}} }

type cutLink struct {
	Peer
	to *Dataset
}

func (l cutLink) Write(_ context.Context, c Change) (Answer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(tick, cancel) // the write has begun
	return l.to.ServeWrite(ctx, c)
}

func TestUnknownWriteWithAConditionIsToldOnceItMustHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		c.deaf.Store(true)
		writer := newDataset(t, o, cut{seenFrom{c, 2}, c.members[0]}, testPolicy())
		former := c.members[1] // loads for itself
		c.order = func(from int) (int, int) { return from, from }
		o.Slow(900 * tick)
		_, err := writer.Write(t.Context(), Change{Key: "k", Value: []byte("new"), If: Condition{ETag: etagOf([]byte("old"))}})
		expectKind(t, err, KindUnknown)
		synctest.Wait() // the owner loads the row
		o.Slow(1900 * tick)
		time.Sleep(time.Second)
		o.Slow(0)
		time.Sleep(1100 * tick) // the first time for a write has passed
		get(t, former, "k")
		time.Sleep(1200 * tick)
		if o.Writes() != 1 {
			t.Fatal("nothing was written")
		}
		if a := get(t, former, "k"); string(a.Value) != "new" {
			t.Errorf("read %q: it was told before the write had ended", a.Value)
		}
	})
}

func TestInvalidatedKeyIsNotLoadedForEachMember(t *testing.T) {
	for _, s := range []Scope{{Keys: []string{"k"}}, {}} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "v"})
			c := newCluster(t, 10, o, testPolicy())
			if _, err := c.members[3].Invalidate(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			for _, d := range c.members {
				time.Sleep(tick)
				get(t, d, "k")
			}
			if n := o.Queries(); n != 1 {
				t.Errorf("%d queries for %+v on 10 members; want 1", n, s)
			}
		})
	}
}

func TestReaderWhoTakesNothingStaleIsServedWhenOwnerAndSuccessorAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, origintest.New(map[string]string{"k": "v"}), testPolicy())
		get(t, c.members[2], "k")
		time.Sleep(20 * time.Second)
		c.away[0].Store(true)
		c.away[1].Store(true)
		a, err := c.members[2].Get(t.Context(), "k", ReadOptions{LimitStale: true})
		if err != nil || a.Stale {
			t.Errorf("stale %v, %v; want what the origin has", a.Stale, err)
		}
	})
}

func TestCopyThatWasEndedIsNotExplainedAsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(map[string]string{"k": "v"}), testPolicy())
		get(t, c.members[1], "k")
		c.members[1].ExpireFrom("member-0")
		if x := c.members[1].Explain("k"); !x.Held || x.Fresh > 0 {
			t.Errorf("%+v; want a copy that is not fresh", x)
		}
	})
}
