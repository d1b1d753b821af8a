package service

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
)

func TestPingSaysWhetherTheCallerIsReached(t *testing.T) {
	outcomes := map[string]error{"up": nil, "down": errors.New("refused\x1b[2J" + strings.Repeat("ä", 500))}
	s := New(Config{Ring: &quietRing{}, ReachBack: func(_ context.Context, node string) (bool, error) {
		err, known := outcomes[node]
		return known, err
	}})
	for node, want := range map[string]peerv1.ReachedBack{
		"": 0, "other": 0, strings.Repeat("n", 257): 0, "up": peerv1.ReachedBack_REACHED_BACK_YES, "down": peerv1.ReachedBack_REACHED_BACK_NO,
	} {
		pong, err := s.Ping(t.Context(), &peerv1.PingRequest{ReachBack: node})
		why := pong.GetReachError()
		if err != nil || pong.GetReachedBack() != want || (why != "") != (node == "down") || len(why) > 256 || strings.Contains(why, "\x1b") {
			t.Errorf("%.10q: got %v, %v, %q; want %v", node, pong.GetReachedBack(), err, why, want)
		}
	}
}

func TestPingsForCallersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := 0
		var mu sync.Mutex
		s := New(Config{Ring: &quietRing{}, ReachBack: func(ctx context.Context, _ string) (bool, error) {
			mu.Lock()
			running++
			mu.Unlock()
			<-ctx.Done()
			return true, ctx.Err()
		}})
		began := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { _, _ = s.Ping(t.Context(), &peerv1.PingRequest{ReachBack: "n"}) })
		}
		all.Wait()
		if running != maxReachBacks || time.Since(began) > ReachBackTimeout {
			t.Errorf("%d pings ran for %v, want %d for at most %v", running, time.Since(began), maxReachBacks, ReachBackTimeout)
		}
	})
}
