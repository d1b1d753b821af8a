package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// partition is a cluster whose members have network namespaces of their own.
type partition struct {
	*testing.T
	network  *rig.Network
	etcd     *rig.EtcdServer
	sidecars []*rig.Sidecar

	mu    sync.Mutex        // guards acked
	acked map[string]string // :: key → the latest value whose write succeeded
}

const partitionKeys = 24

func newPartition(t *testing.T, n int) *partition {
	t.Helper()
	p := &partition{T: t, network: rig.NewNetwork(t), acked: map[string]string{}}
	p.etcd = p.network.Etcd()
	database := sqlitetest.New(t, `CREATE TABLE rows (id TEXT PRIMARY KEY, v TEXT, ver INTEGER)`)
	for i := range n {
		p.sidecars = append(p.sidecars, p.network.Sidecar(fmt.Sprint("sidecar-", i+1), fmt.Sprintf(`
membership: {etcd: {endpoints: [%q], lease_ttl: 2s}}
origins: {db: {driver: sqlite, dsn: %q}}
datasets: {rows: {origin: db, table: rows, key: id, version: ver, ttl: 2s, writable: true}}
`, p.etcd.Endpoint(), database)))
		p.sidecars[i].Start()
	}
	rig.AwaitRing(t, p.sidecars)
	p.writeAll("at first", n)
	return p
}

func (p *partition) addresses(sidecars []*rig.Sidecar) (list []string) {
	for _, s := range sidecars {
		list = append(list, s.Peer)
	}
	return list
}

// do is send without the headers of the response.
func (p *partition) do(s *rig.Sidecar, method, path, body string) (status int, answer string, err error) {
	status, _, answer, err = p.send(s, method, path, body)
	return status, answer, err
}

// send sends a request to the unix socket of a sidecar, which is reached from every network namespace.
func (p *partition) send(s *rig.Sidecar, method, path, body string) (status int, header http.Header, answer string, err error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.Unix)
	}}
	defer transport.CloseIdleConnections()
	client := http.Client{Timeout: 20 * time.Second, Transport: transport}
	req, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(text), err
}

func key(i int) string { return fmt.Sprint("key-", i) }

func rowPath(i int) string { return "/v1/rows/" + key(i) }

// writeAll writes each key through one of the members, and remembers the writes that succeed. It fails the test if fewer do
// than want members should make of each.
func (p *partition) writeAll(text string, want int) {
	p.Helper()
	failed := 0
	p.eachKey(func(i int) {
		value := fmt.Sprintf("%s, %d", text, i)
		s := p.sidecars[i%len(p.sidecars)]
		status, answer, err := p.do(s, "PUT", rowPath(i), fmt.Sprintf(`{"v": %q}`, value))
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case err == nil && status < 300:
			p.acked[key(i)] = value
		case err == nil && (status == 503 || status == 504 || status == 500 && strings.Contains(answer, "outcome-unknown")):
			delete(p.acked, key(i)) // it may have happened, or not
			failed++
			p.Logf("%s: PUT %s: %d %s", s.ID, key(i), status, answer)
		default:
			p.Errorf("%s: PUT %s: %d %s %v", s.ID, key(i), status, answer, err)
		}
	})
	if want == len(p.sidecars) && failed > 0 {
		p.Errorf("%d of %d writes failed while all members were connected", failed, partitionKeys)
	}
}

// readAll reads each key through each member; every read must succeed.
func (p *partition) readAll(when string) {
	p.Helper()
	p.eachKey(func(i int) {
		for _, s := range p.sidecars {
			if status, answer, err := p.do(s, "GET", rowPath(i), ""); err != nil || status != 200 {
				p.Errorf("%s: %s: GET %s: %d %s %v", when, s.ID, key(i), status, answer, err)
			}
		}
	})
}

