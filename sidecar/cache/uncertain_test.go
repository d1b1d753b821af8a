package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestUnknownOutcomeDropsTheKeyEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		for _, d := range c.members {
			get(t, d, "k")
		}
		o.LoseAnswers(true)
		_, err := c.members[1].Write(t.Context(), kv.Change{Key: "k", Value: []byte("new")})
		expectKind(t, err, kv.KindUnknown)
		if kv.RetryAfter(err) == 0 {
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
		_, err := c.members[1].Write(t.Context(), kv.Change{Key: "k", Value: []byte("new")})
		expectKind(t, err, kv.KindUnknown)
		time.Sleep(tick)              // the invalidation has reached all members
		for _, d := range c.members { // the write is not there yet
			get(t, d, "k")
		}
		time.Sleep(3 * time.Second) // now it is
		for i, d := range c.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("member %d reads %q: it was invalidated only before the write ended", i, a.Value)
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

// cut loses the answers to writes at once.
type cut struct {
	seenFrom
	to *Dataset
}

func (c cut) Route(string, string) kv.Route { return kv.Route{Owner: cutLink{c.peer(0), c.to}} }

type cutLink struct {
	kv.Peer
	to *Dataset
}

func (l cutLink) Write(_ context.Context, c kv.Change) (kv.Answer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(tick, cancel) // the write has begun
	return l.to.ServeWrite(ctx, c)
}

func TestUncertainConditionalWriteIsInvalidatedWhenItMustHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		c.publicationsLost.Store(true)
		writer := newDataset(t, o, cut{seenFrom{c, 2}, c.members[0]}, testPolicy())
		former := c.members[1] // loads for itself
		c.order = func(from int) (int, int) { return from, from }
		o.Slow(900 * tick)
		_, err := writer.Write(t.Context(), kv.Change{Key: "k", Value: []byte("new"), If: kv.Condition{ETag: kv.ETagOf([]byte("old"))}})
		expectKind(t, err, kv.KindUnknown)
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
			t.Errorf("read %q: it was invalidated only before the write ended", a.Value)
		}
	})
}
