package sidecar

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/metrics"
	"github.com/ringside-cache/ringside/xds"
)

// feeder tells the proxies beside this sidecar of each ring that it uses, and of the members that are leaving. A nil
// feeder tells nobody.
type feeder struct {
	feed *xds.Feed

	mu      sync.Mutex // guards the rest, and the order in which the feed is told
	listed  bool       // the directory has given a list: before, the ring is this member alone
	ring    *ring.Ring
	leaving []ring.Member
}

func (f *feeder) useRing(r *ring.Ring) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = r
	f.publishLocked()
}

// list takes the complete list of the directory, after the ring has been decided.
func (f *feeder) list(members []ring.Member) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed = true
	f.leaving = nil
	for _, m := range members {
		if m.Leaving {
			f.leaving = append(f.leaving, m)
		}
	}
	f.publishLocked()
}

func (f *feeder) publishLocked() {
	// A sidecar that has just started knows nobody but itself. Its proxies may know better, from the one before it.
	if !f.listed {
		return
	}
	members := f.ring.Members()
	for _, m := range f.leaving {
		if f.ring.Member(m.ID) == nil {
			members = append(members, m)
		}
	}
	f.feed.Publish(members)
}

func (p *process) serveFeed(context.Context) error {
	if p.listeners.xds == nil {
		return nil
	}
	p.feeder = &feeder{feed: xds.NewFeed(xds.Config{
		Size: p.config.Ring.size(), OnRefusal: p.feedRefused, OnUnpublishable: p.feedUnpublishable,
	})}
	p.serve("xds listener", func() error { return p.feeder.feed.Serve(p.bounded(p.listeners.xds)) })
	return nil
}

func (p *process) stopFeed(context.Context) {
	if p.feeder != nil {
		p.feeder.feed.Stop()
	}
}

func (p *process) feedRefused(r xds.Refusal) {
	p.log.Warn("a proxy refused what the feed says; it keeps the ring that it has",
		zap.String("proxy", r.Node), zap.String("resource", r.Resource), zap.String("reason", r.Reason))
}

func (p *process) feedUnpublishable(err error) {
	p.log.Warn("proxies are not told of every member", zap.Error(err))
}

func (p *process) feedMetrics() metrics.XDS {
	s := p.feeder.feed.Status()
	return metrics.XDS{
		Clients: s.Subscribers, MaxClients: s.MaxSubscribers, Endpoints: s.Endpoints,
		Updates: s.Updates, NACKs: s.Refusals, ClientsRefused: s.Turned,
	}
}

// feedState returns nil if the sidecar publishes no ring.
func (p *process) feedState() *admin.XDS {
	if p.feeder == nil {
		return nil
	}
	s := p.feeder.feed.Status()
	state := &admin.XDS{
		Version: s.Version, Endpoints: s.Endpoints, Clients: s.Subscribers, Updates: s.Updates, NACKs: s.Refusals,
	}
	if r := s.LastRefusal; r != nil {
		state.LastNACK = &admin.NACK{At: r.At, Client: r.Node, Resource: r.Resource, Reason: r.Reason}
	}
	return state
}
