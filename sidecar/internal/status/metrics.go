package status

import (
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/servers"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/logging"
	"github.com/ringside-cache/ringside/sidecar/metrics"
	"github.com/ringside-cache/ringside/sidecar/otlpmetrics"
)

// changeLog returns what a scrape reads of a table of changes.
func (n *Node) changeLog(dataset string) func() metrics.ChangeLog {
	return func() metrics.ChangeLog {
		l := n.Datasets.Origins().LogStats(dataset)
		return metrics.ChangeLog{Rows: l.Rows, MaxRows: l.MaxRows, PruneFailed: l.PruneError != nil, WAL: l.WAL, MaxWAL: l.MaxWAL}
	}
}

// Metrics returns the counters for a scrape. reloads returns those of configuration reloads.
func (n *Node) Metrics(peers *servers.Peers, reloads func() metrics.Reloads) metrics.Source {
	s := metrics.Source{
		Version: n.Version, Revision: n.Revision, Configured: n.configured, Protocols: n.protocols(),
		Access: n.accessMetrics, Ring: n.ringMetrics, Peers: n.peerMetrics, Reloads: reloads, Budget: n.budgetUses,
		Local: func() metrics.Local { return n.localMetrics() },
	}
	for _, l := range n.Listeners.All() {
		if l.ForOperators() {
			s.Listeners = append(s.Listeners, listener(l))
		}
	}
	if n.TLS != nil {
		s.PeerTLS = n.peerTLS
	}
	if n.Traces != nil {
		s.Traces = func() metrics.Traces { return metrics.Traces(n.Traces.Stats()) }
	}
	s.LogLinesDropped = func() int64 { return logging.Dropped(n.Log) }
	s.Audit = func() metrics.Audit {
		a := n.Audit.Stats()
		return metrics.Audit{Written: a.Written, Dropped: a.Dropped}
	}
	if n.OTLP != nil {
		s.OTLP = n.otlpMetrics
	}
	if n.Publisher != nil {
		s.XDS = n.xdsMetrics
	}
	if peers != nil {
		s.PeerListener = func() metrics.PeerListener { return peerListener(peers) }
	}
	switch n.Members.Directory().Kind {
	case "etcd", "xds":
		s.Directory = n.directoryMetrics
	}
	return s
}

func (n *Node) configured() metrics.Configured {
	c, open := metrics.Configured{Datasets: n.Datasets.All()}, n.Datasets.Origins()
	for _, name := range n.Datasets.Config().WithFeed() {
		reading := func() bool { return n.Datasets.ReadsFeed(name) }
		c.ChangeFeeds = append(c.ChangeFeeds, metrics.ChangeFeed{Dataset: name, Reading: reading, Log: n.changeLog(name)})
	}
	for _, name := range open.Names() {
		load := func() metrics.OriginLoad { return open.Load(name) }
		c.Origins = append(c.Origins, metrics.Origin{Name: name, Load: load})
	}
	return c
}

func (n *Node) otlpMetrics() metrics.OTLP {
	s := n.OTLP.Stats()
	o := metrics.OTLP{
		Points: map[string]int64{}, Superseded: s.Merged.Load(), Memory: s.Memory.Load(), MaxMemory: n.OTLP.Limit(), Refused: s.Refused.Load(),
	}
	for _, r := range otlpmetrics.Results() {
		o.Points[r.String()] = s.Points[r].Load()
	}
	for _, d := range n.Datasets.All() {
		o.Superseded += d.Stats().Superseded.Load()
	}
	return o
}

func (n *Node) budgetUses() (uses []metrics.BudgetUse) {
	for _, u := range n.Budget.Stats() {
		uses = append(uses, metrics.BudgetUse{Use: u.Use.String(), Bytes: u.Used, Limit: u.Limit, Refusals: u.Refused})
	}
	return uses
}

