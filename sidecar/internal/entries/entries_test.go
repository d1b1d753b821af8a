package entries

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	freshLife = 100
	staleLife = 1000
)

// rig is a Store whose clock the test sets.
type rig struct {
	*Store
	t                        testing.TB
	clock                    int64
	changes                  []string
	discarded, boundsEvicted atomic.Int64
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, clock: 10}
	s, err := New(Config{
		MaxBytes: 8 << 20, Now: func() int64 { return r.clock }, Changed: func(key string) { r.changes = append(r.changes, key) }, Replaced: func(string) {},
		Discarded: &r.discarded, BoundsEvicted: &r.boundsEvicted,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Store = s
	r.SetLifetimes(freshLife, staleLife)
	return r
}

// value returns an entry of the row that is fresh until 100 after the load began.
func value(version int64, text string, began, seen int64) *Entry {
	e := &Entry{
		Value: []byte(text), ETag: fmt.Sprintf("%q", text), Version: version,
		Began: began, Took: seen - began, Seen: seen, FreshUntil: began + 100,
	}
	e.setStaleWindows(kv.Policy{TTL: 100, StaleIfError: 500})
	return e
}

func notFound(began, seen int64) *Entry {
	return &Entry{NotFound: true, Began: began, Seen: seen, FreshUntil: began + 100}
}

// take returns a ticket that was taken at the given time.
func (r *rig) take(kind Kind, at int64) Ticket {
	r.clock = at
	return r.Begin("k", kind)
}

// put stores e, by a load without anything else during it.
func (r *rig) put(e *Entry) {
	r.t.Helper()
	ticket := r.take(Load, e.Began)
	r.clock = e.Seen
	if _, stored := ticket.Put(e); !stored {
		r.t.Fatalf("%q, version %d, is not stored", e.Value, e.Version)
	}
}

// evict removes all entries for lack of room.
func (r *rig) evict() {
	r.Resize(0)
	r.Resize(8 << 20)
}

func (r *rig) wantHeld(text string) {
	r.t.Helper()
	if held, ok := r.Peek("k"); !ok || string(held.Value) != text {
		r.t.Errorf("held %t, %+v; want %q", ok, held, text)
	}
}

func (r *rig) wantNone() {
	r.t.Helper()
	if held, ok := r.Peek("k"); ok {
		r.t.Errorf("%q, version %d, is held; want nothing", held.Value, held.Version)
	}
}

func (r *rig) wantAllowed(e *Entry, want bool) {
	r.t.Helper()
	if b := r.BoundOf("k"); b.Allows(e, e.Began) != want {
		r.t.Errorf("the bound %+v allows %q, version %d, loaded at %d: %t; want %t", b, e.Value, e.Version, e.Began, !want, want)
	}
}

func TestBoundAllows(t *testing.T) {
	old := value(3, "old", 10, 15)
	for name, tc := range map[string]struct {
		b    Bound
		e    *Entry
		want bool
	}{
		"no bound":                            {Bound{}, value(0, "v", -5, -4), true},
		"the version":                         {Bound{Version: 3, AsOf: 50}, old, true},
		"an older version":                    {Bound{Version: 4, AsOf: 50}, old, false},
		"an older version, loaded after":      {Bound{Version: 4, AsOf: 10}, old, true},
		"a version from before a deletion":    {Bound{Version: 3, DeletedAfter: 20}, old, false},
		"not found from before a deletion":    {Bound{DeletedAfter: 20, Tag: TagNotFound}, notFound(5, 6), true},
		"not found, as it was seen before":    {Bound{AsOf: 20, Tag: TagNotFound}, notFound(5, 6), true},
		"a version from before the load time": {Bound{Version: 3, MinLoadTime: 20}, old, false},
		"the same value, older":               {Bound{AsOf: 20, Tag: `"v"`}, value(0, "v", 10, 11), true},
		"another value, older":                {Bound{AsOf: 20, Tag: `"w"`}, value(0, "v", 10, 11), false},
		"another value, younger":              {Bound{AsOf: 10, Tag: `"w"`}, value(0, "v", 10, 11), true},
	} {
		if got := tc.b.Allows(tc.e, tc.e.Began); got != tc.want {
			t.Errorf("%s: got %t; want %t", name, got, tc.want)
		}
	}
}

// All bounds without a tag, of a few times and versions.
func TestMergedBoundAllowsOnlyWhatBothAllow(t *testing.T) {
	var bounds []Bound
	for n := range 3 * 3 * 2 * 2 {
		bounds = append(bounds, Bound{
			Version: int64(n % 3), AsOf: int64(n / 3 % 3 * 2), MinLoadTime: int64(n / 9 % 2 * 3), DeletedAfter: int64(n / 18 * 3),
		})
	}
	for _, a := range bounds {
		for _, b := range bounds {
			for n := range 4 * 6 {
				e, loadedAt := &Entry{Version: int64(n % 4 % 3), NotFound: n%4 == 3}, int64(n/4)
				if a.Merge(b).Allows(e, loadedAt) && !(a.Allows(e, loadedAt) && b.Allows(e, loadedAt)) {
					t.Fatalf("%+v and %+v together allow version %d, not found %t, loaded at %d, which one of them forbids",
						a, b, e.Version, e.NotFound, loadedAt)
				}
			}
		}
	}
}

// The order of two results that were loaded at the same time is unknown: the tag of neither is enough.
func TestMergeDropsTheTagOfConcurrentLoads(t *testing.T) {
	a, b := value(0, "a", 10, 20), value(0, "b", 15, 25)
	for _, merged := range []Bound{a.Bound().Merge(b.Bound()), b.Bound().Merge(a.Bound())} {
		if merged.Allows(a, a.Began) || merged.Allows(b, b.Began) {
			t.Errorf("%+v allows one of two concurrent loads", merged)
		}
	}
	later := value(0, "c", 30, 35)
	for _, merged := range []Bound{a.Bound().Merge(later.Bound()), later.Bound().Merge(a.Bound())} {
		if merged.Allows(a, a.Began) || !merged.Allows(later, later.Began) {
			t.Errorf("%+v; want it to allow the later of two loads alone", merged)
		}
	}
}

func TestExpiredEntriesAreStaleAnswersOnly(t *testing.T) {
	r := newRig(t)
	e := value(1, "v", 10, 11)
	e.RevalidateUntil = 500
	r.put(e)
	r.clock = 20
	r.ExpireAll()
	r.wantHeld("v")
	switch now := r.clock; {
	case e.Fresh(now), !e.Expired(), !e.Usable(now):
		t.Errorf("fresh %t, expired %t, usable %t; want a stale answer", e.Fresh(now), e.Expired(), e.Usable(now))
	case e.Revalidates(now, e.FreshUntil), e.WithinStale(now, 1000):
		t.Error("an expired entry is sent without waiting, as if its age were known")
	}
}

func TestUnstoredAnswerIsNotFresh(t *testing.T) {
	r := newRig(t)
	ticket := r.take(Load, 10)
	r.Invalidate("k", Bound{MinLoadTime: 11})
	e := value(1, "v", 10, 12)
	if winner, stored := ticket.Put(e); stored || winner != e || e.Fresh(20) {
		t.Errorf("stored %t, fresh %t; want an answer that no cache reuses", stored, e.Fresh(20))
	}
}

func TestWindowToRevalidateInBeginsAtTheEndOfFreshness(t *testing.T) {
	e := value(1, "v", 10, 11)
	if e.Revalidates(50, 40) {
		t.Error("an entry without a window is revalidated")
	}
	e.setStaleWindows(kv.Policy{TTL: 100, StaleWhileRevalidate: 30})
	for _, tt := range []struct {
		now, freshUntil int64
		want            bool
	}{{139, 110, true}, {140, 110, false}, {139, 200, true}, {69, 40, true}, {70, 40, false}} { // 40: in a gap
		if got := e.Revalidates(tt.now, tt.freshUntil); got != tt.want {
			t.Errorf("at %d, fresh until %d: got %t; want %t", tt.now, tt.freshUntil, got, tt.want)
		}
	}
}

func TestEntryStaysPinned(t *testing.T) {
	r := newRig(t)
	e := value(1, "v", 10, 11)
	e.Pinned = true
	r.take(Load, 10).Put(e)
	r.take(Load, 20).Put(value(2, "w", 20, 21))
	if held, _ := r.Peek("k"); held == nil || !held.Pinned || held.Version != 2 || r.Stats().Pinned == 0 {
		t.Errorf("got %+v; want the later entry, pinned", held)
	}
	for name, change := range map[string]func(e *Entry){
		"one of a warm-up that does not pin": func(e *Entry) { e.Reason = WarmUp },
		"an absent row":                      func(e *Entry) { e.NotFound = true },
		"a local copy":                       func(e *Entry) { e.Owner = "b" },
	} {
		r := newRig(t)
		e := value(1, "v", 10, 11)
		e.Pinned = true
		r.take(Load, 10).Put(e)
		e = value(2, "w", 20, 21)
		change(e)
		r.take(Load, 20).Put(e)
		if n := r.Stats().Pinned; n != 0 {
			t.Errorf("%d bytes are pinned after %s; want none", n, name)
		}
	}
}

func TestOneReaderRetriesAfterAFailedRefresh(t *testing.T) {
	e := value(1, "v", 10, 11)
	if _, backsOff := e.BacksOff(200, 50*time.Nanosecond); backsOff {
		t.Error("readers back off before a refresh has failed")
	}
	e.BackOff(300, kv.DetailOriginError)
	for _, step := range []struct {
		now  int64
		want bool
	}{{200, true}, {299, true}, {300, false}, {301, true}, {349, true}, {360, false}} {
		if _, got := e.BacksOff(step.now, 50*time.Nanosecond); got != step.want {
			t.Errorf("at %d: back off is %t; want %t", step.now, got, step.want)
		}
	}
}

func TestLoadFromBeforeAnInvalidationIsNotStored(t *testing.T) {
	for name, invalidate := range map[string]func(r *rig){
		"of the key":         func(r *rig) { r.Invalidate("k", Bound{MinLoadTime: r.clock + 1}) },
		"of a later version": func(r *rig) { r.Invalidate("k", Bound{Version: 1, AsOf: r.clock + 1}) },
		"of a prefix":        func(r *rig) { r.InvalidatePrefix("", r.clock+1) },
		"of all":             func(r *rig) { r.ExpireAll() },
	} {
		r := newRig(t)
		ticket := r.take(Load, 20)
		r.clock = 30
		invalidate(r)
		r.clock = 40
		if winner, stored := ticket.Put(value(2, "v", 20, 40)); stored || string(winner.Value) != "v" {
			t.Errorf("%s: stored %t, winner %q; want the value for those who wait, and nothing stored", name, stored, winner.Value)
		}
		r.wantNone()
		if n := r.discarded.Load(); n != 1 {
			t.Errorf("%s: %d discarded loads counted; want 1", name, n)
		}
		r.put(value(2, "later", 50, 60))
	}
}

func TestCopyFromBeforeItsOwnerWasLostIsNotStored(t *testing.T) {
	r := newRig(t)
	copied := r.take(Copy, 20)
	r.clock = 30
	r.ExpireFrom("owner")
	r.clock = 40
	if _, stored := copied.Put(value(1, "v", 20, 40)); stored {
		t.Error("a copy is stored although invalidations of it may have been missed")
	}
	r = newRig(t)
	loaded := r.take(Load, 20)
	r.ExpireFrom("owner")
	if _, stored := loaded.Put(value(1, "v", 20, 40)); !stored {
		t.Error("a load is not stored because another member was lost")
	}
}

// The owner may not have received an invalidation that this member has.
func TestOlderCopyIsNotStoredAfterAnInvalidation(t *testing.T) {
	for _, b := range []Bound{{MinLoadTime: 31}, {Version: 2, AsOf: 31}} {
		r := newRig(t)
		r.clock = 30
		r.Invalidate("k", b)
		ticket := r.take(Copy, 40)
		r.clock = 50
		if _, stored := ticket.Put(value(1, "old", 20, 50)); stored {
			t.Errorf("%+v: a copy of what was invalidated is stored", b)
		}
	}
}

func TestOlderVersionDoesNotReplaceAFreshNewerOne(t *testing.T) {
	r := newRig(t)
	r.put(value(7, "new", 20, 25))
	ticket := r.take(Load, 30)
	r.clock = 35
	if winner, stored := ticket.Put(value(6, "old", 30, 35)); stored || string(winner.Value) != "new" {
		t.Errorf("stored %t, winner %q; want the newer version", stored, winner.Value)
	}
	r.put(value(6, "after its ttl", 150, 155)) // a restored backup
}

func TestLoadDoesNotReplaceWhatWasReadWhileItRan(t *testing.T) {
	for _, evicted := range []bool{false, true} {
		for _, version := range []int64{0, 2} {
			r := newRig(t)
			slow := r.take(Load, 20)
			r.put(value(version, "new", 30, 35))
			if evicted {
				r.evict()
			}
			r.clock = 140 // the newer entry is no longer fresh
			if _, stored := slow.Put(value(version/2, "old", 20, 140)); stored {
				t.Errorf("evicted %t, version %d: the older result is stored", evicted, version)
			}
			r.wantAllowed(value(version/2, "old", 20, 140), false)
		}
	}
}

func TestEvictedEntryLeavesItsBound(t *testing.T) {
	r := newRig(t)
	r.put(value(2, "v", 20, 25))
	r.evict()
	r.wantAllowed(value(1, "old", 10, 15), false)
	r.wantAllowed(value(2, "v", 10, 15), true)
	r.wantAllowed(value(1, "restored", 25, 30), true)
	r.clock += staleLife
	r.wantAllowed(value(1, "old", 10, 15), true)
}

// Anybody can read keys that do not exist, and would evict the bounds of those that do.
func TestKeysThatNeverExistedHaveNoBounds(t *testing.T) {
	r := newRig(t)
	r.put(notFound(20, 21))
	r.clock = 1000
	if removed := r.Sweep(); removed != 1 {
		t.Errorf("%d entries swept; want the one that no read can use", removed)
	}
	if n, _ := r.Bounds(); n != 0 {
		t.Errorf("%d bounds; want none", n)
	}
}

func TestDeletedRowDoesNotReturnAfterASweep(t *testing.T) {
	for name, before := range map[string]func(r *rig){
		"after its value": func(r *rig) { r.put(value(0, "v", 20, 21)) },
		"after an invalidation of all": func(r *rig) {
			r.clock = 21
			r.InvalidatePrefix("", 22)
		},
		"after an invalidation": func(r *rig) {
			r.clock = 21
			r.Invalidate("k", Bound{MinLoadTime: 22})
		},
	} {
		r := newRig(t)
		before(r)
		r.put(notFound(30, 31))
		r.clock = 200
		r.Sweep()
		r.wantNone()
		if b := r.BoundOf("k"); b.Allows(value(0, "v", 25, 26), 25) {
			t.Errorf("%s: %+v allows the row from before it was deleted", name, b)
		}
	}
}

func TestNotFoundDoesNotHideALaterDeletion(t *testing.T) {
	r := newRig(t)
	deletion := r.take(RemoteCommit, 50)
	r.put(notFound(52, 55)) // the row was inserted after this
	r.clock = 60
	deletion.Put(notFound(50, 60))
	r.wantAllowed(value(0, "v", 56, 57), false)
}

func TestUnstoredResultIsABound(t *testing.T) {
	r := newRig(t)
	ticket := r.take(Load, 20)
	r.clock = 30
	r.Invalidate("k", Bound{Version: 1, AsOf: 31})
	r.clock = 40
	ticket.Put(value(2, "v", 20, 40)) // its waiters have read it
	r.wantAllowed(value(1, "old", 25, 26), false)
	r.wantAllowed(value(2, "v", 25, 26), true)
}

// A reader got a result that is older than what others have read. A load in flight may return an even older one.
func TestUnstoredOlderResultRequiresANewLoad(t *testing.T) {
	for _, version := range []int64{0, 1} {
		r := newRig(t)
		r.put(value(version, "v", 12, 15))
		late, early := r.take(Load, 20), r.take(Load, 22)
		r.put(notFound(30, 31)) // and it was deleted after those had read the row
		r.clock = 200
		r.Sweep()
		r.clock = 210
		late.Put(value(version, "v", 20, 210))
		r.wantAllowed(value(version, "v", 22, 205), false)
		r.wantAllowed(value(version, "v", 150, 160), false)
		r.clock = 220
		if _, stored := early.Put(value(version, "v", 22, 220)); stored {
			t.Errorf("version %d: a load from before is stored", version)
		}
		r.put(value(version, "new", 230, 235))
	}
}

func TestWriteReplacesWhatWasThere(t *testing.T) {
	for _, version := range []int64{0, 2} {
		for _, kind := range []Kind{Commit, RemoteCommit} {
			r := newRig(t)
			r.put(value(version/2, "old", 20, 25))
			load, write := r.take(Load, 30), r.take(kind, 31)
			r.clock = 40
			if _, stored := write.Put(value(version, "written", 31, 40)); stored != (kind == Commit) {
				t.Errorf("kind %d: stored %t", kind, stored)
			}
			if _, stored := load.Put(value(version/2, "old", 30, 41)); stored {
				t.Error("a load from before the write is stored after it")
			}
			r.wantAllowed(value(version/2, "old", 30, 33), false)
			if held, ok := r.Peek("k"); ok && string(held.Value) != "written" {
				t.Errorf("%q is held after the write", held.Value)
			}
		}
	}
}

// The invalidation may be of a later change.
func TestWriteFromBeforeAnInvalidationIsNotStored(t *testing.T) {
	for _, version := range []int64{0, 2} {
		r := newRig(t)
		write := r.take(Commit, 20)
		r.clock = 30
		r.Invalidate("k", Bound{MinLoadTime: 31})
		r.clock = 40
		if _, stored := write.Put(value(version, "written", 20, 40)); stored {
			t.Errorf("version %d: the result of a write is stored after an invalidation", version)
		}
		r.wantNone()
	}
}

func TestEarlierOfTwoConcurrentWritesIsNotCached(t *testing.T) {
	for _, version := range []int64{0, 2} {
		r := newRig(t)
		first, second := r.take(Commit, 20), r.take(Commit, 21)
		r.clock = 30
		second.Put(value(version, "second", 21, 30))
		first.Put(value(version/2, "first", 20, 31))
		if held, ok := r.Peek("k"); ok && string(held.Value) == "first" {
			t.Errorf("version %d: the earlier write is cached", version)
		}
		r.wantAllowed(value(version/2, "first", 20, 31), false)
	}
}

func TestWriteDoesNotReplaceWhatWasReadWhileItRan(t *testing.T) {
	r := newRig(t)
	write := r.take(Commit, 20)
	r.put(value(0, "read", 25, 30)) // it may be later than the write
	r.clock = 40
	write.Put(value(0, "written", 20, 40))
	r.wantNone()
	r.wantAllowed(value(0, "written", 20, 40), false)
	r.wantAllowed(value(0, "read", 25, 30), false)
}

// The write is later than the entry, whatever the versions: a backup may have been restored in between.
func TestWriteWithALowerVersionReplacesTheEntry(t *testing.T) {
	for _, kind := range []Kind{Commit, RemoteCommit} {
		r := newRig(t)
		r.put(value(9, "before the restore", 20, 25))
		write := r.take(kind, 30)
		r.clock = 40
		write.Put(value(6, "written", 30, 40))
		if held, ok := r.Peek("k"); ok && string(held.Value) != "written" {
			t.Errorf("kind %d: %q is read after the write", kind, held.Value)
		}
		r.evict()
		r.wantAllowed(value(9, "before the restore", 26, 27), true) // a hint: versions decide where loads overlap
		r.wantAllowed(value(6, "written", 30, 45), true)
		r.wantAllowed(value(5, "restored", 26, 27), false)
	}
}

func TestDeletionRemovesAValueLoadedDuringIt(t *testing.T) {
	r := newRig(t)
	deletion := r.take(Commit, 20)
	r.put(value(1, "v", 19, 25))
	r.Invalidate("other key of the epoch", Bound{MinLoadTime: 26})
	r.epochs.of("k").Add(1)
	r.clock = 40
	deletion.Put(notFound(20, 40))
	r.wantNone()
	r.wantAllowed(value(1, "v", 19, 25), false)
}

// What follows are the cases in which a version that is too high once disabled caching of a key until a restart.

const tooHigh = 1<<63 - 1

func TestLoadAfterAReportedVersionIsStored(t *testing.T) {
	for name, tc := range map[string]struct {
		learn func(r *rig)
		kind  Kind
	}{
		"invalidation, then a load":   {func(r *rig) { r.Invalidate("k", Bound{Version: tooHigh, AsOf: r.clock + 1}) }, Load},
		"invalidation, then a copy":   {func(r *rig) { r.Invalidate("k", Bound{Version: tooHigh, AsOf: r.clock + 1}) }, Copy},
		"read and evicted, then load": {func(r *rig) { r.put(value(9, "v", 20, 25)); r.evict() }, Load},
		"written, then a load": {func(r *rig) {
			write := r.take(RemoteCommit, 20)
			r.clock = 25
			write.Put(value(9, "v", 20, 25))
		}, Load},
	} {
		r := newRig(t)
		r.clock = 20
		tc.learn(r)
		r.wantAllowed(value(5, "older", 15, 16), false)
		ticket := r.take(tc.kind, 40)
		r.clock = 45
		if _, stored := ticket.Put(value(5, "restored", 40, 45)); !stored {
			t.Errorf("%s: a load that began after the bound was learned is not stored", name)
		}
		r.evict()
		if b := r.BoundOf("k"); b.Version != 5 {
			t.Errorf("%s: the bound is %+v; want it replaced by the load", name, b)
		}
	}
}

func TestBoundsExpireWhateverIsReadMeanwhile(t *testing.T) {
	r, learned := newRig(t), int64(10)
	for at := int64(0); at < 3*freshLife; at += 10 {
		r.clock = learned + at
		if at == 0 {
			r.Invalidate("k", Bound{Version: tooHigh, AsOf: r.clock + 1})
		} else {
			r.Invalidate("k", Bound{Version: 4, AsOf: r.clock + 1})
		}
		want := int64(4)
		if at < freshLife {
			want = tooHigh
		}
		if b := r.BoundOf("k"); b.Version != want {
			t.Fatalf("after %d the bound is %+v; want version %d", at, b, want)
		}
	}
	r.clock += freshLife
	if b := r.BoundOf("k"); b != (Bound{}) {
		t.Errorf("the bound is %+v; want none", b)
	}
}

func TestInvalidationOfEverythingClearsBounds(t *testing.T) {
	r := newRig(t)
	r.put(value(9, "v", 20, 25))
	r.evict()
	r.Invalidate("other", Bound{Version: tooHigh, AsOf: r.clock + 1})
	load := r.take(Load, 30)
	r.clock = 40
	r.InvalidatePrefix("", r.clock+1)
	if n, _ := r.Bounds(); n != 0 {
		t.Errorf("%d bounds; want none", n)
	}
	r.wantAllowed(value(9, "v", 30, 31), false)
	if _, stored := load.Put(value(9, "v", 30, 45)); stored {
		t.Error("a load from before is stored")
	}
	r.put(value(5, "restored", 50, 55))
}

func TestLowerTTLDoesNotShortenBounds(t *testing.T) {
	r := newRig(t)
	r.SetLifetimes(1, 1)
	r.put(value(2, "v", 20, 25))
	r.evict()
	r.clock = staleLife
	r.wantAllowed(value(1, "old", 10, 15), false)
}

func TestBoundsAreLimited(t *testing.T) {
	r := newRig(t)
	_, most := r.Bounds()
	for i := range 2 * most {
		r.Invalidate(fmt.Sprint(i), Bound{MinLoadTime: r.clock + 1})
	}
	if n, _ := r.Bounds(); n > most || n == 0 || r.boundsEvicted.Load() == 0 {
		t.Errorf("%d bounds of at most %d, %d evicted", n, most, r.boundsEvicted.Load())
	}
	r = newRig(t)
	for i := range most {
		r.Invalidate(fmt.Sprint(strings.Repeat("k", 1000), i), Bound{MinLoadTime: r.clock + 1})
	}
	if n, _ := r.Bounds(); n == 0 || n > most*boundKeyBytes/1000 {
		t.Errorf("%d bounds of keys of 1000 bytes; want at most %d", n, most*boundKeyBytes/1000)
	}
}

func TestChangedIsCalledForDifferentValuesOnly(t *testing.T) {
	r := newRig(t)
	r.put(value(1, "v", 20, 25))
	r.put(value(1, "v", 30, 35))
	r.put(value(2, "w", 40, 45))
	if len(r.changes) != 2 {
		t.Errorf("%d changes; want 2", len(r.changes))
	}
}
