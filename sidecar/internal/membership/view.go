package membership

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

const (
	// DefaultPingEvery is the time between two pings of an unlisted member, and the timeout of each.
	DefaultPingEvery = 500 * time.Millisecond
	// DefaultHoldDown is how long an unlisted member must be unreachable before it is removed: three pings.
	DefaultHoldDown = 3 * DefaultPingEvery

	// maxPings bounds the pings in flight.
	maxPings = 64
	// pingShare lengthens the time between pings with the number of unlisted members: when a directory loses all n members,
	// each of them pings n-1 others and is pinged as often.
	pingShare = 5 * time.Millisecond
)

// ViewConfig is what a View is made of.
type ViewConfig struct {
	// Self is this member. It is on the ring until Leave, even if the directory does not list it. The zero Member means a
	// client, which is on no ring: its ring is empty until the first Apply.
	Self ring.Member
	// Size is that of the ring.
	Size ring.Size
	// Ping returns nil if the member responds and is not leaving. Its context ends after PingEvery.
	Ping func(context.Context, ring.Member) error
	// OnChange gets the first ring, from NewView, and each other one, in order, one at a time. prev is the ring whose members
	// may still have in memory what cur gives to others; nil if there is none. It must be quick and must not call the View.
	OnChange func(cur, prev *ring.Ring)
	// Defect is called with each panic of Ping, stack included.
	Defect func(error)
	// PingEvery and HoldDown are the defaults above if they are 0, WarmUp is peer.DefaultWarmUp.
	PingEvery, HoldDown, WarmUp time.Duration
}

// View decides who is on the ring. It is safe for concurrent use.
type View struct {
	config  ViewConfig
	changed chan struct{} // has a token if a member has become unlisted

	mu       sync.Mutex // guards all below; held during OnChange
	leaving  bool
	off      bool                 // no other member can reach this one
	listed   []ring.Member        // by the directory, last
	unlisted map[string]*unlisted // by id: on the ring, but not listed
	cur      *ring.Ring           // never nil
	prev     *ring.Ring           // that OnChange got last
	prevAt   time.Time            // the time when prev was replaced
	stats    ViewStats
}

// unlisted is the state of a member that disappeared from the directory without deregistering.
type unlisted struct {
	member ring.Member
	failed time.Time // start of the first ping of the current series of failures; zero if the last one succeeded
}

// ViewStats is a snapshot for metrics.
type ViewStats struct {
	// Unlisted counts the members on the ring that the directory no longer lists.
	Unlisted int
	// Changes counts the rings.
	Changes int64
	// Unreachable counts the unlisted members that were removed because they did not respond.
	Unreachable int64
	// Refused counts listed members with the id, hash key or address of another member, once per decision.
	Refused int64
}

// NewView returns a View whose ring is self alone, or empty for a client. It fails if self cannot be on a ring.
func NewView(c ViewConfig) (*View, error) {
	c.PingEvery = cmp.Or(c.PingEvery, DefaultPingEvery)
	c.HoldDown = cmp.Or(c.HoldDown, DefaultHoldDown)
	c.WarmUp = cmp.Or(c.WarmUp, peer.DefaultWarmUp)
	c.Self.Leaving = false
	client := c.Self == ring.Member{}
	first := []ring.Member{c.Self}
	if client {
		first = nil
	}
	start, err := ring.New(first, c.Size)
	if err != nil {
		return nil, fmt.Errorf("ring of this member alone: %w", err)
	}
	v := &View{
		config: c, changed: make(chan struct{}, 1), unlisted: make(map[string]*unlisted), cur: start,
		leaving: client, // it is never on the ring
	}
	c.OnChange(start, nil)
	return v, nil
}

// Stats returns a snapshot.
func (v *View) Stats() ViewStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.stats
	s.Unlisted = len(v.unlisted)
	return s
}

// Apply takes the complete list of the directory. When it returns, new members are on the ring and leaving ones are off.
func (v *View) Apply(listed []ring.Member) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listed = listed
	v.updateUnlistedLocked()
	v.decideLocked()
}

// Leave removes self from the ring, unless it is the only member: other members now use a ring without it, and its own
// reads must go to the same owners as theirs.
func (v *View) Leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leaving = true
	v.decideLocked()
}

// SetOff removes self from the ring, like Leave, or puts it back.
func (v *View) SetOff(off bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.off = off
	v.decideLocked()
}

// Join undoes Leave: this sidecar was a client and becomes a member.
func (v *View) Join() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leaving = v.config.Self == ring.Member{}
	v.decideLocked()
}

// updateUnlistedLocked starts to check members that are on the ring but not listed, and stops checking those that are listed again.
func (v *View) updateUnlistedLocked() {
	listed := make(map[string]bool, len(v.listed))
	for _, m := range v.listed {
		listed[m.ID] = true
		delete(v.unlisted, m.ID)
	}
	for _, m := range v.cur.Members() {
		if m.ID == v.config.Self.ID || listed[m.ID] || v.unlisted[m.ID] != nil {
			continue
		}
		v.unlisted[m.ID] = &unlisted{member: m}
	}
	if len(v.unlisted) > 0 {
		select {
		case v.changed <- struct{}{}:
		default:
		}
	}
}

