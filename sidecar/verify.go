package sidecar

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/internal/verify"
)

// newVerifier returns what compares cached entries with the database.
func newVerifier(p *parts, tasks *task.Group) *verify.Verifier {
	return verify.New(verify.Config{
		Node: p.members.Self().ID, Datasets: p.datasets.All, Tasks: tasks,
		Rows: func(dataset string) (origins.Rows, bool) { return p.datasets.Origins().Rows(dataset) },
		FeedInterval: func(dataset string) time.Duration {
			return p.datasets.Config().Datasets[dataset].Feed.Config().Interval
		},
		Members: func() int { return p.members.Ring().Len() },
	})
}
