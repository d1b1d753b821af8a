package admin

import (
	"context"
	"sync"
	"time"
)

const (
	// gatherTimeout bounds the question to all members.
	gatherTimeout = 3 * time.Second
	// gatherLife is how long an answer serves, so that many consoles cost the members no more than one.
	gatherLife = 500 * time.Millisecond
)

// MemberState is another member's State, or the reason why it is not known.
type MemberState struct {
	ID          string `json:"id"`
	Addr        string `json:"addr"`
	State       *State `json:"state,omitempty"`
	Unreachable string `json:"unreachable,omitempty"`
}

// clusterView is the state of all members of the ring as this one, which comes first, sees them.
type clusterView struct {
	RingID  string        `json:"ring_id"`
	Self    string        `json:"self"`
	Members []MemberState `json:"members"`
}

// cluster asks all members for their state. Its zero value is ready.
type cluster struct {
	mu   sync.Mutex // held while the members are asked: whoever comes meanwhile gets the same answer
	at   time.Time  // guarded by mu; when view was complete
	view clusterView
}

func (c *cluster) gather(ctx context.Context, s Source) clusterView {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && time.Since(c.at) < gatherLife {
		return c.view
	}
	// Others wait for this answer: it must not end with the one who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gatherTimeout)
	defer cancel()
	c.view, c.at = s.inspectAll(ctx), time.Now()
	return c.view
}

func (s Source) inspectAll(ctx context.Context) clusterView {
	state := s.State()
	self := MemberState{ID: s.Node, State: &state}
	if m := s.Ring().Member(s.Node); m != nil {
		self.Addr = m.Addr
	}
	return clusterView{
		RingID:  state.RingID,
		Self:    s.Node,
		Members: append([]MemberState{self}, s.Others(ctx)...),
	}
}
