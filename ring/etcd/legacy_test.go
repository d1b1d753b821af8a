package etcd

import (
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// openLegacy is open with a legacy prefix.
func openLegacy(t *testing.T, e *rig.EtcdServer, tune func(*timing)) *tested {
	d := open(t, e.Endpoint(), tune)
	d.cfg.LegacyPrefix = "GroupCache"
	return d
}

// legacyEndpoints lists the endpoints that etcd's own library finds under the legacy prefix.
func legacyEndpoints(t *testing.T, c *clientv3.Client) (addrs []string) {
	t.Helper()
	naming, err := endpoints.NewManager(c, "GroupCache")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := naming.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key, found := range listed {
		if key != "GroupCache/"+found.Addr || found.Metadata != nil {
			t.Errorf("%s: %+v", key, found)
		}
		addrs = append(addrs, found.Addr)
	}
	return addrs
}

func TestLegacyClientsFindServingMembers(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	c := client(t, e)
	d := openLegacy(t, e, nil)
	leave := register(t, d, member("a", 1))
	waitRegistered(t, d, 1)
	if got := legacyEndpoints(t, c); !slices.Equal(got, []string{member("a", 1).Addr}) {
		t.Errorf("registered: %q", got)
	}
	leave()
	if got := legacyEndpoints(t, c); len(got) != 0 {
		t.Errorf("after deregistration: got %q", got)
	}
	if got := keysIn(t, e); len(got) != 1 {
		t.Errorf("after deregistration etcd has %q, want the record only", got)
	}
}

func TestLegacyKeyIsOnTheLease(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	d := openLegacy(t, e, nil)
	register(t, d, member("a", 1))
	waitRegistered(t, d, 1)
	got, err := client(t, e).Get(t.Context(), "GroupCache/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != 1 || got.Kvs[0].Lease != d.lease.Load() {
		t.Errorf("%v, %v; want one key on lease %x", got, err, d.lease.Load())
	}
}

func TestDeletedLegacyKeyIsWrittenAgain(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	c := client(t, e)
	d := openLegacy(t, e, func(tm *timing) { tm.verify = 200 * time.Millisecond })
	register(t, d, member("a", 1))
	waitRegistered(t, d, 1)
	if _, err := c.Delete(t.Context(), "GroupCache/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	waitRegistered(t, d, 2)
	if got := legacyEndpoints(t, c); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// A pod gets the address of another one that has not deregistered yet.
func TestDeregisterKeepsTheLegacyKeyOfAnotherPod(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	c := client(t, e)
	verify := func(tm *timing) { tm.verify = 100 * time.Millisecond }
	old, young := openLegacy(t, e, verify), openLegacy(t, e, verify)
	leave := register(t, old, member("old", 1))
	waitRegistered(t, old, 1)
	successor := member("young", 1)
	register(t, young, successor)
	waitRegistered(t, young, 1)
	until := time.Now().Add(5 * old.timing.verify)
	waitFor(t, "five checks of the keys", func() bool { return time.Now().After(until) })
	leave()
	if got := legacyEndpoints(t, c); !slices.Equal(got, []string{successor.Addr}) {
		t.Errorf("after deregistration: got %q, want that of the next pod", got)
	}
	if got := old.Stats().Registrations; got != 1 {
		t.Errorf("the old pod registered %d times, want 1: the pods overwrite each other's key", got)
	}
}
