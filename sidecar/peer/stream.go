package peer

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
)

const (
	// heartbeat is how often a follower is told at least that there is nothing to tell.
	heartbeat = time.Second
	// pacePerFollower, times the followers, is the least time between two responses with news on one stream. To send one
	// takes about 25 µs, so a burst of writes, however long, takes a quarter of a processor. What comes meanwhile is sent
	// together; what comes after a pause is sent at once.
	pacePerFollower = 100 * time.Microsecond
	// slowAfter is how long a response may wait for its follower to take in those before it.
	slowAfter = followSilence //guard:follower-reads-nothing-holds-stream
)

var (
	errFollowers = errors.New("the bound of followers is reached")
	errStopping  = status.Error(codes.Unavailable, "this member is stopping")
	errSlow      = errors.New("the follower takes in nothing: drop what came from this member, and follow anew")
)

// Follow implements peerv1.PeerServer. It has one goroutine a stream, and keeps no copy of the log for it: a follower
// that falls behind by more than the log has is cut off.
func (s *Service) Follow(
	req *peerv1.FollowRequest, out grpc.ServerStreamingServer[peerv1.FollowResponse],
) error {
	if err := checkLength("node id", req.GetNode(), maxNodeBytes); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	defer s.followers.Add(-1)
	if s.followers.Add(1) > s.config.MaxFollowers { //guard:followers-without-bound
		s.followersRefused.Add(1)
		return status.Error(codes.ResourceExhausted, errFollowers.Error())
	}
	err := s.stream(req, out)
	if errors.Is(err, errBehind) || errors.Is(err, errSlow) {
		s.followersCut.Add(1)
		return status.Error(codes.OutOfRange, err.Error())
	}
	return err
}

// stream sends where it begins, then what there is, and a sign of life when there was nothing for a heartbeat.
func (s *Service) stream(req *peerv1.FollowRequest, out grpc.ServerStreamingServer[peerv1.FollowResponse]) error {
	at, err := s.config.Log.from(req.GetEpoch(), req.GetSequence())
	if err != nil {
		return err
	}
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	next := page{epoch: s.config.Log.epoch, sequence: at.sequence}
	for {
		if err := send(out, next); err != nil {
			return err
		}
		beat.Reset(heartbeat)
		if !sleep(out.Context(), s.pace(next)) {
			return errStopping
		}
		if next, err = s.wait(out.Context(), &at, beat.C); err != nil {
			return err
		}
	}
}

// pace is how long to wait for what can be sent together; not at all when there is more than one response of it.
func (s *Service) pace(sent page) time.Duration {
	if !sent.news || len(sent.records) == maxBatch {
		return 0
	}
	return time.Duration(s.followers.Load()) * pacePerFollower
}

// wait returns the next page that is worth sending: one with news, or any when the heartbeat is due.
func (s *Service) wait(ctx context.Context, at *cursor, beat <-chan time.Time) (page, error) {
	for {
		next, err := s.config.Log.read(at)
		if err != nil || next.news {
			return next, err
		}
		select {
		case <-next.changed:
		case <-beat:
			return next, nil
		case <-ctx.Done():
			return page{}, errStopping
		}
	}
}

// send gives up on a follower that takes in nothing. What is sent then is left to grpc, which ends it with the stream.
func send(out grpc.ServerStreamingServer[peerv1.FollowResponse], next page) error {
	sent := make(chan error, 1)
	go func() { sent <- sendAll(out, next) }()
	slow := time.NewTimer(slowAfter)
	defer slow.Stop()
	select {
	case err := <-sent:
		return err
	case <-slow.C:
		return errSlow
	case <-out.Context().Done():
		return errStopping
	}
}

// sendAll shows an interruption of the feeds before what they are now.
func sendAll(out grpc.ServerStreamingServer[peerv1.FollowResponse], next page) error {
	if next.interrupted {
		before := &peerv1.FollowResponse{Epoch: next.epoch, Sequence: next.sequence - uint64(len(next.records))}
		if err := out.Send(before); err != nil {
			return err
		}
	}
	return out.Send(next.response())
}
