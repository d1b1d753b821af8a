package membership

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/internal/backoff"
	"github.com/ringside-cache/ringside/ring"
)

const (
	// DefaultPingEvery is the time from one probe of a doubted member to the next, and the time that each may take.
	DefaultPingEvery = 500 * time.Millisecond
	// DefaultHoldDown is how long a doubted member must be unreachable: three pings.
	DefaultHoldDown = 3 * DefaultPingEvery
	// DefaultWarmUp is how long the ring before a change is worth asking.
	DefaultWarmUp = 10 * time.Second

	// maxPings bounds the probes under way at once.
	maxPings = 64
	// pingShare stretches the time between probes with the number of doubted members: when a directory forgets
	// everybody, each of n members probes n-1 others, and is probed as often.
	pingShare = 5 * time.Millisecond
)

// ViewConfig is what a View is made of.
type ViewConfig struct {
	// Self is this member. It is on the ring until Leave, whatever the directory says. The zero Member stands for an
	// edge, which is on no ring: its ring is empty until the first Apply.
	Self ring.Member
	// Size is that of the ring.
	Size ring.Size
	// Probe returns nil when the member answers and means to stay. Its context ends after PingEvery.
	Ping func(context.Context, ring.Member) error
	// OnChange is told of the first ring, by New, and of each other one, in order, one at a time. prev is the ring
	// whose members may still hold in memory what cur gives to others; nil where there is none. It must be quick and
	// must not call the View.
	OnChange func(cur, prev *ring.Ring)
	// PingEvery, HoldDown and WarmUp are the defaults above when they are 0.
	PingEvery, HoldDown, WarmUp time.Duration
}

// View decides who is on the ring. It is safe for concurrent use.
type View struct {
	config   ViewConfig
	doubting chan struct{} // holds a token when a member has come into doubt

	mu      sync.Mutex // guards all below; held during OnChange
	leaving bool
	listed  []ring.Member     // by the directory, last
	doubts  map[string]*doubt // by id: on the ring, but not listed
	cur     *ring.Ring        // never nil
	prev    *ring.Ring        // that OnChange was told last
	prevAt  time.Time         // when prev was the ring in use
	stats   ViewStats
}

// doubt is about a member that vanished from the directory without a goodbye.
type doubt struct {
	member ring.Member
	failed time.Time // when the first of the probes began that all failed; zero when the last one succeeded
}

// ViewStats is a snapshot for metrics.
type ViewStats struct {
	// Members is how many are on the ring; Doubted, how many of them the directory does not list any more.
	Members, Doubted int
	// Changes counts the rings.
	Changes int64
	// Vanished counts members that left the directory without a goodbye; Unreachable, how many of these were taken off
	// the ring because they did not answer.
	Vanished, Unreachable int64
	// Refused counts listed members that claimed the id, hash key or address of another, once for each time that the
	// ring was decided.
	Refused int64
}

// NewView returns a View whose ring is self alone, or empty for an edge. It fails when self cannot be on a ring.
func NewView(c ViewConfig) (*View, error) {
	c.PingEvery = cmp.Or(c.PingEvery, DefaultPingEvery)
	c.HoldDown = cmp.Or(c.HoldDown, DefaultHoldDown)
	c.WarmUp = cmp.Or(c.WarmUp, DefaultWarmUp)
	c.Self.Leaving = false
	edge := c.Self == ring.Member{}
	first := []ring.Member{c.Self}
	if edge {
		first = nil
	}
	start, err := ring.New(first, c.Size)
	if err != nil {
		return nil, fmt.Errorf("ring of this member alone: %w", err)
	}
	v := &View{
		config: c, doubting: make(chan struct{}, 1), doubts: make(map[string]*doubt), cur: start,
		leaving: edge, // it is off the ring from the start
	}
	c.OnChange(start, nil)
	return v, nil
}

// Ring is the ring in use. It is never empty, but for an edge that has had no list yet.
func (v *View) Ring() *ring.Ring {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cur
}

// Stats returns a snapshot.
func (v *View) Stats() ViewStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.stats
	s.Members, s.Doubted = v.cur.Len(), len(v.doubts)
	return s
}

// Apply takes the complete list of the directory. Members that are new are on the ring when it returns, and those that
// said goodbye are off.
func (v *View) Apply(listed []ring.Member) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listed = listed
	v.doubtLocked()
	v.decideLocked()
}

// Leave takes self off the ring, unless nobody else is there: when others have been told of the goodbye, this member's
// own reads should go where theirs go.
func (v *View) Leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leaving = true
	v.decideLocked()
}

