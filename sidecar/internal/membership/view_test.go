package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

func TestMassLeaseExpiryChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b", "c")
		c.Apply(named("self"))
		time.Sleep(time.Hour)
		c.wantRing("self a b c")
		if s := c.Stats(); s.Changes != 1 || s.Unlisted != 3 || s.Unreachable != 0 {
			t.Errorf("Stats: %+v", s)
		}
		c.Apply(named("self", "a", "b", "c"))
		if s := c.Stats(); s.Unlisted != 0 || s.Changes != 1 {
			t.Errorf("Stats after they are back: %+v", s)
		}
		before := c.pings()
		time.Sleep(time.Hour)
		if more := c.pings() - before; more != 0 {
			t.Errorf("got %d pings of listed members, want 0", more)
		}
	})
}

func TestEmptyListChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		c.Apply(nil)
		time.Sleep(time.Hour)
		c.wantRing("self a b")
	})
}

func TestListWithoutSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a")
		c.Apply(named("a", "b"))
		c.wantRing("self a b")
	})
}

func TestDeadMemberIsRemovedAfterTheHoldDown(t *testing.T) {
	for name, err := range map[string]error{"refused": errors.New("refused"), "silent": context.DeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, "self", "a", "b", "dead")
				c.fail("dead", err)
				c.Apply(named("self"))
				time.Sleep(DefaultHoldDown - time.Nanosecond)
				c.wantRing("self a b dead")
				time.Sleep(time.Nanosecond)
				c.wantRing("self a b")
				if s := c.Stats(); s.Unreachable != 1 || s.Unlisted != 2 {
					t.Errorf("Stats: %+v", s)
				}
			})
		})
	}
}

func TestUnlistedMemberThatDiesLaterIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		c.Apply(named("self", "a"))
		time.Sleep(time.Hour + time.Millisecond)
		c.fail("b", errors.New("refused"))
		// The next ping is 499 ms away; the hold-down begins with it.
		time.Sleep(499*time.Millisecond + DefaultHoldDown - time.Nanosecond)
		c.wantRing("self a b")
		time.Sleep(time.Nanosecond)
		c.wantRing("self a")
	})
}

func TestMemberWhosePingsPanicIsRemovedAndThePanicsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		c.fail("b", errPanic)
		c.Apply(named("self"))
		time.Sleep(DefaultHoldDown)
		c.wantRing("self a")
		c.mu.Lock()
		defer c.mu.Unlock()
		if n := len(c.defects); n != 4 { // of the pings at the begin and the end of the hold-down, and in it
			t.Fatalf("%d panics were reported, want 4", n)
		}
		if text := c.defects[0]; !strings.Contains(text, "canary") || !strings.Contains(text, "goroutine") {
			t.Errorf("reported %q, want the panic and its stack", text)
		}
	})
}

func TestFlappingMemberStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a")
		c.Apply(named("self"))
		time.Sleep(time.Millisecond) // not at the time of a ping
		for range 100 {
			c.fail("a", errors.New("refused"))
			time.Sleep(DefaultHoldDown - DefaultPingEvery)
			c.fail("a", nil)
			time.Sleep(DefaultPingEvery)
		}
		c.wantRing("self a")
		if got := c.Stats().Changes; got != 1 {
			t.Errorf("%d changes of the ring, want 1", got)
		}
	})
}

func TestLeavingMemberIsRemovedImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		list := named("self", "a", "b")
		list[1].Leaving = true
		c.Apply(list)
		c.wantRing("self b")
		c.Apply(named("self", "b"))
		time.Sleep(time.Hour)
		c.wantRing("self b")
		if n := c.pings(); n != 0 {
			t.Errorf("got %d pings of a leaving member, want 0", n)
		}
	})
}

func TestLeavingUnlistedMemberIsRemovedImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a")
		c.Apply(named("self"))
		time.Sleep(time.Minute)
		list := named("self", "a")
		list[1].Leaving = true
		c.Apply(list)
		c.wantRing("self")
		if got := c.Stats().Unlisted; got != 0 {
			t.Errorf("%d unlisted members, want 0", got)
		}
	})
}

func TestNewMemberJoinsImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self")
		c.Apply(named("self", "a"))
		c.wantRing("self a")
		c.Apply(named("self", "a", "b"))
		c.wantRing("self a b")
	})
}

func TestMemberThatMovesToAnotherZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self")
		members := named("self", "a")
		c.Apply(members)
		before := c.Stats().Changes
		members[1].Zone = "z"
		c.Apply(members)
		if n := c.Stats().Changes - before; n != 1 {
			t.Errorf("OnChange was called %d times, want once", n)
		}
		c.Apply(members)
		if n := c.Stats().Changes - before; n != 1 {
			t.Errorf("OnChange was called %d times after the same list, want once", n)
		}
	})
}

func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a")
		c.Leave()
		c.wantRing("a")
		c.Apply(named("self"))
		c.wantRing("a")
		c.fail("a", errors.New("refused"))
		time.Sleep(time.Minute)
		c.wantRing("a") // the last ring stays: an empty one owns nothing
	})
}

func TestLeaveOfTheOnlyMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self")
		c.Leave()
		c.wantRing("self")
	})
}

func TestAddressOfADeadPodIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		young := one("young")
		young.Addr = one("b").Addr
		c.Apply(append(named("self", "a"), young))
		c.wantRing("self a young")
		if s := c.Stats(); s.Unlisted != 0 || s.Unreachable != 0 {
			t.Errorf("Stats: %+v", s)
		}
	})
}

func TestAddressOfALeavingPodIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		list := append(named("self", "a", "b"), one("young"))
		list[2].Leaving = true
		list[3].Addr = list[2].Addr
		c.Apply(list)
		c.wantRing("self a young")
	})
}

func TestNoMemberReplacesSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self")
		stale, addr, key := one("self"), one("addr"), one("key")
		stale.Addr = "10.9.9.9:1"
		addr.Addr = one("self").Addr
		key.HashKey = one("self").Addr
		c.Apply([]ring.Member{stale, addr, key, {}, one("a")})
		c.wantRing("self a")
		if got := c.ring().Member("self").Addr; got != one("self").Addr {
			t.Errorf("self is at %s", got)
		}
		if got := c.Stats().Refused; got != 3 {
			t.Errorf("%d refused, want 3", got)
		}
	})
}

func TestMemberWithANewAddressIsReplacedImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a")
		moved := one("a")
		moved.Addr = "10.9.9.9:1"
		c.Apply([]ring.Member{moved})
		if got := c.ring().Member("a").Addr; got != moved.Addr {
			t.Errorf("a is at %s, want %s", got, moved.Addr)
		}
	})
}

func TestManyUnlistedMembersArePingedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := []string{"self"}
		for i := range 1000 {
			ids = append(ids, fmt.Sprint("m", i))
		}
		c := start(t, ids...)
		c.answerIn(10 * time.Millisecond)
		c.Apply(nil)
		time.Sleep(time.Minute)
		if got, most := c.pings(), 1000*13; got > most {
			t.Errorf("%d pings in a minute, want at most %d", got, most)
		}
		if got := c.mostAtOnce(); got != maxPings {
			t.Errorf("%d pings at once, want %d", got, maxPings)
		}
		if got := c.ring().Len(); got != 1001 {
			t.Errorf("%d members on the ring, want 1001", got)
		}
	})
}

// The steps end with the previous ring that OnChange got.
func TestPreviousRing(t *testing.T) {
	apply := func(ids ...string) func(*clock) { return func(c *clock) { c.Apply(named(ids...)) } }
	later := func(c *clock) { time.Sleep(peer.DefaultWarmUp) }
	for name, tc := range map[string]struct {
		steps []func(*clock)
		want  string
	}{
		"of a member that was alone: that of the others": {[]func(*clock){apply("self", "a", "b")}, "a b"},
		"of a member that joins with a third: the same":  {[]func(*clock){apply("self", "a"), apply("self", "a", "b")}, "a"},
		"of a later change: the one before it": {
			[]func(*clock){apply("self", "a"), later, apply("self", "a", "b")}, "self a",
		},
		"of two changes: the one before both": {
			[]func(*clock){apply("self", "a"), later, apply("self", "a", "b"), apply("self", "a", "b", "c")}, "self a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, "self")
				for _, step := range tc.steps {
					step(c)
				}
				if got := ids(c.previous()); got != tc.want {
					t.Errorf("previous ring: %q, want %q", got, tc.want)
				}
			})
		})
	}
}

func TestNewViewRejectsASelfThatCannotBeOnARing(t *testing.T) {
	if _, err := NewView(ViewConfig{Self: ring.Member{ID: "self"}, OnChange: func(_, _ *ring.Ring) {}}); err == nil {
		t.Error("no error for a member without an address")
	}
}

func TestClientIsOnNoRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSelf(t, ring.Member{})
		c.wantRing("")
		c.Apply(named("a", "b", "c"))
		c.wantRing("a b c")
		list := named("a", "b", "c")
		list[0].Leaving = true
		c.Apply(list)
		c.wantRing("b c")
		c.Leave()
		c.wantRing("b c")
		if n := c.Stats().Refused; n != 0 {
			t.Errorf("%d refused", n)
		}
	})
}

func TestPublisherThatLosesMembersDoesNotEmptyTheRingOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSelf(t, ring.Member{}, "a", "b", "dead")
		c.fail("dead", errors.New("refused"))
		c.Apply(named("c"))
		time.Sleep(DefaultHoldDown)
		c.wantRing("a b c")
		for _, id := range []string{"a", "b", "c"} {
			c.fail(id, errors.New("refused"))
		}
		c.Apply(nil)
		time.Sleep(time.Minute)
		if c.ring().Len() == 0 {
			t.Error("the ring of a client that reaches no member is empty")
		}
	})
}

// clock is a View in a synctest bubble, with members that respond or do not.
type clock struct {
	*View
	t *testing.T

	mu      sync.Mutex
	errs    map[string]error // guarded by mu; the result of a ping of a member
	takes   time.Duration    // guarded by mu; the duration of a ping
	asked   int              // guarded by mu; pings since the start
	running int              // guarded by mu; pings
	most    int              // guarded by mu; the largest running
	prev    *ring.Ring       // guarded by mu; of the last OnChange
	defects []string         // guarded by mu; reported panics
}

// start runs a view of which ids[0] is self, with all ids on the ring.
func start(t *testing.T, ids ...string) *clock {
	t.Helper()
	if len(ids) == 1 {
		return startSelf(t, one(ids[0]))
	}
	return startSelf(t, one(ids[0]), ids...)
}

// startSelf runs a view with a directory that lists ids, if any.
func startSelf(t *testing.T, self ring.Member, ids ...string) *clock {
	t.Helper()
	c := &clock{t: t, errs: map[string]error{}}
	var err error
	c.View, err = NewView(ViewConfig{Self: self, Ping: c.ping, OnChange: c.onChange, Defect: c.defect})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if len(ids) > 0 {
		c.Apply(named(ids...))
	}
	return c
}

func (c *clock) onChange(_, prev *ring.Ring) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prev = prev
}

func (c *clock) ping(ctx context.Context, m ring.Member) error {
	c.mu.Lock()
	err, takes := c.errs[m.ID], c.takes
	c.asked++
	if err == errPanic {
		defer c.mu.Unlock()
		panic("canary")
	}
	c.running++
	c.most = max(c.most, c.running)
	c.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		<-ctx.Done()
	} else {
		time.Sleep(takes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	return err
}

// errPanic makes the pings of a member panic.
var errPanic = errors.New("panic")

func (c *clock) defect(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.defects = append(c.defects, err.Error())
}

func (c *clock) fail(id string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs[id] = err
}

func (c *clock) answerIn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takes = d
}

func (c *clock) pings() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

func (c *clock) mostAtOnce() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most
}

func (c *clock) previous() *ring.Ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prev
}

// wantRing compares the ring once all goroutines are blocked.
func (c *clock) wantRing(want string) {
	c.t.Helper()
	synctest.Wait()
	if got := ids(c.ring()); got != want {
		c.t.Errorf("the ring is %q, want %q", got, want)
	}
}

// ids lists the members with self first.
func ids(r *ring.Ring) string {
	var all []string
	for _, m := range r.Members() {
		all = append(all, m.ID)
	}
	slices.SortFunc(all, func(a, b string) int {
		if (a == "self") != (b == "self") {
			return map[bool]int{true: -1, false: 1}[a == "self"]
		}
		return strings.Compare(a, b)
	})
	return strings.Join(all, " ")
}

func named(ids ...string) (members []ring.Member) {
	for _, id := range ids {
		members = append(members, one(id))
	}
	return members
}

func one(id string) ring.Member { return ring.Member{ID: id, Addr: id + ".example:7072"} }

// ring returns the ring in use.
func (v *clock) ring() *ring.Ring {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cur
}

func TestMemberThatIsOffIsOnNoRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, "self", "a", "b")
		c.SetOff(true)
		c.wantRing("a b")
		c.Apply(named("self", "a", "b", "c"))
		c.wantRing("a b c")
		c.SetOff(false)
		c.wantRing("self a b c")
		alone := start(t, "self")
		alone.SetOff(true)
		alone.wantRing("self")
	})
}
