// Package roster turns what the directory lists into the ring that is in use. The directory says who may be on the
// ring; reachability says who is: a member that vanishes from the directory without a goodbye stays for as long as it
// answers. So a directory that loses its memory (an etcd that froze for longer than its leases, or was restored empty)
// costs no member its keys. DESIGN.md has the rules.
package roster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/ring"
)

const (
	// DefaultProbeEvery is the time from one probe of a doubted member to the next, and the time that each may take.
	DefaultProbeEvery = 500 * time.Millisecond
	// DefaultHoldDown is how long a doubted member must be unreachable: three probes.
	DefaultHoldDown = 3 * DefaultProbeEvery
	// DefaultWarmUp is how long the ring before a change is worth asking.
	DefaultWarmUp = 10 * time.Second

	// maxProbes bounds the probes under way at once.
	maxProbes = 64
	// probeShare stretches the time between probes with the number of doubted members: when a directory forgets
	// everybody, each of n members probes n-1 others, and is probed as often.
	probeShare = 5 * time.Millisecond
)

// Config is what a Roster is made of.
type Config struct {
	// Self is this member. It is on the ring until Leave, whatever the directory says. The zero Member stands for an
	// edge, which is on no ring: its ring is empty until the first Apply.
	Self ring.Member
	// Size is that of the ring.
	Size ring.Size
	// Probe returns nil when the member answers and means to stay. Its context ends after ProbeEvery.
	Probe func(context.Context, ring.Member) error
	// OnChange is told of the first ring, by New, and of each other one, in order, one at a time. prev is the ring
	// whose members may still hold in memory what cur gives to others; nil where there is none. It must be quick and
	// must not call the Roster.
	OnChange func(cur, prev *ring.Ring)
	// ProbeEvery, HoldDown and WarmUp are the defaults above when they are 0.
	ProbeEvery, HoldDown, WarmUp time.Duration
}

// Roster decides who is on the ring. It is safe for concurrent use.
type Roster struct {
	config   Config
	doubting chan struct{} // holds a token when a member has come into doubt

	mu      sync.Mutex // guards all below; held during OnChange
	leaving bool
	listed  []ring.Member     // by the directory, last
	doubts  map[string]*doubt // by id: on the ring, but not listed
	cur     *ring.Ring        // never nil
	prev    *ring.Ring        // that OnChange was told last
	prevAt  time.Time         // when prev was the ring in use
	stats   Stats
}

// doubt is about a member that vanished from the directory without a goodbye.
type doubt struct {
	member ring.Member
	failed time.Time // when the first of the probes began that all failed; zero when the last one succeeded
}

// Stats is a snapshot for metrics.
type Stats struct {
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

// New returns a Roster whose ring is self alone, or empty for an edge. It fails when self cannot be on a ring.
func New(c Config) (*Roster, error) {
	c.ProbeEvery = cmp.Or(c.ProbeEvery, DefaultProbeEvery)
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
	r := &Roster{
		config: c, doubting: make(chan struct{}, 1), doubts: make(map[string]*doubt), cur: start,
		leaving: edge, // it is off the ring from the start
	}
	c.OnChange(start, nil)
	return r, nil
}

// Ring is the ring in use. It is never empty, but for an edge that has had no list yet.
func (r *Roster) Ring() *ring.Ring {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cur
}

// Stats returns a snapshot.
func (r *Roster) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Members, s.Doubted = r.cur.Len(), len(r.doubts)
	return s
}

// Apply takes the complete list of the directory. Members that are new are on the ring when it returns, and those that
// said goodbye are off.
func (r *Roster) Apply(listed []ring.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = listed
	r.doubtLocked()
	r.decideLocked()
}

// Leave takes self off the ring, unless nobody else is there: when others have been told of the goodbye, this member's
// own reads should go where theirs go.
func (r *Roster) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = true
	r.decideLocked()
}

// doubtLocked begins to doubt who is on the ring but not listed, and ends the doubt about who is listed.
func (r *Roster) doubtLocked() {
	listed := make(map[string]bool, len(r.listed))
	for _, m := range r.listed {
		listed[m.ID] = true
		delete(r.doubts, m.ID)
	}
	for _, m := range r.cur.Members() {
		if m.ID == r.config.Self.ID || listed[m.ID] || r.doubts[m.ID] != nil {
			continue
		}
		r.doubts[m.ID] = &doubt{member: m}
		r.stats.Vanished++
	}
	if len(r.doubts) > 0 {
		select {
		case r.doubting <- struct{}{}:
		default:
		}
	}
}

