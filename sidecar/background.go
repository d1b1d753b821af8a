package sidecar

import (
	"context"

	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
)

// background runs what happens beside the requests: logging failures, sweeping, and following the configuration.
type background struct {
	datasets *datasets.Set
	reloader *reloader
	group    *task.Group
	tasks    []*task.Task
}

// Start starts the tasks.
func (b *background) Start(context.Context) error {
	b.tasks = []*task.Task{
		b.group.Go("log failures", datasets.NewFailureLog(b.datasets).Run),
		b.group.Go("sweep", b.datasets.Sweep),
		b.group.Go("follow the configuration", b.reloader.run),
	}
	return nil
}

// Stop stops the tasks.
func (b *background) Stop(context.Context) { task.StopAll(b.tasks) }
