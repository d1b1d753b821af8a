package cache

import (
	"testing"
	"testing/synctest"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestWatchNotesPossibleChanges(t *testing.T) {
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
		d.ApplyInvalidation(kv.Invalidation{Prefix: true})
		noted("a", "b")
		d.ExpireFrom("member-0")
		noted("a", "b")
		for range 1000 {
			d.ApplyInvalidation(kv.Invalidation{Key: "a"})
		}
		noted("a")
		w.Close()
		put(t, d, "a", "newest")
		noted()
	})
}

// A first entry is no change: where memory is too small for all keys of a range, reading them would never end.
func TestRangeNotesAChangeThatAReadHasBrought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a": "v", "b": "v"})
		d := newCluster(t, 1, o, testPolicy()).members[0]
		r := d.WatchRange("a")
		defer r.Close()
		noted := func(want int) {
			t.Helper()
			if keys, all := r.Take(); len(keys) != want || all {
				t.Errorf("got %q, all %v; want %d keys", keys, all, want)
			}
		}
		version := get(t, d, "a").Version
		noted(0)
		d.ApplyInvalidation(kv.Invalidation{Key: "a", Version: version})
		noted(1)
		put(t, d, "a", "new")
		put(t, d, "b", "new")
		noted(1)
	})
}
