package peer_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// patience is how long a test waits for what must happen before it says that it did not.
const patience = 10 * time.Second

// TestMain runs more tests at once than there are processors: they wait, most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// dataset answers as its test says.
type dataset struct {
	serve func(ctx context.Context, q cache.Query) (cache.Answer, error)
	write func(ctx context.Context, c cache.Change) (cache.Answer, error)
	stats cache.Stats
}

func (d *dataset) ServeWrite(ctx context.Context, c cache.Change) (cache.Answer, error) {
	return d.write(ctx, c)
}

// written answers each write with what was written, in its first version.
func written(_ context.Context, c cache.Change) (cache.Answer, error) {
	return cache.Answer{Value: c.Value, NotFound: c.Delete, Version: 1, Fresh: time.Second, Source: cache.SourceLoad}, nil
}

func (d *dataset) Serve(ctx context.Context, q cache.Query) (cache.Answer, error) {
	return d.serve(ctx, q)
}
func (d *dataset) PrefetchServed([]cache.Query) {}
func (d *dataset) Stats() *cache.Stats          { return &d.stats }

// held answers each key with itself, from memory.
func held(_ context.Context, q cache.Query) (cache.Answer, error) {
	return cache.Answer{Value: []byte(q.Key), Fresh: time.Second, Source: cache.SourceHit}, nil
}

// view is a ring as a Service sees it.
type view struct {
	id   atomic.Uint64
	owns atomic.Bool
}

func (v *view) RingID() uint64           { return v.id.Load() }
func (v *view) Owns(string, string) bool { return v.owns.Load() }

// member is a real service on a real listener.
type member struct {
	ring.Member
	dataset  *dataset
	view     *view
	service  *peer.Service
	server   *peer.Server
	listener *countingListener
	served   chan error
}

type countingListener struct {
	net.Listener
	accepted atomic.Int64
	failures atomic.Int64 // to come, as where no file descriptor is free
}

