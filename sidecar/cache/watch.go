package cache

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Watch notes which of some keys may have changed, until it is closed. It holds one mark a key, however many changes
// come while nobody takes them.
type Watch struct {
	of    *watches
	keys  []string
	ready chan struct{} // has room for one

	mu    sync.Mutex // guards marks
	marks map[string]struct{}
}

// Watch begins to note changes of keys, which are distinct. Close it.
func (d *Dataset) Watch(keys []string) *Watch {
	w := &Watch{of: &d.watches, keys: keys, ready: make(chan struct{}, 1), marks: map[string]struct{}{}}
	d.watches.add(w)
	return w
}

// Ready is received from once after something was noted; then Take it.
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

// Close ends the Watch.
func (w *Watch) Close() { w.of.remove(w) }

func (w *Watch) note(key string) {
	w.mu.Lock()
	w.marks[key] = struct{}{}
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default: // it has been told
	}
}

// watches are the open ones of a dataset. Its zero value has none.
type watches struct {
	count atomic.Int64 // so that what nobody watches costs no lock

	mu    sync.RWMutex
	byKey map[string]map[*Watch]struct{}
}

func (ws *watches) add(w *Watch) {
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
	ws.count.Add(1)
}

func (ws *watches) remove(w *Watch) {
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

// note tells those who watch key.
func (ws *watches) note(key string) {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.RLock()
	defer ws.mu.RUnlock()
	for w := range ws.byKey[key] {
		w.note(key)
	}
}

// notePrefix tells those who watch keys that start with prefix.
func (ws *watches) notePrefix(prefix string) {
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
