package datasets

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/internal/warm"
)

// adoptInterval is the time between two looks for datasets that were added or removed.
const adoptInterval = 500 * time.Millisecond

// warming is a running warm-up.
type warming struct {
	task     *task.Task
	of       config.Warm
	interval time.Duration
}

// Warm keeps datasets warm until ctx is done.
func (s *Set) Warm(ctx context.Context) error {
	running := map[*cache.Dataset]warming{}
	defer func() {
		for _, w := range running {
			w.task.Stop()
		}
	}()
	for {
		now := s.current.Load()
		for d, w := range running {
			c := now.config.Datasets[d.Name()]
			if now.lookup(d.Name()) != d || !reflect.DeepEqual(c.Warm, w.of) || c.WarmInterval() != w.interval {
				w.task.Stop()
				delete(running, d)
			}
		}
		for _, d := range now.list {
			c := now.config.Datasets[d.Name()]
			if _, ok := running[d]; ok || !c.Warm.Configured() {
				continue
			}
			run := s.warmer(d, c, now.warm[d.Name()]).Run
			running[d] = warming{s.config.Tasks.Go("warm up "+d.Name(), run), c.Warm, c.WarmInterval()}
		}
		if !backoff.Sleep(ctx, adoptInterval) {
			return nil
		}
	}
}

func (s *Set) warmer(d *cache.Dataset, c config.Dataset, w origins.Warm) *warm.Runner {
	return warm.New(warm.Config{
		Dataset: d, Work: d.Work(), Origin: w.Origin, Keys: w.Keys, Turn: w.Turn, Batch: w.Batch,
		Interval: c.WarmInterval(), Pin: c.Warm.Pin, Done: s.logWarm(d.Name()),
	})
}

// logWarm returns a function that logs a list of keys if its outcome is not that of the previous one.
func (s *Set) logWarm(dataset string) func(warm.Pass) {
	last := ""
	return func(p warm.Pass) {
		log, outcome := s.config.Log.Info, "the keys of a dataset are in memory"
		switch {
		case p.Err != nil:
			log, outcome = s.config.Log.Warn, "loading the keys of a dataset before they are read failed; retrying"
		case p.Omitted > 0:
			log, outcome = s.config.Log.Warn, "not all keys of a dataset fit into its memory: raise memory or memory_share"
		}
		if outcome == last {
			return
		}
		last = outcome
		log(outcome, zap.String("dataset", dataset), zap.Int("keys", p.Keys), zap.Int("loaded", p.Loaded),
			zap.Int("omitted", p.Omitted), zap.Duration("took", p.Took), zap.Error(p.Err))
	}
}

// Warming returns which datasets readiness waits for; nil if there are none. A list that has failed ends the wait: the cache
// serves what it has, whatever the database does.
func (s *Set) Warming(since time.Time) error {
	var names []string
	for _, d := range s.All() {
		st := d.Stats()
		ended := st.WarmPasses.Load()+st.WarmFailures.Load() > 0
		if !ended && time.Since(since) < s.Config().Datasets[d.Name()].WarmWait() { //guard:readiness-waits-for-a-database-that-is-down
			names = append(names, d.Name())
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("warming up: the keys of these datasets are being loaded: %s", strings.Join(names, ", "))
}
