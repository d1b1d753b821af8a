package service

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
)

// counted is a stream that counts its responses.
type counted struct {
	grpc.ServerStream
	ctx  context.Context
	sent atomic.Int64
}

func (c *counted) Context() context.Context { return c.ctx }

func (c *counted) Send(*peerv1.SubscribeResponse) error {
	c.sent.Add(1)
	return nil
}

type quietRing struct{}

func (quietRing) RingID() uint64           { return 0 }
func (quietRing) Owns(string, string) bool { return true }

func TestQuietStreamHasNoHeartbeats(t *testing.T) {
	for _, quiet := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			log := invalidationlog.New(16)
			s, out := New(Config{Log: log, Ring: &quietRing{}}), &counted{ctx: ctx}
			ended := make(chan error)
			go func() { ended <- s.Subscribe(&peerv1.SubscribeRequest{Node: "n", Quiet: quiet}, out) }()
			time.Sleep(time.Hour + time.Millisecond)
			if n := out.sent.Load(); quiet && n != 1 || !quiet && n != 3601 {
				t.Errorf("quiet: %t: got %d responses in an hour", quiet, n)
			}
			before := out.sent.Load()
			log.Publish(kv.Invalidation{Dataset: "metrics", Key: "k", Version: 1})
			time.Sleep(time.Millisecond)
			if n := out.sent.Load(); n != before+1 {
				t.Errorf("quiet: %t: got %d responses after news, want one", quiet, n-before)
			}
			pong, err := s.Ping(ctx, &peerv1.PingRequest{})
			if err != nil || pong.GetEpoch() != log.Epoch() || pong.GetSequence() != 1 {
				t.Errorf("got %v, %v; want the position of the log", pong, err)
			}
			cancel()
			<-ended
		})
	}
}
