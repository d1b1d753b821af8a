// Package watches notes for clients which of some keys may have changed.
package watches

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Watch notes which of some keys may have changed, until it is closed. It holds one mark per key, however many changes come
// before they are taken.
type Watch struct {
	of    *Set
	keys  []string
	ready chan struct{} // has room for one

	mu    sync.Mutex // guards marks
	marks map[string]struct{}
}

// Ready receives one value after changes were noted, or the Set was ended; then call Ended and Take.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Take returns the keys that were noted since the last Take, in no order.
func (w *Watch) Take() (keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.marks {
		keys = append(keys, key)
	}
	clear(w.marks)
	return keys
}

// Ended reports whether the Set was ended.
func (w *Watch) Ended() bool {
	w.of.mu.RLock()
	defer w.of.mu.RUnlock()
	return w.of.ended
}

// Close ends the Watch.
func (w *Watch) Close() { w.of.remove(w) }

func (w *Watch) note(key string) {
	w.mu.Lock()
	w.marks[key] = struct{}{}
	w.mu.Unlock()
	w.wake()
}

func (w *Watch) wake() {
	select {
	case w.ready <- struct{}{}:
	default: // it is ready already
	}
}

// Set is the open Watches of a dataset. The zero value has none.
type Set struct {
	count atomic.Int64 // so that changes of keys that nobody watches take no lock

	mu    sync.RWMutex // guards the fields below
	byKey map[string]map[*Watch]struct{}
	ended bool
}

// Any reports whether there are open Watches.
func (ws *Set) Any() bool { return ws.count.Load() > 0 }

// End ends all Watches, and those that begin later: nothing notes changes any more.
func (ws *Set) End() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.ended = true
	for _, watching := range ws.byKey {
		for w := range watching {
			w.wake()
		}
	}
}

// Watch begins to note changes of keys, which must be distinct. Close it.
func (ws *Set) Watch(keys []string) *Watch {
	w := &Watch{of: ws, keys: keys, ready: make(chan struct{}, 1), marks: map[string]struct{}{}}
	ws.add(w)
	return w
}

func (ws *Set) add(w *Watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byKey == nil {
		ws.byKey = map[string]map[*Watch]struct{}{}
	}
	for _, key := range w.keys {
		if ws.byKey[key] == nil {
			ws.byKey[key] = map[*Watch]struct{}{}
		}
		ws.byKey[key][w] = struct{}{}
	}
	if ws.ended {
		w.wake()
	}
	ws.count.Add(1)
}

func (ws *Set) remove(w *Watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, key := range w.keys {
		delete(ws.byKey[key], w)
		if len(ws.byKey[key]) == 0 {
			delete(ws.byKey, key)
		}
	}
	ws.count.Add(-1)
}

// Note marks key in the Watches that have it.
func (ws *Set) Note(key string) {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.RLock()
	defer ws.mu.RUnlock()
	for w := range ws.byKey[key] {
		w.note(key)
	}
}

// NotePrefix marks all keys that begin with prefix.
func (ws *Set) NotePrefix(prefix string) {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.RLock()
	defer ws.mu.RUnlock()
	for key, watching := range ws.byKey {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		for w := range watching {
			w.note(key)
		}
	}
}
