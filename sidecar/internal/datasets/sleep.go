package datasets

import (
	"context"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/task"
)

const (
	// lookForReads is the time between two looks at what is read.
	lookForReads = time.Second
	// sleepAfter is how long nothing is read before other members are no longer asked for signs of life.
	sleepAfter = 10 * time.Second
)

// Rest lets the pool sleep while nothing is read, until ctx is done. The next read of an entry that depends on other members'
// invalidations wakes it.
func (s *Set) Rest(ctx context.Context) error {
	var r rest
	return task.Every(ctx, lookForReads, func() { r.look(ctx, s, time.Now()) })
}

// rest is what the last look has seen.
type rest struct {
	reads int64
	since time.Time // when it was seen first
}

func (r *rest) look(ctx context.Context, s *Set, now time.Time) {
	reads, watched := s.used()
	s.config.Pool.SetWatched(watched)
	relied := watched || s.config.Pool.RelaysFeeds()
	if relied {
		s.config.Pool.Prove(ctx)
	}
	if reads != r.reads || relied || r.since.IsZero() { //guard:watching-member-sleeps
		r.reads, r.since = reads, now
		return
	}
	if now.Sub(r.since) < sleepAfter || !s.config.Pool.Awake() {
		return
	}
	s.config.Pool.Sleep() // first: a dataset that settles looks whether the pool sleeps
	for _, d := range s.All() {
		d.Sleep()
	}
}

// used returns how many reads there were, and whether clients watch keys.
func (s *Set) used() (reads int64, watched bool) {
	for _, d := range s.All() {
		reads += d.Stats().Reads()
		watched = watched || d.Watched()
	}
	return reads, watched
}