// decideLocked makes the ring anew if its members changed.
func (r *Roster) decideLocked() {
	kept := make([]ring.Member, 0, len(r.doubts))
	for _, d := range r.doubts {
		kept = append(kept, d.member)
	}
	slices.SortFunc(kept, func(a, b ring.Member) int { return cmp.Compare(a.ID, b.ID) })
	next := decide(r.config.Self, r.leaving, r.listed, kept)
	r.stats.Refused += int64(next.refused)
	if len(next.members) == 0 {
		return
	}
	made, err := ring.New(next.members, r.config.Size)
	switch {
	case err != nil: // decide makes no set that New refuses; if it did, the ring in use would stay
	case made.ID() == r.cur.ID():
		r.cur = made // a zone or version may have changed
	default:
		r.replaceLocked(made)
	}
	for id := range r.doubts {
		if r.cur.Member(id) == nil { // another claims what was its
			delete(r.doubts, id)
		}
	}
}

// replaceLocked puts next into use. Changes that come soon after another keep that one's previous ring: who joins and
// sees a third one join has not had time to ask yet.
func (r *Roster) replaceLocked(next *ring.Ring) {
	if r.prev == nil || time.Since(r.prevAt) >= r.config.WarmUp {
		r.prev, r.prevAt = r.before(next), time.Now()
	}
	r.cur = next
	r.stats.Changes++
	r.config.OnChange(r.cur, r.prev)
}

// before is the ring that owned the keys until next: the one in use, but for a member that was alone until now, that of
// the others.
func (r *Roster) before(next *ring.Ring) *ring.Ring {
	if r.cur.Len() > 1 || r.cur.Member(r.config.Self.ID) == nil {
		return r.cur
	}
	isSelf := func(m ring.Member) bool { return m.ID == r.config.Self.ID }
	others, err := ring.New(slices.DeleteFunc(next.Members(), isSelf), r.config.Size)
	if err != nil { // it is a part of a ring that could be made
		return r.cur
	}
	return others
}

// Run probes doubted members until ctx is done, and takes off the ring who does not answer.
func (r *Roster) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.doubting:
			r.probeWhileInDoubt(ctx)
		}
	}
}

func (r *Roster) probeWhileInDoubt(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		doubted := r.doubted()
		if len(doubted) == 0 {
			return
		}
		reachable := r.probe(ctx, doubted)
		if ctx.Err() != nil {
			return // then every probe failed
		}
		r.judge(doubted, reachable, began)
		sleepUntil(ctx, began.Add(max(r.config.ProbeEvery, time.Duration(len(doubted))*probeShare)))
	}
}

func (r *Roster) doubted() (members []ring.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.doubts {
		members = append(members, d.member)
	}
	return members
}

// probe asks all members and returns, in their order, who answered.
func (r *Roster) probe(ctx context.Context, members []ring.Member) (reachable []bool) {
	reachable = make([]bool, len(members))
	var probes errgroup.Group
	probes.SetLimit(maxProbes)
	for i, m := range members {
		probes.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, r.config.ProbeEvery)
			defer cancel()
			reachable[i] = r.config.Probe(ctx, m) == nil
			return nil
		})
	}
	_ = probes.Wait() // no probe returns an error
	return reachable
}

// judge takes off the ring who has been unreachable for the hold-down. began is when the probes did.
func (r *Roster) judge(members []ring.Member, reachable []bool, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := false
	for i, m := range members {
		d := r.doubts[m.ID]
		switch {
		case d == nil || d.member != m: // listed again, or said goodbye, meanwhile
		case reachable[i]:
			d.failed = time.Time{}
		case d.failed.IsZero():
			d.failed = began
		case time.Since(d.failed) >= r.config.HoldDown: //guard:member-taken-off-first-probe-fails
			delete(r.doubts, m.ID)
			r.stats.Unreachable++
			gone = true
		}
	}
	if gone {
		r.decideLocked()
	}
}

func sleepUntil(ctx context.Context, when time.Time) {
	timer := time.NewTimer(time.Until(when))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
