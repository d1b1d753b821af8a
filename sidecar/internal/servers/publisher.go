package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/xds/publisher"
)

// Publisher publishes to xDS clients the members of each ring that this sidecar uses, and those that are leaving. A nil Publisher,
// of a sidecar whose xds listener is off, does nothing.
type Publisher struct {
	publisher *publisher.Publisher
	listener  *Listener
	listeners *Listeners
	handshake func(net.Conn) (net.Conn, error) // nil for plain text
	failed    listen.HandshakeStats            // package mtls counts them by reason
	grpc      *grpc.Server
	h2        *h2.Server // reads the connections for grpc
}

// NewPublisher returns a Publisher on the xds listener, or nil if that is off.
// identity is nil for plain text. defect is called with each panic, stack included.
func NewPublisher(listeners *Listeners, size ring.Size, identity *mtls.Credentials, defect func(error), log *zap.Logger) *Publisher {
	ln := listeners.Find("xds")
	if ln == nil {
		return nil
	}
	p := &Publisher{listener: ln, listeners: listeners, handshake: xdsHandshake(ln.Addr(), identity)}
	p.publisher = publisher.New(publisher.Config{
		Size: size,
		OnNACK: func(r publisher.NACK) {
			log.Warn("an xDS client rejected an update (NACK); it keeps its last good configuration",
				zap.String("client", r.Node), zap.String("resource", r.Resource), zap.String("reason", r.Reason))
		},
		Defect: defect,
		OnUnpublishable: func(err error) {
			log.Warn("some members cannot be published to xDS clients", zap.Error(err))
		},
	})
	p.grpc = grpc.NewServer(append(h2.GRPCOptions(), grpc.MaxRecvMsgSize(publisher.MaxRequestBytes))...)
	p.publisher.Register(p.grpc)
	p.h2 = newXDS(p.grpc, listeners.budget, func(v any) {
		defect(fmt.Errorf("panic while serving xDS: %v\n%s", v, debug.Stack()))
	})
	return p
}

const (
	// maxXDSAge makes clients authenticate again: a revoked identity is out after an hour. A stream of a client never ends by
	// itself, so that there is no reason to wait for longer after GOAWAY.
	maxXDSAge, maxXDSGrace = time.Hour, 10 * time.Second
	// stopXDS is how long the end of the streams may take at a stop: the next ones wait for it.
	stopXDS = time.Second
)

// newXDS returns the HTTP/2 server of the connections. Streams of clients live for as long as their connection: a client that
// is silent is asked for a sign of life, so that proxies that are gone do not count as clients forever.
func newXDS(handler http.Handler, b *budget.Budget, defect func(any)) *h2.Server {
	return h2.New(h2.Config{
		Handler: handler, Budget: b, Defect: defect,
		MaxBody:     func(string) int64 { return publisher.MaxRequestBytes },
		IdleTimeout: idleTimeout, MaxAge: maxXDSAge, MaxAgeGrace: maxXDSGrace,
	})
}

// xdsHandshake returns nil, for plain text, on loopback: only the pod reaches that.
func xdsHandshake(bound net.Addr, identity *mtls.Credentials) func(net.Conn) (net.Conn, error) {
	if tcp, ok := bound.(*net.TCPAddr); identity == nil || ok && tcp.IP.IsLoopback() { //guard:ring-is-published-without-authentication
		return nil
	}
	config := identity.ClientsConfig()
	return func(accepted net.Conn) (net.Conn, error) { return identity.Handshake(accepted, config) }
}

// Start serves until Stop.
func (p *Publisher) Start(context.Context) error {
	if p != nil {
		p.listeners.serve("xds", p.serve)
	}
	return nil
}

func (p *Publisher) serve(socket net.Listener) error {
	var ln net.Listener = p.listeners.bounded("xds", socket, p.connBytes(), nil) //guard:xds-has-no-connection-limit
	if p.handshake != nil {
		ln = listen.Handshaken(ln, &p.failed, p.handshake)
	}
	err := p.h2.Serve(ln)
	_ = ln.Close() // ends handshakes; Stop has closed the socket
	if errors.Is(err, net.ErrClosed) {
		return nil // Stop was called
	}
	return err
}

func (p *Publisher) connBytes() int64 {
	if p.handshake != nil {
		return listen.HTTP2Bytes + listen.TLSBytes
	}
	return listen.HTTP2Bytes
}

// Stop ends all streams.
func (p *Publisher) Stop(ctx context.Context) {
	if p == nil {
		return
	}
	p.listener.Close()
	p.publisher.Stop()
	ctx, cancel := context.WithTimeout(ctx, stopXDS)
	defer cancel()
	_ = p.h2.Shutdown(ctx) // its error is that of ctx
	p.grpc.Stop()
}

// Status returns a snapshot. p is not nil.
func (p *Publisher) Status() publisher.Status { return p.publisher.Status() }

// Publish publishes the members of the ring and those that are leaving.
func (p *Publisher) Publish(members []ring.Member) {
	if p != nil {
		p.publisher.Publish(members)
	}
}
