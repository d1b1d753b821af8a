package cache

import (
	"context"
	"strings"
)

// Invalidate drops what s says on every member, and returns when all that can be reached have done so.
func (d *Dataset) Invalidate(ctx context.Context, s Scope) (InvalidateResult, error) {
	list, err := d.invalidations(s)
	if err != nil {
		return InvalidateResult{}, err
	}
	for _, i := range list {
		d.ApplyInvalidation(i)
	}
	told, unreached := d.peers.Broadcast(ctx, list)
	return InvalidateResult{Members: told + 1, Unreached: unreached}, nil
}

func (d *Dataset) invalidations(s Scope) ([]Invalidation, error) {
	if len(s.Keys) == 0 {
		return []Invalidation{{Dataset: d.name, Key: s.Prefix, Prefix: true}}, nil
	}
	list := make([]Invalidation, len(s.Keys))
	for i, key := range s.Keys {
		if err := CheckKey(key); err != nil {
			return nil, err
		}
		list[i] = Invalidation{Dataset: d.name, Key: strings.Clone(key)}
	}
	return list, nil
}

// Drop drops what i says from this member's memory. A load that began before is not stored, later reads do not wait for
// it, and nothing older is taken from another member.
func (d *Dataset) ApplyInvalidation(i Invalidation) {
	d.stats.Invalidations.Add(1)
	now := d.now()
	f := floor{version: i.Version, asOf: now + 1} // that of an absent entry does not tell
	if i.Version == 0 {
		f = floor{anew: now + 1 - int64(bounded(i.Age))}
	}
	if i.Prefix {
		d.dropPrefix(i.Key, f)
		return
	}
	d.drop(i.Key, f)
}

// drop makes f the floor of key and drops what is below it. An entry that has the version already is left alone: most
// invalidations come back to those who caused them.
func (d *Dataset) drop(key string, f floor) {
	if held, ok := d.store.Peek(key); ok && f.version != 0 && held.version >= f.version {
		return
	}
	d.forgot(d.floors.tell(key, f, d.now(), d.freshLife.Load())) //guard:owner-heard-answers-invalid
	d.fences.of(key).Add(1)
	d.dropBelow(key, f)
	d.loads.Forget(key) //guard:reader-after-invalidation-joins-load-before
	d.hops.Forget(key)
	d.watches.note(key) //guard:watch-told-invalidation
}

// dropBelow drops an entry that is below f. Readers have seen it: nothing older may take its place.
func (d *Dataset) dropBelow(key string, f floor) {
	d.store.RemoveKeyIf(key, func(held *entry) bool {
		if f.admits(held, held.began) {
			return false
		}
		d.evicted(key, held)
		return true
	})
}

func (d *Dataset) dropPrefix(prefix string, f floor) {
	d.floors.tellAll(f, d.now(), d.staleLife.Load())
	d.fences.raiseAll()
	d.store.RemoveIf(func(key string, held *entry) bool {
		return strings.HasPrefix(key, prefix) && !f.admits(held, held.began)
	})
	d.loads.ForgetAll()
	d.hops.ForgetAll()
	d.watches.notePrefix(prefix)
}

// ExpireFrom ends every local copy of another member's entries: its invalidations may have been missed. They stay what
// readers have seen, and may be given as stale answers.
func (d *Dataset) ExpireFrom(member string) {
	d.stats.CopiesExpired.Add(1)
	//guard:copy-way-when-copies-end-held
	d.copiesEnded.Add(1) // what is on its way, too
	d.end(func(held *entry) bool { return held.owner == member })
}

// ExpireAll ends every entry: changes of which a feed should have told may have been missed. They stay what readers have
// seen, and may be given as stale answers: a database that comes back is not sure to stay.
func (d *Dataset) ExpireAll() {
	//guard:load-way-through-gap-feed-kept
	d.fences.raiseAll() // what is on its way, too
	d.loads.ForgetAll()
	d.end(func(*entry) bool { return true })
}

func (d *Dataset) end(which func(*entry) bool) {
	d.store.RemoveIf(func(_ string, held *entry) bool {
		if which(held) {
			held.ended.Store(true) //guard:copies-lost-their-owner
		}
		return false
	})
	d.hops.ForgetAll()
	d.watches.notePrefix("")
}

// see notes what readers here have been given, or have written, where no entry tells.
func (d *Dataset) see(key string, f floor) {
	d.forgot(d.floors.see(key, f, d.now(), d.staleLife.Load()))
}

func (d *Dataset) forgot(floors int) {
	if floors > 0 {
		d.stats.BoundsEvicted.Add(int64(floors))
	}
}

// evicted keeps what readers have seen of an entry that has to go. A key that was never there is not worth it: to ask
// for such keys, which anybody can, would make those that are be forgotten. See keep for one that was.
func (d *Dataset) evicted(key string, e *entry) {
	if d.now() < e.began+d.staleLife.Load() && (!e.absent || e.version != 0) { //guard:had-make-room-read-before
		d.see(key, e.floor())
	}
}

// Bounds returns how many keys have a floor without an entry, and how many can have one.
func (d *Dataset) Bounds() (n, most int) {
	return d.floors.len(), 2 * (d.floors.seen.max + d.floors.told.max)
}

// RingChanged says that keys may have other owners now. What this member loaded as the owner of a key is from then on no
// better than a local copy, of which nobody says when it is outdated.
func (d *Dataset) RingChanged() {
	d.ringChanged.Store(d.now())
	d.cautious.Store(true)
}

// SetFeedLive says whether all changes are told by a feed. While they are not, entries live for Policy.GapTTL at most.
func (d *Dataset) SetFeedLive(live bool) {
	if was := d.feedLive.Swap(live); was && !live {
		d.stats.FeedGaps.Add(1)
	}
	d.cautious.Store(true) // until an entry is looked at, and all is well
}

// FeedLive reports whether the dataset's feed is live, and whether it has one.
func (d *Dataset) FeedLive() (live, has bool) { return d.feedLive.Load(), d.Policy().GapTTL > 0 }

// inGap reports whether changes are made that nobody tells of, although somebody should.
func (d *Dataset) inGap(p Policy) bool { return p.GapTTL > 0 && !d.feedLive.Load() }

// distrusts reports whether an entry must not be used although it is fresh: because of a gap in the feed, or because its
// key has another owner now. It is asked only while something is out of the ordinary.
func (d *Dataset) distrusts(key string, e *entry, now int64) bool {
	p := d.Policy()
	gap, changed := d.inGap(p), d.ringChanged.Load()
	if gap && now >= e.began+int64(p.GapTTL) { //guard:entries-outlive-gap-feed
		return true
	}
	if !gap && now >= changed+int64(p.TTL) && d.cautious.CompareAndSwap(true, false) {
		// Both may have changed since they were looked at.
		if d.inGap(p) || d.ringChanged.Load() != changed {
			d.cautious.Store(true)
		}
		return false
	}
	if e.local() || e.began >= changed || now < changed+int64(p.LocalTTL) {
		return false
	}
	return d.peers.Route(d.name, key).Owner != nil //guard:former-owner-answers-from-loaded
}

// good reports whether an entry may be given as a fresh answer.
func (d *Dataset) good(key string, e *entry, now int64) bool {
	return e.fresh(now) && !(d.cautious.Load() && d.distrusts(key, e, now))
}
