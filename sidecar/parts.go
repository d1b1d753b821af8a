package sidecar

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cnfmetrics"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/internal/explain"
	"github.com/ringside-cache/ringside/sidecar/internal/history"
	"github.com/ringside-cache/ringside/sidecar/internal/membership"
	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/servers"
	"github.com/ringside-cache/ringside/sidecar/internal/status"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing/otlp"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/metrics"
	"github.com/ringside-cache/ringside/sidecar/otlpmetrics"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
)

// parts are the parts of a sidecar, in the order in which they are built: each constructor takes the parts that it needs.
type parts struct {
	memory       memory
	budget       *budget.Budget // of memory.clients
	audit        *audit.Log     // nil if it is off
	auditing     *task.Task     // writes it
	traces       *otlp.Exporter // nil if it is off
	access       *access.Control
	listeners    *servers.Listeners
	tls          *mtls.Credentials // nil for plain text
	directory    *membership.Directory
	pool         *peer.Pool
	datasets     *datasets.Set
	served       *served
	otlp         *otlpmetrics.Receiver // nil if it is off
	publisher    *servers.Publisher
	members      *membership.Members
	list         memberlist.Feed // of the members, for clients of the ring
	applications *servers.Applications
	peers        *servers.Peers
	reloader     *reloader
	metrics      *servers.HTTP
	admin        *servers.HTTP
	registration *membership.Registration
	history      *history.Recorder
	background   *background
	log          *zap.Logger
}

// opened returns the parts that hold something as soon as they are built. They are the first stages.
func (p *parts) opened() []stage {
	var list []stage
	if p.auditing != nil {
		list = append(list, stage{name: "audit log", stop: func(context.Context) { p.auditing.Stop() }})
	}
	if p.traces != nil {
		list = append(list, stage{name: "traces", stop: p.traces.Close})
	}
	if p.listeners != nil {
		list = append(list, stage{name: "listeners", stop: func(context.Context) { p.listeners.Close() }})
	}
	if p.tls != nil {
		list = append(list, stage{name: "identity", stop: func(context.Context) { p.tls.Close() }})
	}
	if p.pool != nil {
		list = append(list, stage{name: "peers", stop: func(context.Context) { p.pool.Close() }})
	}
	if p.directory != nil {
		list = append(list, stage{name: "directory", stop: p.closeDirectory})
	}
	if p.datasets != nil {
		list = append(list, stage{name: "datasets and origins", stop: func(context.Context) { p.datasets.Close() }})
	}
	return list
}

// stages returns the rest in the order in which it starts. It stops in the reverse order, before what was opened: a member
// registers last, when it can serve, and leaves the ring first, while it still serves all its listeners. Listeners are
// bound early, so that a port in use is found before anything else happens, and early clients wait in the kernel's queue.
//
// What comes before restore is done while the previous process still serves; what two processes must not do at once comes after
// it. Applications are served from right after restore until right before save: they wait for nothing else.
func (p *parts) stages(restore func(context.Context) error, save func(context.Context)) []stage {
	return []stage{
		{"ring", p.members.Start, p.members.Stop},
		{"entries of the previous process", restore, save},
		{"points of metrics", p.startOTLP, p.stopOTLP},
		{"local listeners", p.applications.Start, p.applications.Stop},
		{"metrics listener", p.metrics.Start, p.metrics.Stop},
		{"peer listener", p.peers.Start, p.peers.Stop},
		{"xds listener", p.publisher.Start, p.publisher.Stop},
		{"admin listener", p.admin.Start, p.admin.Stop},
		{"change feeds", p.datasets.StartFeeds, p.datasets.StopFeeds},
		{"registration", p.registration.Start, p.registration.Stop},
		{"background tasks", p.background.Start, p.background.Stop},
	}
}

func (p *parts) closeDirectory(context.Context) {
	if err := p.directory.Close(); err != nil {
		p.log.Warn("closing the member directory failed", zap.Error(err))
	}
}

