// Package broadcast sends invalidations to every member in batches, each at its time, from one goroutine at most.
package broadcast

import (
	"context"
	"sync"
	"time"
)

const (
	// MaxWaiting bounds the messages that wait to be sent. One more, and a message for everything replaces them all.
	MaxWaiting = 4096
	// maxBatch bounds the messages that are sent at once.
	maxBatch = 1000
)

// Broadcaster sends messages, each at a given time. Use New.
type Broadcaster[M any] struct {
	send       func(context.Context, []M)
	everything M               // covers every message
	ctx        context.Context // ends at Close
	cancel     context.CancelFunc
	tasks      sync.WaitGroup
	wake       chan struct{} // has room for one: a new message waits

	mu      sync.Mutex // guards all below
	waiting []scheduled[M]
	running bool
	closed  bool
}

type scheduled[M any] struct {
	at      time.Time
	message M
}

// New returns a Broadcaster that calls send for each batch. The message everything covers all others.
func New[M any](everything M, send func(context.Context, []M)) *Broadcaster[M] {
	b := &Broadcaster[M]{send: send, everything: everything, wake: make(chan struct{}, 1)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// SendAfter schedules a message. It does not block.
func (b *Broadcaster[M]) SendAfter(wait time.Duration, message M) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if len(b.waiting) >= MaxWaiting { //guard:waiting-messages-without-bound
		b.waiting = b.collapse()
	}
	b.waiting = append(b.waiting, scheduled[M]{time.Now().Add(wait), message})
	if !b.running {
		b.running = true
		b.tasks.Go(b.run)
	}
	select {
	case b.wake <- struct{}{}:
	default: // the goroutine has not looked since the last one
	}
}

// collapse replaces all messages with two for everything: one now, and one when the last message was due, because what
// that covers may not have happened yet.
func (b *Broadcaster[M]) collapse() []scheduled[M] {
	first, last := time.Now(), time.Now()
	for _, w := range b.waiting {
		if w.at.After(last) {
			last = w.at
		}
	}
	return []scheduled[M]{{first, b.everything}, {last, b.everything}} //guard:overload-forgets-what-is-due-later
}

// run sends what is due until nothing waits.
func (b *Broadcaster[M]) run() {
	for {
		batch, next, more := b.take()
		switch {
		case len(batch) > 0:
			b.send(b.ctx, batch)
		case !more, !b.sleepUntil(next):
			return
		}
	}
}

// sleepUntil waits until the given time or a new message, and reports whether the Broadcaster is open.
func (b *Broadcaster[M]) sleepUntil(next time.Time) bool {
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-timer.C:
	//guard:message-due-now-waits-for-one-due-later
	case <-b.wake: // the new message may be due earlier
	case <-b.ctx.Done():
		return false
	}
	return true
}

// take returns what is due; where nothing is, the time of the next message, if there is one.
func (b *Broadcaster[M]) take() (batch []M, next time.Time, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	left := b.waiting[:0]
	for _, w := range b.waiting {
		switch {
		case len(batch) < maxBatch && !w.at.After(now):
			batch = append(batch, w.message)
		default:
			left = append(left, w)
			if !more || w.at.Before(next) {
				next, more = w.at, true
			}
		}
	}
	b.waiting = left
	b.running = more || len(batch) > 0
	return batch, next, more
}

// Close cancels the batch that is being sent, drops all others and waits.
func (b *Broadcaster[M]) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.tasks.Wait()
}
