package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// maxDatasetBytes bounds the name of a dataset in a request.
const maxDatasetBytes = 128

// Dataset is what Service asks. *cache.Dataset is one.
type Dataset interface {
	// Serve answers from memory or by a load, and never asks another member.
	Serve(ctx context.Context, q cache.Query) (cache.Answer, error)
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
}

// Service answers other members.
type Service struct {
	peerv1.UnimplementedPeerServer
	config   ServiceConfig
	leaving  atomic.Bool
	inFlight atomic.Int64

	fetches, refused, notOwner, ringMismatch atomic.Int64
}

// NewService returns a Service for Register.
func NewService(c ServiceConfig) *Service {
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 20_000)
	return &Service{config: c}
}

// Register makes server answer for s.
func (s *Service) Register(server grpc.ServiceRegistrar) { peerv1.RegisterPeerServer(server, s) }

// Leave says in each pong from now on that this member is leaving. It answers all the same.
func (s *Service) Leave() { s.leaving.Store(true) }

// Fetch implements peerv1.PeerServer.
func (s *Service) Fetch(ctx context.Context, req *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	s.fetches.Add(1)
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > s.config.MaxInFlight {
		s.refused.Add(1)
		return nil, toStatus(&cache.Error{Kind: cache.KindOverloaded, RetryAfter: retryAfter, Err: errOverload})
	}
	if err := checkSizes(req); err != nil {
		return nil, toStatus(&cache.Error{Kind: cache.KindInvalidKey, Err: err})
	}
	dataset, ok := s.config.Datasets(req.GetDataset())
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no dataset %q: is its config older than the caller's?", req.GetDataset())
	}
	owns := s.owns(req, dataset)
	a, err := dataset.Serve(ctx, query(req))
	if err != nil {
		return nil, toStatus(err)
	}
	return s.response(a, owns), nil
}

func checkSizes(req *peerv1.FetchRequest) error {
	switch {
	case len(req.GetDataset()) > maxDatasetBytes:
		return fmt.Errorf("the dataset's name has %d bytes; at most %d are allowed", len(req.GetDataset()), maxDatasetBytes)
	case len(req.GetKey()) > cache.MaxKeyBytes:
		return fmt.Errorf("the key has %d bytes; at most %d are allowed", len(req.GetKey()), cache.MaxKeyBytes)
	case req.GetKey() == "":
		return errors.New("the key is empty")
	}
	return nil
}

// owns compares the caller's ring with this member's.
func (s *Service) owns(req *peerv1.FetchRequest, dataset Dataset) bool {
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
		Gutter:     req.GetGutter(),
		NoCache:    req.GetNoCache(),
		MemoryOnly: req.GetMemoryOnly(),
	}
}

func (s *Service) response(a cache.Answer, owns bool) *peerv1.FetchResponse {
	return &peerv1.FetchResponse{
		Value:      a.Value,
		Absent:     a.Absent,
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
	InFlight, MaxInFlight int64 // fetches that are being answered now, and their bound

	// Counted since the start.
	Fetches      int64
	Refused      int64 // fetches refused because of MaxInFlight
	NotOwner     int64 // fetches for keys that this member does not own
	RingMismatch int64 // fetches by members whose ring was another
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
	}
}
