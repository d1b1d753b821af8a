package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/etcd"
	"github.com/ringside-cache/ringside/ring/record"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/membership"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// counts is what one pod, restarts included, has sent and received. Bytes have both directions and the overhead of messages.
type counts struct {
	etcdRequests, etcdEvents, etcdBytes atomic.Int64
	feedReceived, feedSent, feedBytes   atomic.Int64 // messages of the feeds of members
	pings, pingBytes                    atomic.Int64 // sent and answered
	rings                               atomic.Int64
}

// total is a copy of counts, or a sum of them.
type total struct {
	EtcdRequests, EtcdEvents, EtcdBytes, FeedReceived, FeedSent, FeedBytes, Pings, PingBytes, Rings int64
}

func (c *counts) load() total {
	return total{
		c.etcdRequests.Load(), c.etcdEvents.Load(), c.etcdBytes.Load(), c.feedReceived.Load(), c.feedSent.Load(), c.feedBytes.Load(),
		c.pings.Load(), c.pingBytes.Load(), c.rings.Load(),
	}
}

func (t total) minus(o total) total {
	return total{
		t.EtcdRequests - o.EtcdRequests, t.EtcdEvents - o.EtcdEvents, t.EtcdBytes - o.EtcdBytes, t.FeedReceived - o.FeedReceived,
		t.FeedSent - o.FeedSent, t.FeedBytes - o.FeedBytes, t.Pings - o.Pings, t.PingBytes - o.PingBytes, t.Rings - o.Rings,
	}
}

func (t total) plus(o total) total { return t.minus(total{}.minus(o)) }

// pod is one run of a sidecar, as far as it is membership: real Members with a real directory in the simulated etcd, and a real
// Service that other pods call without a connection.
type pod struct {
	cluster      *cluster
	number       int // of the pod; a restarted one has it, too
	self         ring.Member
	counts       *counts
	directory    *etcd.Directory
	members      *membership.Members
	registration *membership.Registration
	service      *service.Service
	feed         memberlist.Feed
	record       []byte
	started      chan struct{}   // closed when run has returned
	gone         context.Context // done when the process has ended
	end          context.CancelFunc
	silent       atomic.Bool // it has ended without closing its connections
}

// newPod returns a pod that is not running.
func newPod(c *cluster, number, run int) *pod {
	p := &pod{cluster: c, number: number, counts: c.countsOf(number), started: make(chan struct{}), self: ring.Member{
		ID: fmt.Sprintf("pod-%05d", number), Addr: fmt.Sprintf("10.%d.%d.%d:7072", run, number>>8, number&255), Zone: zones[number%len(zones)],
		Version: "v1.0.0", Started: time.Now().UTC(), Ring: ring.DefaultSize(),
	}}
	p.gone, p.end = context.WithCancel(context.Background())
	var err error
	p.directory, err = etcd.Open(etcd.Config{
		Endpoints: []string{"http://etcd:2379"}, Prefix: "/ringside/default", LeaseTTL: leaseTTL, MaxMembers: c.maxMembers,
		Dialer: &remote{etcdServer: c.etcd, pod: p},
	})
	full, _, encoding := record.Encode(p.self)
	p.record = []byte(full)
	if err := cmp.Or(err, encoding); err != nil {
		panic(err)
	}
	tasks := task.NewGroup(c.fail)
	p.members, err = membership.New(membership.Config{
		Self: p.self, Role: config.RoleAuto, MaxMembers: c.maxMembers, Size: ring.DefaultSize(), Directory: membership.InEtcd(p.directory), Pool: p,
		OnRing:    func(*ring.Ring, *ring.Ring) { p.counts.rings.Add(1) },
		OnMembers: p.publish, Defect: c.fail, Log: zap.NewNop(), Tasks: tasks,
	})
	if err != nil {
		panic(err)
	}
	p.service = service.New(service.Config{
		Node: p.self.ID, Ring: p, Members: &p.feed, ReachBack: p.members.ReachBack,
		Record: func() []byte { return p.members.Record(p.record) },
	})
	p.registration = membership.NewRegistration(membership.RegistrationConfig{
		Members: p.members, Leave: p.service.Leave, Requests: func() int64 { return 0 }, DrainTimeout: 10 * time.Second,
	})
	return p
}

// publish keeps no list for clients of this pod while it is a client, whose service refuses them.
func (p *pod) publish(members []ring.Member) {
	if p.members.Role() == config.RoleMember {
		p.feed.Set(members)
	}
}

// run is the start of a sidecar.
func (p *pod) run() {
	defer close(p.started)
	ctx := context.Background()
	_ = p.members.Start(ctx) // never fails
	_ = p.registration.Start(ctx)
}

