package peer_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// TestMemberThatLeftLeavesNoGoroutine is not parallel because it counts goroutines.
func TestMemberThatLeftLeavesNoGoroutine(t *testing.T) {
	frozen := peertest.BlackHole(t, "frozen")
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Second, PingAfter: 20 * time.Millisecond}, frozen)
	before := runtime.NumGoroutine()
	if err := peertest.Fetch(t, p, "frozen"); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
	if s := p.Stats(); s.BreakersOpen != 1 {
		t.Fatalf("got stats %+v, want an open breaker", s)
	}
	p.SetRing(nil, nil)
	peertest.Eventually(t, "the pings to the member have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// TestCloseLeavesNoGoroutine is not parallel because it counts goroutines.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	m := peertest.StartMember(t, "m", peertest.Serving(peertest.Block))
	frozen := peertest.BlackHole(t, "frozen")
	first := peertest.StartPool(t, peer.Config{}, m)
	if err := peertest.Ping(t, first, m.Member); err != nil { // its goroutines are all there when it answers
		t.Fatal(err)
	}
	first.Close()
	peertest.Eventually(t, "the first caller is gone", func() bool { return m.Server.Stats().Conns == 0 })
	before := runtime.NumGoroutine()
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Hour, PingAfter: time.Second}, m, frozen)
	slow, hole := peertest.PeerTo(t, p, "m"), peertest.PeerTo(t, p, "frozen")
	var wg sync.WaitGroup
	// Three calls open the breaker also if they fail when gRPC's own attempt to connect ends, before the ping.
	for _, to := range []kv.Peer{slow, slow, hole, hole, hole} {
		wg.Go(func() {
			if _, err := to.Fetch(context.Background(), peertest.Get("k")); !errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("got error %v, want unreachable", err)
			}
		})
	}
	peertest.Eventually(t, "the breaker of the frozen member is open", func() bool { return p.Stats().BreakersOpen == 1 })
	p.Close()
	wg.Wait()
	if _, err := slow.Fetch(context.Background(), peertest.Get("k")); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("fetch after close: %v, want unreachable", err)
	}
	p.SetRing(peertest.NewRing(t, ring.Member{ID: "late", Addr: "127.0.0.1:1"}), nil)
	p.Close()
	peertest.Eventually(t, "all goroutines have ended", func() bool {
		runtime.GC()
		return m.Server.Stats().Conns == 0 && runtime.NumGoroutine() <= before
	})
}
