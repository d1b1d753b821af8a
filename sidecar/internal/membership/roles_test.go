package membership

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/config"
)

func newFollower(most int) *follower {
	return &follower{Members: &Members{config: Config{Role: config.RoleAuto, MaxMembers: most}, log: zap.NewNop()}}
}

func someMembers(n int) (list []ring.Member) {
	for i := range n {
		list = append(list, ring.Member{ID: fmt.Sprint("m", i), Addr: fmt.Sprintf("10.0.0.%d:7072", i)})
	}
	return list
}

// Thousands of clients learn at once that a member is missing. They spread their attempts, and give them up when there is one.
func TestClientsSpreadTheirAttemptsToBecomeMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, members = 10_000, 100
		perSecond := map[int]int{}
		for range clients {
			f := newFollower(members + 1)
			f.use(update{members: someMembers(members), clients: clients / members})
			wait := f.untilDue()
			if wait < vacancyHold {
				t.Fatalf("a client tries after %v, want at least %v", wait, vacancyHold)
			}
			perSecond[int(wait/time.Second)]++
			f.use(update{members: someMembers(members + 1), clients: clients / members})
			if wait := f.untilDue(); wait < time.Minute {
				t.Fatalf("a client tries in %v although no member is missing", wait)
			}
		}
		for second, n := range perSecond {
			if n > 300 {
				t.Errorf("%d clients try in second %d, want about 200", n, second)
			}
		}
	})
}

func TestAttemptStaysPlannedWhileAMemberIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(3)
		f.use(update{members: someMembers(2), clients: 1})
		due := f.due
		time.Sleep(time.Second)
		f.use(update{members: someMembers(1), clients: 1})
		if !f.due.Equal(due) {
			t.Errorf("another change moved the attempt from %v to %v", due, f.due)
		}
		f.config.Role = config.RoleClient
		f.use(update{members: someMembers(1), clients: 1})
		if !f.due.IsZero() {
			t.Error("a client by configuration plans to become a member")
		}
	})
}

func TestPanicOfAListEndsTheStreamOnly(t *testing.T) {
	f := newFollower(1)
	var reported error
	f.config.Defect = func(err error) { reported = err }
	err := f.safely(func() error { panic("canary") })
	if err == nil || reported == nil || !strings.Contains(reported.Error(), "canary") {
		t.Errorf("got %v, reported %v; want the panic", err, reported)
	}
}

// Without a coordinator, sidecars with the same addresses have the same members, and one address more or less changes at most one role.
func TestRanksOfAddresses(t *testing.T) {
	const n, most = 500, 100
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("10.0.%d.%d:7072", i>>8, i&255))
	}
	count := func(addrs []string) (members []string) {
		d := Directory{most: most}
		for _, addr := range addrs {
			member, seeds, err := d.rank(addrs, ring.Member{Addr: addr}, true)
			if err != nil || !member && len(seeds) != most || slices.Contains(seeds, addr) {
				t.Fatalf("%s: got member %v, %d seeds, %v", addr, member, len(seeds), err)
			}
			if member {
				members = append(members, addr)
			}
		}
		return members
	}
	before := count(all)
	if len(before) != most {
		t.Errorf("got %d members, want %d", len(before), most)
	}
	for _, gone := range []string{before[0], before[50], before[99]} {
		after := count(slices.DeleteFunc(slices.Clone(all), func(addr string) bool { return addr == gone }))
		changed := 0
		for _, addr := range after {
			if !slices.Contains(before, addr) {
				changed++
			}
		}
		if changed != 1 || len(after) != most {
			t.Errorf("without %s, %d of %d members are new, want 1 of %d", gone, changed, len(after), most)
		}
	}
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	if got := count(reversed); len(got) != most || !slices.Contains(got, before[0]) {
		t.Error("the order of the addresses decides")
	}
	if member, _, _ := (&Directory{most: n}).rank(all, ring.Member{Addr: all[0]}, false); member {
		t.Error("a sidecar with the role client is a member")
	}
}
