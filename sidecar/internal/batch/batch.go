// Package batch collects the answers to the keys of a batch within a limit in bytes.
package batch

import (
	"math"
	"slices"
	"sync"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Results are the answers to the keys of a batch. They hold no more values than fit into its response, and the one that
// arrives: 1000 values of 1 MiB would be 1 GiB. The response is the values of the first keys that fit, whatever the order in
// which they arrive. Where the memory does not suffice for that, it is the values that fit into the memory. Results are safe
// for concurrent use.
type Results struct {
	mu    sync.Mutex // guards the fields below
	limit kv.BatchLimit
	taken int // bytes of limit.Memory for values
	reads int // bytes taken for reads, prepaid ones included
	list  []kv.Result
	sizes []int // of the values that have arrived, also of those that were dropped; none: -1
	bytes int   // of the values that are held
	last  int   // no key after it has a value that is held
}

// Instead of the size of a value: it has not arrived, or there was no memory for it alone.
const none, refused = -1, -2

// New returns the Results of n keys, of which none has an answer.
func New(n int, limit kv.BatchLimit) *Results {
	limit.Bytes = max(limit.Bytes, 0)
	if limit.Memory == nil {
		limit.Prepaid = math.MaxInt
	}
	return &Results{limit: limit, list: make([]kv.Result, n), sizes: slices.Repeat([]int{none}, n)}
}

// Put sets the answer to key i, which has none. If there are too many bytes, it drops the values of the last keys.
func (r *Results) Put(i int, a kv.Answer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[i] = kv.Result{Answer: a, Err: err}
	r.sizes[i] = len(a.Value)
	r.bytes += r.sizes[i]
	r.last = max(r.last, i)
	r.fitLocked()
	if r.takeLocked() {
		return
	}
	r.limit.Bytes = r.limit.Prepaid + r.taken // from now on: a batch must not read its keys again and again
	r.fitLocked()
	if r.bytes > r.limit.Bytes { // a single larger value
		r.bytes, r.sizes[r.last] = 0, refused
		r.list[r.last] = kv.Result{Err: kv.ErrNoMemory} //guard:single-value-without-memory
	}
}

// fitLocked drops the values of the last keys until the others fit.
func (r *Results) fitLocked() {
	for r.bytes > r.limit.Bytes { //guard:batch-holds-all-its-values
		for r.heldLocked(r.last) == 0 {
			r.last--
		}
		if r.heldLocked(r.last) == r.bytes {
			return // a single larger value
		}
		r.dropLocked(r.last)
	}
}

// takeLocked takes the memory of the values that are held.
func (r *Results) takeLocked() bool {
	more := r.bytes - r.limit.Prepaid - r.taken
	if more <= 0 {
		return true
	}
	if !r.limit.Memory.Grow(int64(more)) { //guard:batch-without-memory
		return false
	}
	r.taken += more
	return true
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
		case size > 0 && bytes > 0 && bytes+size > r.limit.Bytes:
			r.dropLocked(i)
			continue
		case size == none, size > 0 && r.heldLocked(i) == 0:
			missing = append(missing, i)
		}
		bytes += max(size, 0)
	}
	return missing
}

// Take takes bytes for the reads of keys, of which the Prepaid ones cost nothing, or none and returns false.
func (r *Results) Take(bytes int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	more := r.beyondLocked(r.reads+bytes) - r.beyondLocked(r.reads)
	if more > 0 && !r.limit.Memory.Grow(int64(more)) {
		return false
	}
	r.reads += bytes
	return true
}

// Return returns bytes that Take has taken.
func (r *Results) Return(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	less := r.beyondLocked(r.reads) - r.beyondLocked(r.reads-bytes)
	r.reads -= bytes
	if less > 0 {
		r.limit.Memory.Shrink(r.limit.Memory.Bytes() - int64(less))
	}
}

// beyondLocked returns how many bytes of reads are not prepaid.
func (r *Results) beyondLocked(reads int) int { return max(reads-r.limit.Prepaid, 0) }

// Refuse makes kv.ErrNoMemory the answer to key i, unless it has had one whose value was dropped.
func (r *Results) Refuse(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sizes[i] == none {
		r.list[i], r.sizes[i] = kv.Result{Err: kv.ErrNoMemory}, 0
	}
}

// Close returns the answers, in the order of the keys, and how many keys have kv.ErrBatchBytes instead. It returns the memory
// that they do not need.
func (r *Results) Close() (list []kv.Result, dropped int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, size := range r.sizes {
		if size == refused && r.bytes > 0 { //guard:error-depends-on-order-of-arrival
			r.dropLocked(i) // others have the memory: the same as if it had arrived after them
		}
		if r.list[i].Err == kv.ErrBatchBytes {
			dropped++
		}
	}
	if excess := r.taken - max(r.bytes-r.limit.Prepaid, 0); excess > 0 {
		r.limit.Memory.Shrink(r.limit.Memory.Bytes() - int64(excess))
		r.taken -= excess
	}
	return r.list, dropped
}
