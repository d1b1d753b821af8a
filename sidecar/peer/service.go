package peer

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Dataset is what Service asks. *cache.Dataset is one.
type Dataset interface {
	// Serve answers from memory or by a load, and never asks another member.
	Serve(ctx context.Context, q cache.Query) (cache.Answer, error)
	// PrefetchServed begins the loads that Serve will wait for, as few, and notes so in qs. It does not wait.
	PrefetchServed(qs []cache.Query)
	// ServeWrite makes a change, and never asks another member.
	ServeWrite(ctx context.Context, c cache.Change) (cache.Answer, error)
	Stats() *cache.Stats
}

// Ring says what this member owns. *Pool is one.
type Ring interface {
	RingID() uint64
	Owns(dataset, key string) bool
}

// ServiceConfig is what a Service is made of.
type ServiceConfig struct {
	// Node is the node id of this member.
	Node string
	// Datasets finds a dataset by name.
	Datasets func(name string) (Dataset, bool)
	// Ring is this member's view of it.
	Ring Ring
	// Inspect describes this member; node and ring_id are filled in.
	Inspect func() *peerv1.InspectResponse
	// MaxInFlight bounds the fetches that are answered at once, for all callers together; 20 000 by default.
	MaxInFlight int64
	// Log is what followers are told: that of this member's Pool. Nil tells them nothing.
	Log *Log
	// Invalidate drops entries from this member's memory, all datasets' together; those that it does not have it ignores.
	Invalidate func([]cache.Invalidation)
	// MaxWrites bounds the writes that are made at once, for all callers together; 512 by default. Each may hold
	// a value of 1 MiB.
	MaxWrites int64
	// MaxFollowers bounds the streams of Follow; 4096 by default.
	MaxFollowers int64
}

// Service answers other members.
type Service struct {
	peerv1.UnimplementedPeerServer
	config   ServiceConfig
	leaving  atomic.Bool
	inFlight atomic.Int64
	writing  atomic.Int64

	fetches, refused, notOwner, ringMismatch  atomic.Int64
	writes, writesRefused, told               atomic.Int64
	followers, followersRefused, followersCut atomic.Int64
}

// NewService returns a Service for Register.
func NewService(c ServiceConfig) *Service {
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 20_000)
	c.MaxWrites = cmp.Or(c.MaxWrites, 512)
	c.MaxFollowers = cmp.Or(c.MaxFollowers, 4096)
	if c.Log == nil {
		c.Log = newLog(1)
	}
	return &Service{config: c}
}

// Register makes server answer for s.
func (s *Service) Register(server grpc.ServiceRegistrar) { peerv1.RegisterPeerServer(server, s) }

// Leave says in each pong from now on that this member is leaving. It answers all the same, and its followers hear of
// what it writes until its Server stops.
func (s *Service) Leave() { s.leaving.Store(true) }

// Fetch implements peerv1.PeerServer.
func (s *Service) Fetch(ctx context.Context, req *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return s.serve(ctx, req, query(req))
}

func (s *Service) serve(ctx context.Context, req *peerv1.FetchRequest, q cache.Query) (*peerv1.FetchResponse, error) {
	s.fetches.Add(1)
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > s.config.MaxInFlight { //guard:fetches-callers-without-bound
		s.refused.Add(1)
		return nil, toStatus(&cache.Error{Kind: cache.KindOverloaded, RetryAfter: retryAfter, Err: errOverload})
	}
	if err := checkSizes(req); err != nil {
		return nil, toStatus(err)
	}
	dataset, err := s.dataset(req.GetDataset())
	if err != nil {
		return nil, err
	}
	owns := s.owns(req, dataset)
	a, err := dataset.Serve(ctx, q)
	if err != nil {
		return nil, toStatus(err)
	}
	return s.response(a, owns), nil
}

func (s *Service) dataset(name string) (Dataset, error) {
	dataset, ok := s.config.Datasets(name)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no dataset %q: is its config older than the caller's?", name)
	}
	return dataset, nil
}

