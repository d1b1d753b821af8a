// Package peer calls other members: Pool routes keys by the ring, fetches from and writes to their owners, and subscribes to
// their invalidations. Package server has the other end.
package peer

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/grant"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// DefaultWarmUp is how long the owners before a change of the ring still have useful entries in memory.
const DefaultWarmUp = 10 * time.Second

// Config configures a Pool. Every field may be zero; Self then has a meaning of its own.
type Config struct {
	// Self is the node id of this member; empty for a client of the ring, which owns no key.
	Self string
	// Zone is that of this sidecar, to count fetches from other zones; empty: unknown.
	Zone string
	// Zones lets fetches from other zones go through the owners of the keys in this one (ZoneOwner).
	Zones bool
	// Credentials authenticate members to each other (see package mtls); nil means plain text. If they have a method
	// ForMember(id), each connection uses its result.
	Credentials credentials.TransportCredentials
	// WarmUp is how long after a change of the ring the previous owner of a key is still asked for it; DefaultWarmUp by default.
	WarmUp time.Duration
	// AttemptTimeout limits one Fetch or Write in addition to its context; 5 s by default. It must exceed every load and
	// write timeout.
	AttemptTimeout time.Duration
	// PingAfter is how long a call waits without a sign of life from its member before the pool pings the member, and how
	// long the answer may take; 400 ms by default.
	PingAfter time.Duration
	// FanOutTimeout limits each call of a Broadcast or Inspect; 500 ms by default.
	FanOutTimeout time.Duration
	// MaxConns limits the connected members; wire.MaxConns by default.
	MaxConns int64
	// MaxCalls limits the running fetches and writes to one member; wire.MaxCalls by default.
	MaxCalls int64
	// MaxAnswerBytes limits one answer; 16 MiB by default.
	MaxAnswerBytes int
	// Budget limits the memory of answers; nil means no limit.
	Budget *budget.Budget
	// Propagate returns the traceparent and the tracestate of a request to another member; empty if it is not traced. May be nil.
	Propagate func(context.Context) (parent, state string)
	// Sink receives the invalidations of the members that have answered this one; with nil there are no subscriptions.
	Sink Sink
	// SubscriptionIdle is how long a subscription outlives the last answer of its member; 30 s by default. It must exceed
	// the life of every copy of another member's entry.
	SubscriptionIdle time.Duration
	// CopyLife is the longest life of a copy of another member's entry; that of SubscriptionIdle by default.
	CopyLife time.Duration
	// Feeds are the datasets with a change feed. The pool always subscribes to the members that read them (see Elected).
	Feeds []string
	// Defect is called with each panic of a goroutine of the pool, stack included. May be nil.
	Defect func(error)
	// LogSize is how many invalidations this member keeps for its subscribers; 4096 by default.
	LogSize int
}

func (c Config) withDefaults() Config {
	c.WarmUp = cmp.Or(c.WarmUp, DefaultWarmUp)
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, 5*time.Second)
	c.PingAfter = cmp.Or(c.PingAfter, 400*time.Millisecond)
	c.FanOutTimeout = cmp.Or(c.FanOutTimeout, 500*time.Millisecond)
	c.MaxConns = cmp.Or(c.MaxConns, wire.MaxConns)
	c.MaxCalls = cmp.Or(c.MaxCalls, wire.MaxCalls)
	c.MaxAnswerBytes = cmp.Or(c.MaxAnswerBytes, 16<<20)
	c.SubscriptionIdle = cmp.Or(c.SubscriptionIdle, 30*time.Second)
	c.CopyLife = cmp.Or(c.CopyLife, c.SubscriptionIdle)
	c.LogSize = cmp.Or(c.LogSize, 4096)
	if c.Credentials == nil {
		c.Credentials = insecure.NewCredentials()
	}
	if c.Defect == nil {
		c.Defect = func(error) {}
	}
	return c
}

// Pool knows the ring and holds one connection to each member that it has called. It is safe for concurrent use.
type Pool struct {
	config   Config
	grants   grant.Grants
	start    time.Time
	log      *invalidationlog.Log
	counters counters
	conns    atomic.Int64         // peers with a client.Client
	view     atomic.Pointer[view] // never nil
	ctx      context.Context      // canceled when the pool is closed
	cancel   context.CancelFunc
	limits   limits
	vigil    vigil
	spread   uint64         // which of the members of a list this one chooses
	seed     maphash.Seed   // which of them relay feeds to it
	tasks    sync.WaitGroup // goroutines started by spawn

	hearing sync.Mutex          // held until the log has what heard says
	heard   map[string][]string // :: node id → the feeds that it reads without a gap, as this member hears

	mu     sync.Mutex         // guards closed, peers, left, config.Feeds, and changes of view
	peers  map[*peer]struct{} // every open peer, including those that have left the ring
	left   map[string]*peer   // :: node id → the latest open peer that has left the ring
	closed bool
}

// view is a ring with its peers. It is immutable.
type view struct {
	cur, prev   *ring.Ring
	zone        *ring.Ring       // of the members of Config.Zone that are in cur; nil unless Config.Zones
	peers       map[string]*peer // :: node id → member of cur or prev, except self
	feedReaders map[string]bool  // :: node id → it reads a feed of Config.Feeds, or relays them to this client
	changed     time.Time        // when cur became the ring
}

