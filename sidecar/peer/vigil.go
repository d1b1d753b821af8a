package peer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/backoff"
)

const (
	// probeAfter is how long a stream may be silent before its member is asked for a sign of life.
	probeAfter = time.Second
	// streamTimeout is how long a stream may be silent in all, if this member relies on it.
	streamTimeout = 5 * time.Second / 2 //guard:frozen-member-holds-stream
	// lookEvery is the time between two looks at the streams, and answerTime what is left for an answer to the first probe.
	lookEvery, answerTime = probeAfter / 2, streamTimeout - probeAfter - lookEvery
	// newsWait is how long Prove waits between two looks at a stream whose news are on their way.
	newsWait = 5 * time.Millisecond
)

// vigil asks members on whose invalidations this one relies for signs of life, because quiet streams have none. It rests while
// applications read nothing: nobody relies on anything then.
type vigil struct {
	asleep  atomic.Bool
	watched atomic.Bool  // clients watch keys: each invalidation matters at once
	copies  atomic.Int64 // a time.Duration, the longest life of a copy of another member's entry
	// relaying is how many clients rely on this member for change feeds.
	relaying atomic.Int64

	mu      sync.Mutex    // guards the fields below
	running bool          // a goroutine looks at the streams
	proving chan struct{} // closed when the running Prove ends; nil: none is running
}

// openStream is a stream of invalidations. Its goroutine alone changes what it has received.
type openStream struct {
	end             context.CancelFunc // ends it
	ended           chan struct{}      // closed when it has ended and the Sink knows
	client, feeds   bool               // it is one for clients of the ring, and has the feeds of others; each kind has positions of its own
	live            atomic.Bool        // feeds are live because of it
	epoch, sequence atomic.Uint64      // of the last response that the Sink has; epoch is 0 before the first
	proven          atomic.Int64       // Pool.now when it had brought everything so far
	asked           atomic.Int64       // Pool.now of the first probe since then; 0: none
	busy            atomic.Bool        // the Sink, which may be slow, takes a response
	unneeded        atomic.Bool        // it was ended because nobody needs it
}

// received records a response that the Sink has.
func (o *openStream) received(r *peerv1.SubscribeResponse, now time.Duration) {
	o.sequence.Store(r.GetSequence())
	o.epoch.Store(r.GetEpoch())
	o.proven.Store(int64(now))
}

// prove takes the answer to a ping that was sent at the given time. It proves nothing if the stream has not brought all that
// the member had published.
func (o *openStream) prove(sent time.Duration, pong *peerv1.PingResponse) {
	if e := pong.GetEpoch(); e != 0 && (e != o.epoch.Load() || pong.GetSequence() > o.sequence.Load()) { //guard:pong-proves-what-has-not-arrived
		return
	}
	if int64(sent) > o.proven.Load() {
		o.proven.Store(int64(sent))
	}
}

// SetWatched says whether clients of this member watch keys.
func (p *Pool) SetWatched(watched bool) { p.vigil.watched.Store(watched) }

// SetCopyLife replaces Config.CopyLife.
func (p *Pool) SetCopyLife(longest time.Duration) { p.vigil.copies.Store(int64(longest)) }

// Sleep stops asking members for signs of life until Prove is called. Awake is false when it returns, unless RelayFeeds was called
// meanwhile.
func (p *Pool) Sleep() {
	p.vigil.asleep.Store(true)
	if p.RelaysFeeds() {
		p.proof()
	}
}

// Awake implements kv.Peers.
func (p *Pool) Awake() bool { return !p.vigil.asleep.Load() }

// Prove implements kv.Peers. Concurrent calls share one round of pings.
func (p *Pool) Prove(ctx context.Context) {
	if p.Awake() {
		return
	}
	select {
	case <-p.proof():
	case <-ctx.Done():
	}
}

// proof returns a channel that is closed at the end of the running round, which it begins if there is none.
func (p *Pool) proof() <-chan struct{} {
	p.vigil.mu.Lock()
	defer p.vigil.mu.Unlock()
	if p.vigil.proving != nil {
		return p.vigil.proving
	}
	done := make(chan struct{})
	if !p.spawn(func() { p.wake(done) }) {
		close(done)
		return done
	}
	p.vigil.proving = done
	return done
}