func (n *Node) accessMetrics() (all []metrics.Access) {
	for _, d := range n.Datasets.All() {
		gate := n.Access.Gate(d.Name())
		a := metrics.Access{Dataset: d.Name(), Denied: map[string]int64{}, Limited: map[string]int64{}}
		for _, o := range access.Operations() {
			a.Denied[o.String()] = gate.Denied(o)
		}
		for _, k := range access.Kinds() {
			a.Limited[k.String()] = gate.Limited(k)
		}
		all = append(all, a)
	}
	return all
}

func (n *Node) ringMetrics() metrics.Ring {
	r, s := n.Members.Ring(), n.Members.Stats()
	others, _ := n.Members.OtherSettings()
	return metrics.Ring{
		OtherSettings: others, Off: n.Members.Off(), NotReached: n.Members.NotReached(),
		Role: n.Members.Role(), Promotions: n.Members.Promotions(),
		ID: adminapi.FormatRingID(r.ID()), Members: r.Len(),
		Unlisted: s.Unlisted, Changes: s.Changes, Unreachable: s.Unreachable, Refused: s.Refused,
	}
}

func (n *Node) protocols() []metrics.Protocol {
	stats, limits := n.Local.Stats(), n.Local.Config()
	list := []metrics.Protocol{
		protocol("http", &stats.HTTP, limits.MaxConns), protocol("grpc", &stats.GRPC, limits.MaxConns),
		protocol("redis", &stats.Redis, limits.MaxConns),
		protocol("unix", &stats.Unix, limits.MaxConns), protocol("routed", &stats.Routed, limits.MaxRoutedConns),
	}
	if n.OTLP != nil {
		list = append(list, protocol("otlp", &stats.OTLP, limits.MaxConns))
	}
	return list
}

func protocol(name string, s *local.Protocol, maxConns int) metrics.Protocol {
	return metrics.Protocol{Name: name, Duration: &s.Duration, Load: func() metrics.ProtocolLoad {
		return metrics.ProtocolLoad{
			Conns: s.Conns.Open.Load(), MaxConns: int64(maxConns), AcceptErrors: s.Conns.AcceptErrors.Load(),
			Refused: map[string]int64{
				"connections": s.Conns.Refused.Load(), "header": s.HeaderRefused.Load(), "body": s.BodyRefused.Load(),
				"timeout": s.ReadTimeouts.Load(), "malformed": s.Malformed.Load(), "host": s.HostRefused.Load(),
				"evicted": s.Conns.Evicted.Load(), // idle, for a new connection
			},
		}
	}}
}

func (n *Node) localMetrics() metrics.Local {
	s := n.Local.Stats()
	return metrics.Local{
		BatchTruncated: s.BatchTruncated.Load(), InternalErrors: n.Errors.Defects(),
		Watches: s.Watches.Load(), MaxWatches: int64(n.Local.Config().MaxWatches),
		WatchesRefused: s.WatchesRefused.Load(), SlowWatchersClosed: s.SlowWatchersClosed.Load(),
		WatchEvents: s.WatchEvents.Load(),
		WatchedSets: s.WatchedSets.Load(), MaxWatchedSets: int64(n.Local.Config().MaxSets), WatchedSetKeys: s.WatchedSetKeys.Load(),
		SetsRefused: s.SetsRefused.Load(), SetResets: s.SetResets.Load(),
	}
}

func (n *Node) peerMetrics() metrics.Peers {
	s := n.Pool.Stats()
	return metrics.Peers{
		Conns: s.Conns, MaxConns: s.MaxConns, BreakersOpen: s.BreakersOpen, BreakersOpened: s.BreakersOpened, MaxCalls: s.MaxCalls,
		Unreachable: s.Unreachable, Refused: s.Refused + s.ConnsRefused, PingTimeouts: s.PingTimeouts,
		Disagreements: s.Disagreements, Subscriptions: s.Subscriptions, Published: s.Published, Received: s.Received,
		SameZone: s.SameZone, OtherZone: s.OtherZone, Gaps: s.Gaps, BroadcastFailures: s.BroadcastsFailed, Merged: s.Merged,
	}
}

