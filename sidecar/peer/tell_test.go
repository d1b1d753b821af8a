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

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

func TestTellAllTellsEachAndNamesTheOthers(t *testing.T) {
	t.Parallel()
	list := []cache.Invalidation{
		{Dataset: "metrics", Key: "a/b", Version: 7, Age: time.Hour},
		{Dataset: "metrics", Key: "pre", Prefix: true},
		{Dataset: "x", Prefix: true},
	}
	var told atomic.Int64
	taking := dropping(func(got []cache.Invalidation) {
		told.Add(1)
		if !slices.Equal(got, list) {
			t.Errorf("told %+v, want %+v", got, list)
		}
	})
	a, b := startMember(t, "a", taking), startMember(t, "b", taking)
	dead := startMember(t, "dead", taking)
	dead.kill(t)
	p := startPool(t, peer.Config{}, dead, a, blackHole(t, "silent"), b)
	n, unreached := p.Broadcast(context.Background(), list)
	if n != 2 || told.Load() != 2 || !slices.Equal(unreached, []string{"dead", "silent"}) {
		t.Errorf("told %d, unreached %v", n, unreached)
	}
	if s := p.Stats(); s.Tells != 2 || s.Untold != 2 {
		t.Errorf("stats %+v", s)
	}
	if s := a.service.Stats(); s.Invalidated != 3 {
		t.Errorf("member's stats %+v", s)
	}
	eventually(t, "the next one does not wait for the silent one", func() bool { return p.Stats().BreakersOpen > 0 })
}

func TestTellAllAloneTellsNobody(t *testing.T) {
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	if n, unreached := p.Broadcast(context.Background(), []cache.Invalidation{drop("k", 1)}); n != 0 || unreached != nil {
		t.Errorf("told %d, unreached %v", n, unreached)
	}
}

func TestTellAllCutsALongList(t *testing.T) {
	t.Parallel()
	var list, got []cache.Invalidation
	for i := range 2500 {
		key := fmt.Sprint(i)
		if i%2 == 0 {
			key = strings.Repeat("k", cache.MaxKeyBytes-len(key)) + key
		}
		list = append(list, drop(key, int64(i)))
	}
	m := startMember(t, "m", dropping(func(part []cache.Invalidation) { got = append(got, part...) }))
	if n, unreached := startPool(t, peer.Config{}, m).Broadcast(context.Background(), list); n != 1 || unreached != nil {
		t.Errorf("told %d, unreached %v", n, unreached)
	}
	if !slices.Equal(got, list) {
		t.Errorf("told %d, want %d in their order", len(got), len(list))
	}
}

func TestTellAllIsBounded(t *testing.T) {
	t.Parallel()
	const most = 16
	var mu sync.Mutex
	var now, peak int
	full, release := make(chan struct{}), make(chan struct{})
	slow := dropping(func([]cache.Invalidation) {
		mu.Lock()
		now++
		if peak = max(peak, now); now == most {
			close(full)
		}
		mu.Unlock()
		<-release
		mu.Lock()
		now--
		mu.Unlock()
	})
	var members []*member
	for i := range most + 4 {
		members = append(members, startMember(t, fmt.Sprint("m", i), slow))
	}
	go func() {
		<-full
		time.Sleep(100 * time.Millisecond) // for those that must not come
		close(release)
	}()
	startPool(t, peer.Config{}, members...).Broadcast(context.Background(), []cache.Invalidation{drop("k", 1)})
	if peak != most {
		t.Errorf("%d were told at once, want %d", peak, most)
	}
}

func TestInvalidateChecksAllBeforeItDropsAny(t *testing.T) {
	t.Parallel()
	s := peer.NewService(peer.ServiceConfig{Invalidate: func([]cache.Invalidation) { t.Error("dropped") }})
	good := &peerv1.Invalidation{Dataset: "metrics", Key: "k"}
	for name, list := range map[string][]*peerv1.Invalidation{
		"too many":  slices.Repeat([]*peerv1.Invalidation{good}, 1001),
		"dataset":   {good, {Dataset: strings.Repeat("d", 129), Key: "k"}},
		"key":       {good, {Dataset: "metrics", Key: strings.Repeat("k", 1025)}},
		"prefix":    {good, {Dataset: "metrics", Key: strings.Repeat("k", 1025), Prefix: true}},
		"empty key": {good, {Dataset: "metrics"}},
		"nil":       {good, nil},
	} {
		_, err := s.Invalidate(context.Background(), &peerv1.InvalidateRequest{Invalidations: list})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error %v, want INVALID_ARGUMENT", name, err)
		}
	}
}

func TestInvalidationOfTheFutureIsOfNow(t *testing.T) {
	t.Parallel()
	var got []cache.Invalidation
	s := peer.NewService(peer.ServiceConfig{Invalidate: func(list []cache.Invalidation) { got = list }})
	_, err := s.Invalidate(context.Background(), &peerv1.InvalidateRequest{
		Invalidations: []*peerv1.Invalidation{{Dataset: "metrics", Key: "k", Version: -1, AgeNs: -1}},
	})
	if want := []cache.Invalidation{drop("k", 0)}; err != nil || !slices.Equal(got, want) {
		t.Errorf("dropped %+v, error %v", got, err)
	}
}
