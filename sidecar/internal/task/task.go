// Package task runs the goroutines of a sidecar. Each has an owner that stops it and waits for it, and one that fails ends
// the run.
package task

import (
	"context"
	"fmt"
	"time"
)

// Group starts tasks. It is safe for concurrent use.
type Group struct{ fail func(error) }

// NewGroup returns a Group that calls fail with the error of each task that fails.
func NewGroup(fail func(error)) *Group { return &Group{fail} }

// Task is a goroutine that its owner stops.
type Task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Go runs fn until the task is stopped. An error that fn returns before that ends the run; name says what failed.
func (g *Group) Go(name string, fn func(context.Context) error) *Task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Task{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	return t
}

// Stop ends the task and waits for it. A nil task was never started.
func (t *Task) Stop() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}

// StopAll stops tasks one after another.
func StopAll(tasks []*Task) {
	for _, t := range tasks {
		t.Stop()
	}
}

// Every calls do at every interval until ctx is done.
func Every(ctx context.Context, interval time.Duration, do func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			do()
		}
	}
}