// eachKey does something for each key, a few at a time.
func (p *partition) eachKey(do func(i int)) {
	var some errgroup.Group
	some.SetLimit(8)
	for i := range partitionKeys {
		some.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = some.Wait() // no error is returned
}

// awaitAcked waits until each member answers with the latest write of each key that was acknowledged: no write is lost.
func (p *partition) awaitAcked() {
	p.Helper()
	rig.Eventually(p, time.Minute, func() error {
		for _, s := range p.sidecars {
			for i := range partitionKeys {
				want, ok := p.acked[key(i)]
				if !ok {
					continue
				}
				status, answer, err := p.do(s, "GET", rowPath(i), "")
				var row struct{ V string }
				if err != nil || status != 200 || json.Unmarshal([]byte(answer), &row) != nil || row.V != want {
					return fmt.Errorf("%s: GET %s: %d %s %v; want %q", s.ID, key(i), status, answer, err, want)
				}
			}
		}
		return nil
	})
}

// Two halves of a ring that cannot reach each other go on, and converge again.
func TestRingPartition(t *testing.T) {
	for name, withEtcd := range map[string]int{"etcd with both halves": 4, "etcd with one half": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPartition(t, 4)
			one, two := p.addresses(p.sidecars[:2]), p.addresses(p.sidecars[2:])
			p.network.Cut(one, two)
			if withEtcd == 2 {
				p.network.Cut(two, []string{p.etcd.Endpoint()})
				rig.Eventually(t, time.Minute, func() error { // the leases of the other half end, and nobody answers there
					for _, s := range p.sidecars[:2] {
						if _, members, err := s.RingID(); err != nil || members != 2 {
							return fmt.Errorf("the ring of %s has %d members, %v; want its half", s.ID, members, err)
						}
					}
					return nil
				})
			}
			p.readAll("cut")
			p.writeAll("while cut", 2)
			p.readAll("cut, after writes")
			for _, s := range p.sidecars {
				if s.Metric("ringside_ring_off") != 0 {
					t.Errorf("%s has left the ring, although its half reaches it", s.ID)
				}
			}
			p.network.Heal()
			rig.AwaitRing(t, p.sidecars)
			p.awaitAcked()
			p.writeAll("healed", 4)
			p.awaitAcked()
		})
	}
}

// With a fifth of all packets lost in each direction and 50 ms of delay, also those of etcd, reads succeed, no acknowledged write is
// lost, and the ring is right when the network is.
func TestLossyNetwork(t *testing.T) {
	t.Parallel()
	p := newPartition(t, 3)
	p.network.Impair(0.2, 50*time.Millisecond)
	began := time.Now()
	p.writeAll("lossy", 2)
	p.readAll("lossy")
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("writes and reads through other members took %v: the network does not delay them", took)
	}
	p.network.Repair()
	rig.AwaitRing(t, p.sidecars)
	p.awaitAcked()
}

// A firewall lets a member reach the others, and nobody reach it.
func TestMemberThatNobodyReaches(t *testing.T) {
	t.Parallel()
	p := newPartition(t, 3)
	hidden, others := p.sidecars[2], p.sidecars[:2]
	p.network.Refuse(append(p.addresses(others), p.etcd.Endpoint()), hidden.Peer)
	rig.Eventually(t, 3*time.Minute, func() error {
		if hidden.Metric("ringside_ring_off") != 1 {
			return fmt.Errorf("%s does not know that nobody reaches it", hidden.ID)
		}
		for _, s := range p.sidecars {
			if _, members, err := s.RingID(); err != nil || members != 2 {
				return fmt.Errorf("the ring of %s has %d members, %v; want 2", s.ID, members, err)
			}
		}
		return nil
	})
	ready, err := hidden.Readyz()
	if err != nil || !strings.Contains(ready, "no other member can reach this one at "+hidden.Peer+"; sidecar-") {
		t.Errorf("/readyz: %q %v, want 200 and the reason", ready, err)
	}
	if others[0].Metric("ringside_ring_not_reached_members")+others[1].Metric("ringside_ring_not_reached_members") == 0 {
		t.Error("none of the others counts the member that it does not reach")
	}
	if n := strings.Count(hidden.Log(), `"left_the_ring":true`); n != 1 {
		t.Errorf("%d lines in the log, want one", n)
	}
	p.readAll("off the ring")
	p.network.Heal()
	rig.Eventually(t, 3*time.Minute, func() error {
		for _, s := range p.sidecars {
			if _, members, err := s.RingID(); err != nil || members != 3 {
				return fmt.Errorf("the ring of %s has %d members, %v; want all 3", s.ID, members, err)
			}
		}
		return nil
	})
	p.awaitAcked()
}
