package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// roles is sidecars of which some are members and the others clients.
type roles struct {
	*testing.T
	etcd     *rig.EtcdServer
	database string
	sidecars []*rig.Sidecar
	client   http.Client
}

// startRoles starts n sidecars with room for three members, one etcd and one database.
func startRoles(t *testing.T, n int) *roles {
	t.Helper()
	r := &roles{T: t, etcd: rig.Etcd(t), client: http.Client{Timeout: 10 * time.Second}}
	t.Cleanup(r.client.CloseIdleConnections)
	rows := "CREATE TABLE rows (id TEXT PRIMARY KEY, v INTEGER, ver INTEGER NOT NULL DEFAULT 1);"
	for i := range 50 {
		rows += fmt.Sprintf("INSERT INTO rows (id, v) VALUES ('%s', 1);", rowOf(i))
	}
	rows += `CREATE TABLE fed (id TEXT PRIMARY KEY, v INTEGER, ver INTEGER NOT NULL DEFAULT 1);
INSERT INTO fed (id, v) VALUES ('fed', 1);`
	r.database = sqlitetest.New(t, rows)
	config := fmt.Sprintf(`membership: {max_members: 3, etcd: {endpoints: [%q], lease_ttl: 2s}}
origins: {db: {driver: sqlite, dsn: %q}}
datasets:
  rows: {origin: db, table: rows, key: id, version: ver, ttl: 1h, local_ttl: 1h, stale_if_error: 1h, writable: true}
  fed: {origin: db, table: fed, key: id, version: ver, ttl: 1h, local_ttl: 1h, feed: {kind: poll}}
`, r.etcd.Endpoint(), r.database)
	applyFeeds(t, config, "fed")
	for i := range n {
		s := rig.NewSidecar(t, fmt.Sprintf("sidecar-%d", i), config)
		s.Start()
		r.sidecars = append(r.sidecars, s)
	}
	r.settle("start", 3)
	return r
}

func rowOf(i int) string { return fmt.Sprintf("row-%02d", i) }

// settle waits until all running sidecars have the same ring of n members, and returns the members and the clients.
func (r *roles) settle(when string, n int) (members, clients []*rig.Sidecar) {
	r.Helper()
	rig.Eventually(r, 2*time.Minute, func() error {
		members, clients = nil, nil
		var rings []string
		for _, s := range r.sidecars {
			if !s.Running() {
				continue
			}
			id, size, err := s.RingID()
			if err != nil || size != n {
				return fmt.Errorf("%s: the ring of %s has %d members (%v), want %d:\n%s", when, s.ID, size, err, n, tail(s.Log()))
			}
			rings = append(rings, id)
			if s.Metric("ringside_member_role", `role="member"`) == 1 {
				members = append(members, s)
			} else {
				clients = append(clients, s)
			}
		}
		if len(slices.Compact(rings)) != 1 || len(members) != n {
			return fmt.Errorf("%s: got the rings %q and %d members, want one ring and %d members", when, rings, len(members), n)
		}
		return nil
	})
	return members, clients
}

// value returns what a sidecar has of a row.
func (r *roles) value(s *rig.Sidecar, row string) (v int, err error) {
	return r.valueIn("rows", s, row)
}

func (r *roles) valueIn(dataset string, s *rig.Sidecar, row string) (v int, err error) {
	response, err := r.client.Get(s.URL(dataset, row))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: read through %s: %s", row, s.ID, response.Status)
	}
	var read struct{ V int }
	return read.V, json.NewDecoder(response.Body).Decode(&read)
}

func (r *roles) readAll(when string, sidecars ...*rig.Sidecar) {
	r.Helper()
	for _, s := range sidecars {
		for i := range 50 {
			if _, err := r.value(s, rowOf(i)); err != nil {
				r.Errorf("%s: %v", when, err)
			}
		}
	}
}

func (r *roles) send(method string, s *rig.Sidecar, path, body string) {
	r.Helper()
	request, err := http.NewRequest(method, "http://"+s.HTTP+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		r.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		r.Fatalf("%s %s through %s: got %s", method, path, s.ID, response.Status)
	}
}

// changes checks that what somebody changes in the database reaches all sidecars through the change feed.
func (r *roles) changes(when string, v int) {
	r.Helper()
	for _, s := range r.sidecars {
		if !s.Running() {
			continue
		}
		rig.Eventually(r, time.Minute, func() error {
			if _, err := r.valueIn("fed", s, "fed"); err != nil {
				return err
			}
			if s.Metric("ringside_change_feed_gap", `dataset="fed"`) != 0 {
				return fmt.Errorf("%s: the feed is not live at %s", when, s.ID)
			}
			return nil
		})
	}
	sqlitetest.Exec(r, r.database, fmt.Sprintf("UPDATE fed SET v = %d, ver = ver + 1", v))
	for _, s := range r.sidecars {
		if !s.Running() {
			continue
		}
		rig.Eventually(r, time.Minute, func() error {
			got, err := r.valueIn("fed", s, "fed")
			if err == nil && got != v {
				err = fmt.Errorf("%s: got %d of the changed row through %s, want %d", when, got, s.ID, v)
			}
			return err
		})
	}
}