// build builds the parts. Those that it has opened are in the result even if it fails.
func (r *run) build(ctx context.Context) (*parts, error) {
	c := r.config.Effective()
	p := &parts{log: r.log}
	var err error
	if p.memory, err = limitMemory(c, r.log); err != nil {
		return p, err
	}
	p.budget = budget.New(p.memory.clients)
	if err = r.buildAccess(p, c); err != nil {
		return p, err
	}
	originConns := 0
	for _, o := range c.Origins {
		originConns += o.MaxConns
	}
	limits := r.limits(originConns)
	limits.Budget = p.budget
	if p.listeners, err = servers.Bind(ctx, c.Listeners(), r.supervisor.Sockets, limits, r.log, r.tasks); err != nil {
		return p, fmt.Errorf("start listeners: %w", err)
	}
	if err := r.buildMembers(ctx, p, c); err != nil {
		return p, err
	}
	return p, r.buildServers(p, c)
}

// buildAccess builds what decides who may do what, and the log of it.
func (r *run) buildAccess(p *parts, c config.Config) (err error) {
	switch c.Audit.File {
	case "":
	case config.AuditStdout:
		p.audit = audit.New(os.Stdout, r.logAuditFailure)
	default:
		if p.audit, err = audit.Open(c.Audit.File, r.logAuditFailure); err != nil {
			return fmt.Errorf("audit.file: %w", err)
		}
	}
	if p.audit != nil {
		p.auditing = r.tasks.Go("audit log", p.audit.Run)
	}
	if p.access, err = access.New(accessOf(c), p.audit); err != nil {
		return fmt.Errorf("build the access rules: %w", err)
	}
	return nil
}

// buildMembers builds what depends on who this member is, up to its ring.
func (r *run) buildMembers(ctx context.Context, p *parts, c config.Config) error {
	version, _ := Version()
	self, err := membership.Identify(c, p.listeners.Addr("peer"), version, r.began)
	if err != nil {
		return fmt.Errorf("identify this member: %w", err)
	}
	r.openTraces(ctx, p, self.ID, version)
	if p.tls, err = membership.OpenTLS(ctx, c, self.ID, p.audit, r.log); err != nil {
		return err
	}
	sink := new(datasets.Sink)
	p.pool = newPool(c, self, p.tls, sink, p.budget, p.tracer(), r.logDefect)
	if p.directory, err = r.openDirectory(c.Membership, self, p); err != nil {
		return err
	}
	p.datasets, err = datasets.New(datasets.Config{
		Config: c, Origins: origins.Config{Drivers: drivers.All(), Defect: r.logDefect, Log: r.log}, Pool: p.pool,
		Memory: p.memory.entries, Budget: p.budget, Log: r.log, Tasks: r.tasks, Defect: r.logDefect,
	})
	if err != nil {
		return fmt.Errorf("build the datasets: %w", err)
	}
	sink.Attach(p.datasets)
	p.publisher = servers.NewPublisher(p.listeners, c.Ring.Size(), p.tls, r.logDefect, r.log)
	p.members, err = membership.New(membership.Config{
		Self: self, Client: c.Membership.Client(), Size: c.Ring.Size(), Directory: p.directory, Pool: p.pool,
		Role: c.Membership.Decides(), MaxMembers: c.Membership.MaxMembers,
		OnRing: p.useRing, OnMembers: p.publish, Defect: r.logDefect, Log: r.log, Tasks: r.tasks,
	})
	return err
}

// openTraces opens the exporter of spans that the environment asks for. Variables that all pods of a cluster have must not keep the
// sidecar from starting.
func (r *run) openTraces(ctx context.Context, p *parts, node, version string) {
	var err error
	p.traces, err = otlp.Open(ctx, otlp.Identity{Node: node, Version: version}, func(err error) {
		r.log.Warn("spans could not be sent to the OpenTelemetry collector and are lost", zap.Error(err))
	})
	if err != nil {
		r.log.Warn("requests are not traced: a variable of the environment cannot be used", zap.Error(err))
	}
}

// tracer makes the spans; nil if nothing is traced.
func (p *parts) tracer() *tracing.Tracer {
	if p.traces == nil {
		return nil
	}
	return p.traces.Tracer
}

func (r *run) openDirectory(m config.Membership, self ring.Member, p *parts) (*membership.Directory, error) {
	if r.directory != nil {
		return &membership.Directory{Directory: r.directory, Kind: m.Kind()}, nil
	}
	return membership.OpenDirectory(m, self, p.tls, p.pool, r.log)
}