func (l *countingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

type memberOption func(*member, *peer.ServiceConfig, *peer.ServerConfig)

func serving(f func(context.Context, cache.Query) (cache.Answer, error)) memberOption {
	return func(m *member, _ *peer.ServiceConfig, _ *peer.ServerConfig) { m.dataset.serve = f }
}

func writing(f func(context.Context, cache.Change) (cache.Answer, error)) memberOption {
	return func(m *member, _ *peer.ServiceConfig, _ *peer.ServerConfig) { m.dataset.write = f }
}

func logging(p *peer.Pool) memberOption {
	return func(_ *member, s *peer.ServiceConfig, _ *peer.ServerConfig) { s.Log = p.Log() }
}

func dropping(f func([]cache.Invalidation)) memberOption {
	return func(_ *member, s *peer.ServiceConfig, _ *peer.ServerConfig) { s.Invalidate = f }
}

func at(addr string) memberOption {
	return func(m *member, _ *peer.ServiceConfig, _ *peer.ServerConfig) { m.Addr = addr }
}

func serverCreds(c credentials.TransportCredentials) memberOption {
	return func(_ *member, _ *peer.ServiceConfig, s *peer.ServerConfig) { s.Credentials = c }
}

func startMember(t testing.TB, id string, options ...memberOption) *member {
	t.Helper()
	m := &member{
		Member:  ring.Member{ID: id, Addr: "127.0.0.1:0"},
		dataset: &dataset{serve: held, write: written},
		view:    &view{},
		served:  make(chan error, 1),
	}
	m.view.owns.Store(true)
	service := peer.ServiceConfig{
		Node: id,
		Ring: m.view,
		Datasets: func(name string) (peer.Dataset, bool) {
			return m.dataset, name == "metrics"
		},
		Inspect:    func() *peerv1.InspectResponse { return &peerv1.InspectResponse{Version: "v-" + id} },
		Invalidate: func([]cache.Invalidation) {},
	}
	var server peer.ServerConfig
	for _, o := range options {
		o(m, &service, &server)
	}
	listener, err := net.Listen("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	m.Addr = listener.Addr().String()
	m.listener = &countingListener{Listener: listener}
	m.service, m.server = peer.NewService(service), peer.NewServer(server)
	m.service.Register(m.server)
	go func() { m.served <- m.server.Serve(m.listener) }()
	t.Cleanup(func() { m.kill(t) })
	return m
}

// kill stops the member without grace.
func (m *member) kill(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.server.Stop(ctx)
	select {
	case err := <-m.served:
		if err != nil {
			t.Errorf("member %s: serve: %v", m.ID, err)
		}
		m.served <- nil
	case <-time.After(patience):
		t.Errorf("member %s does not end", m.ID)
	}
}

// startPool returns a pool of member "self" whose ring has the others, too; their services agree with that ring.
func startPool(t testing.TB, c peer.Config, others ...*member) *peer.Pool {
	t.Helper()
	members := []ring.Member{{ID: "self", Addr: "127.0.0.1:1"}}
	for _, m := range others {
		members = append(members, m.Member)
	}
	r := newRing(t, members...)
	for _, m := range others {
		if m.view != nil {
			m.view.id.Store(r.ID())
		}
	}
	c.Self = "self"
	p := peer.NewPool(c)
	p.SetRing(r, nil)
	t.Cleanup(p.Close)
	return p
}

func newRing(t testing.TB, members ...ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.DefaultSize())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// keyOf returns a key for which match holds.
func keyOf(t testing.TB, p cache.Peers, match func(cache.Route) bool) string {
	t.Helper()
	for i := range 100_000 {
		if key := fmt.Sprint("key-", i); match(p.Route("metrics", key)) {
			return key
		}
	}
	t.Fatal("no key has such a route")
	return ""
}

func ownedBy(id string) func(cache.Route) bool {
	return func(r cache.Route) bool { return r.Owner != nil && r.Owner.ID() == id }
}

// peerTo returns the pool's peer for a member.
func peerTo(t testing.TB, p cache.Peers, id string) cache.Peer {
	t.Helper()
	return p.Route("metrics", keyOf(t, p, ownedBy(id))).Owner
}

// fetch asks a member for a key without a deadline.
func fetch(t testing.TB, p cache.Peers, id string) error {
	t.Helper()
	_, err := peerTo(t, p, id).Fetch(context.Background(), get("k"))
	return err
}

// write has a member make a change, without a deadline.
func write(t testing.TB, p cache.Peers, id string) error {
	t.Helper()
	_, err := peerTo(t, p, id).Write(context.Background(), put("k"))
	return err
}

func put(key string) cache.Change {
	return cache.Change{Dataset: "metrics", Key: key, Value: []byte("v")}
}

func get(key string) cache.Query { return cache.Query{Dataset: "metrics", Key: key} }

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("after %v still not so: %s", patience, what)
}

// wire stands between a pool and a member: it can freeze, as a stopped process or a network that drops everything does,
// and cut.
type wire struct {
	net.Listener
	to string

	mu     sync.Mutex
	born   int           // connections accepted
	frozen chan struct{} // not nil while frozen; closed by thaw
	upTo   int           // the last connection that is frozen
	conns  []net.Conn
	wg     sync.WaitGroup
}

func startWire(t *testing.T, to string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener, to: to}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		listener.Close()
		w.thaw()
		w.cut()
		w.wg.Wait()
	})
	return w
}

func (w *wire) accept() {
	for {
		in, err := w.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		if err != nil {
			in.Close()
			continue
		}
		w.mu.Lock()
		w.born++
		born := w.born
		w.conns = append(w.conns, in, out)
		w.mu.Unlock()
		w.wg.Go(func() { w.copy(in, out, born) })
		w.wg.Go(func() { w.copy(out, in, born) })
	}
}

func (w *wire) copy(to, from net.Conn, born int) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.wait(born)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) wait(born int) {
	w.mu.Lock()
	frozen, upTo := w.frozen, w.upTo
	w.mu.Unlock()
	if frozen != nil && born <= upTo {
		<-frozen
	}
}

func (w *wire) freeze() {
	w.freezeOpen()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.upTo = math.MaxInt
}

// freezeOpen freezes the connections that are open; later ones work.
func (w *wire) freezeOpen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen, w.upTo = make(chan struct{}), w.born
}

func (w *wire) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
	}
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// through returns m as a member that is reached over w.
func (w *wire) through(m *member) *member {
	over := *m
	over.Addr = w.Addr().String()
	return &over
}
