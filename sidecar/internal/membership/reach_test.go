package membership

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/ring"
)

func yes(member string) answer  { return answer{member, true, ""} }
func no(member string) answer   { return answer{member, true, "connection refused"} }
func mute(member string) answer { return answer{member, false, ""} }

func TestVotes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		others int
		rounds [][]answer
		want   bool
	}{
		{"nobody asked", 0, [][]answer{{}, {}, {}, {}}, false},
		{"no network: nobody answers", 3, [][]answer{{mute("a"), mute("b")}, {mute("a"), mute("b")}, {mute("c")}, {mute("a")}}, false},
		{"older releases", 2, [][]answer{{mute("a")}, {mute("b")}, {mute("a")}, {mute("b")}}, false},
		{"two rounds", 3, [][]answer{{no("a"), no("b")}, {no("a"), no("b")}}, false},
		{"three rounds", 3, [][]answer{{no("a"), no("b")}, {no("a"), no("c")}, {no("b"), no("c")}}, true},
		{"three rounds with some that do not answer", 3, [][]answer{{no("a"), mute("b")}, {mute("a"), mute("c")}, {no("b")}, {no("c")}}, true},
		{"one member alone reports it", 3, [][]answer{{no("a")}, {no("a")}, {no("a")}, {no("a")}}, false},
		{"two members: the one that is not reached is at fault", 1, [][]answer{{no("a")}, {no("a")}, {no("a")}}, true},
		{"a firewall to one member", 3, [][]answer{{no("a"), yes("b")}, {no("a"), no("c")}, {no("a"), yes("b")}, {no("a"), no("c")}, {no("a"), yes("b")}, {no("a"), no("c")}}, false},
		{"reached again once", 3, [][]answer{{no("a"), no("b")}, {no("a")}, {no("b")}, {yes("a")}}, true},
		{"reached again twice", 3, [][]answer{{no("a"), no("b")}, {no("a")}, {no("b")}, {yes("a")}, {yes("a"), no("b")}}, false},
	} {
		var v votes
		for _, round := range tt.rounds {
			v.add(round, tt.others)
		}
		if v.off != tt.want {
			t.Errorf("%s: off is %t, want %t", tt.name, v.off, tt.want)
		}
	}
	v := votes{off: true, noInRow: 3}
	for range trialAfter {
		v.add([]answer{mute("a")}, 1)
	}
	if v.off {
		t.Error("a member stays off although nobody says any more that it cannot be reached")
	}
}

// network has members of which some cannot be reached.
type network struct {
	mu      sync.Mutex
	blocked map[string]bool // :: id → nobody reaches it
	down    bool
	members map[string]*reach
	asked   int
}

type seenBy struct {
	*network
	id string
}

func (n seenBy) Ping(_ context.Context, m ring.Member) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down || n.blocked[m.ID] {
		return errors.New("authenticate: x509: certificate signed by unknown authority")
	}
	return nil
}

func (n seenBy) ReachesBack(ctx context.Context, to ring.Member) (bool, string, error) {
	n.mu.Lock()
	n.asked++
	n.mu.Unlock()
	if err := n.Ping(ctx, to); err != nil {
		return false, "", err
	}
	known, err := n.members[to.ID].reachBack(ctx, n.id)
	if err != nil {
		return known, err.Error(), nil
	}
	return known, "", nil
}

