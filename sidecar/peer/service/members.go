package service

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// membersPace is the least time between two changes of the list that a client gets: those of a rolling restart share responses. The
// first one after a pause is sent immediately.
const membersPace = 250 * time.Millisecond

var errTooManyClients = errors.New("the limit of clients, or the memory for them, is used up: ask another member")

// Members implements peerv1.PeerServer.
func (s *Service) Members(req *peerv1.MembersRequest, out grpc.ServerStreamingServer[peerv1.MembersResponse]) error {
	if err := wire.CheckMembers(req); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if s.config.Members == nil {
		return s.UnimplementedPeerServer.Members(req, out)
	}
	if s.config.Record != nil && s.config.Record() == nil { //guard:clients-follow-each-other
		return status.Error(codes.FailedPrecondition, "this sidecar is a client of the ring, too")
	}
	defer s.clients.Add(-1)
	if s.clients.Add(1) > s.config.MaxClients { //guard:clients-of-the-ring-without-limit
		s.clientsRefused.Add(1)
		return status.Error(codes.ResourceExhausted, errTooManyClients.Error())
	}
	if !s.config.Budget.Take(budget.Subscribers, subscriberBytes) { //guard:clients-of-the-ring-take-no-memory
		s.clientsRefused.Add(1)
		return status.Error(codes.ResourceExhausted, errTooManyClients.Error())
	}
	defer s.config.Budget.Return(budget.Subscribers, subscriberBytes)
	return s.streamMembers(out)
}

// streamMembers sends nothing before the first list: a sidecar that was just started knows only itself.
func (s *Service) streamMembers(out grpc.ServerStreamingServer[peerv1.MembersResponse]) error {
	var sent memberlist.List
	for {
		list, changed := s.config.Members.Load()
		if list != nil {
			for _, part := range list.Since(sent) {
				part.Clients = uint32(s.clients.Load())
				if err := send(out.Context(), func() error { return out.Send(part) }); err != nil {
					return err
				}
			}
			sent = list
		}
		if !backoff.Sleep(out.Context(), membersPace) {
			return errStopping
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return errStopping
		}
	}
}
