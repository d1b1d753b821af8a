package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// zoned is a cluster with two members in each of three zones, and a client in the last one. All have network namespaces of their own.
type zoned struct {
	*partition
	cluster  *cluster // its database
	forward  string   // where sidecars reach the database
	expected map[string]int
}

const zonesOfCluster, membersOfZone = 3, 2

func newZoned(t *testing.T) *zoned {
	t.Helper()
	z := &zoned{
		partition: &partition{T: t, network: rig.NewNetwork(t)}, cluster: &cluster{t: t, database: rig.NewPostgres(t)}, expected: map[string]int{},
	}
	z.etcd = z.network.Etcd()
	z.cluster.open()
	z.cluster.exec(`CREATE EXTENSION pg_stat_statements`)
	z.cluster.exec(`CREATE TABLE rows (id text PRIMARY KEY, v bigint NOT NULL, ver bigint NOT NULL DEFAULT 1)`)
	dsn, err := url.Parse(z.cluster.database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	z.forward = z.network.Forward(dsn.Host)
	dsn.Host = z.forward
	config := fmt.Sprintf(`
membership: {etcd: {endpoints: [%q], lease_ttl: 2s}, zones: true}
origins: {db: {driver: postgres, dsn: %q}}
datasets:
  rows: {origin: db, table: rows, key: id, version: ver, ttl: 1h, ttl_jitter: 0, local_ttl: 100ms, writable: true, load_timeout: 5s, stale_if_error: 1h, verify_rate: 0}
`, z.etcd.Endpoint(), dsn)
	for i := range zonesOfCluster*membersOfZone + 1 {
		s := z.network.Sidecar(fmt.Sprint("sidecar-", i), config)
		zone := min(i/membersOfZone, zonesOfCluster-1)
		s.InZone(string(rune('a' + zone)))
		if i == zonesOfCluster*membersOfZone {
			s.RoleClient()
			s.Role("client")
		}
		s.Start()
		z.sidecars = append(z.sidecars, s)
	}
	rig.Eventually(t, time.Minute, func() error {
		for _, s := range z.sidecars {
			if _, n, err := s.RingID(); err != nil || n != zonesOfCluster*membersOfZone {
				return fmt.Errorf("the ring of %s has %d members, %v", s.ID, n, err)
			}
		}
		return nil
	})
	return z
}

// members are those of the ring, and lastZone the sidecars of the last zone, its client among them.
func (z *zoned) members() []*rig.Sidecar  { return z.sidecars[:zonesOfCluster*membersOfZone] }
func (z *zoned) lastZone() []*rig.Sidecar { return z.sidecars[(zonesOfCluster-1)*membersOfZone:] }

// fill writes rows of a prefix to the database.
func (z *zoned) fill(prefix string, n int) (ids []string) {
	z.cluster.exec(`INSERT INTO rows (id, v) SELECT $1 || i, 0 FROM generate_series(0, $2 - 1) AS i`, prefix, n)
	for i := range n {
		ids = append(ids, fmt.Sprint(prefix, i))
		z.expected[ids[i]] = 0
	}
	return ids
}

// read returns an error unless a sidecar answers with a value.
func (z *zoned) read(s *rig.Sidecar, id string, want int) error {
	status, answer, err := z.do(s, "GET", "/v1/rows/"+id, "")
	var row struct{ V int }
	if err != nil || status != 200 || json.Unmarshal([]byte(answer), &row) != nil || row.V != want {
		return fmt.Errorf("%s: GET %s: %d %s %v; want %d", s.ID, id, status, answer, err, want)
	}
	return nil
}

// readEach reads keys through sidecars.
func (z *zoned) readEach(when string, sidecars []*rig.Sidecar, ids []string) {
	z.Helper()
	for _, s := range sidecars {
		for _, id := range ids {
			if err := z.read(s, id, z.expected[id]); err != nil {
				z.Errorf("%s: %v", when, err)
			}
		}
	}
}

// metric is the sum of a metric over all sidecars.
func (z *zoned) metric(name string, labels ...string) (sum float64) {
	for _, s := range z.sidecars {
		sum += s.Metric(name, labels...)
	}
	return sum
}

// With zones, the database gets one query per key, a key crosses into each zone once, writes and invalidations reach everybody, and a
// zone that is cut off answers from the memory of its members.
func TestZones(t *testing.T) {
	t.Parallel()
	z := newZoned(t)
	t.Run("one query and one crossing", z.queriesAndCrossings)
	t.Run("writes", z.writes)
	t.Run("invalidations", z.invalidations)
	t.Run("a zone that is cut off", z.cutOff)
}

// subscribe waits until all sidecars get the invalidations of all members: the first copies end when that begins.
func (z *zoned) subscribe() {
	z.Helper()
	ids := z.fill("first-", 60)
	rig.Eventually(z, time.Minute, func() error {
		z.readEach("subscribe", z.sidecars, ids)
		for _, s := range z.sidecars {
			want := zonesOfCluster*membersOfZone - 1
			if s == z.sidecars[len(z.sidecars)-1] {
				want++ // the client
			}
			if n := s.Metric("ringside_subscriptions"); int(n) != want {
				return fmt.Errorf("%s is subscribed to %v members, want %d", s.ID, n, want)
			}
		}
		return nil
	})
}

func (z *zoned) queriesAndCrossings(t *testing.T) {
	const keys, rounds = 40, 3
	z.subscribe()
	before, handedBefore := z.metric("ringside_zone_fetches_total", `zone="other"`), z.metric("ringside_handover_requests_total")
	queries := z.cluster.queries("rows")
	ids := z.fill("once-", keys)
	for range rounds {
		z.readEach("at first", z.sidecars, ids)
		time.Sleep(150 * time.Millisecond) // local_ttl, so that the next round is peer fetches
	}
	if n := z.cluster.queries("rows") - queries; n != keys {
		t.Errorf("got %d queries for %d keys, want one for each", n, keys)
	}
	other := z.metric("ringside_zone_fetches_total", `zone="other"`) - before
	handovers := z.metric("ringside_handover_requests_total") - handedBefore
	reads := float64(rounds * keys * len(z.sidecars))
	t.Logf("%v fetches from other zones in %v reads; %v handover requests", other, reads, handovers)
	if least := float64(keys * (zonesOfCluster - 1)); other < least || other > least+handovers {
		t.Errorf("got %v fetches from other zones, want one for each key and zone: %v, and at most %v handovers", other, least, handovers)
	}
	if same := z.metric("ringside_zone_fetches_total", `zone="same"`); same < reads/4 {
		t.Errorf("got %v fetches within zones in %v reads, want most of them there", same, reads)
	}
}

// A write is read through the sidecar that made it at once, although the zone owner of the key may not have the invalidation yet.
func (z *zoned) writes(t *testing.T) {
	ids := z.fill("written-", 21)
	z.readEach("before the writes", z.sidecars, ids)
	for i, id := range ids {
		s := z.sidecars[i%len(z.sidecars)]
		z.expected[id] = 1
		if status, answer, err := z.do(s, "PUT", "/v1/rows/"+id, `{"v": 1}`); err != nil || status >= 300 {
			t.Fatalf("%s: PUT %s: %d %s %v", s.ID, id, status, answer, err)
		}
		if err := z.read(s, id, 1); err != nil {
			t.Errorf("right after the write: %v", err)
		}
		time.Sleep(150 * time.Millisecond) // local_ttl, so that the next read goes through the zone owner
		if err := z.read(s, id, 1); err != nil {
			t.Errorf("after the copy has ended: %v", err)
		}
	}
	z.eventually(ids)
}

// eventually waits until all sidecars have what is expected.
func (z *zoned) eventually(ids []string) {
	z.Helper()
	rig.Eventually(z, time.Minute, func() error {
		for _, s := range z.sidecars {
			for _, id := range ids {
				if err := z.read(s, id, z.expected[id]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (z *zoned) invalidations(t *testing.T) {
	ids := z.fill("changed-", 10)
	z.readEach("before the change", z.sidecars, ids)
	z.cluster.exec(`UPDATE rows SET v = 2, ver = ver + 1 WHERE id LIKE 'changed-%'`)
	for _, id := range ids {
		z.expected[id] = 2
	}
	body, err := json.Marshal(map[string][]string{"keys": ids})
	if err != nil {
		t.Fatal(err)
	}
	s := z.sidecars[0]
	if status, answer, err := z.do(s, "POST", "/v1/rows:invalidate", string(body)); err != nil || status != 200 {
		t.Fatalf("%s: invalidate: %d %s %v", s.ID, status, answer, err)
	}
	z.readEach("after the invalidation", z.members(), ids) // it has reached them when it returns
	z.eventually(ids)                                      // clients get it from members
}

func (z *zoned) cutOff(t *testing.T) {
	ids := z.fill("cut-", 20)
	zone := z.lastZone()
	z.readEach("before the cut", zone[:1], ids) // the other member of the zone has those that it owns in the zone
	var away []string
	for _, s := range z.sidecars[:len(z.sidecars)-len(zone)] {
		away = append(away, s.Peer)
	}
	z.network.Cut(z.addresses(zone), append(away, z.etcd.Endpoint(), z.forward))
	z.readEach("cut off", zone, ids)
	rig.Eventually(t, time.Minute, func() error {
		z.readEach("cut off", zone, ids)
		for _, s := range zone {
			if !z.sendsStale(s, ids) {
				return fmt.Errorf("%s sends nothing stale, although it gets no invalidations", s.ID)
			}
		}
		return nil
	})
	z.network.Heal()
	rig.Eventually(t, time.Minute, func() error { // connections of before may break, and the outcome of a write is unknown then
		status, answer, err := z.do(z.sidecars[0], "PUT", "/v1/rows/"+ids[0], `{"v": 3}`)
		if err == nil && status >= 300 {
			err = fmt.Errorf("healed: PUT: %d %s", status, answer)
		}
		return err
	})
	z.expected[ids[0]] = 3
	z.eventually(ids)
}

// sendsStale reports whether a sidecar marks the answer for one of the keys as stale.
func (z *zoned) sendsStale(s *rig.Sidecar, ids []string) bool {
	for _, id := range ids {
		if _, header, _, err := z.send(s, "GET", "/v1/rows/"+id, ""); err == nil && header.Get("Ringside-Stale") != "" {
			return true
		}
	}
	return false
}
