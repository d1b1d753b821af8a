// Package sidecar runs one sidecar: it builds all parts, starts them in order and stops them in the reverse order.
// DESIGN.md has the order, its reasons and figures.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/config/warnings"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
	"github.com/ringside-cache/ringside/sidecar/internal/servers"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
)

// Addrs are the addresses that the listeners are bound to; empty for each that is off.
type Addrs struct {
	HTTP, GRPC, Redis, OTLP, Unix, Peer, Metrics, XDS, Admin string
}

// Run runs a sidecar. It calls ready, which may be nil, when everything serves. When ctx ends, it leaves the ring, serves
// until the other members have stopped sending requests, and returns nil. It returns an error if it could not start, or if
// a part failed that it needs. It may run several times in one process, also at the same time.
func Run(ctx context.Context, c config.Config, log *zap.Logger, ready func(Addrs)) error {
	if err := c.Check(drivers.All()); err != nil {
		return err
	}
	return newRun(c, log).run(ctx, ready)
}

// RunChild is Run in a process whose parent may have passed it listening sockets: package supervise, or systemd.
func RunChild(ctx context.Context, c config.Config, log *zap.Logger) error {
	if err := c.Check(drivers.All()); err != nil {
		return err
	}
	passed, err := inherit.Open(os.Getenv, os.Getpid(), os.Getppid())
	if err != nil {
		return err
	}
	r := newRun(c, log)
	r.supervisor.Passed = passed
	return r.supervisor.fail(r.run(ctx, nil))
}

// run is one run of a sidecar.
type run struct {
	config config.Config // as it was given, for reloads; the parts get an effective one
	log    *zap.Logger
	errors *apierror.Log
	began  time.Time

	// Tests set these before the start.
	directory ring.Directory                       // instead of that of the configuration
	limits    func(originConns int) servers.Limits // instead of those of the process

	supervisor supervisor

	tasks    *task.Group
	fail     context.CancelCauseFunc // ends the run with an error
	parts    *parts
	started  []stage // in the order of their start
	serving  atomic.Bool
	stopping atomic.Bool
}

func newRun(c config.Config, log *zap.Logger) *run {
	return &run{
		config: c, log: log, errors: apierror.NewLog(logErrors(log)), began: time.Now(), limits: servers.ProcessLimits,
	}
}

func (r *run) run(ctx context.Context, ready func(Addrs)) error {
	ctx, r.fail = context.WithCancelCause(ctx)
	defer r.fail(nil)
	r.tasks = task.NewGroup(r.fail)
	err := r.start(ctx)
	if err == nil {
		r.logReady()
		r.supervisor.say(inherit.Ready)
		if ready != nil {
			ready(r.addrs())
		}
		<-ctx.Done()
		err = failure(ctx)
		r.log.Info("the sidecar is stopping", zap.NamedError("reason", err))
	}
	return errors.Join(err, r.stop())
}

// failure returns the error that ended ctx, or nil if its owner did.
func failure(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return cause
	}
	return nil
}

// stage is a part of a sidecar that starts and stops as one.
type stage struct {
	name  string
	start func(ctx context.Context) error // nil if it started when it was built
	// stop returns soon after ctx is done. It is called even if start failed.
	stop func(ctx context.Context)
}

// start builds the parts and starts their stages.
func (r *run) start(ctx context.Context) error {
	commands := r.tasks.Go("commands of the supervisor", func(ctx context.Context) error {
		return r.supervisor.obey(ctx, func() { r.fail(nil) })
	})
	r.started = append(r.started, stage{name: "supervisor", stop: func(context.Context) { commands.Stop() }})
	built, err := r.build(ctx)
	r.parts = built
	r.started = append(r.started, built.opened()...)
	if err != nil {
		return err
	}
	for _, s := range built.stages(r.restoreEntries, r.saveEntries) {
		r.started = append(r.started, s)
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		if ctx.Err() != nil {
			return failure(ctx)
		}
	}
	r.serving.Store(true)
	built.applications.Server.SetServing(true)
	return nil
}

// stopTimeout bounds the stop of each stage, after the drain: requests still in flight are then cut off.
const stopTimeout = 5 * time.Second

// stop stops the started stages. It reports and abandons a stage that does not stop in time: the process must end.
func (r *run) stop() error {
	r.stopping.Store(true)
	var late []error
	for i := len(r.started) - 1; i >= 0; i-- {
		if s := r.started[i]; !r.stopStage(s) {
			late = append(late, fmt.Errorf("stop %s: not done after %s", s.name, r.stageTimeout()))
		}
	}
	r.log.Info("the sidecar has stopped")
	return errors.Join(late...)
}

// stageTimeout bounds the stop of a stage. Only the end of the registration needs the time of the drain.
func (r *run) stageTimeout() time.Duration { return *r.config.Effective().DrainTimeout + stopTimeout }

func (r *run) stopStage(s stage) bool {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.stop(ctx)
	}()
	hard := time.NewTimer(r.stageTimeout() + time.Second)
	defer hard.Stop()
	select {
	case <-done:
		r.log.Debug("stage stopped", zap.String("stage", s.name))
		return true
	case <-hard.C:
		return false
	}
}

var (
	errStarting = errors.New("starting: some parts do not serve yet")
	errStopping = errors.New("stopping: this member has left the ring and finishes its last requests")
)

// startedUp is the startup probe.
func (r *run) startedUp() error {
	if !r.serving.Load() {
		return errStarting
	}
	return nil
}

// ready is the readiness probe. It depends on nothing outside the process: a member that cannot reach etcd or the database
// still serves cached values, and sending applications elsewhere would not help them. It waits for a warm-up for so long as the
// configuration says, unless the database fails.
func (r *run) ready() error {
	if r.stopping.Load() {
		return errStopping
	}
	if err := r.startedUp(); err != nil {
		return err
	}
	return r.parts.datasets.Warming(r.began)
}

func (r *run) addrs() Addrs {
	addr := func(name string) string {
		if a := r.parts.listeners.Addr(name); a != nil {
			return a.String()
		}
		return ""
	}
	return Addrs{
		HTTP: addr("http"), GRPC: addr("grpc"), Redis: addr("redis"), OTLP: addr("otlp"), Unix: addr("unix"), Peer: addr("peer"),
		Metrics: addr("metrics"), XDS: addr("xds"), Admin: addr("admin"),
	}
}

// logReady logs names and addresses of the configuration, and no secrets.
func (r *run) logReady() {
	version, revision := Version()
	a, self := r.addrs(), r.parts.members.Self()
	r.log.Info("the sidecar is ready",
		zap.String("version", version), zap.String("revision", revision), zap.String("node", self.ID),
		zap.String("http", a.HTTP), zap.String("grpc", a.GRPC), zap.String("redis", a.Redis), zap.String("otlp", a.OTLP), zap.String("unix", a.Unix),
		zap.String("peer", a.Peer), zap.String("advertise", self.Addr),
		zap.String("metrics", a.Metrics), zap.String("xds", a.XDS), zap.String("admin", a.Admin),
		zap.Strings("datasets", r.parts.datasets.Names()), zap.Int64("memory_bytes", r.parts.memory.entries), zap.Int64("client_memory_bytes", r.parts.memory.clients),
		zap.String("membership", r.config.Membership.Kind()), zap.Duration("took", time.Since(r.began)))
	for _, warning := range warnings.Of(r.config) {
		r.log.Warn(warning)
	}
}
