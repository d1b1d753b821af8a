package peer

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

const (
	// tellTimeout bounds one request of TellAll to one member.
	tellTimeout = 500 * time.Millisecond
	// maxTells bounds the members that one TellAll tells at once.
	maxTells = 16
)

// Broadcast implements cache.Peers. Members are told at most maxTells at once, each within tellTimeout for every
// maxInvalidations of the list; a member whose breaker is open is not tried.
func (p *Pool) Broadcast(ctx context.Context, list []cache.Invalidation) (told int, unreached []string) {
	requests := tellRequests(list)
	v := p.view.Load()
	var mu sync.Mutex // guards unreached
	var reached atomic.Int64
	var group errgroup.Group
	group.SetLimit(maxTells) //guard:everybody-told-once
	for _, m := range v.cur.Members() {
		if m.ID == p.config.Self {
			continue
		}
		group.Go(func() error {
			if v.peers[m.ID].tell(ctx, requests) {
				reached.Add(1)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			unreached = append(unreached, m.ID)
			return nil // the others are told all the same
		})
	}
	_ = group.Wait()
	p.counters.tells.Add(reached.Load())
	p.counters.untold.Add(int64(len(unreached)))
	slices.Sort(unreached)
	return int(reached.Load()), unreached
}

// tellRequests cuts a list into requests within the bounds of a Service.
func tellRequests(list []cache.Invalidation) (requests []*peerv1.InvalidateRequest) {
	size := 0
	for _, i := range list {
		size += len(i.Dataset) + len(i.Key)
		if n := len(requests); n == 0 || len(requests[n-1].Invalidations) == maxInvalidations || size > maxTellBytes {
			requests = append(requests, &peerv1.InvalidateRequest{})
			size = len(i.Dataset) + len(i.Key)
		}
		request := requests[len(requests)-1]
		request.Invalidations = append(request.Invalidations, toWire(i, 0))
	}
	return requests
}

// tell reports whether the member has taken in all of it.
func (p *peer) tell(ctx context.Context, requests []*peerv1.InvalidateRequest) bool {
	for _, r := range requests {
		if p.broken.Load() || p.tellOne(ctx, r) != nil {
			return false
		}
	}
	return true
}

func (p *peer) tellOne(ctx context.Context, r *peerv1.InvalidateRequest) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	conn, err := p.connection()
	if err != nil {
		return err
	}
	_, err = peerv1.NewPeerClient(conn).Invalidate(ctx, r)
	switch status.Code(err) {
	case codes.OK:
		p.hear()
	case codes.Unavailable:
		p.fail()
	case codes.DeadlineExceeded:
		p.probe() // nobody waits for the pong: the next one who tells knows
	}
	return err
}

// Invalidate implements peerv1.PeerServer.
func (s *Service) Invalidate(
	_ context.Context, req *peerv1.InvalidateRequest,
) (*peerv1.InvalidateResponse, error) {
	list, err := invalidations(req.GetInvalidations())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.told.Add(int64(len(list)))
	s.config.Invalidate(list)
	return &peerv1.InvalidateResponse{}, nil
}

// toWire says when the change was in terms of now, which is later than its Age says by the given time.
func toWire(i cache.Invalidation, later time.Duration) *peerv1.Invalidation {
	return &peerv1.Invalidation{
		Dataset: i.Dataset, Key: i.Key, Prefix: i.Prefix, Version: i.Version, AgeNs: int64(max(0, i.Age) + later),
	}
}

// fromWire takes what can not be for not known: a change in the future, a version below 0 or of many keys.
func fromWire(i *peerv1.Invalidation) cache.Invalidation {
	if i.GetPrefix() {
		return cache.Invalidation{Dataset: i.GetDataset(), Key: i.GetKey(), Prefix: true, Age: time.Duration(max(0, i.GetAgeNs()))}
	}
	return cache.Invalidation{
		Dataset: i.GetDataset(), Key: i.GetKey(), Version: max(0, i.GetVersion()),
		Age: time.Duration(max(0, i.GetAgeNs())),
	}
}
