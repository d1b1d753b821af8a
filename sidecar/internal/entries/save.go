package entries

import (
	"slices"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/saved"
	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// The kinds of saved records.
const (
	observedRecord = iota + 1 // what readers were sent, without an entry
	reportedRecord            // what others have invalidated
	prefixRecord
	entryRecord
	endRecord
)

// Save writes the read bounds, and then the entries, those used last first. Nothing may use s meanwhile.
func (s *Store) Save(w *saved.Writer) {
	now, life := s.now(), s.staleLife.Load()
	w.Int(s.freshLife.Load())
	w.Int(life)
	s.bounds.save(w, now)
	s.entries.ByUse(func(key string, e *Entry) bool {
		if !e.Usable(now) && s.isWorthABound(e, now) { //guard:row-that-is-gone-returns-after-a-restart
			saveBound(w, observedRecord, key, remembered{e.Bound(), now + life}, now+life)
		}
		return w.Err() == nil
	})
	s.entries.ByUse(func(key string, e *Entry) bool {
		if e.Usable(now) {
			saveEntry(w, key, e)
		}
		return w.Err() == nil
	})
	w.Int(endRecord)
}

func (m *memory) save(w *saved.Writer, now int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for kind, bounds := range map[int64]*ttlmap.Map[remembered]{observedRecord: m.observed, reportedRecord: m.reported} {
		bounds.All(now, func(key string, b remembered, until int64) { saveBound(w, kind, key, b, until) })
	}
	for prefix, held := range m.prefixes.byPrefix {
		if now < held.until {
			saveBound(w, prefixRecord, prefix, remembered{held.Bound, held.until}, held.until)
		}
	}
}

func saveBound(w *saved.Writer, kind int64, key string, b remembered, until int64) {
	w.Int(kind)
	w.String(key)
	w.String(b.Tag)
	for _, n := range []int64{until, b.versionUntil, b.Version, b.AsOf, b.TagSince, b.MinLoadTime, b.DeletedAfter} {
		w.Int(n)
	}
}

func saveEntry(w *saved.Writer, key string, e *Entry) {
	w.Int(entryRecord)
	w.String(key)
	w.String(e.ETag)
	w.String(e.Owner)
	w.Bytes(e.Value)
	for _, flag := range []bool{e.NotFound, e.Pinned} {
		n := int64(0)
		if flag {
			n = 1
		}
		w.Int(n)
	}
	for _, n := range []int64{
		e.Version, int64(e.Content), int64(e.Reason), e.Began, e.Took, e.Seen, e.FreshUntil, e.RevalidateUntil, e.StaleUntil,
	} {
		w.Int(n)
	}
}

// Saved is what a Store of another process has saved.
type Saved struct {
	freshLife, staleLife time.Duration
	bounds               []savedBound
	entries              []savedEntry // those used last first
	shift                int64
	room, boundRoom      int64 // bytes

	// Omitted counts the entries for which there was no room: of these, there are bounds.
	Omitted int
	// BoundsOmitted counts bounds for which there was no room.
	BoundsOmitted int
}

type savedBound struct {
	kind  int64
	key   string
	bound remembered
	until int64
}

type savedEntry struct {
	key   string
	entry *Entry
}

const (
	// boundShare is the part of the room for the bounds of entries that find none.
	boundShare = 8
	// boundOverhead is about what a bound takes beside its key, in the map and while it is read; entryOverhead is what an entry
	// takes beside its key and its value.
	boundOverhead = 256
	entryOverhead = int64(overhead) + 144 // see package lru
)

// Len returns how many entries there were.
func (s *Saved) Len() int { return len(s.entries) + s.Omitted }

// ReadSaved reads what Save has written, as much as there is room for. shift is what must be added to a time of the other process
// to make it one of this process. What it returns is right if the Reader has no error in the end.
func ReadSaved(r *saved.Reader, room, shift int64) *Saved {
	s := &Saved{shift: shift, room: room - room/boundShare, boundRoom: room / boundShare}
	s.freshLife, s.staleLife = kv.BoundDuration(time.Duration(r.Int())), kv.BoundDuration(time.Duration(r.Int()))
	for {
		switch kind := r.Int(); kind {
		case observedRecord, reportedRecord, prefixRecord:
			s.readBound(r, kind)
		case entryRecord:
			s.readEntry(r)
		case endRecord:
			return s
		default:
			r.Fail()
		}
		if r.Err() != nil {
			return s
		}
	}
}

func (s *Saved) readBound(r *saved.Reader, kind int64) {
	b := savedBound{kind: kind}
	r.Allow(s.room - boundOverhead)
	key, hasKey := r.String()
	tag, hasTag := r.String()
	b.key, b.bound.Tag = key, tag
	b.until, b.bound.versionUntil, b.bound.Version = s.time(r), s.time(r), r.Int()
	b.bound.AsOf, b.bound.TagSince, b.bound.MinLoadTime, b.bound.DeletedAfter = s.time(r), s.time(r), s.time(r), s.time(r)
	if !hasKey || !hasTag {
		s.BoundsOmitted++
		return
	}
	s.room = r.Room()
	s.bounds = append(s.bounds, b)
}

func (s *Saved) readEntry(r *saved.Reader) {
	e := &Entry{}
	r.Allow(s.boundRoom - boundOverhead)
	key, hasKey := r.String()
	etag, hasETag := r.String()
	boundRoom := r.Room()
	room := s.room - entryOverhead - int64(len(key))
	if s.Omitted > 0 { //guard:old-small-entry-is-restored-instead-of-a-recent-one
		room = 0
	}
	r.Allow(room)
	owner, hasOwner := r.String()
	value, hasValue := r.Bytes()
	e.ETag, e.Owner, e.Value = etag, owner, value
	e.NotFound, e.Pinned = r.Int() != 0, r.Int() != 0
	e.Version, e.Content, e.Reason = r.Int(), origin.Content(r.Int()), Reason(r.Int())
	e.Began, e.Took, e.Seen = s.time(r), r.Int(), s.time(r)
	e.FreshUntil, e.RevalidateUntil, e.StaleUntil = s.time(r), s.time(r), s.time(r)
	switch {
	case e.Reason > WarmUp || e.Content > origin.ContentBytes || e.Began > e.Seen:
		r.Fail()
	case hasKey && hasETag && hasOwner && hasValue:
		s.room = r.Room()
		e.expired.Store(true) //guard:restored-entry-is-fresh
		s.entries = append(s.entries, savedEntry{key, e})
	case hasKey && hasETag:
		s.Omitted++
		if e.NotFound && e.Version == 0 {
			return // see Store.isWorthABound
		}
		s.boundRoom = boundRoom
		until := e.Seen + int64(s.staleLife)
		s.bounds = append(s.bounds, savedBound{observedRecord, key, remembered{e.Bound(), until}, until}) //guard:omitted-entry-leaves-no-bound
	default:
		s.Omitted++
		s.BoundsOmitted++
	}
}

// time returns the next number as a time of this process. 0 is no time.
func (s *Saved) time(r *saved.Reader) int64 {
	at := r.Int()
	if at == 0 {
		return 0
	}
	return max(at+s.shift, 1)
}

// Restore adds what another process has saved to s: first the bounds, and then the entries, unless what is known here already
// forbids them. They are expired: what has changed since they were saved is unknown. It returns how many entries it has added.
func (s *Store) Restore(from *Saved) (restored int) {
	s.freshLife.Store(max(s.freshLife.Load(), int64(from.freshLife)))
	s.staleLife.Store(max(s.staleLife.Load(), int64(from.staleLife)))
	s.boundsEvicted.Add(int64(from.BoundsOmitted))
	now := s.now()
	for _, b := range from.bounds {
		if now < b.until {
			s.count(s.bounds.restore(b, now, s.staleLife.Load())) //guard:bounds-are-lost-in-a-restart
		}
	}
	for _, one := range slices.Backward(from.entries) { // what is stored last is evicted last
		if one.entry.Seen > now {
			continue // it is from the future
		}
		if _, stored := s.Begin(one.key, Copy).Put(one.entry); stored { //guard:restored-entry-ignores-an-invalidation
			restored++
		}
	}
	return restored
}

// restore is for a bound of another process, which lives no shorter than there.
func (m *memory) restore(b savedBound, now, life int64) (evicted int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	life = max(life, b.until-now)
	bounds := m.observed
	switch b.kind {
	case prefixRecord:
		m.prefixes.add(b.key, b.bound.Bound, now, life)
		return 0
	case reportedRecord:
		bounds = m.reported
	}
	held := boundIn(bounds, b.key, now)
	next := remembered{held.Merge(b.bound.Bound), max(held.versionUntil, b.bound.versionUntil)}
	return bounds.Put(b.key, next, len(b.key), now, life)
}