func newPool(c config.Config, self ring.Member, tls *mtls.Credentials, sink peer.Sink, b *budget.Budget, tracer *tracing.Tracer,
	defect func(error)) *peer.Pool {
	pool := peer.Config{
		Self: self.ID, Zone: self.Zone, Zones: c.Membership.Zones, AttemptTimeout: c.FetchTimeout(), SubscriptionIdle: c.SubscriptionIdle(), CopyLife: max(c.CopyLife(), 1),
		Sink: sink, Budget: b, Defect: defect, Feeds: c.WithFeed(), //guard:invalidations-of-members-are-dropped
	}
	if tracer != nil {
		pool.Propagate = tracing.Propagation
	}
	if c.Membership.Client() {
		pool.Self = "" // it is not on the ring
	}
	if tls != nil {
		pool.Credentials = tls
	}
	return peer.NewPool(pool)
}

func (p *parts) useRing(cur, prev *ring.Ring) {
	p.pool.SetRing(cur, prev)
	p.datasets.RingChanged()
	p.log.Info("the ring has changed", zap.String("id", adminapi.FormatRingID(cur.ID())), zap.Int("members", cur.Len()))
}

// publish gives the members to xDS clients and to clients of the ring.
func (p *parts) publish(members []ring.Member) {
	p.publisher.Publish(members)
	p.list.Set(members)
}

// buildServers builds the servers, and what depends on them.
func (r *run) buildServers(p *parts, c config.Config) error {
	var err error
	if p.served, err = newServed(p, c); err != nil {
		return err
	}
	if p.otlp, err = newOTLP(p, c, r.errors); err != nil {
		return err
	}
	explainer := newExplainer(p, r.errors)
	verifier := newVerifier(p, r.tasks)
	application := newApplication(p, c, explainer, r.errors)
	p.applications = servers.NewApplications(p.listeners, application, r.log)
	version, revision := Version()
	node := &status.Node{
		Config: c, Version: version, Revision: revision, Started: r.began, Members: p.members, Pool: p.pool,
		Datasets: p.datasets, Local: application, Publisher: p.publisher,
		Listeners: p.listeners, TLS: p.tls, Budget: p.budget, Access: p.access, Audit: p.audit, Traces: p.traces, OTLP: p.otlp, Log: r.log,
		Errors: r.errors, Explainer: explainer, Verifier: verifier,
	}
	p.reloader = &reloader{
		config: r.config, datasets: p.datasets, access: p.access, served: p.served, audit: p.audit, log: r.log}
	p.history = history.New(history.Config{
		Datasets: p.datasets.All, Observe: func() history.State { return node.Observe(p.reloader.stats()) }, Defect: r.logDefect,
	})
	p.history.Add(adminapi.Event{At: r.began, Kind: adminapi.EventStart, Text: "started, version " + version})
	node.History = p.history
	p.peers, err = servers.NewPeers(p.listeners, servers.PeersConfig{
		Self: p.members.Self(), Record: p.members.Record, Members: &p.list, Changed: p.directory.Changed, TLS: p.tls, Pool: p.pool, Datasets: p.datasets,
		Inspect: node.Inspect, Explain: explainer.StateJSON, History: p.history.After,
		ReachBack:    p.members.ReachBack,
		Applications: application, Budget: p.budget, Tracer: p.tracer(), Defect: r.logDefect,
	})
	if err != nil {
		return err
	}
	gatherer, err := metrics.NewGatherer(node.Metrics(p.peers, p.reloader.stats))
	if err != nil {
		return err
	}
	p.metrics = servers.NewHTTP(p.listeners, "metrics",
		metrics.NewHandler(gatherer, metrics.Probes{Started: r.startedUp, Ready: r.ready, Detail: p.members.Detail}))
	p.admin = servers.NewHTTP(p.listeners, "admin", admin.NewHandler(node.Admin()))
	p.registration = newRegistration(p, *c.DrainTimeout)
	p.background = &background{datasets: p.datasets, verifier: verifier, reloader: p.reloader, access: p.access, history: p.history, log: r.log, group: r.tasks}
	return nil
}

