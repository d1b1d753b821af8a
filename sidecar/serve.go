package sidecar

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/metrics"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
)

// Bounds of the two net/http listeners, which serve operators: small requests, and answers of up to a megabyte.
const (
	headerTimeout = 5 * time.Second
	answerTimeout = 60 * time.Second // above that of a CPU profile
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
)

func (p *process) newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: answerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// What clients do wrong is not worth a line; the standard logger would write one for each.
		ErrorLog: zap.NewStdLog(zap.NewNop()),
	}
}

// serveHTTP serves handler on ln, and returns what stops that.
func (p *process) serveHTTP(what string, ln net.Listener, handler http.Handler) *http.Server {
	if ln == nil {
		return nil
	}
	server := p.newHTTPServer(handler)
	p.serve(what, func() error {
		if err := server.Serve(p.bounded(ln)); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return server
}

// bounded returns ln with the connection limit of the listeners for operators and proxies.
func (p *process) bounded(ln net.Listener) net.Listener {
	return listen.New(ln, listen.Config{MaxConns: p.conns.operator})
}

func shutdown(ctx context.Context, server *http.Server) {
	if server == nil {
		return
	}
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // requests that are left have had their time
	}
}

func (p *process) serveMetrics(context.Context) error {
	registry, err := metrics.NewRegistry(p.metricsSource())
	if err != nil {
		return err
	}
	p.metricsServer = p.serveHTTP("metrics listener", p.listeners.metrics,
		metrics.NewHandler(registry, metrics.Probes{Started: p.startedUp, Ready: p.ready}))
	return nil
}

func (p *process) stopMetrics(ctx context.Context) { shutdown(ctx, p.metricsServer) }

var (
	errStarting = errors.New("starting: not all parts serve yet")
	errStopping = errors.New("stopping: this member has said goodbye and serves what is left")
)

func (p *process) startedUp() error {
	if !p.serving.Load() {
		return errStarting
	}
	return nil
}

// ready asks for nothing outside of the process: a member that etcd or the database has left still answers, perhaps
// stale, and to send applications elsewhere would help nobody.
func (p *process) ready() error {
	if p.stopping.Load() {
		return errStopping
	}
	return p.startedUp()
}

func (p *process) servePeers(context.Context) error {
	if p.listeners.peer == nil {
		return nil
	}
	p.service = server.NewService(server.ServiceConfig{
		Node: p.self.ID, Datasets: p.served, Ring: p.pool, Inspect: p.inspection,
		Log: p.pool.Log(), Invalidate: sink{p}.Invalidate, //guard:invalidation-another-member-heard
	})
	c, identity := server.Config{MaxConns: p.conns.peer}, (*tls.Config)(nil)
	if p.tls != nil {
		c.Credentials, identity = p.tls, p.tls.ServerConfig()
	}
	c.Direct = func(ln net.Listener) error { return p.local.ServeRouted(ln, identity) }
	p.peerServer = server.New(c)
	p.service.Register(p.peerServer)
	p.serve("peer listener", func() error { return p.peerServer.Serve(p.listeners.peer) })
	return nil
}

func (p *process) stopPeers(ctx context.Context) {
	if p.peerServer != nil {
		p.peerServer.Stop(ctx)
	}
}

// dataset finds one by its name, nil where there is none. There are a few, and they do not change.
func (p *process) dataset(name string) *cache.Dataset {
	i, found := slices.BinarySearchFunc(p.datasets, name, func(d *cache.Dataset, name string) int {
		return strings.Compare(d.Name(), name)
	})
	if !found {
		return nil
	}
	return p.datasets[i]
}

func (p *process) served(name string) (server.Dataset, bool) {
	d := p.dataset(name)
	return counted{d, &p.asked}, d != nil
}

// counted turns a dataset into one that counts the requests that a leaving member has to stay for. New owners of its
// keys peek at it for seconds after; they load where nobody answers, and are not waited for.
type counted struct {
	*cache.Dataset
	asked *atomic.Int64
}

// Serve implements server.Dataset.
func (c counted) Serve(ctx context.Context, q cache.Query) (cache.Answer, error) {
	if !q.MemoryOnly {
		c.asked.Add(1)
	}
	return c.Dataset.Serve(ctx, q)
}

// ServeWrite implements server.Dataset.
func (c counted) ServeWrite(ctx context.Context, change cache.Change) (cache.Answer, error) {
	c.asked.Add(1)
	return c.Dataset.ServeWrite(ctx, change)
}

// inspection describes this member to the consoles of others.
func (p *process) inspection() *peerv1.InspectResponse {
	state := p.adminSource().State()
	text, err := json.Marshal(state)
	if err != nil {
		p.defect(fmt.Errorf("encode the state of this member: %w", err))
	}
	return &peerv1.InspectResponse{Version: state.Version, State: text}
}

func (p *process) serveLocal(context.Context) error {
	for _, ln := range p.listeners.http {
		p.serve("HTTP listener", func() error { return p.local.ServeHTTP(ln) })
	}
	for _, ln := range p.listeners.grpc {
		p.serve("gRPC listener", func() error { return p.local.ServeGRPC(ln) })
	}
	if p.listeners.unix != nil {
		p.serve("unix listener", func() error { return p.local.ServeUnix(p.listeners.unix) })
	}
	return nil
}

func (p *process) stopLocal(ctx context.Context) {
	if p.local == nil {
		return
	}
	if err := p.local.Shutdown(ctx); err != nil {
		p.log.Warn("stop", zap.Error(err))
	}
}

func (p *process) defect(err error) { p.log.Error("defect: please report this", zap.Error(err)) }

func (p *process) serveAdmin(context.Context) error {
	p.adminServer = p.serveHTTP("admin listener", p.listeners.admin, admin.NewHandler(p.adminSource()))
	return nil
}

func (p *process) stopAdmin(ctx context.Context) { shutdown(ctx, p.adminServer) }

func (p *process) adminSource() admin.Source {
	return admin.Source{
		Node: p.self.ID, Version: p.self.Version, Started: p.began, Datasets: p.datasets, Ring: p.ring.Load,
		Directory: p.directoryState, XDS: p.feedState,
		Others: p.otherMembers, Hosts: p.config.Hosts, Pprof: p.config.Pprof,
	}
}

// directoryState: a list in the configuration is always there, and has this member; a feed never has an edge.
func (p *process) directoryState() admin.Directory {
	kind := p.config.Membership.kind()
	if p.resolver != nil {
		s := p.resolver.Status()
		return admin.Directory{Kind: kind, Connected: s.Publisher != "", Detail: s.LastError}
	}
	if p.etcd == nil {
		return admin.Directory{Kind: kind, Connected: true, Registered: true}
	}
	s := p.etcd.Stats()
	return admin.Directory{Kind: kind, Connected: s.Connected, Registered: s.Registered, Detail: s.LastRejected}
}

func (p *process) otherMembers(ctx context.Context) []admin.MemberState {
	var states []admin.MemberState
	for _, one := range p.pool.Inspect(ctx) {
		state := admin.MemberState{ID: one.Member.ID, Addr: one.Member.Addr}
		err := one.Err
		if err == nil {
			err = json.Unmarshal(one.Report.GetState(), &state.State)
		}
		if err != nil {
			state.Unreachable, state.State = err.Error(), nil
		}
		states = append(states, state)
	}
	return states
}