// decideLocked builds a new ring if the members changed.
func (v *View) decideLocked() {
	kept := make([]ring.Member, 0, len(v.unlisted))
	for _, d := range v.unlisted {
		kept = append(kept, d.member)
	}
	slices.SortFunc(kept, func(a, b ring.Member) int { return cmp.Compare(a.ID, b.ID) })
	next := decide(v.config.Self, v.leaving || v.off, v.listed, kept) //guard:unreached-member-stays-on-its-ring
	v.stats.Refused += int64(next.refused)
	if len(next.members) == 0 {
		return
	}
	made, err := ring.New(next.members, v.config.Size)
	switch {
	case err != nil: // decide returns no set that ring.New rejects
	case made.ID() == v.cur.ID() && sameZones(made, v.cur): //guard:moved-member-keeps-its-zone
		v.cur = made // a version may have changed
	default:
		v.replaceLocked(made)
	}
	for id := range v.unlisted {
		if v.cur.Member(id) == nil { // another member has its address or hash key
			delete(v.unlisted, id)
		}
	}
}

// sameZones reports whether the members of two rings with the same ID are in the same zones.
func sameZones(a, b *ring.Ring) bool {
	return slices.EqualFunc(a.Members(), b.Members(), func(a, b ring.Member) bool { return a.Zone == b.Zone })
}

// replaceLocked makes next the ring in use. A change soon after another one keeps the previous ring of that one: a member
// that joined a moment ago still needs the owners from before it joined.
func (v *View) replaceLocked(next *ring.Ring) {
	if v.prev == nil || time.Since(v.prevAt) >= v.config.WarmUp {
		v.prev, v.prevAt = v.before(next), time.Now()
	}
	v.cur = next
	v.stats.Changes++
	v.config.OnChange(v.cur, v.prev)
}

// before is the ring that owned the keys until next: the ring in use, or, for a member that was alone until now, the ring
// of the others.
func (v *View) before(next *ring.Ring) *ring.Ring {
	if v.cur.Len() > 1 || v.cur.Member(v.config.Self.ID) == nil {
		return v.cur
	}
	isSelf := func(m ring.Member) bool { return m.ID == v.config.Self.ID }
	others, err := ring.New(slices.DeleteFunc(next.Members(), isSelf), v.config.Size)
	if err != nil { // impossible: a subset of a valid ring
		return v.cur
	}
	return others
}

// Run pings unlisted members until ctx is done, and removes those that do not respond.
func (v *View) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.changed:
			v.pingWhileUnlisted(ctx)
		}
	}
}

func (v *View) pingWhileUnlisted(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		suspects := v.suspects()
		if len(suspects) == 0 {
			return
		}
		reachable := v.ping(ctx, suspects)
		if ctx.Err() != nil {
			return // every ping failed because of ctx
		}
		v.removeUnreachable(suspects, reachable, began)
		backoff.Sleep(ctx, time.Until(began.Add(max(v.config.PingEvery, time.Duration(len(suspects))*pingShare))))
	}
}

// suspects lists the unlisted members.
func (v *View) suspects() (members []ring.Member) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range v.unlisted {
		members = append(members, d.member)
	}
	return members
}

// ping pings all members and returns, in their order, which of them responded.
func (v *View) ping(ctx context.Context, members []ring.Member) (reachable []bool) {
	reachable = make([]bool, len(members))
	var pings errgroup.Group
	pings.SetLimit(maxPings)
	for i, m := range members {
		pings.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, v.config.PingEvery)
			defer cancel()
			defer func() { // the member counts as unreachable
				if p := recover(); p != nil { //guard:panic-of-ping-ends-process
					v.config.Defect(fmt.Errorf("panic during a ping of an unlisted member: %v\n%s", p, debug.Stack()))
				}
			}()
			reachable[i] = v.config.Ping(ctx, m) == nil
			return nil
		})
	}
	_ = pings.Wait() // no ping returns an error
	return reachable
}

// removeUnreachable removes the members that have been unreachable for the hold-down. began is the start of the pings.
func (v *View) removeUnreachable(members []ring.Member, reachable []bool, began time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	gone := false
	for i, m := range members {
		d := v.unlisted[m.ID]
		switch {
		case d == nil || d.member != m: // meanwhile listed again, or leaving
		case reachable[i]:
			d.failed = time.Time{}
		case d.failed.IsZero():
			d.failed = began
		case time.Since(d.failed) >= v.config.HoldDown: //guard:one-failed-ping-removes-member
			delete(v.unlisted, m.ID)
			v.stats.Unreachable++
			gone = true
		}
	}
	if gone {
		v.decideLocked()
	}
}
