package entries

// Kind is how the result comes that a Ticket stores. It decides which checks apply.
type Kind uint8

// The kinds.
const (
	// Load is a query of this member to the origin. The epoch tells exactly which invalidations came after it began.
	Load Kind = iota
	// Copy is an answer of another member, which may not have received an invalidation yet.
	Copy
	// Commit is a write of this member to the origin.
	Commit
	// RemoteCommit is a write by another member. Its result is not cached here.
	RemoteCommit
)

// Ticket is the permission to store one result of a key. It is worth nothing once the key has been invalidated.
type Ticket struct {
	store *Store
	key   string
	kind  Kind
	// Began is when the ticket was taken: before the load, the request to the other member, or the write.
	Began              int64
	epoch              uint32
	expirations, after uint64 // after is the last invalidation of a prefix
}

// Begin returns a Ticket for a result of key. Call it before the request to the origin or the other member.
func (s *Store) Begin(key string, kind Kind) Ticket {
	return Ticket{
		store: s, key: key, kind: kind, Began: s.now(),
		epoch: s.epochs.of(key).Load(), expirations: s.expirations.Load(), after: s.bounds.prefixes.sequence.Load(),
	}
}

// Put stores e, unless its key was invalidated since the ticket was taken or e is older than what readers here know. It
// returns the winner: what later reads get, or e if nothing newer is known. The readers that wait for e may have the
// winner in any case.
func (t Ticket) Put(e *Entry) (winner *Entry, stored bool) {
	if t.kind == Load || t.kind == Copy {
		return t.put(e)
	}
	return t.putWrite(e)
}

// put is the one place that decides which result replaces which.
func (t Ticket) put(e *Entry) (winner *Entry, stored bool) {
	s, changed, replaced := t.store, false, false
	winner = e
	stored = s.entries.Update(t.key, len(e.Value), func(held *Entry, ok bool) (*Entry, bool) {
		switch now := s.now(); {
		case !t.valid(e):
			s.discarded.Add(1)
			return nil, false
		case ok && held.Fresh(now) && held.outranks(e): //guard:older-version-replaces-newer-one
			winner = held
			return nil, false
		case ok && !held.Bound().Allows(e, e.Began): //guard:load-replaces-what-was-read-while-it-ran
			return nil, false
		}
		e.Pinned = e.Pinned || ok && held.Pinned && e.staysPinned() //guard:read-of-a-pinned-entry-unpins-it
		if ok {
			e.inheritUses(held)
		}
		s.replaceBound(t.key, e, ok && !held.NotFound)
		replaced = ok && !held.same(e)
		changed = !ok || replaced
		return e, true
	})
	switch {
	case stored && changed:
		s.changed(t.key)
		if replaced { // a first entry is no news to those who note many keys: memory may be too small for all of them
			s.replaced(t.key)
		}
	case !stored && winner == e:
		e.expired.Store(true) //guard:unstored-answer-may-be-reused
		s.observeUnstored(t.key, e)
	}
	return winner, stored
}

// valid reports whether e may be stored. It is called under the lock that an invalidation takes to remove the entry.
func (t Ticket) valid(e *Entry) bool {
	s := t.store
	b := s.bounds.of(t.key, t.Began)
	if t.kind == Copy {
		if s.expirations.Load() != t.expirations { //guard:copy-is-stored-after-its-owner-was-lost
			return false
		}
	} else {
		b.MinLoadTime = 0 // the epoch is more exact
	}
	if s.bounds.invalidatedSince(t.key, t.after) { //guard:load-is-stored-after-an-invalidation-of-its-prefix
		return false
	}
	return s.epochs.of(t.key).Load() == t.epoch && b.Allows(e, e.Began) //guard:load-is-stored-after-an-invalidation guard:load-is-stored-below-an-evicted-entry
}

// replaceBound forgets the bound that was learned before the load of e, which is stored now. existed tells that e takes
// the place of a value.
func (s *Store) replaceBound(key string, e *Entry, existed bool) {
	existed = existed || s.bounds.knows(key, s.now())
	s.bounds.replace(key, e.Began, s.now())
	if e.NotFound && existed { //guard:deleted-row-returns-after-a-sweep guard:keys-that-never-existed-evict-bounds
		s.observe(key, e) // its eviction will not
	}
}

// observeUnstored remembers that some readers get e although it is not cached. Where others may have read what is later
// than e, only what is loaded from now on is surely not older than either: loads under way are discarded.
func (s *Store) observeUnstored(key string, e *Entry) {
	now := s.now()
	if s.BoundOf(key).Allows(e, e.Began) {
		s.observe(key, e) //guard:unstored-result-leaves-no-bound
		s.removeForbidden(key, e.Bound())
		return
	}
	// First the epoch: requireLoad forgets the bound that the loads under way must meet.
	s.epochs.of(key).Add(1)                                            //guard:load-under-way-restores-a-deleted-row
	s.count(s.bounds.requireLoad(key, now+1, now, s.staleLife.Load())) //guard:late-stale-answer-restores-a-deleted-row
	s.removeForbidden(key, Bound{MinLoadTime: now + 1})
}

// putWrite makes the result of a write what is known of its key, and stores it if this member made the write. Where
// anything else has happened to the key since the write began, the order is unknown, and nothing is cached.
func (t Ticket) putWrite(e *Entry) (winner *Entry, stored bool) {
	s := t.store
	s.observe(t.key, e) //guard:writer-reads-what-was-there-before
	epoch := s.epochs.of(t.key).Add(1)
	alone := t.kind == Commit && epoch == t.epoch+1 && !s.bounds.invalidatedSince(t.key, t.after) //guard:write-is-stored-after-an-invalidation
	s.entries.RemoveKeyIf(t.key, func(held *Entry) bool {
		return !s.outlives(t.key, held, e)
	})
	t.epoch, winner = epoch, e
	if alone {
		winner, stored = t.put(e)
	}
	s.changed(t.key)
	s.replaced(t.key)
	return winner, stored
}

// outlives reports whether held may stay the entry of key after the write e. One that may have been later than e leaves
// its bound behind.
func (s *Store) outlives(key string, held, e *Entry) bool {
	switch {
	case e.Began >= held.Seen: //guard:write-with-a-lower-version-is-hidden
		return false
	case e.Bound().Allows(held, held.Began): //guard:deleted-row-is-read-after-the-deletion
		return true
	}
	s.observeEvicted(key, held)
	return false
}
