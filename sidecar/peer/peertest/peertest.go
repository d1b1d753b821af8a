// Package peertest runs real members for the tests of package peer and the packages below it: services on real listeners,
// pools that call them, a proxy that fails between them, and certificates.
package peertest

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/batch"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// Timeout is how long a test waits for an event before it fails.
const Timeout = time.Minute

// Dataset answers with the functions of its test. It implements service.Dataset.
type Dataset struct {
	ServeFunc func(ctx context.Context, q kv.Query) (kv.Answer, error)
	HitFunc   func(q kv.Query) (kv.Answer, bool) // nil: nothing is in memory
	WriteFunc func(ctx context.Context, c kv.Change) (kv.Answer, error)
	Counters  kv.Stats
	Fetches   atomic.Int64 // calls of Serve
	Writes    atomic.Int64 // calls of ServeWrite
}

// ServeWrite implements service.Dataset.
func (d *Dataset) ServeWrite(ctx context.Context, c kv.Change) (kv.Answer, error) {
	d.Writes.Add(1)
	return d.WriteFunc(ctx, c)
}

// ServeWriteMany implements service.Dataset. Each change counts as a call of ServeWrite.
func (d *Dataset) ServeWriteMany(ctx context.Context, cs []kv.Change) []kv.Result {
	results := make([]kv.Result, len(cs))
	for i, c := range cs {
		results[i].Answer, results[i].Err = d.ServeWrite(ctx, c)
	}
	return results
}

// Written answers each write with the written value and version 1.
func Written(_ context.Context, c kv.Change) (kv.Answer, error) {
	return kv.Answer{Value: c.Value, NotFound: c.Delete, Version: 1, Fresh: time.Second, Source: kv.SourceLoad}, nil
}

// Serve implements service.Dataset.
func (d *Dataset) Serve(ctx context.Context, q kv.Query) (kv.Answer, error) {
	d.Fetches.Add(1)
	return d.ServeFunc(ctx, q)
}

// ServeHit implements service.Dataset.
func (d *Dataset) ServeHit(q kv.Query, most int) (kv.Answer, bool) {
	if d.HitFunc == nil {
		return kv.Answer{}, false
	}
	a, ok := d.HitFunc(q)
	if !ok || len(a.Value) > most {
		return kv.Answer{}, false
	}
	d.Fetches.Add(1)
	return a, true
}

// ServeMany implements service.Dataset.
func (d *Dataset) ServeMany(ctx context.Context, qs []kv.Query, limit kv.BatchLimit) []kv.Result {
	results := batch.New(len(qs), limit)
	for i, q := range qs {
		a, err := d.Serve(ctx, q)
		results.Put(i, a, err)
	}
	list, _ := results.Close()
	return list
}

// Stats implements service.Dataset.
func (d *Dataset) Stats() *kv.Stats { return &d.Counters }

// Held answers each key with the key as its value, from memory.
func Held(_ context.Context, q kv.Query) (kv.Answer, error) {
	return kv.Answer{Value: []byte(q.Key), Fresh: time.Second, Source: kv.SourceHit}, nil
}

// Block answers after the caller's deadline, with an error.
func Block(ctx context.Context, _ kv.Query) (kv.Answer, error) {
	<-ctx.Done()
	return kv.Answer{}, &kv.Error{Kind: kv.KindDeadline, Err: ctx.Err()}
}

// View implements service.Ring.
type View struct {
	ID      atomic.Uint64
	OwnsAll atomic.Bool
}

// RingID implements service.Ring.
func (v *View) RingID() uint64 { return v.ID.Load() }

// Owns implements service.Ring.
func (v *View) Owns(string, string) bool { return v.OwnsAll.Load() }

// Member is a real service on a real listener.
type Member struct {
	ring.Member
	Dataset  *Dataset
	View     *View
	Service  *service.Service
	Server   *server.Server
	Listener *CountingListener
	served   chan error
}

// CountingListener counts accepted connections.
type CountingListener struct {
	net.Listener
	Accepted atomic.Int64
}

// Accept implements net.Listener.
func (l *CountingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.Accepted.Add(1)
	}
	return c, err
}

// Option changes a member before it starts.
type Option func(*Member, *service.Config, *server.Config)

