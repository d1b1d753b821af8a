package sidecar

import (
	"maps"
	"slices"

	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

// metricsSource is what a scrape reads: counters that the parts keep anyway.
func (p *process) metricsSource() metrics.Source {
	version, revision := Version()
	s := metrics.Source{
		Version: version, Revision: revision, Datasets: p.datasets, Protocols: p.protocols(),
		Ring: func() metrics.Ring {
			r, s := p.ring.Load(), p.roster.Stats()
			return metrics.Ring{
				ID: admin.FormatRingID(r.ID()), Members: r.Len(),
				Unlisted: s.Doubted, Changes: s.Changes, Unreachable: s.Unreachable,
			}
		},
		Peers: p.peerMetrics, Local: p.localMetrics, Reloads: p.reloads.snapshot,
	}
	for _, name := range p.config.withFeed() {
		reading := func() bool { return p.changes.Reading(name) }
		s.ChangeFeeds = append(s.ChangeFeeds, metrics.ChangeFeed{Dataset: name, Reading: reading})
	}
	for _, name := range slices.Sorted(maps.Keys(p.origins)) {
		s.Origins = append(s.Origins, metrics.Origin{Name: name, Load: p.origins[name].load})
	}
	if p.listeners.xds != nil {
		s.XDS = p.feedMetrics
	}
	if p.listeners.peer != nil {
		s.PeerListener = p.peerListenerMetrics
	}
	switch {
	case p.etcd != nil:
		s.Directory = p.directoryMetrics
	case p.resolver != nil:
		s.Directory = p.resolverMetrics
	}
	return s
}

func (p *process) protocols() []metrics.Protocol {
	stats, config := p.local.Stats(), p.local.Config()
	return []metrics.Protocol{
		protocol("http", &stats.HTTP, config.MaxConns), protocol("grpc", &stats.GRPC, config.MaxConns),
		protocol("unix", &stats.Unix, config.MaxConns), protocol("routed", &stats.Routed, config.MaxRoutedConns),
	}
}

func protocol(name string, s *local.Protocol, maxConns int) metrics.Protocol {
	return metrics.Protocol{Name: name, Duration: &s.Duration, Load: func() metrics.ProtocolLoad {
		return metrics.ProtocolLoad{
			Conns: s.Conns.Open.Load(), MaxConns: int64(maxConns),
			Refused: map[string]int64{
				"connections": s.Conns.Refused.Load(), "header": s.HeaderRefused.Load(), "body": s.BodyRefused.Load(),
				"timeout": s.ReadTimeouts.Load(), "malformed": s.Malformed.Load(), "host": s.HostRefused.Load(),
			},
		}
	}}
}

func (p *process) localMetrics() metrics.Local {
	s := p.local.Stats()
	defects := s.Defects.Load()
	if p.cnf != nil {
		defects += p.cnf.Stats().Defects.Load()
	}
	return metrics.Local{
		BatchTruncated: s.BatchTruncated.Load(), InternalErrors: defects,
		Watches: s.Watches.Load(), MaxWatches: int64(p.local.Config().MaxWatches),
		WatchesRefused: s.WatchesRefused.Load(), SlowWatchersClosed: s.WatchesCut.Load(),
	}
}

func (p *process) peerMetrics() metrics.Peers {
	s := p.pool.Stats()
	return metrics.Peers{
		Conns: s.Conns, MaxConns: s.MaxConns, BreakersOpen: s.BreakersOpen, MaxCalls: s.MaxCalls,
		Unreachable: s.Unreachable, Refused: s.Refused + s.ConnsRefused, PingTimeouts: s.PingTimeouts,
		Disagreements: s.Disagreements, Subscriptions: s.Subscriptions, Published: s.Published, Received: s.Received,
		Gaps: s.Gaps, BroadcastFailures: s.BroadcastsFailed,
	}
}

func (p *process) peerListenerMetrics() metrics.PeerListener {
	server, service := p.peerServer.Stats(), p.service.Stats()
	return metrics.PeerListener{
		Conns: server.Conns, MaxConns: server.MaxConns, ConnsRefused: server.ConnsRefused,
		InFlight: service.InFlight, MaxInFlight: service.MaxInFlight, FetchesRefused: service.Refused,
		Writing: service.Writing, MaxWriting: service.MaxWrites, WritesRefused: service.WritesRefused,
		Subscribers: service.Subscribers, MaxSubscribers: service.MaxSubscribers,
		SubscribersRefused: service.SubscribersRefused, SlowSubscribersClosed: service.SubscribersCut,
	}
}

func (p *process) resolverMetrics() metrics.Directory {
	s := p.resolver.Status()
	return metrics.Directory{
		Client: true, Connected: s.Publisher != "", Members: s.Members, Lists: s.Updates, WatchRestarts: s.Losses,
		ContactAge: s.ContactAge, InvalidRecords: map[string]int64{"list": s.NACKs},
	}
}

func (p *process) directoryMetrics() metrics.Directory {
	s := p.etcd.Stats()
	d := metrics.Directory{
		Registered: s.Registered, Connected: s.Connected, Members: s.Members, Registrations: s.Registrations,
		Lists: s.Lists, WatchRestarts: s.WatchRestarts, ContactAge: s.ContactAge, InvalidRecords: map[string]int64{},
	}
	for reason, n := range s.Rejected {
		d.InvalidRecords[string(reason)] = n
	}
	return d
}