// shutDown is the orderly stop of a sidecar.
func (p *pod) shutDown() {
	<-p.started
	ctx := context.Background()
	p.registration.Stop(ctx)
	p.members.Stop(ctx)
	_ = p.directory.Close() // always nil
	p.end()
}

// kill ends the pod at once, as a loss of power does. Nothing that its code does afterwards has an effect.
func (p *pod) kill() {
	p.silent.Store(true)
	p.end()
	go p.shutDown()
}

func (p *pod) dead() bool { return p.gone.Err() != nil }

// RingID implements service.Ring and membership.Peers.
func (p *pod) RingID() uint64 { return p.members.Ring().ID() }

// Owns implements service.Ring.
func (p *pod) Owns(_, _ string) bool { return false }

// Stats implements membership.Peers.
func (p *pod) Stats() peer.Stats { return peer.Stats{} }

var errLost = errors.New("the connection is lost")

// reach returns the pod at an address, after the time that a message takes. Nobody at the address answers: the call waits.
func (p *pod) reach(ctx context.Context, addr string) (*pod, error) {
	if err := p.cluster.travel(ctx); err != nil {
		return nil, err
	}
	to := p.cluster.at(addr)
	if to == nil || p.dead() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return to, nil
}

func (p *pod) ping(ctx context.Context, m ring.Member, request *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	to, err := p.reach(ctx, m.Addr)
	if err != nil {
		return nil, err
	}
	pong, err := to.service.Ping(ctx, request)
	if err == nil {
		bytes := int64(proto.Size(request) + proto.Size(pong) + 2*overhead)
		for _, end := range []*pod{p, to} {
			end.counts.pings.Add(1)
			end.counts.pingBytes.Add(bytes)
		}
	}
	return pong, err
}

// Ping implements membership.Peers, as peer.Pool does.
func (p *pod) Ping(ctx context.Context, m ring.Member) error {
	pong, err := p.ping(ctx, m, &peerv1.PingRequest{})
	switch {
	case err != nil:
		return err
	case pong.GetNode() != m.ID:
		return errors.New("another node answers at this address")
	case pong.GetLeaving():
		return peer.ErrLeaving
	}
	return nil
}

// ReachesBack implements membership.Peers, as peer.Pool does.
func (p *pod) ReachesBack(ctx context.Context, m ring.Member) (known bool, why string, err error) {
	pong, err := p.ping(ctx, m, &peerv1.PingRequest{ReachBack: p.self.ID})
	switch pong.GetReachedBack() {
	case peerv1.ReachedBack_REACHED_BACK_YES:
		return true, "", err
	case peerv1.ReachedBack_REACHED_BACK_NO:
		return true, pong.GetReachError(), err
	}
	return false, "", err
}

// Members implements membership.Peers, as peer.Pool does.
func (p *pod) Members(ctx context.Context, m ring.Member, node string, use func(*peerv1.MembersResponse) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(firstResponse, func() { cancel(errLost) })
	defer timeout.Stop()
	to, err := p.reach(ctx, m.Addr)
	if err != nil {
		return err
	}
	stream := newListStream(ctx, to)
	defer stream.cancel()
	for {
		select {
		case r := <-stream.responses:
			timeout.Stop()
			if err := p.cluster.travel(ctx); err != nil {
				return err
			}
			bytes := int64(proto.Size(r) + overhead)
			p.counts.feedReceived.Add(1)
			p.counts.feedBytes.Add(bytes)
			to.counts.feedSent.Add(1)
			to.counts.feedBytes.Add(bytes)
			if err := use(r); err != nil {
				return err
			}
		case err := <-stream.ended:
			if to.silent.Load() && ctx.Err() == nil { // the next ping of HTTP/2 finds it
				_ = p.cluster.wait(ctx, rand.N(http2Ping)+http2Timeout)
			}
			return cmp.Or(context.Cause(ctx), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// listStream is the server's end of a Members stream.
type listStream struct {
	grpc.ServerStream
	ctx       context.Context // done when either end has gone
	cancel    context.CancelFunc
	responses chan *peerv1.MembersResponse
	ended     chan error
}

func newListStream(ctx context.Context, to *pod) *listStream {
	s := &listStream{responses: make(chan *peerv1.MembersResponse), ended: make(chan error, 1)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	context.AfterFunc(to.gone, s.cancel)
	go func() {
		err := to.service.Members(&peerv1.MembersRequest{}, s)
		s.ended <- cmp.Or(err, errLost)
	}()
	return s
}

// Context implements the stream.
func (s *listStream) Context() context.Context { return s.ctx }

// Send implements the stream.
func (s *listStream) Send(r *peerv1.MembersResponse) error {
	select {
	case s.responses <- r:
		return nil
	case <-s.ctx.Done():
		return errLost
	}
}
