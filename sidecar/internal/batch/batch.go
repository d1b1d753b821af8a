// Package batch collects the answers to the keys of a batch within a limit in bytes.
package batch

import (
	"slices"
	"sync"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Results are the answers to the keys of a batch. They hold no more values than fit into its response, and the one that
// arrives: 1000 values of 1 MiB would be 1 GiB. The response is the values of the first keys that fit, whatever the order in
// which they arrive. Results are safe for concurrent use.
type Results struct {
	maxBytes int

	mu    sync.Mutex // guards the fields below
	list  []kv.Result
	sizes []int // of the values that have arrived, also of those that were dropped; none: -1
	bytes int   // of the values that are held
	last  int   // no key after it has a value that is held
}

// none is the size of a value that has not arrived.
const none = -1

// New returns the Results of n keys, of which none has an answer. The values have at most maxBytes together, except for a
// single larger one.
func New(n, maxBytes int) *Results {
	return &Results{maxBytes: max(maxBytes, 0), list: make([]kv.Result, n), sizes: slices.Repeat([]int{none}, n)}
}

// Put sets the answer to key i, which has none. If there are too many bytes, it drops the values of the last keys.
func (r *Results) Put(i int, a kv.Answer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[i] = kv.Result{Answer: a, Err: err}
	r.sizes[i] = len(a.Value)
	r.bytes += r.sizes[i]
	r.last = max(r.last, i)
	for r.bytes > r.maxBytes { //guard:batch-holds-all-its-values
		for r.heldLocked(r.last) == 0 {
			r.last--
		}
		if r.heldLocked(r.last) == r.bytes {
			return // a single larger value
		}
		r.dropLocked(r.last)
	}
}

// heldLocked returns the size of the value that is held for key i.
func (r *Results) heldLocked(i int) int { return len(r.list[i].Answer.Value) }

func (r *Results) dropLocked(i int) {
	r.bytes -= r.heldLocked(i)
	r.list[i] = kv.Result{Err: kv.ErrBatchBytes}
}

// Missing drops the values that do not fit, and returns the keys that need an answer: those that have had none, and those
// whose values were dropped but fit, because larger values of earlier keys, which arrived meanwhile, do not.
func (r *Results) Missing() (missing []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bytes := 0
	for i, size := range r.sizes {
		switch {
		case size > 0 && bytes > 0 && bytes+size > r.maxBytes:
			r.dropLocked(i)
			continue
		case size == none, size > 0 && r.heldLocked(i) == 0:
			missing = append(missing, i)
		}
		bytes += max(size, 0)
	}
	return missing
}

// Close returns the answers, in the order of the keys, and how many keys have kv.ErrBatchBytes instead.
func (r *Results) Close() (list []kv.Result, dropped int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.list {
		if one.Err == kv.ErrBatchBytes {
			dropped++
		}
	}
	return r.list, dropped
}
