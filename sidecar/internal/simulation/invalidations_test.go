package simulation

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

const (
	// clusterWrites is how many writes a second the whole cluster makes.
	clusterWrites = 1000
	// writing is for how long.
	writing = 10 * time.Second
	// clientBytes is the budget for clients and other members of a sidecar without a limit of memory.
	clientBytes = 128 << 20
)

// streams is what the invalidations of one member cost, if all other pods subscribe to it because they read all keys.
type streams struct {
	Pods, Wanted, Admitted int
	Responses, Bytes       float64 // per second
	Latest                 time.Duration
}

// stream runs the Service of one member with all other pods as its subscribers. All members are alike.
func stream(t *testing.T, pods, maxMembers int) (s streams) {
	synctest.Test(t, func(t *testing.T) {
		log := invalidationlog.New(4096)
		member := service.New(service.Config{Node: "member", Log: log, Budget: budget.New(clientBytes)})
		ctx, cancel := context.WithCancel(t.Context())
		members := min(pods, maxMembers)
		var received subscriber
		received.ctx = ctx
		var all sync.WaitGroup
		for i := range pods - 1 {
			all.Go(func() {
				_ = member.Subscribe(&peerv1.SubscribeRequest{Quiet: true, Client: i >= members-1}, &received)
			})
		}
		synctest.Wait()
		s = streams{Pods: pods, Wanted: pods - 1, Admitted: int(member.Stats().Subscribers)}
		responses, bytes := received.responses.Load(), received.bytes.Load()
		for began := time.Now(); time.Since(began) < writing; time.Sleep(time.Second * time.Duration(members) / clusterWrites) {
			log.Publish(kv.Invalidation{Dataset: "cnf-metrics", Key: "interface/eth0/rx", Version: 1})
		}
		time.Sleep(time.Second)
		s.Responses = float64(received.responses.Load()-responses) / writing.Seconds()
		s.Bytes = float64(received.bytes.Load()-bytes) / writing.Seconds()
		s.Latest = time.Duration(received.latest.Load())
		cancel()
		all.Wait()
	})
	return s
}

// relayed is what the changes of a feed cost: members subscribe to its reader, and each client to two members that relay it.
type relayed struct {
	Pods                          int
	Reader, Relay                 int // streams that are wanted of them
	ReaderAdmitted, RelayAdmitted int
	Responses                     float64 // of the relay, per second
	Latest                        time.Duration
}

// relay runs the Services of a reader, which makes all changes, and of one member that relays them. All relays are alike.
func relay(t *testing.T, pods, maxMembers int) (r relayed) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		members := min(pods, maxMembers)
		clients := (2*(pods-members) + members - 1) / members
		r = relayed{Pods: pods, Reader: members - 1 + clients, Relay: clients}
		readerLog, relayLog := invalidationlog.New(4096), invalidationlog.New(4096)
		reader, member := relaying(readerLog), relaying(relayLog)
		var all sync.WaitGroup
		subscribe := func(to *service.Service, n int, req *peerv1.SubscribeRequest, out grpc.ServerStreamingServer[peerv1.SubscribeResponse]) {
			for range n {
				all.Go(func() { _ = to.Subscribe(req, out) })
			}
			synctest.Wait()
		}
		of := func() *subscriber { return &subscriber{ctx: ctx} }
		atMember, atClient := of(), of()
		subscribe(reader, 1, &peerv1.SubscribeRequest{Quiet: true}, &relaySubscriber{subscriber: of(), log: relayLog})
		subscribe(reader, members-2, &peerv1.SubscribeRequest{Quiet: true}, atMember)
		subscribe(reader, clients, &peerv1.SubscribeRequest{Quiet: true, Client: true, Feeds: true}, atMember)
		subscribe(member, clients, &peerv1.SubscribeRequest{Quiet: true, Client: true, Feeds: true}, atClient)
		readerLog.SetLiveFeeds([]string{"cnf-metrics"})
		synctest.Wait()
		r.ReaderAdmitted, r.RelayAdmitted = int(reader.Stats().Subscribers), int(member.Stats().Subscribers)
		before := atClient.responses.Load()
		for began := time.Now(); time.Since(began) < writing; time.Sleep(time.Second / clusterWrites) {
			readerLog.Publish(kv.Invalidation{Dataset: "cnf-metrics", Key: "interface/eth0/rx", Version: 1})
		}
		time.Sleep(time.Second)
		r.Responses = float64(atClient.responses.Load()-before) / writing.Seconds()
		r.Latest = time.Duration(max(atClient.latest.Load(), atMember.latest.Load()))
		cancel()
		all.Wait()
	})
	return r
}

// relaying returns the Service of a member that relays feeds.
func relaying(log *invalidationlog.Log) *service.Service {
	return service.New(service.Config{
		Log: log, Budget: budget.New(clientBytes), RelayFeeds: func(context.Context) func() { return func() {} },
	})
}

// relaySubscriber passes on what it receives, as peer.Pool does.
type relaySubscriber struct {
	*subscriber
	log *invalidationlog.Log
}

// Send implements the stream.
func (s *relaySubscriber) Send(r *peerv1.SubscribeResponse) error {
	list, err := wire.Invalidations(r.GetInvalidations())
	if err != nil {
		return err
	}
	s.log.HearFeeds(r.GetLiveFeeds())
	s.log.RelayChanges(list)
	return nil
}

// subscriber is the server's end of the streams of all subscribers.
type subscriber struct {
	grpc.ServerStream
	ctx                      context.Context
	responses, bytes, latest atomic.Int64
}

// Context implements the stream.
func (s *subscriber) Context() context.Context { return s.ctx }

// Send implements the stream.
func (s *subscriber) Send(r *peerv1.SubscribeResponse) error {
	s.responses.Add(1)
	s.bytes.Add(int64(proto.Size(r) + overhead))
	for _, i := range r.GetInvalidations() {
		for old := s.latest.Load(); i.GetAgeNs() > old && !s.latest.CompareAndSwap(old, i.GetAgeNs()); old = s.latest.Load() {
		}
	}
	return nil
}
