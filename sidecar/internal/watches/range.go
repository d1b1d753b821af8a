package watches

import (
	"strings"
	"sync"
)

// MaxMarks is the number of keys that a Range notes one by one. After more of them every key may have changed.
const MaxMarks = 10_000

// Range notes which of the keys that begin with a prefix may have changed, keys that are new included, until it is closed.
type Range struct {
	of     *Set
	prefix string
	ready  chan struct{} // has room for one

	mu    sync.Mutex // guards the fields below
	marks map[string]struct{}
	all   bool
}

// WatchRange begins to note changes of the keys that begin with prefix. Close it.
func (ws *Set) WatchRange(prefix string) *Range {
	r := &Range{of: ws, prefix: prefix, ready: make(chan struct{}, 1), marks: map[string]struct{}{}}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.ranges == nil {
		ws.ranges = map[*Range]struct{}{}
	}
	ws.ranges[r] = struct{}{}
	if ws.ended {
		r.wake()
	}
	ws.count.Add(1)
	return r
}

// Ready receives one value after changes were noted, or the Set was ended; then call Ended and Take.
func (r *Range) Ready() <-chan struct{} { return r.ready }

// Take returns the keys that were noted since the last Take, in no order. All says that any key may have changed, and keys that
// nothing has named may be new.
func (r *Range) Take() (keys []string, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.marks {
		keys = append(keys, key)
	}
	all, r.all = r.all, false
	clear(r.marks)
	return keys, all
}

// Ended reports whether the Set was ended.
func (r *Range) Ended() bool {
	r.of.mu.RLock()
	defer r.of.mu.RUnlock()
	return r.of.ended
}

// Close ends the Range.
func (r *Range) Close() {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	delete(r.of.ranges, r)
	r.of.count.Add(-1)
}

func (r *Range) note(key string) {
	r.mu.Lock()
	if r.marks[key] = struct{}{}; len(r.marks) > MaxMarks { //guard:marks-of-a-range-without-bound
		clear(r.marks)
		r.all = true
	}
	r.mu.Unlock()
	r.wake()
}

func (r *Range) noteAll() {
	r.mu.Lock()
	clear(r.marks)
	r.all = true
	r.mu.Unlock()
	r.wake()
}

func (r *Range) wake() {
	select {
	case r.ready <- struct{}{}:
	default: // it is ready already
	}
}

// NoteInRanges marks key in the Ranges that have it.
func (ws *Set) NoteInRanges(key string) {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.RLock()
	defer ws.mu.RUnlock()
	for r := range ws.ranges {
		if strings.HasPrefix(key, r.prefix) {
			r.note(key)
		}
	}
}
