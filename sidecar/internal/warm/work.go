// Package warm keeps the keys of a dataset in memory before anybody has read them: it lists the keys, loads those that this
// member owns, and loads them again before they end and after changes. The cache says what is to be done (Work); a Runner does it.
package warm

import (
	"sync"
	"sync/atomic"
)

// maxKeys bounds the changed keys that wait to be loaded. With more of them everything is listed again.
const maxKeys = 1 << 12

// Work is what is to be loaded. It ignores everything while no Runner runs.
type Work struct {
	enabled atomic.Bool
	wake    chan struct{} // has room for one: there is work

	mu   sync.Mutex      // guards keys and all; nothing is called while it is held
	keys map[string]bool // :: key → it may have changed
	all  bool            // any key may lack an entry
}

// NewWork returns Work that has nothing to do.
func NewWork() *Work { return &Work{wake: make(chan struct{}, 1), keys: map[string]bool{}} }

// Enabled reports whether the dataset is kept warm.
func (w *Work) Enabled() bool { return w.enabled.Load() }

// Changed records that key has no entry any more. It never blocks.
func (w *Work) Changed(key string) {
	if !w.enabled.Load() {
		return
	}
	w.mu.Lock()
	if !w.all {
		w.keys[key] = true
	}
	if len(w.keys) > maxKeys { //guard:changes-fill-the-memory
		w.all = true
		clear(w.keys)
	}
	w.mu.Unlock()
	w.notify()
}

// Everything records that any key may lack an entry. It never blocks.
func (w *Work) Everything() {
	if !w.enabled.Load() {
		return
	}
	w.mu.Lock()
	w.all = true
	clear(w.keys)
	w.mu.Unlock()
	w.notify()
}

func (w *Work) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what is to be loaded, and that nothing else is.
func (w *Work) take() (keys []string, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.keys {
		keys = append(keys, key)
	}
	all, w.all = w.all, false
	clear(w.keys)
	return keys, all
}
