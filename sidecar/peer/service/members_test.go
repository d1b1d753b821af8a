package service

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
)

func TestClientsGetTheChangesOfTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed memberlist.Feed
		s := New(Config{Members: &feed})
		ctx, cancel := context.WithCancel(t.Context())
		out, ended := stream[peerv1.MembersResponse]{ctx: ctx, sent: make(chan *peerv1.MembersResponse, 100)}, make(chan error, 1)
		go func() { ended <- s.Members(&peerv1.MembersRequest{Node: "client"}, out) }()
		time.Sleep(time.Minute)
		if len(out.sent) != 0 {
			t.Error("it sent a list before there was one")
		}
		a, b, c := ring.Member{ID: "a", Addr: "10.0.0.1:1"}, ring.Member{ID: "b", Addr: "10.0.0.2:1"}, ring.Member{ID: "c", Addr: "10.0.0.3:1"}
		feed.Set([]ring.Member{a, b})
		synctest.Wait()
		if r := <-out.sent; len(r.GetChanged()) != 2 || r.GetMore() || r.GetClients() != 1 {
			t.Errorf("got %v, want two members", r)
		}
		feed.Set([]ring.Member{a})
		feed.Set([]ring.Member{a, c}) // soon after: both are one response
		time.Sleep(time.Minute)
		if r := <-out.sent; len(r.GetChanged()) != 1 || len(r.GetRemoved()) != 1 || len(out.sent) != 0 {
			t.Errorf("got %v, want one response with both changes", r)
		}
		cancel()
		if err := <-ended; status.Code(err) != codes.Unavailable || s.Stats().Clients != 0 {
			t.Errorf("got %v and %d clients at the end, want UNAVAILABLE and none", err, s.Stats().Clients)
		}
	})
}

func TestClientsOfTheRingAreLimited(t *testing.T) {
	t.Parallel()
	b := budget.New(1 << 20)
	for _, c := range []Config{{MaxClients: 3}, {Budget: b}} {
		c.Members = new(memberlist.Feed)
		c.Members.Set(nil)
		s, most := New(c), c.MaxClients
		if most == 0 {
			most = b.Limit(budget.Subscribers) / subscriberBytes
		}
		ctx, cancel := context.WithCancel(t.Context())
		var streams sync.WaitGroup
		for range most {
			out := stream[peerv1.MembersResponse]{ctx: ctx, sent: make(chan *peerv1.MembersResponse, 100)}
			streams.Go(func() { _ = s.Members(&peerv1.MembersRequest{}, out) })
			<-out.sent // it is open
		}
		short, stop := context.WithTimeout(ctx, time.Second)
		err := s.Members(&peerv1.MembersRequest{}, stream[peerv1.MembersResponse]{ctx: short, sent: make(chan *peerv1.MembersResponse, 100)})
		stop()
		if status.Code(err) != codes.ResourceExhausted || s.Stats().ClientsRefused != 1 {
			t.Errorf("client %d: got %v, %d refused; want RESOURCE_EXHAUSTED", most+1, err, s.Stats().ClientsRefused)
		}
		cancel()
		streams.Wait()
	}
	if used := b.Stats()[budget.Subscribers].Used; used != 0 {
		t.Errorf("got %d bytes taken after all streams have ended, want 0", used)
	}
}

func TestSidecarThatIsAClientSendsNoList(t *testing.T) {
	t.Parallel()
	s := New(Config{Members: new(memberlist.Feed), Record: func() []byte { return nil }})
	s.config.Members.Set(nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := s.Members(&peerv1.MembersRequest{}, stream[peerv1.MembersResponse]{ctx: ctx, sent: make(chan *peerv1.MembersResponse, 100)})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v, want FAILED_PRECONDITION", err)
	}
}

func TestWhatMembersInvalidateIsRelayedToClients(t *testing.T) {
	t.Parallel()
	log := invalidationlog.New(8)
	s := New(Config{Log: log, Ring: quietRing{}, Invalidate: func([]kv.Invalidation) {}})
	clients := log.ForClients()
	req := &peerv1.InvalidateRequest{Invalidations: []*peerv1.Invalidation{{Dataset: "metrics", Key: "k", Version: 7}}}
	if _, err := s.Invalidate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if toClients, toMembers := clients.Published(), log.Published(); toClients != 1 || toMembers != 0 {
		t.Errorf("got %d invalidations for clients and %d for members, want 1 and 0", toClients, toMembers)
	}
	pong, err := s.Ping(t.Context(), &peerv1.PingRequest{Client: true})
	if err != nil || pong.GetEpoch() != clients.Epoch() || pong.GetSequence() != 1 {
		t.Errorf("got %v, %v; want the position in the log of clients", pong, err)
	}
}