// accessOf returns who may do what, in the form that package access takes.
func accessOf(c config.Config) access.Config {
	a := access.Config{Tokens: make(map[string]string, len(c.Tokens)), Datasets: make(map[string]access.Dataset, len(c.Datasets))}
	for name, t := range c.Tokens {
		a.Tokens[name] = t.File
	}
	for name, d := range c.Datasets {
		a.Datasets[name] = access.Dataset{Rules: access.Rules(d.Allow), Limits: access.Limits(d.Limits)}
	}
	return a
}

// newApplication returns the server of the pod's applications, and of clients that route by the ring.
func newApplication(p *parts, c config.Config, explainer *explain.Explainer, log *apierror.Log) *local.Server {
	lc := local.Config{
		Hosts: c.Hosts, RequestTimeout: c.RequestTimeout(), Errors: log,
		MaxConns: p.listeners.MaxLocalConns(), MaxRoutedConns: p.listeners.MaxRoutedConns(),
		Redis:  p.listeners.Find("redis") != nil,
		GRPCGo: c.Listen.GRPCGo, //guard:transport-of-grpc-is-ignored
		Budget: p.budget, ConnShare: p.listeners.ConnShare("http"), RoutedCaller: p.tls.Caller,
		Explain: explainer.ExplainJSON, Tracer: p.tracer(),
	}
	lc.ExtAuthz.Dataset, lc.ExtAuthz.Header = c.ExtAuthz.Dataset, c.ExtAuthz.Header
	if p.otlp != nil {
		lc.OTLP = p.otlp
	}
	if p.served.typed != nil {
		lc.CNFMetrics = cnfmetrics.New(cnfmetrics.Config{
			Dataset: p.served.typed, Lister: p.served.typed, Budget: p.budget, Errors: log})
	}
	return local.New(lc, p.served.catalog)
}

// newOTLP returns the receiver of metrics; nil if it is off.
func newOTLP(p *parts, c config.Config, log *apierror.Log) (*otlpmetrics.Receiver, error) {
	if p.listeners.Find("otlp") == nil {
		return nil, nil
	}
	rules, err := metricrow.Compile(c.OTLP.Rules())
	if err != nil {
		return nil, fmt.Errorf("otlp.rows: %w", err)
	}
	return otlpmetrics.New(otlpmetrics.Config{
		Rules: rules, Datasets: p.served.catalog, Accepted: c.OTLP.Ack == config.AckAccepted,
		Memory: int64(c.OTLP.Memory), Budget: p.budget, Errors: log,
	}), nil
}

func (p *parts) startOTLP(context.Context) error { return nil }

// stopOTLP writes the points that wait, after the listeners have ended their requests.
func (p *parts) stopOTLP(ctx context.Context) {
	if p.otlp != nil {
		p.otlp.Stop(ctx)
	}
}

func newRegistration(p *parts, drainTimeout time.Duration) *membership.Registration {
	c := membership.RegistrationConfig{Members: p.members, DrainTimeout: drainTimeout}
	if p.peers != nil {
		c.Leave = p.peers.Service.Leave
		c.Requests = func() int64 {
			routed, _, _ := p.applications.Server.Stats().Routed.Duration.Snapshot()
			return p.peers.Requests() + int64(routed)
		}
	}
	return membership.NewRegistration(c)
}

func (r *run) logDefect(err error) { r.errors.Report(err) }

// logErrors writes the errors of requests to log. Clients have the ids.
func logErrors(log *zap.Logger) func(apierror.Line) {
	return func(l apierror.Line) {
		fields := []zap.Field{
			zap.String("id", l.ID), zap.String("type", apierror.TypeOf(l.Kind).Name), zap.String("error", l.Text),
			zap.Int64("repeated", l.Repeated),
		}
		if l.TraceID != "" {
			fields = append(fields, zap.String("trace_id", l.TraceID), zap.String("span_id", l.SpanID))
		}
		switch l.Kind {
		case kv.KindInternal:
			log.Error("internal error: please report this as a bug", fields...)
		case kv.KindDeadline, kv.KindCanceled:
			log.Info("a request ended before its result", fields...)
		default:
			log.Warn("a request failed", fields...)
		}
	}
}

func (r *run) logAuditFailure(err error) {
	r.log.Error("the audit log cannot be written; requests are served, and the lines are lost", zap.Error(err))
}
