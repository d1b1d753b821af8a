package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/ringside-cache/ringside/ring"
)

const (
	// maxListBytes bounds one answer of a feed: some 20 000 members.
	maxListBytes = 4 << 20
	// connectTimeout bounds one try to connect.
	connectTimeout = 2 * time.Second
	// minWait and maxWait bound the pause before the next feed is tried; it doubles. Thousands may lose the same feed at
	// once, and lose nothing by waiting: the last list stays in use.
	minWait, maxWait = 500 * time.Millisecond, 10 * time.Second
	// pingEvery and pongTimeout find a feed that is gone without a goodbye. A Feed allows a ping every 10 s.
	pingEvery, pongTimeout = 15 * time.Second, 5 * time.Second
)

// FollowerConfig is what a Follower is made of. Only Addresses is needed.
type FollowerConfig struct {
	// Addresses are the feeds (host:port), each as good as the other. They are spoken to in plain text, as Feed does.
	Addresses []string
	// Node is how this follower names itself to them.
	Node string
	// AnswerTimeout is how long a feed may take for its first usable list before the next one is tried; 5 s by default.
	AnswerTimeout time.Duration
	// OnEvent is told when a feed is found or lost, and of lists that were refused: a few times per outage, not once per
	// attempt. err is nil for good news. It must be quick. May be nil.
	OnEvent func(what string, err error)
}

func (c FollowerConfig) withDefaults() FollowerConfig {
	c.AnswerTimeout = cmp.Or(c.AnswerTimeout, 5*time.Second)
	if c.OnEvent == nil {
		c.OnEvent = func(string, error) {}
	}
	return c
}

// FollowerStatus is a snapshot of a Follower.
type FollowerStatus struct {
	// Feed is the address of the feed that is followed; empty while there is none.
	Feed string
	// Members are those of the last list, those that are leaving included.
	Members int
	// Updates counts the lists that were taken; Refusals, those that were not; Losses, feeds that were lost or never
	// gave a list.
	Updates, Refusals, Losses int64
	// LastError is why the last feed was lost or its list refused, until a list is taken.
	LastError string
	// Silence is the time since a feed was lost, or since the start where there was none yet; 0 while one is followed.
	Silence time.Duration
}

// Follower is the ring.Directory of a sidecar that learns the ring from feeds, and is itself not on it.
type Follower struct {
	config FollowerConfig

	mu     sync.Mutex // guards the rest
	status FollowerStatus
	told   bool      // of the outage under way
	since  time.Time // when that began; what Silence is counted from
}

var _ ring.Directory = (*Follower)(nil)

// NewFollower returns a Follower of the feeds, of which there must be one at least.
func NewFollower(c FollowerConfig) (*Follower, error) {
	if len(c.Addresses) == 0 {
		return nil, errors.New("follow a feed: no address is given")
	}
	return &Follower{config: c.withDefaults(), since: time.Now()}, nil
}

// Status returns a snapshot.
func (f *Follower) Status() FollowerStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	if s.Feed == "" {
		s.Silence = time.Since(f.since)
	}
	return s
}

// Register implements ring.Directory. A follower is on no ring: there is nobody to publish.
func (f *Follower) Register(ctx context.Context, _ ring.Member) error {
	<-ctx.Done()
	return nil
}

// Follow implements ring.Directory. It goes from feed to feed, and begins anywhere, so that followers spread. Nothing
// is applied while there is no feed, nor a list with nobody on the ring.
func (f *Follower) Follow(ctx context.Context, apply func([]ring.Member)) error {
	wait := minWait
	for turn := rand.IntN(len(f.config.Addresses)); ; turn++ {
		addr := f.config.Addresses[turn%len(f.config.Addresses)]
		useful, err := f.session(ctx, addr, apply)
		if ctx.Err() != nil {
			return nil
		}
		if f.lost(err) {
			f.config.OnEvent("no feed; the last list of members stays in use",
				fmt.Errorf("follow the feed at %s: %w", addr, err))
		}
		if useful {
			wait = minWait
		}
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return nil
		}
		wait = min(2*wait, maxWait)
	}
}

