package peer

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// Sink receives what other members invalidate. Calls for one member are sequential and in the order of that member; its
// stream waits for them. There are no calls after Pool.Close.
type Sink interface {
	// Invalidate receives invalidations in the order in which the member made them.
	Invalidate(list []kv.Invalidation)
	// Missed says that invalidations by member may be lost or late: do not use any more what was received from it, nor what
	// it is sending now. It is called when a stream ends, and before the first invalidation of a stream that does not
	// continue where the previous one ended.
	Missed(member string)
	// LiveFeeds receives the datasets of which member reports the changes without a gap from now on, sorted; nil when there
	// are none. It is called at each change; a member begins with none. After an interruption of a feed, there is one call
	// without it.
	LiveFeeds(member string, datasets []string)
}

const (
	// firstResponse is how long a new stream may bring nothing.
	firstResponse = 5 * time.Second / 2
	// subscribeBackoff is the wait before a stream is opened again. It doubles after each stream that received nothing, up
	// to maxSubscribeBackoff.
	subscribeBackoff, maxSubscribeBackoff = 100 * time.Millisecond, 2 * time.Second
	// maxRefusedBackoff replaces maxSubscribeBackoff at a member that has no room for more subscribers: the attempts of thousands would
	// take a third of its processor.
	maxRefusedBackoff = 30 * time.Second
)

// Publish implements kv.Peers. It ignores keys that no member can have cached, which a change feed may report: a
// subscriber would reject the response, reconnect, and get the same one again.
func (p *Pool) Publish(i kv.Invalidation) {
	if !i.Prefix && kv.CheckKey(i.Key) != nil { //guard:uncacheable-key-breaks-subscriptions
		return
	}
	p.log.Publish(i)
}

// SetLiveFeeds sets the datasets of which this member publishes the changes without a gap from now on.
func (p *Pool) SetLiveFeeds(datasets []string) { p.log.SetLiveFeeds(datasets) }

// Log is written by Publish and SetLiveFeeds, and sent to subscribers by the service.Service of this member.
func (p *Pool) Log() *invalidationlog.Log { return p.log }

// answered records an answer of the member. Copies of it may be kept, so its invalidations are needed.
func (p *peer) answered() {
	p.hear()
	p.keep()
}

// keep records that copies of the member's entries may be kept from now on.
func (p *peer) keep() {
	p.answeredAt.Store(int64(p.pool.now()))
	p.startSubscription()
}

func (p *peer) startSubscription() {
	if p.pool.config.Sink != nil && p.subscribing.CompareAndSwap(false, true) {
		p.pool.spawn(func() {
			if !p.pool.safely("a subscription", (&subscription{peer: p}).run) {
				p.subscribing.Store(false) // the next answer starts another one
			}
		})
	}
}

// neededFor returns when to ask again whether the member's invalidations are needed, if they are now.
func (p *peer) neededFor() time.Duration {
	rest := p.pool.config.SubscriptionIdle - (p.pool.now() - time.Duration(p.answeredAt.Load()))
	if rest <= 0 { // it reads a feed
		return p.pool.config.SubscriptionIdle
	}
	return rest
}

// needed reports whether the member's invalidations are needed: copies of its entries may be kept, or it reads a change
// feed.
func (p *peer) needed() bool {
	at := time.Duration(p.answeredAt.Load())
	return at > 0 && p.pool.now()-at < p.pool.config.SubscriptionIdle || p.pool.view.Load().feedReaders[p.member.ID]
}

// errPanicked ends a stream whose invalidations may not have been applied.
var errPanicked = errors.New("the goroutine of the stream has panicked")

// subscription receives the streams of one member, one after the other. It belongs to one goroutine.
type subscription struct {
	peer            *peer
	epoch, sequence uint64   // of the last response; epoch is 0 at the start, and after OUT_OF_RANGE
	receiving       bool     // the stream has brought a response
	liveFeeds       []string // as last passed to the Sink
	open            *openStream
	wait            backoff.Backoff // before the next stream
}

