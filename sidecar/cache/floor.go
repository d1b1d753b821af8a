package cache

import "sync"

// floor is what a read must not go below. Its zero value is below everything. Times are those of Dataset.now.
type floor struct {
	version int64  // this one and later ones are good; 0: not known
	asOf    int64  // where versions do not tell, what was loaded then or later is good
	tag     string // … and so is what has this tag (entry.tag); empty: not known
	anew    int64  // what was loaded before is not good, whatever its version
}

// admits reports whether e, which was loaded at asOf or later, is not below f.
func (f floor) admits(e *entry, asOf int64) bool {
	switch {
	case asOf < f.anew:
		return false
	case f.version != 0 && e.version != 0:
		return e.version >= f.version
	}
	return asOf >= f.asOf || f.tag != "" && f.tag == e.tag()
}

// reached reports whether a value that was loaded after f became known is not an older one all the same, as a replica
// that lags would say.
func (f floor) reached(version int64) bool { return version == 0 || version >= f.version }

// above returns the higher of the two in each respect.
func (f floor) above(other floor) floor {
	top := floor{version: max(f.version, other.version), asOf: max(f.asOf, other.asOf), anew: max(f.anew, other.anew)}
	switch { // what has the tag of the one must not be below the other
	case other.version <= f.version && other.asOf <= f.asOf && other.anew <= f.anew:
		top.tag = f.tag
	case f.version <= other.version && f.asOf <= other.asOf && f.anew <= other.anew:
		top.tag = other.tag
	}
	return top
}

// floors remembers floors of keys whose entries are not held: those that were written or invalidated, and those that
// had to make room. They are needed for as long as anything older may be fresh somewhere. Keys are in one of two
// generations, and live for one to two lives of it.
type floors struct {
	max int // of one generation; the older one is forgotten early rather than that the younger outgrows it

	mu         sync.Mutex // guards all below; taken under the lock of a shard, too
	young, old map[string]floor
	turn       int64 // when young becomes old
	all        floor // of every key
	allUntil   int64
}

const (
	// minFloors and maxFloors bound the floors of one generation; between them it is one for floorBytes of a dataset's
	// memory.
	minFloors  = 1 << 10
	maxFloors  = 1 << 16
	floorBytes = 1 << 10
)

func newFloors(maxBytes int64) *floors {
	return &floors{
		max:   int(min(max(maxBytes/floorBytes, minFloors), maxFloors)),
		young: map[string]floor{}, old: map[string]floor{},
	}
}

// raise lifts the floor of key to f at least. It returns how many floors it forgot before their time.
func (fs *floors) raise(key string, f floor, now, life int64) (forgotten int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch {
	case now >= fs.turn:
		fs.turnLocked(now, life)
	case len(fs.young) >= fs.max:
		forgotten = len(fs.old)
		fs.turnLocked(now, life)
	}
	fs.young[key] = fs.young[key].above(fs.old[key]).above(f)
	return forgotten
}

func (fs *floors) turnLocked(now, life int64) {
	fs.old, fs.young, fs.turn = fs.young, map[string]floor{}, now+life
}

// raiseAll lifts the floor of every key.
func (fs *floors) raiseAll(f floor, now, life int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all, fs.allUntil = fs.all.above(f), now+life
}

// of returns the floor of key.
func (fs *floors) of(key string, now int64) floor {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.young[key].above(fs.old[key])
	if now < fs.allUntil {
		f = f.above(fs.all)
	}
	return f
}

func (fs *floors) len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.young) + len(fs.old)
}