// Serving makes f answer fetches.
func Serving(f func(context.Context, kv.Query) (kv.Answer, error)) Option {
	return func(m *Member, _ *service.Config, _ *server.Config) { m.Dataset.ServeFunc = f }
}

// Holding makes f answer fetches from memory.
func Holding(f func(kv.Query) (kv.Answer, bool)) Option {
	return func(m *Member, _ *service.Config, _ *server.Config) { m.Dataset.HitFunc = f }
}

// Writing makes f answer writes.
func Writing(f func(context.Context, kv.Change) (kv.Answer, error)) Option {
	return func(m *Member, _ *service.Config, _ *server.Config) { m.Dataset.WriteFunc = f }
}

// Identifying makes f say who calls the member.
func Identifying(f func(*tls.ConnectionState, net.Addr) caller.Caller) Option {
	return func(_ *Member, _ *service.Config, s *server.Config) { s.Caller = f }
}

// Logging makes the member stream the log of p, and relay the feeds that p hears.
func Logging(p *peer.Pool) Option {
	return func(_ *Member, s *service.Config, _ *server.Config) { s.Log, s.RelayFeeds = p.Log(), p.RelayFeeds }
}

// Invalidating makes f receive the invalidations sent in requests.
func Invalidating(f func([]kv.Invalidation)) Option {
	return func(_ *Member, s *service.Config, _ *server.Config) { s.Invalidate = f }
}

// At sets the address of the member. One that restarts needs an address of rig.FreeAddress.
func At(addr string) Option {
	return func(m *Member, _ *service.Config, _ *server.Config) { m.Addr = addr }
}

// ServerCredentials sets the credentials of the member.
func ServerCredentials(c credentials.TransportCredentials) Option {
	return func(_ *Member, _ *service.Config, s *server.Config) { s.Credentials = c }
}