func (s *subscription) run() {
	s.peer.turn.Lock() // for a moment, a member that returns at another address has two subscriptions
	defer s.peer.turn.Unlock()
	s.wait.First = subscribeBackoff
	for {
		if s.once() && s.peer.quota.GapAllowed() {
			s.wait.Reset()
		}
		if s.release() || !s.wait.Wait(s.peer.onRing) {
			return
		}
	}
}

// once receives one stream, and reports whether it brought a response.
func (s *subscription) once() bool {
	ctx, cancel := context.WithCancel(s.peer.onRing)
	defer cancel()
	s.open = &openStream{end: cancel, ended: make(chan struct{})}
	s.open.client, s.open.feeds = s.peer.kind() //guard:client-misses-broadcasts
	defer close(s.open.ended)
	s.peer.stream.Store(s.open)
	s.peer.endOtherKind() // the ring may have changed meanwhile
	s.peer.pool.keepVigil()
	err := errPanicked
	s.peer.pool.safely("a stream of invalidations", func() { err = s.stream(ctx) })
	s.peer.stream.Store(nil)
	return s.end(err)
}

// release reports whether the subscription is no longer needed. The next answer of the member then starts another one;
// there may have been one just now.
func (s *subscription) release() bool {
	if s.peer.needed() {
		return false
	}
	s.peer.subscribing.Store(false)
	return !s.peer.needed() || !s.peer.subscribing.CompareAndSwap(false, true)
}

// stream receives one stream and returns why it ended; nil when it is no longer needed.
func (s *subscription) stream(ctx context.Context) error {
	in, err := s.subscribe(ctx)
	timeout := time.AfterFunc(firstResponse, func() {
		s.peer.detect() // the member may be alive and only the stream broken
		s.open.end()
	})
	defer timeout.Stop()
	defer s.endUnneeded()()
	for err == nil {
		var r *peerv1.SubscribeResponse
		r, err = in.Recv()
		timeout.Stop()
		s.open.busy.Store(true)
		if err == nil {
			err = s.receive(ctx, r)
		}
		s.open.busy.Store(false)
	}
	if s.open.unneeded.Load() {
		return nil
	}
	return err
}

// endUnneeded ends the stream when it is no longer needed, which no response tells. Call what it returns when the stream has ended.
func (s *subscription) endUnneeded() (stop func() bool) {
	p, o := s.peer, s.open
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		if p.needed() {
			timer.Reset(p.neededFor())
			return
		}
		o.unneeded.Store(true)
		o.end()
	})
	timer.Reset(p.neededFor())
	return timer.Stop
}

func (s *subscription) subscribe(ctx context.Context) (grpc.ServerStreamingClient[peerv1.SubscribeResponse], error) {
	conn, err := s.peer.connection()
	if err != nil {
		return nil, err
	}
	return peerv1.NewPeerClient(conn).Subscribe(ctx, &peerv1.SubscribeRequest{
		Node: s.peer.pool.config.Self, Epoch: s.epoch, Sequence: s.sequence, Quiet: true, Client: s.open.client,
		Feeds: s.open.feeds,
	}, limitOf(peerv1.Peer_Subscribe_FullMethodName))
}

