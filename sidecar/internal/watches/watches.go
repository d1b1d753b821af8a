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
	keys  map[string]struct{} // the mu of the Set guards it
	ready chan struct{}       // has room for one

	mu    sync.Mutex // guards marks
	marks map[string]struct{}
}

// Ready receives one value after changes were noted, or the Set was ended; then call Ended and Take.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Notify makes ready, which has room for one and which several Watches may share, the channel of Ready. Call it before Add, on a
// Watch without keys.
func (w *Watch) Notify(ready chan struct{}) { w.ready = ready }

// Add begins to note changes of another key.
func (w *Watch) Add(key string) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.of.addLocked(w, key)
}

// Drop ends to note changes of a key. Earlier ones may still be noted.
func (w *Watch) Drop(key string) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.of.dropLocked(w, key)
}

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

// Set is the open Watches and Ranges of a dataset. The zero value has none.
type Set struct {
	count atomic.Int64 // so that changes of keys that nobody watches take no lock

	mu     sync.RWMutex // guards the fields below
	byKey  map[string]map[*Watch]struct{}
	ranges map[*Range]struct{}
	ended  bool
}

// Any reports whether there are open Watches or Ranges.
func (ws *Set) Any() bool { return ws.count.Load() > 0 }

// End ends all Watches and Ranges, and those that begin later: nothing notes changes any more.
func (ws *Set) End() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.ended = true
	for _, watching := range ws.byKey {
		for w := range watching {
			w.wake()
		}
	}
	for r := range ws.ranges {
		r.wake()
	}
}

// Watch begins to note changes of keys. Close it.
func (ws *Set) Watch(keys []string) *Watch {
	w := &Watch{of: ws, keys: make(map[string]struct{}, len(keys)), ready: make(chan struct{}, 1), marks: map[string]struct{}{}}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, key := range keys {
		ws.addLocked(w, key)
	}
	if ws.ended {
		w.wake()
	}
	ws.count.Add(1)
	return w
}

func (ws *Set) addLocked(w *Watch, key string) {
	if ws.byKey == nil {
		ws.byKey = map[string]map[*Watch]struct{}{}
	}
	if ws.byKey[key] == nil {
		ws.byKey[key] = map[*Watch]struct{}{}
	}
	ws.byKey[key][w] = struct{}{}
	w.keys[key] = struct{}{}
}

func (ws *Set) dropLocked(w *Watch, key string) {
	delete(w.keys, key)
	delete(ws.byKey[key], w)
	if len(ws.byKey[key]) == 0 {
		delete(ws.byKey, key)
	}
}

func (ws *Set) remove(w *Watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for key := range w.keys {
		ws.dropLocked(w, key)
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
	for r := range ws.ranges {
		if strings.HasPrefix(r.prefix, prefix) || strings.HasPrefix(prefix, r.prefix) {
			r.noteAll()
		}
	}
	for key, watching := range ws.byKey {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		for w := range watching {
			w.note(key)
		}
	}
}
