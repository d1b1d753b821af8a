package cache

import "sync"

// Watch notes which of some keys may have changed, until it is closed. It holds one mark a key, however many changes
// come while nobody takes them.
type Watch struct {
	dataset *Dataset
	keys    []string
	ready   chan struct{} // has room for one

	mu    sync.Mutex // guards marks
	marks map[string]bool
}

// Watch begins to note changes of keys, which are distinct.
func (d *Dataset) Watch(keys []string) *Watch {
	return &Watch{dataset: d, keys: keys, ready: make(chan struct{}, 1), marks: map[string]bool{}}
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
func (w *Watch) Close() {}
