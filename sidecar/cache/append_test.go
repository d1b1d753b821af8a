package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// expectNone reads a key that does not exist yet, so that every member holds "not found".
func expectNone(t *testing.T, members []*Dataset, key string) {
	t.Helper()
	for _, d := range members {
		if a, err := d.Get(t.Context(), key, kv.ReadOptions{}); err != nil || !a.NotFound {
			t.Fatalf("got %q, %v; want not found", a.Value, err)
		}
	}
}

// Every member holds "not found" of the key that the database generates. The one that appends the row reads it at once, also if
// its invalidations are lost; the others read it when they have them, or by its version.
func TestAppendedRowIsReadByEveryMember(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		for appender := range 3 { // 0 is the owner, 1 the successor
			t.Run(fmt.Sprintf("versioned %t, by member %d", versioned, appender), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := origintest.New(nil)
					if !versioned {
						o.Unversioned()
					}
					p := testPolicy()
					p.TTL, p.NegativeTTL = time.Hour, time.Hour
					c := newCluster(t, 3, o, p)
					expectNone(t, c.members, "row-1")
					c.publicationsLost.Store(true)
					time.Sleep(tick)
					r, err := c.members[appender].Append(t.Context(), []byte("v"), "")
					if err != nil || r.Key != "row-1" || string(r.Answer.Value) != "v" || r.Answer.ETag == "" {
						t.Fatalf("got %+v, %v", r, err)
					}
					if a := get(t, c.members[appender], "row-1"); string(a.Value) != "v" {
						t.Errorf("the member that has appended the row reads %q, not found %t", a.Value, a.NotFound)
					}
					for i, d := range c.members {
						if !versioned {
							break
						}
						a, err := d.Get(t.Context(), "row-1", kv.ReadOptions{MinVersion: r.Answer.Version})
						if err != nil || string(a.Value) != "v" {
							t.Errorf("member %d reads %q by its version: %v", i, a.Value, err)
						}
					}
				})
			})
		}
	}
}

func TestAppendInvalidatesNotFoundOnEveryMember(t *testing.T) {
	for appender := range 3 {
		synctest.Test(t, func(t *testing.T) {
			p := testPolicy()
			p.TTL, p.NegativeTTL = time.Hour, time.Hour
			c := newCluster(t, 3, origintest.New(nil), p)
			expectNone(t, c.members, "row-1")
			time.Sleep(tick)
			if _, err := c.members[appender].Append(t.Context(), []byte("v"), ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for i, d := range c.members {
				if a := get(t, d, "row-1"); string(a.Value) != "v" {
					t.Errorf("appended by member %d: member %d reads %q, not found %t", appender, i, a.Value, a.NotFound)
				}
			}
		})
	}
}

func TestSameIDAppendsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		var appends sync.WaitGroup
		for range 20 {
			appends.Go(func() {
				if r, err := d.Append(t.Context(), []byte("v"), "id"); err != nil || r.Key != "row-1" {
					t.Errorf("got %q, %v", r.Key, err)
				}
			})
		}
		appends.Wait()
		time.Sleep(time.Minute)
		if r, err := d.Append(t.Context(), []byte("v"), "id"); err != nil || r.Key != "row-1" || o.Writes() != 1 {
			t.Errorf("again: %q, %v after %d writes", r.Key, err, o.Writes())
		}
		_, err := d.Append(t.Context(), []byte("other"), "id")
		expectKind(t, err, kv.KindIDReused)
		_, err = d.Write(t.Context(), kv.Change{Key: "row-1", Value: []byte("v"), ID: "id"})
		expectKind(t, err, kv.KindIDReused)
		if r, err := d.Append(t.Context(), []byte("v"), ""); err != nil || r.Key != "row-2" {
			t.Errorf("without an id: %q, %v", r.Key, err)
		}
	})
}

// An append cannot be repeated: with the same id, an unknown outcome stays unknown.
func TestAppendOfUnknownOutcomeIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		o.LoseAnswers(true)
		_, err := d.Append(t.Context(), []byte("v"), "id")
		expectKind(t, err, kv.KindUnknown)
		o.LoseAnswers(false)
		_, err = d.Append(t.Context(), []byte("v"), "id")
		expectKind(t, err, kv.KindUnknown)
		_, err = d.Append(t.Context(), []byte("other"), "id")
		expectKind(t, err, kv.KindIDReused)
		_, err = d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v"), ID: "id"})
		expectKind(t, err, kv.KindIDReused)
		if o.Writes() != 1 {
			t.Errorf("inserted %d times", o.Writes())
		}
	})
}

func TestAppendGoesOnWhenItsCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		release := o.BlockWrites()
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(tick, leave)
		_, err := d.Append(ctx, []byte("v"), "id")
		expectKind(t, err, kv.KindUnknown)
		release()
		synctest.Wait()
		if r, err := d.Append(t.Context(), []byte("v"), "id"); err != nil || r.Key != "row-1" || o.Writes() != 1 {
			t.Errorf("got %q, %v after %d writes", r.Key, err, o.Writes())
		}
	})
}

func TestErrorsOfAppends(t *testing.T) {
	o := origintest.New(nil)
	d := newDataset(t, o, nil, testPolicy())
	for want, failure := range map[kv.Kind]error{
		kv.KindNoAppend: &origin.AppendError{Reason: "no key"}, kv.KindInvalidValue: origin.InvalidValue("a", "no"),
		kv.KindOverloaded: origin.ErrOverloaded, kv.KindUnavailable: errors.New("down"),
	} {
		o.FailWrites(failure)
		_, err := d.Append(t.Context(), []byte("v"), "")
		expectKind(t, err, want)
	}
	_, err := d.Append(t.Context(), make([]byte, kv.MaxValueBytes+1), "")
	expectKind(t, err, kv.KindInvalidValue)
	_, err = newDataset(t, readOnly{o}, nil, testPolicy()).Append(t.Context(), []byte("v"), "")
	expectKind(t, err, kv.KindReadOnly)
}
