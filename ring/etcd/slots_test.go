package etcd

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// openSlots returns a Directory with three slots.
func openSlots(t *testing.T, e *rig.EtcdServer, tune func(*timing)) *tested {
	t.Helper()
	d := open(t, e.Endpoint(), tune)
	d.cfg.MaxMembers = 3
	return d
}

func slotsIn(t *testing.T, e *rig.EtcdServer) (slots []string) {
	t.Helper()
	for _, key := range keysIn(t, e) {
		if strings.HasPrefix(key, "/ringside/default/slots/") {
			slots = append(slots, key)
		}
	}
	return slots
}

func wantClaim(t *testing.T, d *tested, id string, n int, want bool) (seeds []string) {
	t.Helper()
	got, seeds, err := d.Claim(t.Context(), member(id, n))
	if err != nil || got != want {
		t.Fatalf("claim of %s: got %v, %v; want %v", id, got, err, want)
	}
	return seeds
}

func TestAsManySidecarsAsThereAreSlotsBecomeMembers(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	var winners atomic.Int64
	var all sync.WaitGroup
	for n := range 12 {
		d := openSlots(t, e, func(tm *timing) { tm.request = 10 * time.Second })
		all.Go(func() {
			got, seeds, err := d.Claim(t.Context(), member(fmt.Sprint("sidecar-", n), n))
			switch {
			case err != nil:
				t.Error(err)
			case got:
				winners.Add(1)
			case len(seeds) != 3:
				t.Errorf("a client got the members %q, want three", seeds)
			}
		})
	}
	all.Wait()
	if got := winners.Load(); got != 3 || len(slotsIn(t, e)) != 3 {
		t.Errorf("got %d members and the slots %q, want 3", got, slotsIn(t, e))
	}
}

// A restarted sidecar keeps its role, whether the process before it ends before or after it claims.
func TestRestartKeepsTheSlot(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	for n, id := range []string{"a", "b"} {
		register(t, openSlots(t, e, nil), member(id, n))
	}
	before := openSlots(t, e, nil)
	leave := register(t, before, member("c", 3))
	waitRegistered(t, before, 1)
	waitFor(t, "three slots", func() bool { return len(slotsIn(t, e)) == 3 })
	held := slotsIn(t, e)
	waiting := openSlots(t, e, nil)
	wantClaim(t, waiting, "d", 4, false)

	after := openSlots(t, e, nil)
	wantClaim(t, after, "c", 3, true)
	leave()
	_ = before.Close()
	if got := slotsIn(t, e); !slices.Equal(got, held) {
		t.Errorf("got the slots %q after the end of the process before, want %q", got, held)
	}
	leave = register(t, after, member("c", 3))
	waitRegistered(t, after, 1)
	wantClaim(t, waiting, "d", 4, false)
	leave()
	wantClaim(t, waiting, "d", 4, true)
}

func TestMemberThatLostItsSlotStaysAMember(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	d := openSlots(t, e, func(tm *timing) { tm.verify = 50 * time.Millisecond })
	register(t, d, member("a", 1))
	waitRegistered(t, d, 1)
	c := client(t, e)
	for n := range int64(3) { // others take all slots
		put := clientv3.OpPut(d.slotKey(n), `{"id":"other","addr":"10.0.0.9:7072"}`)
		if _, err := c.Do(t.Context(), put); err != nil {
			t.Fatal(err)
		}
	}
	waitRegistered(t, d, 2)
	if d.slot.Load() != 0 {
		t.Error("it holds a slot that another sidecar has")
	}
	if _, err := c.Delete(t.Context(), d.slotKey(1)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the free slot", func() bool { return d.slot.Load() == 2 })
}

func TestSeedsAreFoundWithoutSlots(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	old := open(t, e.Endpoint(), nil) // of a release without slots
	register(t, old, member("a", 1))
	waitRegistered(t, old, 1)
	seeds, err := openSlots(t, e, nil).Seeds(t.Context())
	if err != nil || !slices.Equal(seeds, []string{"10.0.0.1:7072"}) {
		t.Errorf("got %q, %v; want the member", seeds, err)
	}
}