// wake asks all members on which this one relies at once. Streams of those that do not answer have ended when it returns.
func (p *Pool) wake(done chan struct{}) {
	defer close(done)
	began := p.now()
	asked := p.all()[:0]
	for _, one := range p.all() {
		if o := one.stream.Load(); o != nil && o.epoch.Load() != 0 && one.relied() {
			one.detect()
			asked = append(asked, one)
		}
	}
	for _, one := range asked {
		one.proveSince(began) //guard:reads-wake-without-a-proof
	}
	p.vigil.mu.Lock()
	p.vigil.proving = nil
	p.vigil.asleep.Store(false)
	p.vigil.mu.Unlock()
	p.keepVigil()
}

// proveSince returns when the stream of p has brought everything that was published before a time, or has ended.
func (p *peer) proveSince(began time.Duration) {
	o := p.stream.Load()
	if o == nil {
		return // it has just ended
	}
	for o.proven.Load() < int64(began) {
		select {
		case <-p.detect():
		case <-o.ended:
			return
		}
		switch {
		case o.proven.Load() >= int64(began):
			return
		case p.pool.now()-began > 2*p.pool.config.PingAfter && !o.busy.Load():
			o.end() // its member answers, and the news do not come
		}
		select {
		case <-time.After(newsWait):
		case <-o.ended:
			return
		}
	}
}

// keepVigil starts the goroutine that looks at the streams, unless it runs or nobody relies on them.
func (p *Pool) keepVigil() {
	p.vigil.mu.Lock()
	defer p.vigil.mu.Unlock()
	if !p.vigil.running && p.Awake() {
		p.vigil.running = p.spawn(p.look)
	}
}

// look looks at the streams at intervals until this member sleeps.
func (p *Pool) look() {
	for backoff.Sleep(p.ctx, lookEvery) {
		if p.rest() {
			return
		}
		for _, one := range p.all() {
			if o := one.stream.Load(); o != nil && o.epoch.Load() != 0 && one.relied() {
				one.check(o)
			}
		}
	}
}

// rest ends the vigil if this member sleeps.
func (p *Pool) rest() bool {
	p.vigil.mu.Lock()
	defer p.vigil.mu.Unlock()
	p.vigil.running = p.Awake()
	return !p.vigil.running
}

// relied reports whether something is fresh only because no invalidation of p has come: entries of a dataset whose feed it
// reads, what clients watch, and copies that live for longer than a stream may be silent.
func (p *peer) relied() bool {
	v := &p.pool.vigil
	o := p.stream.Load()
	if v.watched.Load() || p.pool.view.Load().feedReaders[p.member.ID] || o != nil && o.live.Load() {
		return true
	}
	life := time.Duration(v.copies.Load())
	used := time.Duration(max(p.answeredAt.Load(), p.relayedAt.Load()))
	return life > streamTimeout && p.pool.now()-used <= life //guard:copies-outlive-a-silent-stream
}

// check asks the member of a silent stream for a sign of life, and ends the stream if there is none. The first probe has more
// time than one of the failure detector: nobody waits for it, and a busy member is not a dead one.
func (p *peer) check(o *openStream) {
	now := p.pool.now()
	asked := time.Duration(o.asked.Load())
	switch {
	case now-time.Duration(o.proven.Load()) < probeAfter, o.busy.Load(): //guard:slow-sink-ends-the-stream
		o.asked.Store(0)
		return
	case asked == 0:
		o.asked.Store(int64(now))
	case now-asked >= answerTime:
		p.detect() // the member may be alive and only the stream broken
		o.end()
		return
	}
	p.pool.spawn(func() {
		ctx, cancel := context.WithTimeout(p.ctx, answerTime)
		defer cancel()
		_, _ = p.ping(ctx, &peerv1.PingRequest{}) // what it proves is in o
	})
}
