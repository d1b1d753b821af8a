package cache

import (
	"context"
	"sync"
	"time"
)

const (
	// maxTold bounds the invalidations that wait to be told to everybody. One more makes them one of everything.
	maxTold = 4096
	// maxTelling bounds those that are told at once.
	maxTelling = 1000
)

// teller tells every member what those who follow this one would not learn, one batch at a time.
type teller struct {
	all    func(context.Context, []Invalidation)
	ctx    context.Context // ends when the teller is closed
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	wake   chan struct{} // has room for one: something new waits

	mu      sync.Mutex // guards all below
	waiting []due
	running bool
	closed  bool
}

// due is an invalidation that is told at a time.
type due struct {
	at time.Time
	Invalidation
}

// tellAll drops what may have come since, and has all members do so. Who cannot be told has the ttl.
func (d *Dataset) tellAll(ctx context.Context, list []Invalidation) {
	for _, i := range list {
		d.ApplyInvalidation(i)
	}
	d.peers.Broadcast(ctx, list)
}

func newTeller(all func(context.Context, []Invalidation)) *teller {
	t := &teller{all: all, wake: make(chan struct{}, 1)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// tell has i told after a while.
func (t *teller) tell(i Invalidation, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if len(t.waiting) >= maxTold { //guard:invalidations-wait-without-bound
		t.waiting = t.everything(i.Dataset)
	}
	t.waiting = append(t.waiting, due{time.Now().Add(after), i})
	if !t.running {
		t.running = true
		t.tasks.Go(t.run)
	}
	select {
	case t.wake <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// everything stands for all that waits: what is due now, and what is due last, which may not have happened yet.
func (t *teller) everything(dataset string) []due {
	first, last := time.Now(), time.Now()
	for _, w := range t.waiting {
		if w.at.After(last) {
			last = w.at
		}
	}
	all := Invalidation{Dataset: dataset, Prefix: true}
	return []due{{first, all}, {last, all}} //guard:teller-falls-behind-forgets-still-come
}

// run tells what is due until nothing waits.
func (t *teller) run() {
	for {
		batch, next, more := t.take()
		if len(batch) > 0 {
			t.all(t.ctx, batch)
			continue
		}
		if !more {
			return
		}
		if !t.sleep(next) {
			return
		}
	}
}

// sleep waits until something is due or new, and reports whether the teller is open.
func (t *teller) sleep(next time.Time) bool {
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-timer.C:
	//guard:due-now-waits-due-later
	case <-t.wake: // what is new may be due before
	case <-t.ctx.Done():
		return false
	}
	return true
}

// take returns what is due; where nothing is, the time of what is next, if anything.
func (t *teller) take() (batch []Invalidation, next time.Time, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	left := t.waiting[:0]
	for _, w := range t.waiting {
		switch {
		case len(batch) < maxTelling && !w.at.After(now):
			batch = append(batch, w.Invalidation)
		default:
			left = append(left, w)
			if !more || w.at.Before(next) {
				next, more = w.at, true
			}
		}
	}
	t.waiting = left
	t.running = more || len(batch) > 0
	return batch, next, more
}

// close ends what is being told and waits for it.
func (t *teller) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.tasks.Wait()
}
