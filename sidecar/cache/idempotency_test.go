package cache

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/idempotency"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestSameIDWritesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 3, o, testPolicy())
		change := kv.Change{Key: "k", Value: []byte("v"), ID: "id-1"}
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
		expectKind(t, err, kv.KindIDReused)
		time.Sleep(11 * time.Minute)
		if _, err := c.members[1].Write(t.Context(), change); err != nil || o.Writes() != 2 {
			t.Errorf("an id is remembered for ever: %v, %d writes", err, o.Writes())
		}
	})
}

func TestIDsThatAreRememberedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		for i := range 3 * idempotency.MaxOutcomes {
			if _, err := d.Write(t.Context(), kv.Change{Key: "k", ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if n := d.writer.outcomes.Len(); n > 2*idempotency.MaxOutcomes {
			t.Errorf("%d ids are remembered; want %d at most", n, 2*idempotency.MaxOutcomes)
		}
	})
}

func TestOutcomeIsForgottenAfterItsTimeAlsoWhenNobodyWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(nil), nil, testPolicy())
		put := func(id string) {
			if _, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v"), ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		put("first")
		time.Sleep(time.Hour)
		put("second")
		if _, ok := d.writer.outcomes.Get("first", d.now()); ok {
			t.Error("the outcome of an hour ago is an answer")
		}
		if _, ok := d.writer.outcomes.Get("second", d.now()); !ok {
			t.Error("the latest outcome is forgotten")
		}
	})
}

func TestWriteWithTheIDOfAnotherThatFailsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * tick)
		d := newDataset(t, o, nil, testPolicy())
		var first sync.WaitGroup
		first.Go(func() {
			_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("1"), ID: "x", If: kv.Condition{Absent: true}})
			expectKind(t, err, kv.KindConflict)
		})
		time.Sleep(tick)
		_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("2"), ID: "x"})
		expectKind(t, err, kv.KindIDReused)
		first.Wait()
	})
}

func TestWritesWithOneIDOnRingsThatDisagreeDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(nil), testPolicy())
		c.order = func(from int) (int, int) { return 1 - from, from }
		c.lag = tick
		var writes sync.WaitGroup
		for _, d := range c.members {
			writes.Go(func() {
				if _, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v"), ID: "id"}); err != nil {
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
		value := bytes.Repeat([]byte("v"), kv.MaxValueBytes)
		for i := range 40 {
			if _, err := d.Write(t.Context(), kv.Change{Key: fmt.Sprint(i), Value: value, ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if n := d.writer.outcomes.Len() * kv.MaxValueBytes; n == 0 || n > 64<<20/8 {
			t.Errorf("%d bytes are remembered; want at most %d", n, 64<<20/8)
		}
	})
}
