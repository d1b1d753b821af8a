package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	retryMin = 100 * time.Millisecond
	// steady is how long a client has to be of use before the one after it is not a retry.
	steady = 5 * time.Second
)

// condition is what a loop works for: it holds, or it does not.
type condition struct {
	what  string
	holds atomic.Bool
}

// A session works for a condition with one client. nil means that it came to its planned end.
type session func(context.Context, *clientv3.Client) error

// maxReasons bounds what is told of one outage: a reason may have a part that is never the same twice.
const maxReasons = 8

// reasons of one outage that have been told.
type reasons map[string]bool

// news reports whether err is to be told, and notes that it is.
func (r reasons) news(err error) bool {
	if r[err.Error()] || len(r) >= maxReasons { //guard:reasons-never-same-twice-fill-log
		return false
	}
	r[err.Error()] = true
	return true
}

// forever runs session after session until ctx is done. After an error the next one waits, longer with each that fails
// soon, and gets another client.
func (d *Directory) forever(ctx context.Context, c *condition, run session) {
	attempt, turn, told := 0, d.anyTurn(), reasons{}
	for ; ctx.Err() == nil; attempt, turn = attempt+1, turn+1 {
		began := time.Now()
		err := d.untilOdd(ctx, turn, run)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > steady {
			attempt = 0
		}
		if c.holds.Swap(false) || attempt == 0 {
			told = reasons{}
		}
		if told.news(err) {
			d.event(c.what+" lost, trying again", err)
		}
		sleep(ctx, d.retryAfter(attempt))
	}
	c.holds.Store(false)
}

// untilOdd runs sessions with one client for as long as they come to their planned end. Its error names the endpoint.
func (d *Directory) untilOdd(ctx context.Context, turn int, run session) error {
	c, err := d.dial(ctx, turn)
	if err != nil {
		return fmt.Errorf("%s: %w", d.endpoint(turn), err)
	}
	defer c.Close() // its error is that of a connection that is not used again
	for err == nil && ctx.Err() == nil {
		err = run(ctx, c)
	}
	return fmt.Errorf("%s: %w", d.endpoint(turn), err)
}

func (d *Directory) endpoint(turn int) string { return d.cfg.Endpoints[turn%len(d.cfg.Endpoints)] }

// anyTurn keeps the members from beginning with the same endpoint.
func (d *Directory) anyTurn() int { return rand.IntN(len(d.cfg.Endpoints)) }

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
	return wait/2 + rand.N(wait/2+1) //guard:members-come-back-etcd-step
}

func sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
