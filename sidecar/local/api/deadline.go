package api

import (
	"context"
	"sync"
	"time"
)

// Deadline is a context that ends at a given time. It starts its timer when something first waits for it: a cache hit
// never does, and so needs neither a timer nor an allocation. It is reused: see Reset and Stop.
type Deadline struct {
	context.Context
	at time.Time

	mu     sync.Mutex // guards the fields below
	timed  context.Context
	cancel context.CancelFunc
}

// Reset makes d end at the given time, or with parent.
func (d *Deadline) Reset(parent context.Context, at time.Time) {
	if t, ok := parent.Deadline(); ok && t.Before(at) {
		at = t
	}
	d.Context, d.at = parent, at
}

// Stop releases the timer and the parent. It reports whether d can be reused: nothing has waited for it, so nothing can
// observe its next use.
func (d *Deadline) Stop() (reusable bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
	if d.timed == nil {
		d.Context = nil
		return true
	}
	return false
}

func (d *Deadline) wait() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timed == nil {
		d.timed, d.cancel = context.WithDeadline(d.Context, d.at)
	}
	return d.timed
}

// Deadline implements context.Context.
func (d *Deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *Deadline) Done() <-chan struct{} { return d.wait().Done() }

// Err implements context.Context.
func (d *Deadline) Err() error { return d.wait().Err() }

// Value asks the context with the timer once there is one: package context recognizes its own parents by Value, and then
// needs no goroutine to watch them.
func (d *Deadline) Value(key any) any {
	d.mu.Lock()
	ctx := d.timed
	d.mu.Unlock()
	if ctx == nil {
		ctx = d.Context
	}
	return ctx.Value(key)
}
