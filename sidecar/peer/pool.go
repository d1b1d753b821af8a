// Package peer is what sidecars say to each other over gRPC: Pool asks other members, Service answers them, Server
// bounds what they may take, and TLS proves who they are. DESIGN.md has the rules for silence, errors and identity.
package peer

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Config is what a Pool is made of. Every field may be left zero; Self then has a meaning of its own.
type Config struct {
	// Self is the node id of this member; empty for one that is on no ring, and asks others for every key.
	Self string
	// Credentials prove who the members are to each other (see TLS); nil means plain text.
	Credentials credentials.TransportCredentials
	// WarmUp is how long after a change of the ring the previous owner of a key is still worth asking; 10 s by default.
	WarmUp time.Duration
	// AttemptTimeout bounds one Fetch or Write whatever its caller allows; 5 s by default. It must exceed every load and
	// write timeout.
	AttemptTimeout time.Duration
	// SilenceAfter is how long a call may wait without a sign of life from its member before that is pinged, and how
	// long the pong may take; 400 ms by default.
	SilenceAfter time.Duration
	// MaxConns bounds the members that are connected to; 10 000 by default.
	MaxConns int64
	// MaxCalls bounds the fetches and writes under way to one member; 4096 by default. It must stay below its Server's
	// MaxStreams: a ping that waits for a stream would look like silence.
	MaxCalls int64
	// MaxAnswerBytes bounds one answer; 16 MiB by default.
	MaxAnswerBytes int
	// Sink is told what members invalidate of which this one has taken something; nil follows nobody.
	Sink Sink
	// FollowIdle is how long a member is followed after its last answer; 30 s by default. It must exceed the life of
	// every copy of another member's entry.
	FollowIdle time.Duration
	// Feeds are the datasets with a change feed. Those who read them (see Elected) are always followed.
	Feeds []string
	// LogSize is how many invalidations this member keeps for its followers; one that is further behind has missed some.
	// 4096 by default.
	LogSize int
}

func (c Config) withDefaults() Config {
	c.WarmUp = cmp.Or(c.WarmUp, 10*time.Second)
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, 5*time.Second)
	c.SilenceAfter = cmp.Or(c.SilenceAfter, 400*time.Millisecond)
	c.MaxConns = cmp.Or(c.MaxConns, 10_000)
	c.MaxCalls = cmp.Or(c.MaxCalls, 4096)
	c.MaxAnswerBytes = cmp.Or(c.MaxAnswerBytes, 16<<20)
	c.FollowIdle = cmp.Or(c.FollowIdle, 30*time.Second)
	c.LogSize = cmp.Or(c.LogSize, 4096)
	if c.Credentials == nil {
		c.Credentials = insecure.NewCredentials()
	}
	return c
}

// Pool knows the ring and holds one connection to each member that was asked. It is safe for concurrent use.
type Pool struct {
	config   Config
	start    time.Time
	log      *Log
	counters counters
	conns    atomic.Int64         // peers that hold a grpc.ClientConn
	view     atomic.Pointer[view] // never nil
	ctx      context.Context      // done when the pool is closed
	cancel   context.CancelFunc
	tasks    sync.WaitGroup // what spawn began

	mu     sync.Mutex         // guards closed, peers, left, and the change of view
	peers  map[*peer]struct{} // every peer that is not closed, those that left the ring included
	left   map[string]*peer   // :: node id → the latest of these that left the ring
	closed bool
}

// view is a ring with its peers. It is immutable.
type view struct {
	cur, prev *ring.Ring
	peers     map[string]*peer // node id → member of cur or prev, but for self
	feeders   map[string]bool  // :: node id → it reads a feed of Config.Feeds
	changed   time.Time        // when cur became the ring
}

var _ cache.Peers = (*Pool)(nil)

// NewPool returns a Pool with an empty ring: this member owns every key.
func NewPool(c Config) *Pool {
	p := &Pool{
		config: c.withDefaults(), start: time.Now(), peers: make(map[*peer]struct{}), left: make(map[string]*peer),
	}
	p.log = newLog(p.config.LogSize)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.view.Store(&view{})
	return p
}

// SetRing makes cur the ring; prev is the one before it, or nil. Connections to members that are in neither are closed
// once the attempts under way have had their time.
func (p *Pool) SetRing(cur, prev *ring.Ring) {
	if p.change(cur, prev) {
		p.view.Load().followFeeders()
	}
}

// change reports whether the pool is open.
func (p *Pool) change(cur, prev *ring.Ring) bool {
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
	next.elect(p.config.Feeds)
	p.view.Store(next)
	for id, left := range old.peers {
		if next.peers[id] != left {
			p.retireLocked(left)
		}
	}
	return true
}

// addLocked gives next a peer for each member of r, the old one where there is one.
func (p *Pool) addLocked(next, old *view, r *ring.Ring) {
	for _, m := range r.Members() {
		if m.ID == p.config.Self || next.peers[m.ID] != nil {
			continue
		}
		known := old.peers[m.ID]
		if known == nil || known.member.Addr != m.Addr {
			known = p.renewLocked(known, m)
		}
		next.peers[m.ID] = known
	}
}

// renewLocked makes a peer for m. It is followed once the one that m was before, old or one that has left the ring, is
// not followed any more: the Sink hears of one member from one of them at a time.
func (p *Pool) renewLocked(old *peer, m ring.Member) *peer {
	made := newPeer(p, m)
	if before := cmp.Or(old, p.left[m.ID]); before != nil {
		made.turn = before.turn
	}
	p.peers[made] = struct{}{}
	return made
}

// retireLocked ends following at once: nothing new is asked of a member that left.
func (p *Pool) retireLocked(left *peer) {
	left.leave() //guard:member-left-still-followed
	p.left[left.member.ID] = left
	p.tasks.Go(func() {
		if sleep(left.ctx, p.config.AttemptTimeout) {
			p.discard(left)
		}
	})
}

func (p *Pool) discard(gone *peer) {
	p.mu.Lock()
	delete(p.peers, gone)
	if p.left[gone.member.ID] == gone {
		delete(p.left, gone.member.ID)
	}
	p.mu.Unlock()
	gone.close()
}

// Close ends what is under way, closes all connections and waits for every goroutine of the pool. Every call fails from
// then on, and the Sink hears nothing more.
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
		p.tasks.Go(task)
	}
	return !p.closed
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

// sleep waits for d and reports whether ctx lasted so long.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
