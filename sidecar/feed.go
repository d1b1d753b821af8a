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

// xdsPublisher publishes each ring in use, and the members that are leaving, to the proxies beside this sidecar. A nil
// xdsPublisher does nothing.
type xdsPublisher struct {
	publisher *xds.Publisher

	mu      sync.Mutex // guards the rest, and the order of the calls of publisher
	listed  bool       // the directory has given a list: before, the ring is this member alone
	ring    *ring.Ring
	leaving []ring.Member
}

func (f *xdsPublisher) useRing(r *ring.Ring) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = r
	f.publishLocked()
}

// list takes the complete list of the directory, after the ring has been decided.
func (f *xdsPublisher) list(members []ring.Member) {
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

func (f *xdsPublisher) publishLocked() {
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
	f.publisher.Publish(members)
}

func (p *process) serveFeed(context.Context) error {
	if p.listeners.xds == nil {
		return nil
	}
	p.xdsPublisher = &xdsPublisher{publisher: xds.NewPublisher(xds.Config{
		Size: p.config.Ring.size(), OnNACK: p.xdsRejected, OnUnpublishable: p.feedUnpublishable,
	})}
	p.serve("xds listener", func() error { return p.xdsPublisher.publisher.Serve(p.bounded(p.listeners.xds)) })
	return nil
}

func (p *process) stopFeed(context.Context) {
	if p.xdsPublisher != nil {
		p.xdsPublisher.publisher.Stop()
	}
}

func (p *process) xdsRejected(r xds.NACK) {
	p.log.Warn("xDS client rejected an update (NACK); it keeps its last good configuration",
		zap.String("client", r.Node), zap.String("resource", r.Resource), zap.String("reason", r.Reason))
}

func (p *process) feedUnpublishable(err error) {
	p.log.Warn("not all members can be published to xDS clients", zap.Error(err))
}

func (p *process) feedMetrics() metrics.XDS {
	s := p.xdsPublisher.publisher.Status()
	return metrics.XDS{
		Clients: s.Clients, MaxClients: s.MaxClients, Endpoints: s.Endpoints,
		Updates: s.Updates, NACKs: s.NACKs, ClientsRefused: s.ClientsRefused,
	}
}

// feedState returns nil if the sidecar publishes no ring.
func (p *process) feedState() *admin.XDS {
	if p.xdsPublisher == nil {
		return nil
	}
	s := p.xdsPublisher.publisher.Status()
	state := &admin.XDS{
		Version: s.Version, Endpoints: s.Endpoints, Clients: s.Clients, Updates: s.Updates, NACKs: s.NACKs,
	}
	if r := s.LastNACK; r != nil {
		state.LastNACK = &admin.NACK{At: r.At, Client: r.Node, Resource: r.Resource, Reason: r.Reason}
	}
	return state
}