// want waits until a sidecar has a value.
func (r *roles) want(what string, s *rig.Sidecar, row string, v int) {
	r.Helper()
	rig.Eventually(r, 20*time.Second, func() error {
		got, err := r.value(s, row)
		if err == nil && got != v {
			err = fmt.Errorf("%s: got %d through %s, want %d", what, got, s.ID, v)
		}
		return err
	})
}

// Of eight sidecars three are members. The clients get invalidations like members, and one of them, and no other, becomes a member
// when one dies.
func TestRoles(t *testing.T) {
	t.Parallel()
	r := startRoles(t, 8)
	members, clients := r.settle("start", 3)
	if len(clients) != 5 {
		t.Fatalf("got %d clients, want 5", len(clients))
	}
	r.readAll("start", r.sidecars...)
	r.costs(members, clients)
	r.invalidations(members, clients)
	r.changes("start", 2)

	r.etcd.Freeze()
	r.readAll("etcd frozen", r.sidecars...)
	r.etcd.Thaw()
	members, clients = r.settle("etcd thawed", 3)

	before := ids(clients)
	members[0].Kill()
	r.readAll("a member was killed", append(members[1:], clients...)...)
	_, clients = r.settle("a member was killed", 3)
	r.changes("a member was killed", 3)
	promoted := 0
	for _, s := range r.sidecars {
		if s.Running() && slices.Contains(before, s.ID) && !slices.Contains(ids(clients), s.ID) {
			promoted++
			if got := s.Metric("ringside_member_promotions_total"); got != 1 {
				t.Errorf("%s counts %v promotions, want 1", s.ID, got)
			}
		}
	}
	if promoted != 1 || len(clients) != 4 {
		t.Errorf("%d clients became members and %d are left, want 1 and 4", promoted, len(clients))
	}

	members[0].Start() // too late: it is a client now
	clients[0].Kill()
	clients[0].Start()
	again, _ := r.settle("a client and the killed member were restarted", 3)
	if got, unwanted := ids(again), []string{members[0].ID, clients[0].ID}; slices.Contains(got, unwanted[0]) || slices.Contains(got, unwanted[1]) {
		t.Errorf("got the members %q; %q must be clients", got, unwanted)
	}
	r.readAll("restarted", r.sidecars...)
}

func ids(sidecars []*rig.Sidecar) (list []string) {
	for _, s := range sidecars {
		list = append(list, s.ID)
	}
	return list
}

// costs checks that etcd has nothing of a client, and the database no query of one.
func (r *roles) costs(members, clients []*rig.Sidecar) {
	r.Helper()
	watches, leases := r.etcd.Metric("etcd_debugging_mvcc_watcher_total"), r.etcd.Metric("etcd_debugging_lease_granted_total")-
		r.etcd.Metric("etcd_debugging_lease_revoked_total")-r.etcd.Metric("etcd_debugging_lease_expired_total")
	// A member may have the lease of its claim for a minute, besides that of its keys.
	if most := float64(2 * len(members)); watches != float64(len(members)) || leases > most {
		r.Errorf("etcd has %v watches and %v leases, want %d and at most %v", watches, leases, len(members), most)
	}
	lists := 0.0
	for _, s := range clients {
		if loads := s.Metric("ringside_loads_total"); loads != 0 {
			r.Errorf("%s, a client, made %v loads", s.ID, loads)
		}
	}
	for _, s := range members {
		lists += s.Metric("ringside_ring_clients")
	}
	if lists != float64(len(clients)) {
		r.Errorf("the members send their lists to %v clients, want %d", lists, len(clients))
	}
}

// invalidations: what is written or invalidated through any sidecar reaches the copies of clients, which live for an hour.
func (r *roles) invalidations(members, clients []*rig.Sidecar) {
	r.Helper()
	next := 2
	for _, writer := range []*rig.Sidecar{members[0], clients[0]} {
		r.send("PUT", writer, "/v1/rows/"+rowOf(7), fmt.Sprintf(`{"v": %d}`, next))
		if got, err := r.value(writer, rowOf(7)); err != nil || got != next {
			r.Errorf("%s does not read its own write: got %d, %v; want %d", writer.ID, got, err, next)
		}
		for _, s := range r.sidecars {
			r.want("written through "+writer.ID, s, rowOf(7), next)
		}
		next++
	}
	for _, by := range []*rig.Sidecar{members[1], clients[1]} {
		before := clients[2].Metric("ringside_invalidations_total")
		r.send("POST", by, "/v1/rows:invalidate", `{"all": true}`)
		rig.Eventually(r, 20*time.Second, func() error {
			if got := clients[2].Metric("ringside_invalidations_total"); got == before {
				return fmt.Errorf("%s has got no invalidation by %s", clients[2].ID, by.ID)
			}
			return nil
		})
	}
}
