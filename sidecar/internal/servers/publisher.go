package servers

import (
	"context"
	"net"
	"sync"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/xds/publisher"
)

// Publisher publishes to xDS clients each ring that this sidecar uses, and the members that are leaving. A nil Publisher,
// of a sidecar whose xds listener is off, does nothing.
type Publisher struct {
	publisher *publisher.Publisher
	listeners *Listeners

	mu      sync.Mutex // guards the fields below and the order of updates
	listed  bool       // the directory has returned a list; until then the ring is this member alone
	ring    *ring.Ring
	leaving []ring.Member
}

// NewPublisher returns a Publisher on the xds listener, or nil if that is off.
// identity is nil for plain text.
func NewPublisher(listeners *Listeners, size ring.Size, identity *mtls.Credentials, log *zap.Logger) *Publisher {
	ln := listeners.Find("xds")
	if ln == nil {
		return nil
	}
	return &Publisher{listeners: listeners, publisher: publisher.New(publisher.Config{
		Size: size, Credentials: xdsCredentials(ln.Addr(), identity),
		OnNACK: func(r publisher.NACK) {
			log.Warn("an xDS client rejected an update (NACK); it keeps its last good configuration",
				zap.String("client", r.Node), zap.String("resource", r.Resource), zap.String("reason", r.Reason))
		},
		OnUnpublishable: func(err error) {
			log.Warn("some members cannot be published to xDS clients", zap.Error(err))
		},
	})}
}

// xdsCredentials returns nil, for plain text, on loopback: only the pod reaches that.
func xdsCredentials(bound net.Addr, identity *mtls.Credentials) credentials.TransportCredentials {
	if tcp, ok := bound.(*net.TCPAddr); identity == nil || ok && tcp.IP.IsLoopback() { //guard:ring-is-published-without-authentication
		return nil
	}
	return identity.ForClients()
}

// Start serves until Stop.
func (p *Publisher) Start(context.Context) error {
	if p != nil {
		p.listeners.serve("xds", func(ln net.Listener) error {
			return p.publisher.Serve(p.listeners.bounded("xds", ln, listen.HTTP2Bytes, nil)) //guard:xds-has-no-connection-limit
		})
	}
	return nil
}

// Stop ends all streams.
func (p *Publisher) Stop(context.Context) {
	if p != nil {
		p.publisher.Stop()
	}
}

// Status returns a snapshot. p is not nil.
func (p *Publisher) Status() publisher.Status { return p.publisher.Status() }

// UseRing publishes the ring that is in use from now on.
func (p *Publisher) UseRing(r *ring.Ring) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring = r
	p.publishLocked()
}

// UseList takes the complete list of the directory, after the ring was decided.
func (p *Publisher) UseList(members []ring.Member) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listed = true
	p.leaving = nil
	for _, m := range members {
		if m.Leaving {
			p.leaving = append(p.leaving, m)
		}
	}
	p.publishLocked()
}

// publishLocked publishes nothing before the first list: a sidecar that was just restarted knows only itself, and its
// clients may still have the whole ring from its predecessor.
func (p *Publisher) publishLocked() {
	if !p.listed {
		return
	}
	members := p.ring.Members()
	for _, m := range p.leaving {
		if p.ring.Member(m.ID) == nil {
			members = append(members, m)
		}
	}
	p.publisher.Publish(members)
}
