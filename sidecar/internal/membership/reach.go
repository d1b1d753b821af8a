package membership

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
)

const (
	// reachEvery is the time between two rounds in which this member asks others whether they reach it; suspectEvery is that while
	// none does.
	reachEvery, suspectEvery = 15 * time.Second, 5 * time.Second
	// reachAsked is how many members are asked in a round: always the same ones while one of them reaches this member, so that each
	// member has a few more connections, however many members there are.
	reachAsked = 3
	// offAfter rounds in a row in which members answer, and none reaches this one, it leaves the ring; backAfter rounds in a row in
	// which one does, it returns. A restart of a firewall or of the network of a host takes less.
	offAfter, backAfter = 3, 2
	// reporters is how many different members must say so, if there are as many.
	reporters = 2
	// trialAfter rounds without any answer that counts, a member that is off returns to the ring: those that knew it may have
	// restarted. If they still do not reach it, it leaves again.
	trialAfter = 12
	// askTimeout limits one request. The member that is asked takes up to a second (service.ReachBackTimeout).
	askTimeout = 2 * time.Second
	// forgetAfter is how long after its last request a member counts as one that this one cannot reach.
	forgetAfter = time.Minute
	// maxNotReached limits the members of which this one remembers that it cannot reach them.
	maxNotReached = 64
)

// votes decides from what other members say whether this one is off the ring. It counts only answers: a member that gets none may
// have lost its network, as may all others, and then each goes on with the ring that it has.
type votes struct {
	off      bool
	no       map[string]string // :: member that does not reach this one → why; since one did
	noInRow  int               // rounds
	yesInRow int
	silent   int // rounds without an answer that counts, while off
}

// answer is what one member says.
type answer struct {
	member string
	known  bool   // it says whether it reaches this one
	why    string // it does not; empty if it does
}

// add takes the answers of a round. others is the number of other members.
func (v *votes) add(answers []answer, others int) {
	yes, no := 0, 0
	for _, a := range answers {
		switch {
		case !a.known: //guard:silent-member-counts-as-one-that-reaches
		case a.why == "":
			yes++
		default:
			no++
			if v.no == nil {
				v.no = map[string]string{}
			}
			v.no[a.member] = a.why
		}
	}
	switch {
	case yes > 0:
		v.no, v.noInRow, v.silent = nil, 0, 0 //guard:one-sided-firewall-removes-member
		if v.yesInRow++; v.yesInRow >= backAfter {
			v.off = false
		}
	case no > 0:
		v.yesInRow, v.silent = 0, 0
		v.noInRow++
		if v.noInRow >= offAfter && len(v.no) >= min(reporters, others) { //guard:one-report-removes-member
			v.off = true
		}
	case v.off:
		if v.silent++; v.silent >= trialAfter { //guard:member-stays-off-after-others-restarted
			*v = votes{}
		}
	}
}

// reach finds out whether other members can reach this one, and tells those that ask whether this one can reach them.
type reach struct {
	self ring.Member
	pool interface {
		Ping(ctx context.Context, m ring.Member) error
		ReachesBack(ctx context.Context, to ring.Member) (known bool, why string, err error)
	}
	log    *zap.Logger
	others func() []ring.Member // on the ring
	setOff func(off bool)
	leaves bool // the ring if no other member reaches this one

	mu      sync.Mutex // guards all below
	votes   votes
	changed chan struct{}          // closed at the next change of votes.off
	known   map[string]ring.Member // :: id → member that has asked, as it was on the ring
	failed  map[string]time.Time   // :: id → when a member asked last that this one cannot reach
}

// state returns whether this member is off the ring, and a channel that is closed when that changes.
func (r *reach) state() (off bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaves && r.votes.off, r.changed
}

// run asks until ctx is done.
func (r *reach) run(ctx context.Context) error {
	for wait := suspectEvery; backoff.Sleep(ctx, wait*3/4+rand.N(wait/2)); {
		if wait = reachEvery; r.round(ctx) {
			wait = suspectEvery
		}
	}
	return nil
}

// round asks some members, and reports whether this member suspects that none reaches it.
func (r *reach) round(ctx context.Context) (suspects bool) {
	others := r.others()
	r.mu.Lock()
	suspects = r.votes.noInRow > 0 || r.votes.off
	r.mu.Unlock()
	answers := r.ask(ctx, choose(r.self.ID, others, suspects))
	if ctx.Err() != nil {
		return false
	}
	r.mu.Lock()
	before := r.votes.off
	r.votes.add(answers, len(others))
	off, why := r.votes.off, r.whyLocked()
	suspects = r.votes.noInRow > 0 || off
	if off != before {
		close(r.changed)
		r.changed = make(chan struct{})
	}
	r.mu.Unlock()
	if off == before {
		return suspects
	}
	if r.leaves {
		r.setOff(off)
	}
	if off {
		r.log.Warn("no other member can reach this one: check node.advertise, firewalls and certificates", zap.Bool("left_the_ring", r.leaves), zap.String("detail", why))
	} else {
		r.log.Info("other members can reach this one again, or it tries again: it is on the ring")
	}
	return suspects
}

