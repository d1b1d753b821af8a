package cache

import (
	"context"

	"github.com/ringside-cache/ringside/sidecar/internal/coalesce"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Invalidate invalidates what s selects on every member, and returns when all members that can be reached have done so.
func (d *Dataset) Invalidate(ctx context.Context, s kv.Scope) (kv.InvalidateResult, error) {
	list, err := s.Invalidations(d.name)
	if err != nil {
		return kv.InvalidateResult{}, err
	}
	for _, i := range list {
		d.ApplyInvalidation(i)
	}
	result, err := d.invalidator.broadcasts.Do(ctx, list)
	if err != nil {
		err = d.callersError(ctx, err)
	}
	return result, err
}

// everywhere sends what was requested to all other members.
func (v *invalidator) everywhere(ctx context.Context, list []kv.Invalidation) kv.InvalidateResult {
	reached, unreached := v.peers.Broadcast(ctx, kv.MergeInvalidations(list))
	return kv.InvalidateResult{Members: reached + 1, Unreached: unreached}
}

// ApplyInvalidation removes what i selects from this member's memory. A load that began before is not stored, later reads
// do not wait for it, and nothing older is accepted from another member.
func (d *Dataset) ApplyInvalidation(i kv.Invalidation) { d.invalidator.apply(i) }

// ExpireFrom expires all local copies of a member's entries: its invalidations may have been missed. They remain read
// bounds and stale answers.
func (d *Dataset) ExpireFrom(member string) {
	d.stats.CopiesExpired.Add(1)
	d.store.ExpireFrom(member)
	d.fetcher.fetches.ForgetAll()
	d.fetcher.through.ForgetAll()
	d.invalidator.watches.NotePrefix("")
}

// ExpireAll expires every entry: changes that a feed should have reported may have been missed. The entries remain read
// bounds and stale answers: a database that has just returned may fail again.
func (d *Dataset) ExpireAll() {
	d.store.ExpireAll()
	d.fetcher.loads.ForgetAll()
	d.fetcher.fetches.ForgetAll()
	d.fetcher.through.ForgetAll()
	d.invalidator.watches.NotePrefix("")
	d.warm.Everything() //guard:expired-entries-stay-expired-in-an-outage
}

// invalidator removes entries, detaches the flights that began before, and notifies watches.
type invalidator struct {
	*core
	fetcher *fetcher
	watches *watches.Set
	// broadcasts merges requests to invalidate that come while one is sent to the other members.
	broadcasts *coalesce.Merger[kv.Invalidation, kv.InvalidateResult]
}

func (v *invalidator) apply(i kv.Invalidation) {
	v.stats.Invalidations.Add(1)
	now := v.now()
	switch {
	case i.Prefix: // a version is one of a single row
		v.store.InvalidatePrefix(i.Key, now+1-int64(kv.BoundDuration(i.Age)))
		v.fetcher.loads.ForgetPrefix(i.Key) //guard:reader-after-a-prefix-invalidation-joins-an-older-load
		v.fetcher.through.ForgetPrefix(i.Key)
		v.fetcher.fetches.ForgetPrefix(i.Key) // others go on: they have nothing to do with it
		v.watches.NotePrefix(i.Key)
		v.warm.Everything()
	case i.Version > 0: //guard:negative-version-invalidates-nothing
		// the version of an entry for a row that does not exist decides nothing
		v.one(i.Key, entries.Bound{Version: i.Version, AsOf: now + 1})
	default:
		v.one(i.Key, entries.Bound{MinLoadTime: now + 1 - int64(kv.BoundDuration(i.Age))})
	}
}

func (v *invalidator) one(key string, b entries.Bound) {
	v.watches.NoteInRanges(key) //guard:change-is-not-noted-because-a-read-was-faster
	if !v.store.Invalidate(key, b) {
		return
	}
	v.fetcher.forget(key) //guard:reader-after-an-invalidation-joins-an-older-load
	v.watches.Note(key)   //guard:watch-misses-an-invalidation
	v.warm.Changed(key)   //guard:changed-row-is-missing-in-an-outage
}