// receive passes a response to the Sink. A response that does not continue where the last one ended has a gap before it.
// So has the first response of all, because the member has given answers before.
func (s *subscription) receive(ctx context.Context, r *peerv1.SubscribeResponse) error {
	list, err := wire.Invalidations(r.GetInvalidations())
	if err != nil {
		return err
	}
	feeds, err := wire.Feeds(r.GetLiveFeeds())
	if err != nil {
		return err
	}
	s.peer.hear()
	heard := s.peer.pool.now()
	if err := s.peer.quota.Message(ctx); err != nil {
		return err
	}
	continues := s.epoch != 0 && r.GetEpoch() == s.epoch && r.GetSequence() == s.sequence+uint64(len(list)) //guard:gap-in-stream-ignored guard:sequences-of-two-runs-compared
	s.count(continues)
	if !continues {
		if err := s.peer.quota.Gap(ctx); err != nil { //guard:gaps-of-stream-without-limit
			return err
		}
		//guard:feed-not-live-after-gap
		s.setLiveFeeds(nil) // changes of the feeds were missed, too; feeds that are live now are reported again below
		s.peer.pool.config.Sink.Missed(s.peer.member.ID)
	}
	s.epoch, s.sequence = r.GetEpoch(), r.GetSequence()
	if s.open.client && !s.open.feeds {
		feeds = nil // relays tell, and only members on whose feeds this one relies are asked for signs of life
	}
	s.changeLiveFeeds(feeds)
	if s.open.feeds {
		s.peer.mayRelay(r.GetRelays()) //guard:older-release-relays-nothing
	}
	if len(list) > 0 {
		s.peer.pool.counters.received.Add(int64(len(list)))
		err = s.invalidate(ctx, list)
	}
	if err == nil {
		s.open.received(r, heard)
	}
	return err
}

// invalidate passes invalidations to the Sink, or, beyond the quota of the member, less exact ones. After an error, none is
// passed on: the stream ends, and Missed replaces them.
func (s *subscription) invalidate(ctx context.Context, list []kv.Invalidation) error {
	admitted, merged, err := s.peer.quota.Admit(ctx, list) //guard:invalidations-of-stream-without-quota
	if merged {
		s.peer.pool.counters.merged.Add(1)
	}
	if err == nil {
		s.peer.pool.config.Sink.Invalidate(admitted)
		s.relayChanges(admitted)
	}
	return err
}

// changeLiveFeeds takes the feeds that the member reports. Where it changes them too often, they count as not live.
func (s *subscription) changeLiveFeeds(datasets []string) {
	if slices.Equal(datasets, s.liveFeeds) {
		return
	}
	if !s.peer.quota.FeedsChange() { //guard:live-feeds-change-without-limit
		datasets = nil
	}
	s.setLiveFeeds(datasets)
}

func (s *subscription) count(continues bool) {
	switch {
	case !s.receiving:
		s.receiving = true
		s.peer.pool.counters.subscriptions.Add(1)
	case !continues:
		s.peer.pool.counters.gaps.Add(1)
	}
}

func (s *subscription) setLiveFeeds(datasets []string) {
	if !slices.Equal(datasets, s.liveFeeds) {
		s.liveFeeds = datasets
		s.open.live.Store(len(datasets) > 0)
		s.peer.pool.config.Sink.LiveFeeds(s.peer.member.ID, datasets)
		if !s.open.feeds {
			s.peer.pool.hearFeeds(s.peer.member.ID, datasets)
		}
	}
}

// end reports whether the stream that err has ended brought a response, and calls Missed for what may follow it.
func (s *subscription) end(err error) bool {
	s.wait.Longest = maxSubscribeBackoff
	if status.Code(err) == codes.ResourceExhausted { //guard:refused-subscribers-try-again-at-once
		s.wait.Longest = maxRefusedBackoff
	}
	if status.Code(err) == codes.OutOfRange {
		s.epoch = 0
	}
	if err != nil && s.peer.onRing.Err() == nil {
		defer s.peer.lostRelay() //guard:client-stays-with-a-relay-that-refuses
	}
	if !s.receiving {
		return false
	}
	s.receiving = false
	s.peer.pool.counters.subscriptions.Add(-1)
	if s.peer.pool.ctx.Err() != nil {
		return true
	}
	if err != nil && s.peer.onRing.Err() == nil {
		s.peer.pool.counters.gaps.Add(1)
	}
	s.setLiveFeeds(nil) //guard:invalidations-after-broken-stream-missed
	s.peer.pool.config.Sink.Missed(s.peer.member.ID)
	return true
}
