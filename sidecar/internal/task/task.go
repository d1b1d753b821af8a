// Package task runs the goroutines of a sidecar. Each has an owner that stops it and waits for it, and one that fails ends
// the run.
package task

import (
	"context"
	"fmt"
	"runtime/debug"
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

// Go runs fn until the task is stopped. An error that fn returns before that, or a panic, ends the run: the sidecar leaves the
// ring before it exits. name says what failed.
func (g *Group) Go(name string, fn func(context.Context) error) *Task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Task{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		if err := safely(ctx, fn); err != nil && ctx.Err() == nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	return t
}

func safely(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-of-task-skips-the-leave
			err = fmt.Errorf("panic, please report this as a bug: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx)
}

// Stop ends the task and waits for it. A nil task was never started.
func (t *Task) Stop() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}

// Done reports whether the task has ended.
func (t *Task) Done() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
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
