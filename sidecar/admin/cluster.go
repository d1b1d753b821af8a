package admin

import (
	"context"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

const (
	// clusterTimeout is the time limit of the requests to all members.
	clusterTimeout = 3 * time.Second
	// clusterTTL is how long a response is reused, so that many consoles cost the members no more than one.
	clusterTTL = 500 * time.Millisecond
)

// clusterCache fetches the state of all members and keeps it for clusterTTL. Its zero value is ready to use.
type clusterCache struct {
	mu        sync.Mutex // held during the requests, so that concurrent callers share one result
	fetchedAt time.Time  // guarded by mu
	state     adminapi.ClusterState
}

func (c *clusterCache) get(ctx context.Context, s Source) adminapi.ClusterState {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fetchedAt.IsZero() && time.Since(c.fetchedAt) < clusterTTL {
		return c.state
	}
	// Other callers wait for this result, so it must not depend on the context of the first one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clusterTimeout)
	defer cancel()
	c.state, c.fetchedAt = s.clusterState(ctx), time.Now()
	return c.state
}

func (s Source) clusterState(ctx context.Context) adminapi.ClusterState {
	state := s.State()
	self := adminapi.MemberState{ID: s.Node, State: &state}
	if m := s.Ring().Member(s.Node); m != nil {
		self.Addr = m.Addr
	}
	return adminapi.ClusterState{
		RingID:  state.RingID,
		Self:    s.Node,
		Members: append([]adminapi.MemberState{self}, s.Others(ctx)...),
	}
}