func peerListener(p *servers.Peers) metrics.PeerListener {
	server, service := p.Server.Stats(), p.Service.Stats()
	return metrics.PeerListener{
		Conns: server.Conns, MaxConns: server.MaxConns, ConnsRefused: server.ConnsRefused, AcceptErrors: server.AcceptErrors,
		InFlight: service.InFlight, MaxInFlight: service.MaxInFlight, FetchesRefused: service.Refused,
		Writing: service.Writing, MaxWriting: service.MaxWrites, WritesRefused: service.WritesRefused, Disagreements: service.RingMismatch,
		Subscribers: service.Subscribers, MaxSubscribers: service.MaxSubscribers,
		SubscribersRefused: service.SubscribersRefused, SlowSubscribersClosed: service.SubscribersCut,
		InvalidationsMerged: service.InvalidationsMerged, InvalidationsRefused: service.InvalidationsRefused,
		Clients: service.Clients, MaxClients: service.MaxClients, ClientsRefused: service.ClientsRefused,
	}
}

func listener(l *servers.Listener) metrics.Listener {
	return metrics.Listener{Name: l.Name, Load: func() metrics.ListenerLoad {
		return metrics.ListenerLoad{
			Conns: l.Conns.Open.Load(), MaxConns: int64(l.MaxConns), ConnsRefused: l.Conns.Refused.Load(),
			AcceptErrors: l.Conns.AcceptErrors.Load(),
		}
	}}
}

func (n *Node) peerTLS() (t metrics.PeerTLS) {
	s := n.TLS.Stats()
	t = metrics.PeerTLS{
		ReloadFailures: s.ReloadFailures, LastFailed: s.Failing, Expires: s.Expires, Lifetime: s.Lifetime, Rejected: make(map[string]int64, len(s.Rejected)),
	}
	for reason, n := range s.Rejected {
		t.Rejected[string(reason)] = n
	}
	return t
}

func (n *Node) directoryMetrics() metrics.Directory {
	if s, ok := n.Members.ClientStats(); ok {
		return metrics.Directory{
			Client: true, Connected: s.From != "", Members: s.Members, Lists: s.Lists, WatchRestarts: s.Losses,
			ContactAge: s.ContactAge, InvalidRecords: map[string]int64{},
		}
	}
	if s, ok := n.Members.Directory().Client(); ok {
		return metrics.Directory{
			Client: true, Connected: s.Publisher != "", Members: s.Members, Lists: s.Updates, WatchRestarts: s.Losses,
			ContactAge: s.ContactAge, InvalidRecords: map[string]int64{"list": s.NACKs},
		}
	}
	if s, ok := n.Members.Directory().DNS(); ok {
		return metrics.Directory{
			Registered: s.Listed, Connected: s.Connected, Members: s.Members, Lists: s.Lookups, WatchRestarts: s.Failures,
			ContactAge: s.ContactAge, InvalidRecords: s.Rejected,
		}
	}
	s, _ := n.Members.Directory().Etcd()
	d := metrics.Directory{
		Registered: s.Registered, Connected: s.Connected, Members: s.Members, Registrations: s.Registrations,
		Lists: s.Lists, WatchRestarts: s.WatchRestarts, ContactAge: s.ContactAge, InvalidRecords: map[string]int64{},
	}
	for reason, count := range s.Rejected {
		d.InvalidRecords[string(reason)] = count
	}
	return d
}

func (n *Node) xdsMetrics() metrics.XDS {
	s := n.Publisher.Status()
	return metrics.XDS{
		Clients: s.Clients, MaxClients: s.MaxClients, Endpoints: s.Endpoints,
		Updates: s.Updates, NACKs: s.NACKs, ClientsRefused: s.ClientsRefused,
	}
}
