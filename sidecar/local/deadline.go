package local

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends at a given time. It makes its timer when somebody first waits for it. A hit never
// does, and so costs neither the timer nor an allocation.
type deadline struct {
	context.Context
	at time.Time

	mu     sync.Mutex // guards the fields below
	timed  context.Context
	cancel context.CancelFunc
}

// reset makes d end at the given time or with parent.
func (d *deadline) reset(parent context.Context, at time.Time) {
	if t, ok := parent.Deadline(); ok && t.Before(at) {
		at = t
	}
	d.Context, d.at = parent, at
}

// stop frees the timer. It reports whether nobody has waited for d, so that nobody can notice when it is used again.
func (d *deadline) stop() (unused bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
	return d.timed == nil
}

func (d *deadline) wait() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timed == nil {
		d.timed, d.cancel = context.WithDeadline(d.Context, d.at)
	}
	return d.timed
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.wait().Done() }

// Err implements context.Context.
func (d *deadline) Err() error { return d.wait().Err() }

// Value asks the context with the timer once there is one: package context finds a parent that it knows that way, and
// then needs no goroutine to watch it.
func (d *deadline) Value(key any) any {
	d.mu.Lock()
	ctx := d.timed
	d.mu.Unlock()
	if ctx == nil {
		ctx = d.Context
	}
	return ctx.Value(key)
}