// newNetwork starts members that see each other as the directory lists them: without those that are off.
func newNetwork(t *testing.T, n int, log *zap.Logger) *network {
	w := &network{blocked: map[string]bool{}, members: map[string]*reach{}}
	var all []ring.Member
	for i := range n {
		all = append(all, ring.Member{ID: fmt.Sprint("m", i), Addr: fmt.Sprintf("10.0.0.%d:7072", i+1)})
	}
	for _, self := range all {
		w.members[self.ID] = &reach{
			self: self, pool: seenBy{w, self.ID}, log: log, known: map[string]ring.Member{}, failed: map[string]time.Time{},
			changed: make(chan struct{}), setOff: func(bool) {}, leaves: true,
			others: func() (list []ring.Member) {
				for _, m := range all {
					if off, _ := w.members[m.ID].state(); m.ID != self.ID && !off {
						list = append(list, m)
					}
				}
				return list
			},
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, m := range w.members {
		running.Go(func() { _ = m.run(ctx) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *network) off() (ids []string) {
	for i := range len(n.members) {
		if off, _ := n.members[fmt.Sprint("m", i)].state(); off {
			ids = append(ids, fmt.Sprint("m", i))
		}
	}
	return ids
}

func TestMemberThatNobodyReachesLeavesTheRingAndReturns(t *testing.T) {
	for _, size := range []int{2, 3, 10} {
		synctest.Test(t, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			w := newNetwork(t, size, zap.New(core))
			time.Sleep(time.Hour)
			if off := w.off(); off != nil {
				t.Fatalf("%d members: %q are off while all reach each other", size, off)
			}
			w.set(func() { w.blocked["m1"] = true })
			time.Sleep(2 * time.Minute)
			if off := w.off(); fmt.Sprint(off) != "[m1]" {
				t.Fatalf("%d members: %q are off, want the one that nobody reaches", size, off)
			}
			m := w.members["m1"]
			m.mu.Lock()
			why := m.whyLocked()
			m.mu.Unlock()
			if !strings.Contains(why, "at 10.0.0.2:7072; m") || !strings.Contains(why, "certificate signed by unknown authority") {
				t.Errorf("got the reason %q", why)
			}
			time.Sleep(10 * time.Minute)
			if off := w.off(); fmt.Sprint(off) != "[m1]" {
				t.Fatalf("%d members: %q are off later", size, off)
			}
			if n := logs.FilterMessageSnippet("no other member can reach this one").Len(); n != 1 {
				t.Errorf("%d members: %d lines in the log of 12 minutes, want 1", size, n)
			}
			if n := logs.FilterMessageSnippet("this member cannot reach another one").Len(); n == 0 || n > 3*size { // again if nobody asked it for a minute
				t.Errorf("%d members: %d lines of the others report it, want a few", size, n)
			}
			w.set(func() { w.blocked["m1"] = false })
			time.Sleep(time.Minute)
			if off := w.off(); off != nil {
				t.Errorf("%d members: %q are off after the network is back", size, off)
			}
			for id, m := range w.members {
				time.Sleep(time.Minute)
				m.mu.Lock()
				if len(m.failed) > 0 {
					t.Errorf("%s still does not reach %v", id, m.failed)
				}
				m.mu.Unlock()
			}
		})
	}
}

func TestRingIsNotEmptiedWithoutANetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t, 5, zap.NewNop())
		w.set(func() { w.down = true })
		time.Sleep(time.Hour)
		if off := w.off(); off != nil {
			t.Errorf("%q left the ring, want none", off)
		}
	})
}

// A large ring must not be flooded: each member asks three others four times a minute.
func TestFewMembersAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t, 100, zap.NewNop())
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if most := 100 * 3 * (4*10 + 10); w.asked > most {
			t.Errorf("%d requests in ten minutes, want at most %d", w.asked, most)
		}
	})
}

func TestUnreachedMembersAreLimited(t *testing.T) {
	w := newNetwork(t, 2, zap.NewNop())
	m := w.members["m0"]
	for i := range 1000 {
		other := ring.Member{ID: fmt.Sprint("x", i), Addr: "10.1.1.1:1"}
		w.set(func() { w.blocked[other.ID] = true })
		m.others = func() []ring.Member { return []ring.Member{other} }
		_, _ = m.reachBack(t.Context(), other.ID)
	}
	if len(m.failed) > maxNotReached || len(m.known) > maxNotReached {
		t.Errorf("%d and %d members are remembered, want at most %d", len(m.failed), len(m.known), maxNotReached)
	}
}
