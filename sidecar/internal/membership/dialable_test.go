package membership

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// A record of a loopback address would make this member send requests to other programs in its pod.
func TestLoopbackAddressOfAnotherMemberIsIgnored(t *testing.T) {
	t.Parallel()
	near, far := ring.Member{ID: "near", Addr: "127.0.0.1:5432"}, ring.Member{ID: "far", Addr: "10.0.0.2:7072"}
	for _, test := range []struct {
		name string
		self []string
		want int // members that are kept
	}{
		{"member on the network", []string{"10.0.0.1:7072"}, 1},
		{"member on IPv6", []string{"[2001:db8::1]:7072"}, 1},
		{"member on loopback", []string{"127.0.0.1:7072"}, 2},
		{"client of a publisher on the network", []string{"publishers.example:7074"}, 1},
		{"client of a publisher on this host", []string{"10.0.0.1:7074", "localhost:7074"}, 2},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		d := dialable{self: test.self, log: zap.New(core)}
		for range 3 {
			if got := d.of([]ring.Member{near, far}); len(got) != test.want || got[len(got)-1] != far {
				t.Errorf("%s: got %v, want %d members", test.name, got, test.want)
			}
		}
		ignored := 2 - test.want
		if logs.Len() != ignored || d.ignored.Load() != int64(3*ignored) {
			t.Errorf("%s: logged %d times, counted %d, want %d and %d", test.name, logs.Len(), d.ignored.Load(), ignored, 3*ignored)
		}
	}
}

func TestIgnoredMembersAreNeitherOnTheRingNorPublished(t *testing.T) {
	t.Parallel()
	self := ring.Member{ID: "10.0.0.1:7072", HashKey: "10.0.0.1:7072", Addr: "10.0.0.1:7072"}
	pool := peer.NewPool(peer.Config{Self: self.ID})
	defer pool.Close()
	var published []ring.Member
	m, err := New(Config{
		Self: self, Pool: pool, Log: zap.NewNop(), Tasks: task.NewGroup(func(err error) { t.Error(err) }),
		Directory: &Directory{Kind: "static", Directory: ring.NewStatic([]string{self.Addr, "127.0.0.1:5432", "10.0.0.2:7072"})},
		OnRing:    func(*ring.Ring, *ring.Ring) {}, OnMembers: func(list []ring.Member) { published = list },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer m.Stop(t.Context())
	bad := func(m ring.Member) bool { return m.Addr == "127.0.0.1:5432" }
	if on := m.Ring().Members(); len(on) != 2 || slices.ContainsFunc(on, bad) {
		t.Errorf("on the ring: got %v, want two members on the network", on)
	}
	if len(published) != 2 || slices.ContainsFunc(published, bad) {
		t.Errorf("published: got %v, want two members on the network", published)
	}
	if n := m.Stats().Refused; n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
}

// panicking panics at its first list, as a decoder of records might.
type panicking struct {
	ring.Directory
	calls atomic.Int64
}

func (d *panicking) Resolve(ctx context.Context, apply func([]ring.Member)) error {
	if d.calls.Add(1) == 1 {
		panic("canary")
	}
	return d.Directory.Resolve(ctx, apply)
}

func TestPanicOfADirectoryListsTheMembersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var defects []string
		m := &Members{config: Config{Defect: func(err error) { defects = append(defects, err.Error()) }}, directory: &Directory{Directory: &panicking{Directory: ring.NewStatic([]string{"10.0.0.1:1"})}}}
		ctx, cancel := context.WithCancel(t.Context())
		listed := make(chan struct{}, 1)
		ended := make(chan error)
		go func() { ended <- m.resolveSafely(ctx, func([]ring.Member) { listed <- struct{}{} }) }()
		<-listed
		cancel()
		if err := <-ended; err != nil || len(defects) != 1 {
			t.Fatalf("got error %v, reported %q, want no error and one panic", err, defects)
		}
		if !strings.Contains(defects[0], "canary") || !strings.Contains(defects[0], "goroutine") {
			t.Errorf("reported %q, want the panic and its stack", defects[0])
		}
	})
}
