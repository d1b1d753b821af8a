package entries

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// TestAgainstModel runs random events on a Store and holds it against a model: per key, the list of states that the origin
// has had, the latest one that readers were sent, and the list of invalidations. Nothing that is stored, and nothing that a
// bound allows, may be older than what readers were sent, or loaded before an invalidation.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		for _, versions := range []versioning{none, rising, falling} {
			m := newModel(t, seed, versions)
			for range 400 {
				m.step()
				if t.Failed() {
					t.Fatalf("seed %d, versions %d", seed, versions)
				}
			}
			m.end()
		}
	}
}

var modelKeys = []string{"a", "ab"}

// versioning is how the versions of rows develop.
type versioning int

const (
	none    versioning = iota
	rising             // as a version column does
	falling            // at random, as after restored backups
)

const (
	maxLoad  = 20 // how long a load may run
	modelTTL = 60
)

type model struct {
	*rig
	rand     *rand.Rand
	versions versioning
	keys     map[string]*modelKey
	running  []*operation
}

// modelKey is what the model knows of one key.
type modelKey struct {
	states      []state
	sent        int   // the latest state that readers were sent; -1: none
	invalidated int64 // when all that was loaded before was invalidated
	// forgettable: the entry is of a row that, as far as readers here know, has never existed.
	forgettable bool
}

// state is what the origin had of a key from a time on.
type state struct {
	at       int64
	version  int64
	notFound bool
	wrong    bool // its rows cannot be a value
}

// operation is a load, a copy or a write that runs.
type operation struct {
	key    string
	ticket Ticket
	began  int64
	state  int // that it has read or written; -1: not yet
	write  bool
}

func newModel(t *testing.T, seed uint64, versions versioning) *model {
	m := &model{
		rig: newRig(t), rand: rand.New(rand.NewPCG(seed, 0)), versions: versions, keys: map[string]*modelKey{},
	}
	m.Store.freshLife.Store(modelTTL + maxLoad)
	m.Store.staleLife.Store(2*modelTTL + maxLoad)
	if seed%2 == 1 {
		m.bounds.prefixes = newPrefixes(2) // most are replaced by shorter ones
	}
	for _, key := range modelKeys {
		m.keys[key] = &modelKey{sent: -1, states: []state{{at: 0, version: m.version(nil)}}}
	}
	return m
}

func (m *model) version(before []state) int64 {
	switch m.versions {
	case rising:
		return int64(len(before)) + 1
	case falling:
		return 1 + m.rand.Int64N(9)
	}
	return 0
}

func (m *model) change(k *modelKey) int {
	m.clock++
	next := state{at: m.clock, version: m.version(k.states), notFound: m.rand.IntN(4) == 0}
	next.wrong = !next.notFound && m.rand.IntN(5) == 0
	k.states = append(k.states, next)
	return len(k.states) - 1
}

// entry returns the entry of a state.
func (m *model) entry(k *modelKey, n int, began int64) *Entry {
	s := k.states[n]
	e := &Entry{
		NotFound: s.notFound, Began: began, Took: m.clock - began, Seen: m.clock, FreshUntil: began + 1 + m.rand.Int64N(modelTTL),
	}
	switch {
	case s.wrong:
		e.DataError = origin.SeveralRows
	case !s.notFound:
		e.Version, e.Value, e.ETag = s.version, fmt.Append(nil, n), fmt.Sprintf("\"%d\"", n)
	}
	e.Took = int64(n) // which state it is: the Store does not use it
	e.setStaleWindows(kv.Policy{TTL: modelTTL, StaleIfError: modelTTL})
	return e
}

func (m *model) step() {
	m.clock += 1 + m.rand.Int64N(3)
	key := modelKeys[m.rand.IntN(len(modelKeys))]
	k := m.keys[key]
	switch m.rand.IntN(17) {
	case 0, 1, 2:
		m.begin(key, Load)
	case 3, 4:
		m.begin(key, []Kind{Commit, RemoteCommit}[m.rand.IntN(2)])
	case 5:
		m.copy(key, k)
	case 6:
		m.change(k)
	case 7:
		m.Invalidate(key, Bound{MinLoadTime: m.clock + 1})
		k.invalidated = m.clock
	case 8: // as a feed reports it
		if s := k.states[len(k.states)-1]; s.version != 0 {
			m.Invalidate(key, Bound{Version: s.version, AsOf: m.clock + 1})
		}
	case 9:
		if m.versions != none {
			m.Invalidate(key, Bound{Version: tooHigh, AsOf: m.clock + 1})
		}
	case 10:
		prefix := []string{"", "a", "ab", "abc", "b", "c"}[m.rand.IntN(6)]
		m.InvalidatePrefix(prefix, m.clock+1)
		for key, k := range m.keys {
			if strings.HasPrefix(key, prefix) {
				k.invalidated = m.clock
			}
		}
	case 11:
		m.ExpireFrom("owner")
	case 12:
		if m.rand.IntN(3) == 0 {
			m.ExpireAll()
		}
	case 13:
		m.removing(func() { m.Sweep() })
	case 14:
		m.removing(m.evict)
	case 15:
		m.cachingWorks(key, k)
	case 16:
		if m.rand.IntN(3) == 0 {
			m.removing(m.restart)
		}
	}
	m.advance()
	m.check()
}

func (m *model) begin(key string, kind Kind) {
	m.running = append(m.running, &operation{
		key: key, ticket: m.Begin(key, kind), began: m.clock, state: -1, write: kind == Commit || kind == RemoteCommit,
	})
}

