package peer

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Sink is told what other members invalidate. For one member it is called in order and by one call at a time; the
// stream of a member waits while it works. Nothing is called once the Pool is closed.
type Sink interface {
	// Invalidate says what to drop, in the order in which the member did.
	Invalidate(list []cache.Invalidation)
	// Missed says that invalidations by member may not have come, or may not come for a while: whatever was taken from
	// it, and whatever is on its way from it, must not be used again. It comes when a stream ends, and before the first
	// invalidation of one that does not go on where the one before has ended.
	Missed(member string)
	// LiveFeeds says whose changes member tells without a gap from now on, sorted; nil when it tells none. It is called
	// at each change; a member begins with none. A dataset whose feed was interrupted is left out once.
	LiveFeeds(member string, datasets []string)
}

const (
	// followSilence is how long a stream may be silent: two of its heartbeats and a half.
	followSilence = 5 * heartbeat / 2 //guard:frozen-members-stream-counts-alive
	// followBackoff is the wait before a stream is tried again. It doubles with each one that brings nothing, up to
	// maxFollowBackoff; half of it is random, so that those who lost the same member do not come back to it in step.
	followBackoff    = 100 * time.Millisecond
	maxFollowBackoff = 2 * time.Second
)

// Publish implements cache.Peers.
func (p *Pool) Publish(i cache.Invalidation) { p.log.publish(i) }

// SetLiveFeeds says whose changes this member publishes without a gap from now on.
func (p *Pool) SetLiveFeeds(datasets []string) { p.log.setLive(datasets) }

// Log is what Publish and SetLiveFeeds write, for the Service of this member.
func (p *Pool) Log() *Log { return p.log }

// answered notes that the member gave an answer, copies of which may be held: it must be followed.
func (p *peer) answered() {
	p.hear()
	p.asked.Store(p.heard.Load())
	p.startFollowing()
}

func (p *peer) startFollowing() {
	if p.pool.config.Sink != nil && p.following.CompareAndSwap(false, true) {
		p.pool.spawn(func() { (&follower{peer: p}).run() })
	}
}

// needed reports whether the member must be followed: copies of its entries may be held, or it tells of a feed.
func (p *peer) needed() bool {
	asked := time.Duration(p.asked.Load())
	return asked > 0 && p.pool.now()-asked < p.pool.config.FollowIdle || p.pool.view.Load().feeders[p.member.ID]
}

// follower takes in the streams of one member, one after the other. One goroutine has it.
type follower struct {
	peer            *peer
	epoch, sequence uint64   // of what was taken in last; epoch is 0 at the start, and after a refusal to go on
	began           bool     // something has come in this stream
	live            []string // that the Sink knows of
}

func (f *follower) run() {
	f.peer.turn.Lock() // a member that comes back at another address has two of these for a moment
	defer f.peer.turn.Unlock()
	for wait := followBackoff; ; wait = min(2*wait, maxFollowBackoff) {
		if f.end(f.stream()) {
			wait = followBackoff
		}
		if f.release() || !sleep(f.peer.onRing, wait/2+rand.N(wait/2)) {
			return
		}
	}
}

// release reports whether the member need not be followed any more. Then the next answer of it starts that anew; one may
// have come just now.
func (f *follower) release() bool {
	if f.peer.needed() {
		return false
	}
	f.peer.following.Store(false)
	return !f.peer.needed() || !f.peer.following.CompareAndSwap(false, true)
}

// stream takes in one stream and returns why it ended; nil when the member need not be followed any more.
func (f *follower) stream() error {
	ctx, cancel := context.WithCancel(f.peer.onRing)
	defer cancel()
	in, err := f.open(ctx)
	quiet := time.AfterFunc(followSilence, func() {
		f.peer.probe() // is it the stream alone?
		cancel()
	})
	for err == nil && f.peer.needed() {
		quiet.Reset(followSilence)
		var r *peerv1.FollowResponse
		r, err = in.Recv()
		quiet.Stop() // the Sink may take its time
		if err == nil {
			err = f.take(r)
		}
	}
	quiet.Stop()
	return err
}

func (f *follower) open(ctx context.Context) (grpc.ServerStreamingClient[peerv1.FollowResponse], error) {
	conn, err := f.peer.connection()
	if err != nil {
		return nil, err
	}
	return peerv1.NewPeerClient(conn).Follow(ctx, &peerv1.FollowRequest{
		Node: f.peer.pool.config.Self, Epoch: f.epoch, Sequence: f.sequence,
	})
}

// take gives the Sink what a response says. Whatever does not go on where the last one has ended has a gap before it:
// also the first one of all, because answers were taken from the member before.
func (f *follower) take(r *peerv1.FollowResponse) error {
	list, err := invalidations(r.GetInvalidations())
	if err != nil {
		return err
	}
	f.peer.hear()
	goesOn := f.epoch != 0 && r.GetEpoch() == f.epoch && r.GetSequence() == f.sequence+uint64(len(list)) //guard:gap-stream-passed-over guard:sequences-two-runs-compare
	f.count(goesOn)
	if !goesOn {
		//guard:feed-stays-live-over-gap-never
		f.tellLive(nil) // changes were missed, too: if the feeds are live, they are so anew
		f.peer.pool.config.Sink.Missed(f.peer.member.ID)
	}
	f.epoch, f.sequence = r.GetEpoch(), r.GetSequence()
	f.tellLive(r.GetLiveFeeds())
	if len(list) > 0 {
		f.peer.pool.counters.received.Add(int64(len(list)))
		f.peer.pool.config.Sink.Invalidate(list)
	}
	return nil
}

func (f *follower) count(goesOn bool) {
	switch {
	case !f.began:
		f.began = true
		f.peer.pool.counters.followed.Add(1)
	case !goesOn:
		f.peer.pool.counters.gaps.Add(1)
	}
}

func (f *follower) tellLive(datasets []string) {
	if !slices.Equal(datasets, f.live) {
		f.live = datasets
		f.peer.pool.config.Sink.LiveFeeds(f.peer.member.ID, datasets)
	}
}

// end reports whether anything has come in the stream that err has ended, and tells the Sink that nothing comes any more.
func (f *follower) end(err error) bool {
	if status.Code(err) == codes.OutOfRange {
		f.epoch = 0
	}
	if !f.began {
		return false
	}
	f.began = false
	f.peer.pool.counters.followed.Add(-1)
	if f.peer.pool.ctx.Err() != nil {
		return true
	}
	if err != nil && f.peer.onRing.Err() == nil {
		f.peer.pool.counters.gaps.Add(1)
	}
	f.tellLive(nil) //guard:invalidations-broken-stream-missed
	f.peer.pool.config.Sink.Missed(f.peer.member.ID)
	return true
}
