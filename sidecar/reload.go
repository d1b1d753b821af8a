package sidecar

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/config/restart"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/logging"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

// pollInterval is the time between two looks at the file. Polling is simpler than notification: a ConfigMap changes by a
// switch of a symbolic link two levels up, which file watchers miss.
const pollInterval = 2 * time.Second

// reloader applies a changed configuration to a running sidecar.
type reloader struct {
	config   config.Config // of the start; package restart has the fields that a reload does not change
	datasets *datasets.Set
	access   *access.Control
	served   *served
	audit    *audit.Log // nil if it is off
	log      *zap.Logger

	ok, failed atomic.Int64
	lastFailed atomic.Bool
}

func (r *reloader) stats() metrics.Reloads {
	return metrics.Reloads{OK: r.ok.Load(), Failed: r.failed.Load(), LastFailed: r.lastFailed.Load()}
}

// run reloads when the file changes and on SIGHUP. A configuration that was made in Go has no file.
func (r *reloader) run(ctx context.Context) error {
	source := r.config.Source()
	if source == nil {
		<-ctx.Done()
		return nil
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for seen := source.Text(); ; {
		forced := false
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			forced = true
		case <-ticker.C:
		}
		text, err := source.Read()
		if !forced && (err != nil || bytes.Equal(text, seen)) {
			continue // a file that is missing for a moment is being replaced
		}
		seen = text
		r.reload(func() (config.Config, error) {
			if err != nil {
				return config.Config{}, err
			}
			return source.Parse(text)
		})
	}
}

// reload applies the configuration that load returns, or logs why it changes nothing.
func (r *reloader) reload(load func() (config.Config, error)) {
	next, err := load()
	if err == nil {
		err = r.apply(next)
	}
	if err != nil {
		r.failed.Add(1)
		r.lastFailed.Store(true)
		r.audit.Record(audit.Event{Action: audit.Reload, Result: "rejected"})
		r.log.Error("the changed configuration was rejected; the old one stays in use", zap.Error(err))
		return
	}
	r.audit.Record(audit.Event{Action: audit.Reload, Result: audit.OK})
	r.ok.Add(1)
	r.lastFailed.Store(false)
}

// apply makes next the configuration in use, or nothing of it: whatever can fail comes first.
func (r *reloader) apply(next config.Config) error {
	if err := restart.Needed(r.config, next); err != nil {
		return err
	}
	next = next.Effective()
	err := metrics.CheckNames(slices.Collect(maps.Keys(next.Datasets)), slices.Collect(maps.Keys(next.Origins)))
	if err != nil {
		return err
	}
	change, err := r.datasets.Prepare(next)
	if err != nil {
		return err
	}
	lister, err := typedLister(next, change.Origins())
	if err == nil {
		err = r.access.Apply(accessOf(next))
	}
	if err != nil {
		change.Discard()
		return err
	}
	change.Apply()
	logging.SetLevel(r.log, next.Log.Level) //guard:level-of-the-log-needs-a-restart
	r.served.use(next, lister)
	change.Retire()
	r.log.Info("the configuration was reloaded", zap.Strings("added", change.Added), zap.Strings("removed", change.Removed),
		zap.Strings("replaced", change.Replaced), zap.Strings("changed", change.Changed))
	return nil
}