// advance lets operations read or write, and end.
func (m *model) advance() {
	m.running = slices.DeleteFunc(m.running, func(o *operation) bool {
		k := m.keys[o.key]
		late := m.clock-o.began > maxLoad-5
		switch {
		case o.state < 0 && (late || m.rand.IntN(4) == 0):
			o.state = len(k.states) - 1
			if o.write {
				o.state = m.change(k)
			}
			return false
		case o.state >= 0 && (late || m.rand.IntN(4) == 0):
			m.put(o.key, o.ticket, m.entry(k, o.state, o.began))
			return true
		}
		return false
	})
}

// copy has another member answer with what it loaded a while ago.
func (m *model) copy(key string, k *modelKey) {
	ticket := m.Begin(key, Copy)
	n, began := m.past(k)
	m.clock++
	e := m.entry(k, n, began)
	e.Owner = "owner"
	if b := m.BoundOf(key); b.Allows(e, e.Began) { // otherwise no copy is requested
		m.put(key, ticket, e)
	}
}

// past returns a state that some member may still send, and when its load began.
func (m *model) past(k *modelKey) (n int, began int64) {
	oldest := max(m.clock-2*modelTTL, 0)
	n = m.rand.IntN(len(k.states))
	for n+1 < len(k.states) && k.states[n+1].at <= oldest {
		n++
	}
	from, to := max(k.states[n].at, oldest), m.clock
	if n+1 < len(k.states) {
		to = k.states[n+1].at - 1
	}
	read := from + m.rand.Int64N(to-from+1)
	return n, max(read-m.rand.Int64N(maxLoad), oldest, 0)
}

func (m *model) put(key string, ticket Ticket, e *Entry) {
	k := m.keys[key]
	held, ok := m.Peek(key)
	known := ok && !held.NotFound || m.bounds.knows(key, m.clock)
	winner, stored := ticket.Put(e)
	if stored {
		k.forgettable = e.NotFound && !known
	}
	k.sent = max(k.sent, int(winner.Took))
}

// removing runs what may remove entries. Rows that have never existed leave no bound; see observeEvicted.
func (m *model) removing(remove func()) {
	before := map[string]bool{}
	for key := range m.keys {
		_, before[key] = m.Peek(key)
	}
	remove()
	for key, k := range m.keys {
		if _, ok := m.Peek(key); before[key] && !ok && k.forgettable {
			k.sent = -1
		}
	}
}

// restart moves everything to the Store of another process. What is under way ends with the old one.
func (m *model) restart() {
	next := newRig(m.t)
	next.bounds.prefixes.most = m.bounds.prefixes.most
	next.freshLife.Store(modelTTL + maxLoad)
	next.staleLife.Store(2*modelTTL + maxLoad)
	next.clock, m.running = m.clock, nil
	if s := m.rig.restoreIn(next, 1<<20, 0); s.BoundsOmitted+s.Omitted > 0 {
		m.t.Errorf("at %d: %d bounds and %d entries were omitted; want none", m.clock, s.BoundsOmitted, s.Omitted)
	}
	next.now = func() int64 { return m.clock }
	m.Store = next.Store
}

// cachingWorks: a load that begins after all that was learned, while nothing else runs, is stored.
func (m *model) cachingWorks(key string, k *modelKey) {
	m.clock += 2
	n, began := len(k.states)-1, m.clock
	held, ok := m.Peek(key)
	ticket := m.Begin(key, Load)
	m.clock++
	e := m.entry(k, n, began)
	hidden := ok && held.Fresh(m.clock) && held.outranks(e) // a fresh newer version stays for its ttl
	m.put(key, ticket, e)
	if now, ok := m.Peek(key); !hidden && (!ok || now != e) {
		m.t.Errorf("at %d: a load of %q with nothing else under way is not stored; bound %+v", m.clock, key, m.BoundOf(key))
	}
}

// check holds what is stored, and what the bounds allow, against the model.
func (m *model) check() {
	for key, k := range m.keys {
		if held, ok := m.Peek(key); ok {
			if m.versions != falling && k.replacedBy(int(held.Took), k.invalidated) {
				m.t.Errorf("at %d: state %d of %q is stored, which was replaced before its invalidation at %d",
					m.clock, held.Took, key, k.invalidated)
			}
			if m.older(k, int(held.Took)) {
				m.t.Errorf("at %d: state %d of %q is stored after readers were sent state %d", m.clock, held.Took, key, k.sent)
			}
		}
		for range 3 {
			n, began := m.past(k)
			b := m.BoundOf(key)
			if m.older(k, n) && b.Allows(m.entry(k, n, began), began) {
				m.t.Errorf("at %d: %+v allows state %d of %q, loaded at %d, after readers were sent state %d",
					m.clock, b, n, key, began, k.sent)
			}
		}
	}
}

// replacedBy reports whether the origin has had nothing like a state since the given time.
func (k *modelKey) replacedBy(n int, since int64) bool {
	for i, s := range k.states {
		current := i+1 == len(k.states) || k.states[i+1].at > since
		if current && (i == n || alike(s, k.states[n])) {
			return false
		}
	}
	return true
}

// older reports whether readers can tell that a state is older than what they were sent.
func (m *model) older(k *modelKey, n int) bool {
	return m.versions != falling && n < k.sent && !alike(k.states[n], k.states[k.sent])
}

// alike reports whether readers cannot tell two states from each other.
func alike(a, b state) bool { return a.notFound && b.notFound || a.wrong && b.wrong }

// end: what is not read expires.
func (m *model) end() {
	m.evict()
	m.clock += 3 * (2*modelTTL + maxLoad)
	m.Sweep()
	if n, _ := m.Bounds(); n != 0 {
		m.t.Errorf("%d bounds after all lifetimes; want none", n)
	}
	for key := range m.keys {
		if b := m.BoundOf(key); b != (Bound{}) {
			m.t.Errorf("the bound of %q after all lifetimes is %+v; want none", key, b)
		}
	}
}