// doubtLocked begins to doubt who is on the ring but not listed, and ends the doubt about who is listed.
func (v *View) doubtLocked() {
	listed := make(map[string]bool, len(v.listed))
	for _, m := range v.listed {
		listed[m.ID] = true
		delete(v.doubts, m.ID)
	}
	for _, m := range v.cur.Members() {
		if m.ID == v.config.Self.ID || listed[m.ID] || v.doubts[m.ID] != nil {
			continue
		}
		v.doubts[m.ID] = &doubt{member: m}
		v.stats.Vanished++
	}
	if len(v.doubts) > 0 {
		select {
		case v.doubting <- struct{}{}:
		default:
		}
	}
}

// decideLocked makes the ring anew if its members changed.
func (v *View) decideLocked() {
	kept := make([]ring.Member, 0, len(v.doubts))
	for _, d := range v.doubts {
		kept = append(kept, d.member)
	}
	slices.SortFunc(kept, func(a, b ring.Member) int { return cmp.Compare(a.ID, b.ID) })
	next := decide(v.config.Self, v.leaving, v.listed, kept)
	v.stats.Refused += int64(next.refused)
	if len(next.members) == 0 {
		return
	}
	made, err := ring.New(next.members, v.config.Size)
	switch {
	case err != nil: // decide makes no set that New refuses; if it did, the ring in use would stay
	case made.ID() == v.cur.ID():
		v.cur = made // a zone or version may have changed
	default:
		v.replaceLocked(made)
	}
	for id := range v.doubts {
		if v.cur.Member(id) == nil { // another claims what was its
			delete(v.doubts, id)
		}
	}
}

// replaceLocked puts next into use. Changes that come soon after another keep that one's previous ring: who joins and
// sees a third one join has not had time to ask yet.
func (v *View) replaceLocked(next *ring.Ring) {
	if v.prev == nil || time.Since(v.prevAt) >= v.config.WarmUp {
		v.prev, v.prevAt = v.before(next), time.Now()
	}
	v.cur = next
	v.stats.Changes++
	v.config.OnChange(v.cur, v.prev)
}

// before is the ring that owned the keys until next: the one in use, but for a member that was alone until now, that of
// the others.
func (v *View) before(next *ring.Ring) *ring.Ring {
	if v.cur.Len() > 1 || v.cur.Member(v.config.Self.ID) == nil {
		return v.cur
	}
	isSelf := func(m ring.Member) bool { return m.ID == v.config.Self.ID }
	others, err := ring.New(slices.DeleteFunc(next.Members(), isSelf), v.config.Size)
	if err != nil { // it is a part of a ring that could be made
		return v.cur
	}
	return others
}

// Run probes doubted members until ctx is done, and takes off the ring who does not answer.
func (v *View) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.doubting:
			v.pingWhileDoubted(ctx)
		}
	}
}

func (v *View) pingWhileDoubted(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		doubted := v.doubted()
		if len(doubted) == 0 {
			return
		}
		reachable := v.ping(ctx, doubted)
		if ctx.Err() != nil {
			return // then every probe failed
		}
		v.removeUnreachable(doubted, reachable, began)
		backoff.Sleep(ctx, time.Until(began.Add(max(v.config.PingEvery, time.Duration(len(doubted))*pingShare))))
	}
}

func (v *View) doubted() (members []ring.Member) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range v.doubts {
		members = append(members, d.member)
	}
	return members
}

// probe asks all members and returns, in their order, who answered.
func (v *View) ping(ctx context.Context, members []ring.Member) (reachable []bool) {
	reachable = make([]bool, len(members))
	var pings errgroup.Group
	pings.SetLimit(maxPings)
	for i, m := range members {
		pings.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, v.config.PingEvery)
			defer cancel()
			reachable[i] = v.config.Ping(ctx, m) == nil
			return nil
		})
	}
	_ = pings.Wait() // no probe returns an error
	return reachable
}

// judge takes off the ring who has been unreachable for the hold-down. began is when the probes did.
func (v *View) removeUnreachable(members []ring.Member, reachable []bool, began time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	gone := false
	for i, m := range members {
		d := v.doubts[m.ID]
		switch {
		case d == nil || d.member != m: // listed again, or said goodbye, meanwhile
		case reachable[i]:
			d.failed = time.Time{}
		case d.failed.IsZero():
			d.failed = began
		case time.Since(d.failed) >= v.config.HoldDown: //guard:one-failed-ping-removes-member
			delete(v.doubts, m.ID)
			v.stats.Unreachable++
			gone = true
		}
	}
	if gone {
		v.decideLocked()
	}
}
