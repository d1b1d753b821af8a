package service

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

const (
	// pacePerSubscriber, times the subscribers, is the least time between two responses with news on one stream. Sending
	// one takes about 25 µs, so a burst of writes of any length uses a quarter of a processor. Invalidations published in
	// the meantime share a response; the first one after a pause is sent immediately.
	pacePerSubscriber = 100 * time.Microsecond
	// sendTimeout is how long a response may wait for its subscriber to read earlier ones.
	sendTimeout = 5 * wire.Heartbeat / 2 //guard:subscriber-that-reads-nothing-holds-stream
	// subscriberBytes is what a stream takes: two goroutines, and a page of the log with its message.
	subscriberBytes = 32 << 10
)

var (
	errTooManySubscribers = errors.New("the limit of subscribers is reached")
	errNoMemory           = errors.New("the memory for subscribers is used up")
	errStopping           = status.Error(codes.Unavailable, "this member is stopping")
	errSlow               = errors.New("the subscriber does not read: drop everything received from this member and subscribe again")
)

// Subscribe implements peerv1.PeerServer. It uses one goroutine per stream and no copy of the log: it ends the stream of a
// subscriber that falls behind by more than the log holds.
func (s *Service) Subscribe(
	req *peerv1.SubscribeRequest, out grpc.ServerStreamingServer[peerv1.SubscribeResponse],
) error {
	if err := wire.CheckSubscribe(req); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	defer s.subscribers.Add(-1)
	if s.subscribers.Add(1) > s.config.MaxSubscribers { //guard:subscribers-without-limit
		s.subscribersRefused.Add(1)
		return status.Error(codes.ResourceExhausted, errTooManySubscribers.Error())
	}
	if !s.config.Budget.Take(budget.Subscribers, subscriberBytes) { //guard:subscribers-take-no-memory
		s.subscribersRefused.Add(1)
		return status.Error(codes.ResourceExhausted, errNoMemory.Error())
	}
	defer s.config.Budget.Return(budget.Subscribers, subscriberBytes)
	if s.relays(req) {
		defer s.config.RelayFeeds(out.Context())()
	}
	err := s.stream(req, out)
	if errors.Is(err, invalidationlog.ErrOverwritten) || errors.Is(err, errSlow) {
		s.subscribersCut.Add(1)
		return status.Error(codes.OutOfRange, err.Error())
	}
	return err
}

// stream sends the position where the stream begins, then each page of the log, and a heartbeat when there is none, unless the
// subscriber wants a quiet stream.
func (s *Service) stream(req *peerv1.SubscribeRequest, out grpc.ServerStreamingServer[peerv1.SubscribeResponse]) error {
	log, relays := s.log(req), s.relays(req)
	at, err := log.From(req.GetEpoch(), req.GetSequence())
	if err != nil {
		return err
	}
	interval := wire.Heartbeat
	if req.GetQuiet() { //guard:quiet-stream-has-heartbeats
		interval = math.MaxInt64
	}
	heartbeat := time.NewTimer(interval)
	defer heartbeat.Stop()
	next := invalidationlog.Page{Epoch: log.Epoch(), Sequence: at.Sequence()}
	for {
		if err := send(out.Context(), func() error { return sendPage(out, next, relays) }); err != nil {
			return err
		}
		heartbeat.Reset(interval)
		if !backoff.Sleep(out.Context(), s.pace(next)) {
			return errStopping
		}
		if next, err = nextPage(out.Context(), log, &at, heartbeat.C); err != nil {
			return err
		}
	}
}

// receiver is a request that says who receives a stream.
type receiver interface {
	GetClient() bool
	GetFeeds() bool
}

// relays reports whether this member relays the change feeds that others read to a client.
func (s *Service) relays(to receiver) bool { return to.GetFeeds() && s.config.RelayFeeds != nil }

// log returns what a member, or a client of the ring, receives.
func (s *Service) log(to receiver) *invalidationlog.Log {
	switch {
	case s.relays(to):
		return s.config.Log.WithFeeds()
	case to.GetClient():
		return s.config.Log.ForClients()
	}
	return s.config.Log
}

// pace is how long to wait for more news to send together; 0 when the log has more than one response of it.
func (s *Service) pace(sent invalidationlog.Page) time.Duration {
	if !sent.HasNews || sent.More {
		return 0
	}
	return time.Duration(s.subscribers.Load()) * pacePerSubscriber
}

// nextPage returns the next page with news, or any page when the heartbeat is due.
func nextPage(
	ctx context.Context, log *invalidationlog.Log, at *invalidationlog.Cursor, heartbeat <-chan time.Time,
) (invalidationlog.Page, error) {
	for {
		next, err := log.Read(at)
		if err != nil || next.HasNews {
			return next, err
		}
		select {
		case <-next.Changed:
		case <-heartbeat:
			return next, nil
		case <-ctx.Done():
			return invalidationlog.Page{}, errStopping
		}
	}
}

// send gives up on a subscriber that does not read. gRPC drops the unsent responses when the stream ends.
func send(ctx context.Context, some func() error) error {
	sent := make(chan error, 1)
	go func() { sent <- sendSafely(some) }()
	timeout := time.NewTimer(sendTimeout)
	defer timeout.Stop()
	select {
	case err := <-sent:
		if p, ok := errors.AsType[*sendPanic](err); ok {
			panic(p) // on the goroutine of the call, whose server recovers
		}
		return err
	case <-timeout.C:
		return errSlow
	case <-ctx.Done():
		return errStopping
	}
}

// sendPanic is a panic on the goroutine of send. It would end the process there.
type sendPanic struct {
	value any
	stack []byte
}

func (p *sendPanic) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

func sendSafely(some func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &sendPanic{p, debug.Stack()}
		}
	}()
	return some()
}

// sendPage sends an interruption of the feeds, an empty list, before their present state.
func sendPage(out grpc.ServerStreamingServer[peerv1.SubscribeResponse], next invalidationlog.Page, relays bool) error {
	if next.Interrupted {
		before := &peerv1.SubscribeResponse{Epoch: next.Epoch, Sequence: next.Sequence - uint64(len(next.Records)), Relays: relays}
		if err := out.Send(before); err != nil {
			return err
		}
	}
	return out.Send(response(next, relays))
}

// response computes the age of each change at the time of sending.
func response(p invalidationlog.Page, relays bool) *peerv1.SubscribeResponse {
	list := make([]*peerv1.Invalidation, len(p.Records))
	for i, r := range p.Records {
		list[i] = wire.Invalidation(r.Invalidation, time.Since(r.Published))
	}
	return &peerv1.SubscribeResponse{Epoch: p.Epoch, Sequence: p.Sequence, Invalidations: list, LiveFeeds: p.LiveFeeds, Relays: relays}
}
