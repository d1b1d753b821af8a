// Package coalesce merges what is requested while an earlier request is carried out: however many requests come, one is
// carried out at a time, and each waits for at most one before its own.
package coalesce

import (
	"context"
	"fmt"
	"sync"
)

// ErrClosed means that the Merger is closed.
var ErrClosed = fmt.Errorf("closed: %w", context.Canceled)

// Merger carries out requests, each a list of elements. Use New.
type Merger[E, R any] struct {
	do     func(context.Context, []E) R
	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	next    *round[E, R]
	running bool
}

// round is requests that are carried out together.
type round[E, R any] struct {
	list   []E
	done   chan struct{} // closed when result is set
	result R
}

// New returns a Merger that calls do with the elements of one or more requests. Do must return soon after its context ends.
func New[E, R any](do func(context.Context, []E) R) *Merger[E, R] {
	m := &Merger[E, R]{do: do}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Do waits until list, which the caller must not modify, has been carried out, and returns the result of all that was carried
// out with it. It goes on if ctx ends first.
func (m *Merger[E, R]) Do(ctx context.Context, list []E) (result R, err error) {
	r, err := m.join(list)
	if err != nil {
		return result, err
	}
	select {
	case <-r.done:
		return r.result, nil
	case <-ctx.Done():
		return result, ctx.Err()
	}
}

func (m *Merger[E, R]) join(list []E) (*round[E, R], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if m.next == nil {
		m.next = &round[E, R]{done: make(chan struct{})}
	}
	r := m.next
	r.list = append(r.list, list...)
	if !m.running {
		m.running = true
		m.tasks.Go(m.run)
	}
	return r, nil
}

// run carries out rounds until none waits.
func (m *Merger[E, R]) run() {
	for r := m.take(); r != nil; r = m.take() {
		r.result = m.do(m.ctx, r.list)
		close(r.done)
	}
}

func (m *Merger[E, R]) take() *round[E, R] {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.next
	m.next, m.running = nil, r != nil
	return r
}

// Close ends what is being carried out, and waits for it.
func (m *Merger[E, R]) Close() {
	m.mu.Lock() // so that no round is added after the wait began
	m.cancel()
	m.mu.Unlock()
	m.tasks.Wait()
}
