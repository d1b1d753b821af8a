package task

import (
	"context"
	"strings"
	"testing"
)

func TestPanicOfATaskEndsTheRun(t *testing.T) {
	failed := make(chan error, 1)
	task := NewGroup(func(err error) { failed <- err }).Go("sweep", func(context.Context) error { panic("canary") })
	defer task.Stop()
	if err := <-failed; !strings.Contains(err.Error(), "sweep: panic") || !strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "goroutine") {
		t.Errorf("got %v, want the task, the panic and its stack", err)
	}
}