// pause waits for d and reports whether ctx lasted so long.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errMute: a feed that does not know the ring yet keeps its clients waiting, and another may know it.
var errMute = errors.New("it has given no usable list in time")

// session follows one feed for as long as that lasts. useful: it gave a list.
func (f *Follower) session(ctx context.Context, addr string, apply func([]ring.Member)) (useful bool, err error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, dialOptions()...)
	if err != nil {
		return false, fmt.Errorf("make a client: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	mute := time.AfterFunc(f.config.AnswerTimeout, func() { cancel(errMute) })
	defer mute.Stop()
	err = f.receive(ctx, conn, addr, func(members []ring.Member) {
		mute.Stop()
		useful = true
		apply(members)
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return useful, err
}

// receive applies each list that it can use, until the stream ends.
func (f *Follower) receive(ctx context.Context, conn *grpc.ClientConn, addr string, apply func([]ring.Member)) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	s := subscription{stream: stream, node: f.config.Node}
	if err := s.answer(nil); err != nil {
		return err
	}
	for {
		members, err := s.next()
		switch {
		case err != nil:
			return err
		case s.refused != nil:
			f.refuse(addr, s.refused)
		default:
			f.take(addr, len(members))
			apply(members)
		}
	}
}

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // the environment's proxy is for the way out of the cluster
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pongTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxListBytes)),
	}
}

// lost notes that there is no feed, and reports whether that is news.
func (f *Follower) lost(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.status.Feed != "" {
		f.since = time.Now()
	}
	f.status.Feed, f.status.LastError = "", printable(err.Error())
	f.status.Losses++
	news := !f.told
	f.told = true
	return news
}

func (f *Follower) take(addr string, members int) {
	f.mu.Lock()
	found := f.status.Feed != addr
	f.status.Feed, f.status.Members, f.status.LastError = addr, members, ""
	f.status.Updates++
	f.told = false
	f.mu.Unlock()
	if found {
		f.config.OnEvent("following the feed at "+addr, nil)
	}
}

// refuse tells of the first refusal only, until a list is taken: a feed that sends without pause must not fill the log.
func (f *Follower) refuse(addr string, err error) {
	f.mu.Lock()
	news := f.status.LastError == ""
	f.status.LastError = printable(err.Error())
	f.status.Refusals++
	f.mu.Unlock()
	if news {
		f.config.OnEvent("refused a list of members; the last one stays in use",
			fmt.Errorf("from the feed at %s: %w", addr, err))
	}
}

// subscription is a stream of the endpoints, as state of the world.
type subscription struct {
	stream  discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node    string
	version string // of the list in use
	refused error  // why the last list was not taken
}

// next waits for the next list and answers it. The list is nil, and refused says why, when it could not be used.
func (s *subscription) next() (members []ring.Member, err error) {
	r, err := s.stream.Recv()
	if err != nil {
		return nil, err
	}
	if members, s.refused = listed(r); s.refused == nil {
		s.version = r.GetVersionInfo()
	}
	return members, s.answer(r)
}

// answer asks for the endpoints, and says what became of r: nil at first.
func (s *subscription) answer(r *discoveryv3.DiscoveryResponse) error {
	q := &discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: s.node}, TypeUrl: resource.EndpointType, ResourceNames: []string{Name},
		VersionInfo: s.version, ResponseNonce: r.GetNonce(),
	}
	if s.refused != nil {
		q.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: printable(s.refused.Error())}
	}
	if err := s.stream.Send(q); !errors.Is(err, io.EOF) {
		return err
	}
	return nil // the stream has ended, and the next receive says why
}

// listed finds the members in an answer.
func listed(r *discoveryv3.DiscoveryResponse) ([]ring.Member, error) {
	if t := r.GetTypeUrl(); t != resource.EndpointType {
		return nil, fmt.Errorf("got the type %q, which was not asked for", printable(t))
	}
	for _, packed := range r.GetResources() {
		var list endpointv3.ClusterLoadAssignment
		if err := packed.UnmarshalTo(&list); err != nil {
			return nil, err
		}
		if list.GetClusterName() == Name {
			return Members(&list)
		}
	}
	return nil, fmt.Errorf("no resource is named %q", Name)
}
