package sidecar

import (
	"context"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/internal/history"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/internal/verify"
)

// background runs what happens beside the requests: logging failures, sweeping, and following the configuration.
type background struct {
	datasets *datasets.Set
	verifier *verify.Verifier
	reloader *reloader
	access   *access.Control
	history  *history.Recorder
	log      *zap.Logger
	group    *task.Group
	tasks    []*task.Task
}

// Start starts the tasks.
func (b *background) Start(context.Context) error {
	b.tasks = []*task.Task{
		b.group.Go("log failures", datasets.NewFailureLog(b.datasets).Run),
		b.group.Go("sweep", b.datasets.Sweep),
		b.group.Go("rest", b.datasets.Rest),
		b.group.Go("warm up", b.datasets.Warm),
		b.group.Go("verify", b.verifier.Run),
		b.group.Go("follow the configuration", b.reloader.run),
		b.group.Go("history", b.history.Run),
		b.group.Go("follow the tokens", b.followTokens),
	}
	return nil
}

// followTokens reads the files of the tokens again at intervals. It logs a failure once, until it is another one.
func (b *background) followTokens(ctx context.Context) error {
	last := ""
	return task.Every(ctx, pollInterval, func() {
		message := ""
		if err := b.access.ReloadTokens(); err != nil {
			message = err.Error()
		}
		if message != "" && message != last {
			b.log.Error("tokens cannot be read; requests with them may be refused", zap.String("error", message))
		}
		last = message
	})
}

// Stop stops the tasks.
func (b *background) Stop(context.Context) { task.StopAll(b.tasks) }