// StartMember starts a member that has the dataset "metrics".
func StartMember(t testing.TB, id string, options ...Option) *Member {
	t.Helper()
	m := &Member{
		Member:  ring.Member{ID: id, Addr: "127.0.0.1:0"},
		Dataset: &Dataset{ServeFunc: Held, WriteFunc: Written},
		View:    &View{},
		served:  make(chan error, 1),
	}
	m.View.OwnsAll.Store(true)
	calls := service.Config{
		Node: id,
		Ring: m.View,
		Datasets: func(name string) (service.Dataset, bool) {
			return m.Dataset, name == "metrics"
		},
		Inspect:    func() *peerv1.InspectResponse { return &peerv1.InspectResponse{Version: "v-" + id} },
		Invalidate: func([]kv.Invalidation) {},
	}
	var config server.Config
	for _, o := range options {
		o(m, &calls, &config)
	}
	listener, err := net.Listen("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	m.Addr = listener.Addr().String()
	m.Listener = &CountingListener{Listener: listener}
	m.Service = service.New(calls)
	config.Fast = m.Service.Fast()
	m.Server = server.New(config)
	m.Service.Register(m.Server)
	go func() { m.served <- m.Server.Serve(m.Listener) }()
	t.Cleanup(func() { m.Kill(t) })
	return m
}

// Kill stops the member without waiting for running calls.
func (m *Member) Kill(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.Server.Stop(ctx)
	select {
	case err := <-m.served:
		if err != nil {
			t.Errorf("member %s: serve: %v", m.ID, err)
		}
		m.served <- nil
	case <-time.After(Timeout):
		t.Errorf("member %s does not stop", m.ID)
	}
}

// StartPool returns a pool of the member "self", whose ring has the others, too. Their services have the same ring. By default
// it waits for a member as long as a test does, because the members of a busy machine are slow and not gone: a test of a member
// that is gone sets PingAfter or FanOutTimeout.
func StartPool(t testing.TB, c peer.Config, others ...*Member) *peer.Pool {
	t.Helper()
	members := []ring.Member{{ID: "self", Addr: "127.0.0.1:1"}}
	for _, m := range others {
		members = append(members, m.Member)
	}
	r := NewRing(t, members...)
	for _, m := range others {
		if m.View != nil {
			m.View.ID.Store(r.ID())
		}
	}
	c.Self, c.PingAfter, c.FanOutTimeout = "self", cmp.Or(c.PingAfter, Timeout), cmp.Or(c.FanOutTimeout, Timeout)
	p := peer.NewPool(c)
	p.SetRing(r, nil)
	t.Cleanup(p.Close)
	return p
}

// StartConnected returns a pool that has a connection to each of the others. A call waits a second for one, after which it
// fails: too short for a busy machine.
func StartConnected(t testing.TB, c peer.Config, others ...*Member) *peer.Pool {
	t.Helper()
	p := StartPool(t, c, others...)
	for _, m := range others {
		if err := Ping(t, p, m.Member); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// NewRing returns a ring of the default size.
func NewRing(t testing.TB, members ...ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.DefaultSize())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// KeyWith returns a key whose route matches.
func KeyWith(t testing.TB, p kv.Peers, match func(kv.Route) bool) string {
	t.Helper()
	for i := range 100_000 {
		if key := fmt.Sprint("key-", i); match(p.Route("metrics", key)) {
			return key
		}
	}
	t.Fatal("no key has such a route")
	return ""
}

// OwnedBy matches the routes of keys that a member owns.
func OwnedBy(id string) func(kv.Route) bool {
	return func(r kv.Route) bool { return r.Owner != nil && r.Owner.ID() == id }
}

// PeerTo returns the pool's peer for a member.
func PeerTo(t testing.TB, p kv.Peers, id string) kv.Peer {
	t.Helper()
	return p.Route("metrics", KeyWith(t, p, OwnedBy(id))).Owner
}

// Fetch fetches a key from a member, without a deadline.
func Fetch(t testing.TB, p kv.Peers, id string) error {
	t.Helper()
	_, err := PeerTo(t, p, id).Fetch(context.Background(), Get("k"))
	return err
}

// Ping pings a member.
func Ping(t testing.TB, p *peer.Pool, m ring.Member) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	return p.Ping(ctx, m)
}

// Write sends a change to a member, without a deadline.
func Write(t testing.TB, p kv.Peers, id string) error {
	t.Helper()
	_, err := PeerTo(t, p, id).Write(context.Background(), Put("k"))
	return err
}

// Put returns a change of the dataset "metrics".
func Put(key string) kv.Change {
	return kv.Change{Dataset: "metrics", Key: key, Value: []byte("v")}
}

// Get returns a query of the dataset "metrics".
func Get(key string) kv.Query { return kv.Query{Dataset: "metrics", Key: key} }

// Eventually waits until holds returns true.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not true after %v: %s", Timeout, what)
}

// ServeRaw starts the member "m" with another implementation of the protocol.
func ServeRaw(t *testing.T, service peerv1.PeerServer) *Member {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &Member{Server: server.New(server.Config{}), served: make(chan error, 1)}
	m.Member = ring.Member{ID: "m", Addr: listener.Addr().String()}
	peerv1.RegisterPeerServer(m.Server, service)
	go func() { m.served <- m.Server.Serve(listener) }()
	t.Cleanup(func() { m.Kill(t) })
	return m
}

// BlackHole is a member whose kernel accepts connections and whose process does nothing, like a stopped process.
func BlackHole(t *testing.T, id string) *Member {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return &Member{Member: ring.Member{ID: id, Addr: listener.Addr().String()}}
}

// StartWriter starts a member that publishes, and returns its pool.
func StartWriter(t testing.TB, id string, c peer.Config, options ...Option) (*peer.Pool, *Member) {
	t.Helper()
	c.Self = id
	p := peer.NewPool(c)
	t.Cleanup(p.Close)
	return p, StartMember(t, id, append(options, Logging(p))...)
}

// Drop returns an invalidation of a key of the dataset "metrics".
func Drop(key string, version int64) kv.Invalidation {
	return kv.Invalidation{Dataset: "metrics", Key: key, Version: version}
}

// Subscribe opens a stream without a Pool.
func Subscribe(t testing.TB, m *Member, req *peerv1.SubscribeRequest) grpc.ServerStreamingClient[peerv1.SubscribeResponse] {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := peerv1.NewPeerClient(conn).Subscribe(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// DiscardSink is a peer.Sink that does nothing.
type DiscardSink struct{}

// Invalidate implements peer.Sink.
func (DiscardSink) Invalidate([]kv.Invalidation) {}

// Missed implements peer.Sink.
func (DiscardSink) Missed(string) {}

// LiveFeeds implements peer.Sink.
func (DiscardSink) LiveFeeds(string, []string) {}
