package etcd

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	retryMin = 100 * time.Millisecond
	// steady is how long a session has to last before the one after it is not a retry.
	steady = 5 * time.Second
)

// condition is what a loop works for: it holds, or it does not.
type condition struct {
	what  string
	holds atomic.Bool
}

// forever runs session after session until ctx is done. A session that returns nil came to its planned end; after an
// error the next one waits, longer with each that fails soon.
func (d *Directory) forever(ctx context.Context, c *condition, session func(context.Context) error) {
	for attempt := 0; ctx.Err() == nil; {
		began := time.Now()
		err := session(ctx)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			attempt = 0
			continue
		}
		if time.Since(began) > steady {
			attempt = 0
		}
		if c.holds.Swap(false) || attempt == 0 {
			d.event(c.what+" lost, trying again", err)
		}
		sleep(ctx, d.retryAfter(attempt))
		attempt++
	}
	c.holds.Store(false)
}

// hold notes that the condition holds now.
func (d *Directory) hold(c *condition) {
	if !c.holds.Swap(true) {
		d.event(c.what+" held", nil)
	}
}

func (d *Directory) event(what string, err error) {
	if d.cfg.OnEvent != nil {
		d.cfg.OnEvent(what, err)
	}
}

// retryAfter grows to retryMax and is half chance, so that the members do not return to an etcd all at once.
func (d *Directory) retryAfter(attempt int) time.Duration {
	wait := min(retryMin<<min(attempt, 16), d.timing.retryMax)
	return wait/2 + rand.N(wait/2+1)
}

func sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