var _ kv.Peers = (*Pool)(nil)

// NewPool returns a Pool with an empty ring: this member owns every key.
func NewPool(c Config) *Pool {
	p := &Pool{
		config: c.withDefaults(), start: time.Now(), peers: make(map[*peer]struct{}), left: make(map[string]*peer),
		grants: grant.Grants{Budget: c.Budget}, spread: rand.Uint64(), seed: maphash.MakeSeed(),
		heard: make(map[string][]string),
	}
	p.log, p.limits = invalidationlog.New(p.config.LogSize), newLimits(p.config.MaxAnswerBytes)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.SetCopyLife(p.config.CopyLife)
	p.view.Store(&view{})
	return p
}

// SetRing makes cur the ring; prev is the one before it, or nil. The pool closes connections to members that are in neither
// after one AttemptTimeout.
func (p *Pool) SetRing(cur, prev *ring.Ring) {
	if p.setView(cur, prev) {
		p.view.Load().subscribeToFeedReaders()
	}
}

// setView reports whether the pool is open.
func (p *Pool) setView(cur, prev *ring.Ring) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	old := p.view.Load()
	next := &view{cur: cur, prev: prev, peers: make(map[string]*peer, cur.Len()), changed: time.Now()}
	if cur.ID() == old.cur.ID() {
		next.changed = old.changed
	}
	p.addLocked(next, old, cur)
	p.addLocked(next, old, prev)
	p.electFeedReaders(next, p.config.Feeds)
	if p.config.Zones {
		next.zone = zoneRing(cur, p.config.Zone)
	}
	p.view.Store(next)
	for id, left := range old.peers {
		if next.peers[id] != left {
			p.retireLocked(left)
		}
	}
	return true
}

// SetFeeds replaces Config.Feeds.
func (p *Pool) SetFeeds(datasets []string) {
	p.mu.Lock()
	p.config.Feeds = datasets
	next := *p.view.Load()
	p.electFeedReaders(&next, datasets)
	if !p.closed {
		p.view.Store(&next)
	}
	p.mu.Unlock()
	next.subscribeToFeedReaders()
}

// addLocked adds a peer to next for each member of r, the old one where there is one.
func (p *Pool) addLocked(next, old *view, r *ring.Ring) {
	for _, m := range r.Members() {
		if m.ID == p.config.Self || next.peers[m.ID] != nil {
			continue
		}
		known := old.peers[m.ID]
		if known == nil || known.member.Addr != m.Addr || known.member.Zone != m.Zone {
			known = p.renewLocked(known, m)
		}
		next.peers[m.ID] = known
	}
}

// renewLocked creates a peer for m. Its subscription waits for the end of the previous one of the same member: that of old,
// or of a peer that has left the ring.
func (p *Pool) renewLocked(old *peer, m ring.Member) *peer {
	made := newPeer(p, m)
	if before := cmp.Or(old, p.left[m.ID]); before != nil {
		made.turn, made.quota = before.turn, before.quota
	}
	p.peers[made] = struct{}{}
	return made
}

// retireLocked ends the subscription immediately, because the pool makes no more calls to a member that has left.
func (p *Pool) retireLocked(left *peer) {
	left.leave() //guard:subscription-of-member-that-left
	p.left[left.member.ID] = left
	p.tasks.Go(func() {
		if backoff.Sleep(left.ctx, p.config.AttemptTimeout) {
			p.discard(left)
		}
	})
}

func (p *Pool) discard(old *peer) {
	p.mu.Lock()
	delete(p.peers, old)
	if p.left[old.member.ID] == old {
		delete(p.left, old.member.ID)
	}
	p.mu.Unlock()
	old.close()
}

// Close ends running calls, closes all connections and waits for every goroutine of the pool. Afterwards every call fails,
// and the pool does not call the Sink.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for open := range p.peers {
		p.tasks.Go(open.close)
	}
	clear(p.peers)
	p.mu.Unlock()
	p.cancel()
	p.tasks.Wait()
}

// spawn runs task in a goroutine that Close waits for. It reports whether the pool was open.
func (p *Pool) spawn(task func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.tasks.Go(func() { p.safely("a call to another member", task) })
	}
	return !p.closed
}

// safely reports a panic of task, which another member's message may have caused: on a goroutine of the pool it
// would end the process. It reports whether task returned.
func (p *Pool) safely(what string, task func()) (returned bool) {
	defer func() {
		if v := recover(); v != nil { //guard:panic-of-pool-ends-process
			p.config.Defect(fmt.Errorf("panic during %s: %v\n%s", what, v, debug.Stack()))
		}
	}()
	task()
	return true
}

// now is the pool's monotonic clock.
func (p *Pool) now() time.Duration { return time.Since(p.start) }

// RingID is the ID of the ring in force.
func (p *Pool) RingID() uint64 { return p.view.Load().cur.ID() }

// Owns reports whether this member owns the key; on an empty ring it owns every key.
func (p *Pool) Owns(dataset, key string) bool {
	owner := p.view.Load().cur.Owner(routeKey(dataset, key))
	return owner == nil || owner.ID == p.config.Self
}
