// Package newest merges observations of the same keys: while some are being written, the newest of each key waits, so that many
// clients that report the same keys cause few writes.
package newest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// maxBatch is how many changes are written together. A row that the database refuses makes it repeat the transaction with several round
// trips for each row, which must end within write_timeout also in a busy database.
const maxBatch = 100

// overhead is the memory of a waiting change beside its strings: the change, its place in the map, and its result.
const overhead = 400

// Memory is where waiting changes take their bytes from. *budget.Account implements it.
type Memory interface {
	Take(n int64) bool
	Return(n int64)
}

var (
	// ErrFull means that the memory has no bytes for more changes. Nothing was added.
	ErrFull = errors.New("too many observations wait to be written")
	// ErrClosed means that the Queue is closed.
	ErrClosed = fmt.Errorf("closed: %w", context.Canceled)
)

// Queue writes changes that have a time of observation. Use New.
type Queue[R any] struct {
	write  func(context.Context, []kv.Change) []R
	memory Memory          // nil: no limit
	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	merged *atomic.Int64

	mu      sync.Mutex // guards the fields below
	next    *round[R]
	running bool
}

// round is changes of different keys that are written together.
type round[R any] struct {
	changes map[string]kv.Change // :: key → its newest change
	bytes   int64                // that they have taken
	done    chan struct{}        // closed when results are set
	results map[string]R
}

// New returns a Queue. write gets at most 100 changes of different keys, which fit into one batch, and returns their results in their
// order, soon after its context ends. One call of it runs at a time. merged counts the changes that are not written because a newer one
// of the same key is.
func New[R any](write func(context.Context, []kv.Change) []R, memory Memory, merged *atomic.Int64) *Queue[R] {
	q := &Queue[R]{write: write, memory: memory, merged: merged}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

// Do waits until each of the changes, or a newer one of its key, has been written, and returns the results in their order. The
// changes are written although ctx ends first. Without changes it waits for those that were added before.
func (q *Queue[R]) Do(ctx context.Context, cs []kv.Change) ([]R, error) {
	r, err := q.join(cs)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	results := make([]R, len(cs))
	for i, c := range cs {
		results[i] = r.results[c.Key]
	}
	return results, nil
}

// Add is Do without the wait.
func (q *Queue[R]) Add(cs []kv.Change) error {
	_, err := q.join(cs)
	return err
}

func (q *Queue[R]) join(cs []kv.Change) (*round[R], error) {
	var bytes int64
	for _, c := range cs {
		bytes += size(c)
	}
	if q.memory != nil && !q.memory.Take(bytes) { //guard:waiting-observations-without-limit
		return nil, ErrFull
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx.Err() != nil {
		q.release(bytes)
		return nil, ErrClosed
	}
	if q.next == nil {
		q.next = &round[R]{changes: map[string]kv.Change{}, done: make(chan struct{})}
	}
	r := q.next
	for _, c := range cs {
		q.addLocked(r, c)
	}
	if !q.running {
		q.running = true
		q.tasks.Go(q.run)
	}
	return r, nil
}

// addLocked keeps the newer change of a key, the first of two with the same time, and returns the bytes of the other one.
func (q *Queue[R]) addLocked(r *round[R], c kv.Change) {
	held, ok := r.changes[c.Key]
	dropped := held
	if ok && held.Observed >= c.Observed { //guard:older-observation-replaces-a-newer-one
		dropped = c
	} else {
		r.changes[c.Key] = c
	}
	if r.bytes += size(c); ok {
		q.merged.Add(1)
		q.release(size(dropped))
		r.bytes -= size(dropped)
	}
}

func size(c kv.Change) int64 { return int64(c.Bytes() + overhead) }

func (q *Queue[R]) release(bytes int64) {
	if q.memory != nil {
		q.memory.Return(bytes)
	}
}

// run writes rounds until none waits.
func (q *Queue[R]) run() {
	for r := q.take(); r != nil; r = q.take() {
		r.results = make(map[string]R, len(r.changes))
		for _, batch := range batches(r.changes) {
			for i, result := range q.write(q.ctx, batch) {
				r.results[batch[i].Key] = result
			}
		}
		close(r.done)
		q.release(r.bytes)
	}
}

func (q *Queue[R]) take() *round[R] {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.next
	q.next, q.running = nil, r != nil
	return r
}

// batches divides changes into those that can be written together.
func batches(changes map[string]kv.Change) (all [][]kv.Change) {
	var batch []kv.Change
	bytes := 0
	for _, c := range changes {
		if len(batch) == maxBatch || len(batch) > 0 && bytes+c.Bytes() > kv.MaxBatchWriteBytes { //guard:batch-of-observations-is-too-large
			all, batch, bytes = append(all, batch), nil, 0
		}
		batch, bytes = append(batch, c), bytes+c.Bytes()
	}
	if len(batch) > 0 {
		all = append(all, batch)
	}
	return all
}

// Close ends the write that runs, and waits for it. What waits is written with the context that has ended.
func (q *Queue[R]) Close() {
	q.mu.Lock() // so that no round is added after the wait began
	q.cancel()
	q.mu.Unlock()
	q.tasks.Wait()
}
