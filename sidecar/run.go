// Package sidecar is one sidecar as a whole: its configuration, and Run, which builds all parts, starts them in order
// and stops them in the reverse order. DESIGN.md has the order, its reasons and the figures.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/etcd"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/cnfmetrics"
	"github.com/ringside-cache/ringside/sidecar/internal/changes"
	"github.com/ringside-cache/ringside/sidecar/internal/roster"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/xds"
)

// Addrs are the addresses that the listeners are bound to; empty where one is off.
type Addrs struct {
	HTTP, GRPC, Unix, Peer, Metrics, XDS, Admin string
}

// Run is the sidecar. It calls ready, which may be nil, once everything serves. When ctx ends it says goodbye to the
// other members, serves until they have stopped asking, and returns nil. It returns an error when it could not start,
// or when a part failed that it cannot do without. It may run several times in one process, also at once.
func Run(ctx context.Context, c Config, log *zap.Logger, ready func(Addrs)) error {
	if err := c.Check(); err != nil {
		return err
	}
	return (&process{config: c, log: log, began: time.Now()}).run(ctx, ready)
}

func (p *process) run(ctx context.Context, ready func(Addrs)) error {
	ctx, p.fail = context.WithCancelCause(ctx)
	defer p.fail(nil)
	err := p.start(ctx)
	if err == nil {
		p.announce()
		if ready != nil {
			ready(p.addrs)
		}
		<-ctx.Done()
		err = failure(ctx)
		p.log.Info("stopping", zap.NamedError("because", err))
	}
	return errors.Join(err, p.stop())
}

// failure returns what ended ctx, or nil when its owner did.
func failure(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return cause
	}
	return nil
}

// process is one run. Its fields are written by the stages, in their order; each stage uses those of the stages before.
type process struct {
	config Config
	log    *zap.Logger
	fail   context.CancelCauseFunc // ends the run with an error
	began  time.Time
	tasks  sync.WaitGroup // goroutines that serve; they end when their stage stops

	memory    int64 // bytes for all entries
	listeners listeners
	conns     bounds // of the listeners
	addrs     Addrs
	self      ring.Member
	twin      ring.Member          // that was logged last; the follower's goroutine alone has it
	origins   map[string]*database // :: name → open origin
	tls       *mtls.Credentials    // nil for plain text
	pool      *peer.Pool
	datasets  []*cache.Dataset // sorted by name
	changes   *changes.Feeds
	cnf       *cnfmetrics.Service // nil where it is not served
	directory ring.Directory
	roster    *roster.Roster
	ring      atomic.Pointer[ring.Ring] // the roster's, for readers that must not wait for it
	etcd      *etcd.Directory           // the directory, where it is in etcd; nil otherwise
	resolver  *xds.Resolver             // the directory, where it is a feed; nil otherwise

	service                    *server.Service
	peerServer                 *server.Server
	xdsPublisher               *xdsPublisher // nil without listen.xds
	local                      *local.Server
	metricsServer, adminServer *http.Server // nil where off

	following, background []*task
	registering, reading  *task
	reloads               reloads

	asked    atomic.Int64 // requests of other members, but for peeks
	started  []stage      // to be stopped, the last one first
	serving  atomic.Bool  // all stages are started
	stopping atomic.Bool
}

// stage is a part of a process that is started and stopped as one.
type stage struct {
	name  string
	start func(ctx context.Context) error
	// stop returns soon after ctx is done. It is called even when start failed half-way.
	stop func(ctx context.Context)
}

// stages are the order of a run's life. They start in this order and stop in the reverse one: a member registers last,
// when it can serve, and withdraws first, while it still serves everybody. Listeners are bound early, so that a port
// that is taken is known before anything else happens, and callers that come early wait in the kernel's queue.
func (p *process) stages() []stage {
	return []stage{
		{"memory", p.limitMemory, nothing},
		{"listeners", p.bind, p.closeListeners},
		{"origins", p.openOrigins, p.closeOrigins},
		{"peers", p.openPool, p.closePool},
		{"datasets", p.openDatasets, p.closeDatasets},
		{"probes", p.serveMetrics, p.stopMetrics},
		{"peer listener", p.servePeers, p.stopPeers},
		{"xds listener", p.serveFeed, p.stopFeed},
		{"ring", p.follow, p.unfollow},
		{"local listeners", p.serveLocal, p.stopLocal},
		{"admin listener", p.serveAdmin, p.stopAdmin},
		{"change feeds", p.readChanges, p.handBackChanges},
		{"registration", p.register, p.withdraw},
		{"background", p.watch, p.unwatch},
	}
}

func nothing(context.Context) {}

func (p *process) start(ctx context.Context) error {
	for _, s := range p.stages() {
		p.started = append(p.started, s)
		if err := s.start(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		if ctx.Err() != nil {
			return failure(ctx)
		}
	}
	p.serving.Store(true)
	p.local.SetServing(true)
	return nil
}

// stopTimeout bounds each stage's stop, after the time for draining: requests under way are cut off then.
const stopTimeout = 5 * time.Second

// stop takes down what was started. A stage that does not end in time is named and left behind: the process must end.
func (p *process) stop() error {
	p.stopping.Store(true)
	var late []error
	for i := len(p.started) - 1; i >= 0; i-- {
		s := p.started[i]
		if !p.stopOne(s) {
			late = append(late, fmt.Errorf("stop %s: still not done after %s", s.name, p.patience()))
		}
	}
	p.log.Info("stopped")
	return errors.Join(late...)
}

// patience is what a stage gets at most. Only withdrawing takes the time of a drain.
func (p *process) patience() time.Duration { return p.config.drainTimeout() + stopTimeout }

func (p *process) stopOne(s stage) bool {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.stop(ctx)
	}()
	hard := time.NewTimer(p.patience() + time.Second)
	defer hard.Stop()
	select {
	case <-done:
		p.log.Debug("stopped " + s.name)
		return true
	case <-hard.C:
		return false
	}
}

// serve runs loop until its stage stops it. A loop that ends by itself with an error ends the run.
func (p *process) serve(what string, loop func() error) {
	p.tasks.Go(func() {
		if err := loop(); err != nil && !p.stopping.Load() {
			p.fail(fmt.Errorf("%s: %w", what, err))
		}
	})
}

// announce is the start line. It takes names and addresses from the configuration, and no secrets.
func (p *process) announce() {
	version, revision := Version()
	p.log.Info("ready",
		zap.String("version", version), zap.String("revision", revision), zap.String("node", p.self.ID),
		zap.String("http", p.addrs.HTTP), zap.String("grpc", p.addrs.GRPC), zap.String("unix", p.addrs.Unix),
		zap.String("peer", p.addrs.Peer), zap.String("advertise", p.self.Addr),
		zap.String("metrics", p.addrs.Metrics), zap.String("xds", p.addrs.XDS), zap.String("admin", p.addrs.Admin),
		zap.Strings("datasets", p.datasetNames()), zap.Int64("memory_bytes", p.memory),
		zap.String("membership", p.config.Membership.kind()), zap.Duration("took", time.Since(p.began)))
	for _, warning := range p.config.Warnings() {
		p.log.Warn(warning)
	}
}