// choose returns the members to ask: the same ones each time, or random ones.
func choose(self string, others []ring.Member, random bool) []ring.Member {
	order := func(m ring.Member) uint64 { return ring.Hash(self + " " + m.ID) }
	list := slices.Clone(others)
	if random {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	} else {
		slices.SortFunc(list, func(a, b ring.Member) int {
			if order(a) < order(b) {
				return -1
			}
			return 1
		})
	}
	return list[:min(len(list), reachAsked)]
}

func (r *reach) ask(ctx context.Context, members []ring.Member) []answer {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := make([]answer, len(members))
	var all errgroup.Group
	for i, m := range members {
		all.Go(func() error {
			known, why, err := r.pool.ReachesBack(ctx, m)
			answers[i] = answer{m.ID, known && err == nil, why}
			return nil
		})
	}
	_ = all.Wait() // no request returns an error
	return answers
}

// whyLocked describes what other members say, in one sentence.
func (r *reach) whyLocked() string {
	if !r.votes.off {
		return ""
	}
	ids := slices.Sorted(maps.Keys(r.votes.no))
	if len(ids) == 0 {
		return "no other member can reach this one at " + r.self.Addr
	}
	return fmt.Sprintf("no other member can reach this one at %s; %s says: %s", r.self.Addr, ids[0], r.votes.no[ids[0]])
}

// reachBack pings a member that asks for it.
func (r *reach) reachBack(ctx context.Context, id string) (known bool, err error) {
	m, known := r.find(id)
	if !known {
		return false, nil
	}
	err = r.pool.Ping(ctx, m)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked()
	was := r.failed[id]
	switch {
	case err == nil:
		delete(r.failed, id)
		if !was.IsZero() {
			r.log.Info("this member reaches another one again", zap.String("member", id))
		}
	case ctx.Err() != nil && context.Cause(ctx) == context.Canceled:
		return false, nil // the caller does not wait any more
	case !was.IsZero():
		r.failed[id] = time.Now()
	case len(r.failed) < maxNotReached:
		r.failed[id] = time.Now()
		r.log.Warn("this member cannot reach another one, which reaches it", zap.String("member", id), zap.String("address", m.Addr), zap.Error(err))
	}
	return true, err
}

// forgetLocked forgets members that do not ask any more: they have gone, or ask others.
func (r *reach) forgetLocked() {
	maps.DeleteFunc(r.failed, func(_ string, at time.Time) bool { return time.Since(at) > forgetAfter })
}

// find returns a member that is on the ring, or that was when it asked for the first time: it has left because nobody reaches it.
func (r *reach) find(id string) (m ring.Member, ok bool) {
	others := r.others()
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(others, func(m ring.Member) bool { return m.ID == id })
	if i < 0 {
		m, ok = r.known[id]
		return m, ok
	}
	if _, ok := r.known[id]; !ok && len(r.known) >= maxNotReached { //guard:unreached-members-without-limit
		for old := range r.known { // any
			delete(r.known, old)
			delete(r.failed, old)
			break
		}
	}
	r.known[id] = others[i]
	return others[i], true
}

func (m *Members) others() []ring.Member {
	return slices.DeleteFunc(slices.Clone(m.Ring().Members()), func(o ring.Member) bool { return o.ID == m.config.Self.ID || o.Leaving })
}

// ReachBack pings the member with a node id. known is false if this member does not know it.
func (m *Members) ReachBack(ctx context.Context, id string) (known bool, err error) {
	return m.reach.reachBack(ctx, id)
}

// Off reports whether this member is off the ring because no other one can reach it.
func (m *Members) Off() bool {
	off, _ := m.reach.state()
	return off
}

// Unreachable says why no other member can reach this one; it is empty if one can.
func (m *Members) Unreachable() string {
	m.reach.mu.Lock()
	defer m.reach.mu.Unlock()
	return m.reach.whyLocked()
}

// Problem says why keys have other owners here than elsewhere, if it is known: nobody reaches this member, or another one has other
// settings of the ring. Applications see it: it has no address.
func (m *Members) Problem() string {
	if m.Unreachable() != "" {
		return "no other member can reach this one: its log and /readyz have the reason"
	}
	_, settings := m.OtherSettings()
	return settings
}

// NotReached returns the number of members that reach this one and that it cannot reach.
func (m *Members) NotReached() int64 {
	m.reach.mu.Lock()
	defer m.reach.mu.Unlock()
	m.reach.forgetLocked()
	return int64(len(m.reach.failed))
}
