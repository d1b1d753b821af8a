package cache

import "sync"

// floor is what a read must not go below. Its zero value is below everything. Times are those of Dataset.now.
type floor struct {
	version int64  // this one and later ones are good; 0: not known
	asOf    int64  // where versions do not tell, what was loaded then or later is good
	tag     string // … and so is what has this tag (see entry.tag); empty: not known
	since   int64  // when what has the tag was loaded, at the earliest
	anew    int64  // what was loaded before is not good, whatever its version
	gone    int64  // the row was seen to be absent: what is present and was loaded before is not good
}

// admits reports whether e, which was loaded at asOf or later, is not below f.
func (f floor) admits(e *entry, asOf int64) bool {
	switch {
	case asOf < f.anew, asOf < f.gone && !e.absent: //guard:seen-gone-admitted-version-had
		return false
	case f.version != 0 && e.version != 0:
		return e.version >= f.version
	}
	return asOf >= f.asOf || f.tag != "" && f.tag == e.tag() //guard:older-absent-asked-again-again
}

// reached reports whether what was loaded may be held: it is not below f, or was loaded after f became known and is not
// an older version all the same, as a replica that lags would say. Fences tell more exactly what began before anew.
func (f floor) reached(e *entry) bool {
	f.anew = 0
	return (e.version == 0 || e.version >= f.version) && need{f}.met(e, e.began) //guard:same-when-read-had-make-room
}

// above returns the higher of the two in each respect.
func (f floor) above(other floor) floor {
	top := floor{
		version: max(f.version, other.version), asOf: max(f.asOf, other.asOf),
		anew: max(f.anew, other.anew), gone: max(f.gone, other.gone),
	}
	switch {
	case f.tags(other):
		top.tag, top.since = f.tag, f.since
	case other.tags(f):
		top.tag, top.since = other.tag, other.since
	}
	return top
}

// tags reports whether what has the tag of f is not below other. Of two values that were loaded at the same time nobody
// knows which is the older one.
func (f floor) tags(other floor) bool {
	same := f.tag == other.tag && other.since <= f.since
	return other == floor{} ||
		other.version <= f.version && other.anew <= f.anew && (same || max(other.asOf, other.gone) <= f.since) //guard:tag-one-two-values-loaded-once
}

// floors remembers floors of keys whose entries are not held.
type floors struct {
	mu sync.Mutex // guards all below; taken under the lock of a shard, too
	// seen has what readers here have been given, or have written: needed for as long as anything older may be given, as a
	// stale answer too.
	seen generations
	// told has what others have said to be outdated: needed for as long as anything older may be fresh.
	told generations
	// all is the floor of every key until allUntil.
	all      floor
	allUntil int64
}

// generations are floors that live for one to two lives of a generation. The older one is forgotten early rather than
// that the younger outgrows max, or its keys floorKeyBytes for each of so many.
type generations struct {
	max        int
	young, old map[string]floor
	bytes      int   // of the keys of young
	turn       int64 // when young becomes old
}

const (
	// minFloors and maxFloors bound one generation; between them it is one floor for floorBytes of a dataset's memory.
	minFloors  = 1 << 10
	maxFloors  = 1 << 16
	floorBytes = 4 << 10
	// floorKeyBytes is the average length of the keys of a full generation. Longer ones are fewer.
	floorKeyBytes = 64
)

func newFloors(maxBytes int64) *floors {
	most := int(min(max(maxBytes/floorBytes, minFloors), maxFloors))
	return &floors{seen: newGenerations(most), told: newGenerations(most)}
}

func newGenerations(most int) generations {
	return generations{max: most, young: map[string]floor{}, old: map[string]floor{}}
}

// see lifts the floor of a key that readers here know to f at least. It returns how many floors it forgot early.
func (fs *floors) see(key string, f floor, now, life int64) (forgotten int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.seen.raise(key, f, now, life)
}

// tell lifts the floor of a key of which others have told to f at least. It returns how many floors it forgot early.
func (fs *floors) tell(key string, f floor, now, life int64) (forgotten int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.told.raise(key, f, now, life)
}

// tellAll lifts the floor of every key.
func (fs *floors) tellAll(f floor, now, life int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all, fs.allUntil = fs.all.above(f), now+life
}

// of returns the floor of key.
func (fs *floors) of(key string, now int64) floor {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.seen.of(key).above(fs.told.of(key))
	if now < fs.allUntil {
		f = f.above(fs.all)
	}
	return f
}

// seenBefore reports whether readers here may have been given key: for a while after a prefix was dropped, any.
func (fs *floors) seenBefore(key string, now int64) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return now < fs.allUntil || fs.seen.of(key) != floor{} //guard:row-gone-comes-back-after-prefix
}

func (fs *floors) len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.seen.len() + fs.told.len()
}

func (g *generations) raise(key string, f floor, now, life int64) (forgotten int) {
	switch {
	case now >= g.turn:
		g.next(now, life)
	case len(g.young) >= g.max || g.bytes >= g.max*floorKeyBytes: //guard:floors-without-bound guard:floors-long-keys-take-memory-nobody
		forgotten = len(g.old)
		g.next(now, life)
	}
	f = g.of(key).above(f)
	if _, ok := g.young[key]; !ok {
		g.bytes += len(key)
	}
	g.young[key] = f
	return forgotten
}

func (g *generations) next(now, life int64) {
	g.old, g.young, g.bytes, g.turn = g.young, map[string]floor{}, 0, now+life
}

func (g *generations) of(key string) floor { return g.young[key].above(g.old[key]) }

func (g *generations) len() int { return len(g.young) + len(g.old) }