// request is one about a key.
type request interface {
	GetDataset() string
	GetKey() string
	GetRingId() uint64
}

// owns compares the caller's ring with this member's.
func (s *Service) owns(req request, dataset Dataset) bool {
	if req.GetRingId() != s.config.Ring.RingID() {
		s.ringMismatch.Add(1)
	}
	owns := s.config.Ring.Owns(req.GetDataset(), req.GetKey())
	if !owns {
		s.notOwner.Add(1)
		dataset.Stats().NotOwner.Add(1)
	}
	return owns
}

func query(req *peerv1.FetchRequest) cache.Query {
	return cache.Query{
		Dataset:    req.GetDataset(),
		Key:        req.GetKey(),
		Failover:   req.GetFailover(),
		NoCache:    req.GetNoCache(),
		MemoryOnly: req.GetMemoryOnly(),
		MinVersion: max(0, req.GetMinVersion()),
		MaxAge:     time.Duration(max(0, req.GetMaxAgeNs())),
		Tag:        req.GetTag(),
	}
}

func (s *Service) response(a cache.Answer, owns bool) *peerv1.FetchResponse {
	return &peerv1.FetchResponse{
		Value:      a.Value,
		Absent:     a.NotFound,
		Version:    a.Version,
		AgeNs:      int64(a.Age),
		FreshNs:    int64(a.Fresh),
		FromMemory: a.Source != cache.SourceLoad,
		NotOwner:   !owns,
		RingId:     s.config.Ring.RingID(),
		Stale:      a.Stale,
		Detail:     a.Detail,
		TookNs:     int64(a.Took),
	}
}

// Ping implements peerv1.PeerServer.
func (s *Service) Ping(context.Context, *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	return &peerv1.PingResponse{
		Node: s.config.Node, RingId: s.config.Ring.RingID(), Leaving: s.leaving.Load(),
	}, nil
}

// Inspect implements peerv1.PeerServer.
func (s *Service) Inspect(context.Context, *peerv1.InspectRequest) (*peerv1.InspectResponse, error) {
	report := s.config.Inspect()
	report.Node, report.RingId = s.config.Node, s.config.Ring.RingID()
	return report, nil
}

// ServiceStats is a snapshot of a Service.
type ServiceStats struct {
	InFlight, MaxInFlight   int64 // fetches that are being answered now, and their bound
	Writing, MaxWrites      int64 // writes that are being made now, and their bound
	Followers, MaxFollowers int64 // streams now, and their bound

	// Counted since the start.
	Fetches      int64
	Refused      int64 // fetches refused because of MaxInFlight
	NotOwner     int64 // fetches and writes of keys that this member does not own
	RingMismatch int64 // fetches and writes by members whose ring was another

	Writes           int64
	WritesRefused    int64 // because of MaxWrites
	Invalidated      int64 // invalidations that members told in requests
	FollowersRefused int64 // because of MaxFollowers
	FollowersCut     int64 // because they were too slow, or asked for what is no longer kept
}

// Stats returns a snapshot.
func (s *Service) Stats() ServiceStats {
	return ServiceStats{
		InFlight:     s.inFlight.Load(),
		MaxInFlight:  s.config.MaxInFlight,
		Fetches:      s.fetches.Load(),
		Refused:      s.refused.Load(),
		NotOwner:     s.notOwner.Load(),
		RingMismatch: s.ringMismatch.Load(),

		Writing:          s.writing.Load(),
		MaxWrites:        s.config.MaxWrites,
		Writes:           s.writes.Load(),
		WritesRefused:    s.writesRefused.Load(),
		Invalidated:      s.told.Load(),
		Followers:        s.followers.Load(),
		MaxFollowers:     s.config.MaxFollowers,
		FollowersRefused: s.followersRefused.Load(),
		FollowersCut:     s.followersCut.Load(),
	}
}
