package peer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

func TestBroadcastReturnsReachedAndUnreachedMembers(t *testing.T) {
	t.Parallel()
	list := []kv.Invalidation{
		{Dataset: "metrics", Key: "a/b", Version: 7, Age: time.Hour},
		{Dataset: "metrics", Key: "pre", Prefix: true},
		{Dataset: "x", Prefix: true},
	}
	var calls atomic.Int64
	receiving := peertest.Invalidating(func(got []kv.Invalidation) {
		calls.Add(1)
		if !slices.Equal(got, list) {
			t.Errorf("got %+v, want %+v", got, list)
		}
	})
	a, b := peertest.StartMember(t, "a", receiving), peertest.StartMember(t, "b", receiving)
	dead := peertest.StartMember(t, "dead", receiving)
	dead.Kill(t)
	p := peertest.StartPool(t, peer.Config{PingAfter: time.Second, FanOutTimeout: 900 * time.Millisecond}, dead, a, peertest.BlackHole(t, "frozen"), b)
	for _, m := range []*peertest.Member{a, b} { // so that no call waits for a connection
		if err := peertest.Ping(t, p, m.Member); err != nil {
			t.Fatal(err)
		}
	}
	n, unreached := p.Broadcast(context.Background(), list)
	if n != 2 || calls.Load() != 2 || !slices.Equal(unreached, []string{"dead", "frozen"}) {
		t.Errorf("got %d reached, unreached %v", n, unreached)
	}
	if s := p.Stats(); s.BroadcastsFailed != 2 {
		t.Errorf("got stats %+v", s)
	}
	peertest.Eventually(t, "the breaker of the frozen member is open", func() bool { return p.Stats().BreakersOpen > 0 })
}

func TestBroadcastWithoutOtherMembers(t *testing.T) {
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	if n, unreached := p.Broadcast(context.Background(), []kv.Invalidation{peertest.Drop("k", 1)}); n != 0 || unreached != nil {
		t.Errorf("got %d reached, unreached %v", n, unreached)
	}
}

func TestBroadcastSplitsALongList(t *testing.T) {
	t.Parallel()
	var list, got []kv.Invalidation
	for i := range 2500 {
		key := fmt.Sprint(i)
		if i%2 == 0 {
			key = strings.Repeat("k", kv.MaxKeyBytes-len(key)) + key
		}
		list = append(list, peertest.Drop(key, int64(i)))
	}
	m := peertest.StartMember(t, "m", peertest.Invalidating(func(part []kv.Invalidation) { got = append(got, part...) }))
	if n, unreached := peertest.StartPool(t, peer.Config{}, m).Broadcast(context.Background(), list); n != 1 || unreached != nil {
		t.Errorf("got %d reached, unreached %v", n, unreached)
	}
	if !slices.Equal(got, list) {
		t.Errorf("got %d invalidations, want %d in their order", len(got), len(list))
	}
}

func TestBroadcastIsLimited(t *testing.T) {
	t.Parallel()
	const most = 16
	var mu sync.Mutex
	var now, peak int
	full, release := make(chan struct{}), make(chan struct{})
	slow := peertest.Invalidating(func([]kv.Invalidation) {
		mu.Lock()
		now++
		if now > peak {
			if peak = now; peak == most {
				close(full)
			}
		}
		mu.Unlock()
		<-release
		mu.Lock()
		now--
		mu.Unlock()
	})
	var members []*peertest.Member
	for i := range most + 4 {
		members = append(members, peertest.StartMember(t, fmt.Sprint("m", i), slow))
	}
	go func() {
		<-full
		time.Sleep(100 * time.Millisecond) // for calls above the limit
		close(release)
	}()
	peertest.StartPool(t, peer.Config{}, members...).Broadcast(context.Background(), []kv.Invalidation{peertest.Drop("k", 1)})
	mu.Lock()
	defer mu.Unlock()
	if peak != most {
		t.Errorf("got %d concurrent calls, want %d", peak, most)
	}
}
