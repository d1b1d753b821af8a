package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// startClient starts a sidecar with the role client, which gets the ring by xDS from the first two members, and waits for the
// ring.
func (c *cluster) startClient() *rig.Sidecar {
	c.t.Helper()
	s := rig.NewSidecar(c.t, "client", c.configOf(fmt.Sprintf("{xds: [%q, %q]}", c.sidecars[0].XDS, c.sidecars[1].XDS)))
	s.RoleClient()
	s.Start()
	c.awaitRingOf(s)
	return s
}

// awaitRingOf waits until s has the same ring as the members.
func (c *cluster) awaitRingOf(s *rig.Sidecar) {
	c.t.Helper()
	rig.Eventually(c.t, time.Minute, func() error {
		want, _, err := c.sidecars[0].RingID()
		if err != nil {
			return err
		}
		got, members, err := s.RingID()
		if err == nil && got != want {
			err = fmt.Errorf("%s has ring %s of %d members; want %s", s.ID, got, members, want)
		}
		return err
	})
}

// through returns a reader through a sidecar. It does not check whether a peer fetch was necessary.
func (c *cluster) through(s *rig.Sidecar, dataset string) reader {
	return func(key string) error {
		response, err := c.client.Get(s.URL(dataset, key))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, body)
		}
		return err
	}
}

// A sidecar with the role client has the ring of the members without etcd. It fetches from the owners and loads nothing itself.
func TestPromiseZRoleClientFetchesFromOwners(t *testing.T) {
	t.Parallel()
	const keys, dataset = 1000, "owned-metrics"
	c := newClusterOf(t, 4, rig.XDSSidecars)
	c.fill("key-", keys)
	client := c.startClient()
	read := c.through(client, dataset)
	c.reportClient(t, client, read, "4 members")

	load := newStream(t, 4, keys, read)
	load.awaitReads(t, 500)
	c.sidecars[3].Kill()
	c.drop(3)
	c.awaitRingOf(client)
	load.awaitReads(t, 500)
	load.stop()
	reportStream(t, load, "kill -9 of a member")
	c.reportClient(t, client, read, "after kill -9 of a member")

	before, _, err := client.RingID()
	if err != nil {
		t.Fatal(err)
	}
	load = newStream(t, 4, keys, read)
	load.awaitReads(t, 500)
	c.sidecars[0].Kill()
	c.sidecars[1].Kill()
	load.awaitReads(t, 2000)
	load.stop()
	reportStream(t, load, "kill -9 of both members that it gets the ring from")
	if after, members, err := client.RingID(); after != before || members != 3 {
		t.Errorf("without an xDS server the client has ring %s of %d members (%v); want %s", after, members, err, before)
	}
	if view := ringOf(t, client); !strings.Contains(view, `"kind":"xds","connected":false`) {
		t.Errorf("the client does not report that its xDS servers are unavailable: %s", view)
	}

	c.sidecars[1].Start()
	c.drop(0)
	c.awaitRingOf(client)
	c.reportClient(t, client, read, "one of the two runs again")
}

// reportClient reads all keys through the client and reports how many it loaded itself.
func (c *cluster) reportClient(t *testing.T, client *rig.Sidecar, read reader, when string) {
	t.Helper()
	loads := func(s *rig.Sidecar) float64 { return s.Metric("ringside_loads_total") }
	before := loads(client)
	if n, err := peerFetches(t, 1000, read); err != nil {
		t.Errorf("%d reads: %v", n, err)
	}
	own := loads(client) - before
	if loads(c.sidecars[1]) == 0 {
		t.Error("invalid run: the metric counts no loads of a member")
	}
	report(t, promise{number: "Z5", n: 1000, held: own == 0, done: "a sidecar with the role client and two xDS servers, " + when,
		figure: fmt.Sprintf("0 of 1000 reads failed, %v loads by the client itself", own)})
}

func reportStream(t *testing.T, s *stream, what string) {
	t.Helper()
	report(t, promise{
		number: "Z5", n: int(s.reads.Load()), held: s.failed.Load() == 0, done: "a sidecar with the role client, under load, " + what,
		figure: fmt.Sprintf("%d of %d reads failed %s", s.failed.Load(), s.reads.Load(), s.failure()),
	})
}

func ringOf(t *testing.T, s *rig.Sidecar) string {
	t.Helper()
	response, err := http.Get("http://" + s.Admin + "/api/ring")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
