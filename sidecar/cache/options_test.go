package cache

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestMinVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old", "other": "v"})
		c := newCluster(t, 3, o, testPolicy())
		c.publicationsLost.Store(true)
		for _, d := range c.members {
			get(t, d, "k")
		}
		time.Sleep(tick)
		version := o.Set("k", "new") // around the cache
		for i, d := range c.members {
			a, err := d.Get(t.Context(), "k", kv.ReadOptions{MinVersion: version})
			if err != nil || string(a.Value) != "new" {
				t.Errorf("member %d: got %q, %v", i, a.Value, err)
			}
		}
		if o.Queries() != 2 {
			t.Errorf("%d queries; want one for all that ask for the new version", o.Queries())
		}
		time.Sleep(tick)
		_, err := c.members[1].Get(t.Context(), "k", kv.ReadOptions{MinVersion: version + 1})
		expectKind(t, err, kv.KindVersion)
		o.Delete("k")
		time.Sleep(tick)
		if a, err := c.members[1].Get(t.Context(), "k", kv.ReadOptions{MinVersion: version + 1}); err != nil || !a.NotFound {
			t.Errorf("a row that is gone: %+v, %v; want absent", a, err)
		}
	})
}

// Waiting does not help where rows have no version, so the error has no RetryAfter.
func TestMinVersionWhereThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Unversioned()
		d := newDataset(t, o, nil, testPolicy())
		for range 2 {
			_, err := d.Get(t.Context(), "k", kv.ReadOptions{MinVersion: 1})
			expectKind(t, err, kv.KindVersion)
			if kv.RetryAfter(err) != 0 || !strings.Contains(err.Error(), "no version column") {
				t.Errorf("%v, again after %v", err, kv.RetryAfter(err))
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
		_, err := d.Get(t.Context(), "k", kv.ReadOptions{MinVersion: 2})
		expectKind(t, err, kv.KindUnavailable)
	})
}

func TestMaxStale(t *testing.T) {
	p := testPolicy() // ttl 10s, stale_if_error 5m
	for _, c := range []struct {
		after, maxStale time.Duration
		only, down      bool
		stale           bool
		want            kv.Kind // of an error
	}{
		{after: 15 * time.Second, maxStale: 6 * time.Second, stale: true},
		{after: 15 * time.Second, maxStale: 4 * time.Second},
		{after: 15 * time.Second, maxStale: 6 * time.Second, only: true, stale: true},
		{after: 15 * time.Second, maxStale: 4 * time.Second, only: true, want: kv.KindNotCached},
		{after: 15 * time.Second, maxStale: 6 * time.Second, down: true, stale: true},
		{after: 15 * time.Second, maxStale: 4 * time.Second, down: true, want: kv.KindUnavailable},
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
				a, err := d.Get(t.Context(), "k", kv.ReadOptions{LimitStale: true, MaxStale: c.maxStale, OnlyIfCached: c.only})
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

func TestReaderThatTakesNothingStaleIsServedByFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, origintest.New(map[string]string{"k": "v"}), testPolicy())
		get(t, c.members[2], "k")
		time.Sleep(20 * time.Second)
		c.away[0].Store(true)
		c.away[1].Store(true)
		a, err := c.members[2].Get(t.Context(), "k", kv.ReadOptions{LimitStale: true})
		if err != nil || a.Stale {
			t.Errorf("stale %v, %v; want what the origin has", a.Stale, err)
		}
	})
}
