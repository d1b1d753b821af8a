package scale

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/e2e/rig/proc"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar/config"
)

var (
	members = flag.String("members", "20,60,150", "sizes of the mesh to measure")
	clients = flag.String("clients", "20+40", "members and clients of BenchmarkClients")
	feed    = flag.Bool("feed", false, "whether the dataset has a change feed, whose readers each member subscribes to")
)

const (
	window   = 20 * time.Second // in which CPU time is measured
	settling = 5 * time.Second  // before it
	quiet    = 4 * time.Minute  // by then subscriptions and connections have ended, and their memory was collected
	frozen   = 20 * time.Second // for longer than the leases
	// keysPerMember are so many that each member owns some.
	keysPerMember = 40
	pageKeys      = 1000 // of one :batchGet
)

// meshConfig takes the role, the endpoint of etcd, the DSN and the change feed.
const meshConfig = `
membership: {role: %s, etcd: {endpoints: [%q]}}
origins: {db: {driver: sqlite, dsn: %q}}
datasets: {rows: {origin: db, table: rows, key: id, version: ver, ttl: 1h%s}}
memory: 16MiB
`

// BenchmarkMesh starts real sidecars with one etcd and reports what an idle member costs, and how long changes take to reach all.
func BenchmarkMesh(b *testing.B) {
	for size := range strings.SplitSeq(*members, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 2 {
			b.Fatalf("-members %q: want numbers of at least 2", *members)
		}
		b.Run("members="+size, func(b *testing.B) {
			for b.Loop() {
				newMesh(b, n).measure()
			}
		})
	}
}

// BenchmarkClients reports what an idle client costs, and what clients cost the members and etcd.
func BenchmarkClients(b *testing.B) {
	var n, more int
	if _, err := fmt.Sscanf(*clients, "%d+%d", &n, &more); err != nil || n < 2 || more < 1 {
		b.Fatalf("-clients %q: want numbers such as 20+40", *clients)
	}
	b.Run("clients="+*clients, func(b *testing.B) {
		for b.Loop() {
			m := newMesh(b, n)
			m.idle("members-alone")
			list := m.startClients(more)
			m.idle("members-with-clients")
			m.idleOf(list, "clients")
			m.readAll(list)
			m.idle("members-after-reads")
			m.idleOf(list, "clients-after-reads")
			b.ReportMetric(m.etcd.Metric("etcd_debugging_mvcc_watcher_total"), "etcd-watches")
			most := 0.0
			for _, s := range m.live {
				most = max(most, s.Metric("ringside_ring_clients"))
			}
			b.ReportMetric(most, "clients-of-a-member")
		}
	})
}

// startClients starts clients, and waits until they have the ring.
func (m *mesh) startClients(n int) (list []*rig.Sidecar) {
	m.b.Helper()
	for i := range n {
		list = append(list, rig.NewSidecar(m.b, fmt.Sprintf("client-%03d", i), strings.Replace(m.config, "role: "+config.RoleMember, "role: "+config.RoleClient, 1)))
		list[i].RoleClient()
		list[i].Start()
	}
	m.settleAll(list)
	return list
}

// mesh is the running sidecars, and the next one to join.
type mesh struct {
	config string
	b      *testing.B
	keys   int
	etcd   *rig.EtcdServer
	live   []*rig.Sidecar
	joins  *rig.Sidecar
	client http.Client
}

func newMesh(b *testing.B, n int) *mesh {
	b.Helper()
	var rows strings.Builder
	rows.WriteString("CREATE TABLE rows (id TEXT PRIMARY KEY, v TEXT, ver INTEGER NOT NULL DEFAULT 1);")
	m := &mesh{b: b, keys: n * keysPerMember, etcd: rig.Etcd(b), client: http.Client{Timeout: 10 * time.Second}}
	for i := range m.keys {
		fmt.Fprintf(&rows, "INSERT INTO rows (id, v) VALUES ('%s', '%0100d');", keyOf(i), i)
	}
	changes := ""
	if *feed {
		changes = ", feed: {kind: poll}"
	}
	m.config = fmt.Sprintf(meshConfig, config.RoleMember, m.etcd.Endpoint(), sqlitetest.New(b, rows.String()), changes)
	for i := range n + 1 {
		m.live = append(m.live, rig.NewSidecar(b, fmt.Sprintf("member-%03d", i), m.config))
	}
	m.live, m.joins = m.live[:n], m.live[n]
	if *feed {
		m.applyFeed()
	}
	for _, s := range m.live {
		s.Start()
	}
	m.settle()
	return m
}

// applyFeed installs the triggers of the change feed.
func (m *mesh) applyFeed() {
	m.b.Helper()
	apply := exec.Command(rig.Binary(m.b), "changes", "apply", "rows", "-c", m.joins.ConfigFile())
	if out, err := apply.CombinedOutput(); err != nil {
		m.b.Fatalf("apply the change feed: %v: %s", err, out)
	}
}

func keyOf(i int) string { return fmt.Sprintf("row-%06d", i) }

func (m *mesh) measure() {
	m.b.Helper()
	n := len(m.live)
	m.idle("before-contact")
	m.readAll(m.live)
	m.idle("after-contact")
	time.Sleep(quiet)
	m.idle("quiet")
	m.b.ReportMetric(m.until(m.term).Seconds(), "term-s")
	m.b.ReportMetric(m.until(func() { m.kill(1) }).Seconds(), "kill-s")
	m.b.ReportMetric(m.until(func() { m.kill(max(n/10, 1)) }).Seconds(), "kill-tenth-s")
	m.b.ReportMetric(m.until(m.join).Seconds(), "join-s")
	m.freeze()
}

// idle reports the mean CPU time of a member, in percent of a core, and its anonymous memory.
func (m *mesh) idle(when string) { m.idleOf(m.live, when) }

func (m *mesh) idleOf(sidecars []*rig.Sidecar, when string) {
	m.b.Helper()
	time.Sleep(settling)
	began, before := time.Now(), m.cpu(sidecars)
	time.Sleep(window)
	used := (m.cpu(sidecars) - before).Seconds() / time.Since(began).Seconds()
	var kib float64
	for _, s := range sidecars {
		var one float64
		if _, err := fmt.Sscanf(proc.Status(m.b, s.Pid())["RssAnon"], "%f kB", &one); err != nil {
			m.b.Fatalf("anonymous memory of %s: %v", s.ID, err)
		}
		kib += one
	}
	members := float64(len(sidecars))
	m.b.ReportMetric(100*used/members, when+"-%core")
	m.b.ReportMetric(kib/1024/members, when+"-MiB")
}

// cpu returns the CPU time of sidecars together.
func (m *mesh) cpu(sidecars []*rig.Sidecar) (sum time.Duration) {
	for _, s := range sidecars {
		sum += proc.CPUTime(m.b, s.Pid())
	}
	return sum
}

// readAll makes each of sidecars read all keys, so that it has contacted all members.
func (m *mesh) readAll(sidecars []*rig.Sidecar) {
	m.b.Helper()
	for _, s := range sidecars {
		for first := 0; first < m.keys; first += pageKeys {
			var request struct {
				Keys []string `json:"keys"`
			}
			for i := first; i < min(first+pageKeys, m.keys); i++ {
				request.Keys = append(request.Keys, keyOf(i))
			}
			body, err := json.Marshal(request)
			if err != nil {
				m.b.Fatal(err)
			}
			response, err := m.client.Post("http://"+s.HTTP+"/v1/rows:batchGet", "application/json", bytes.NewReader(body))
			if err != nil {
				m.b.Fatalf("read all through %s: %v", s.ID, err)
			}
			text, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				m.b.Fatalf("read all through %s: got %s, %v: %s", s.ID, response.Status, err, text)
			}
		}
	}
	m.client.CloseIdleConnections()
}

// until returns the time from the beginning of a change until the rings of all members show it.
func (m *mesh) until(change func()) time.Duration {
	m.b.Helper()
	began := time.Now()
	change()
	m.settle()
	return time.Since(began)
}

// settle waits until the rings of all members have exactly the members.
func (m *mesh) settle() { m.settleAll(m.live) }

func (m *mesh) settleAll(sidecars []*rig.Sidecar) {
	m.b.Helper()
	for _, s := range sidecars {
		rig.Eventually(m.b, 2*time.Minute, func() error {
			_, members, err := s.RingID()
			if err == nil && members != len(m.live) {
				err = fmt.Errorf("the ring of %s has %d members; want %d", s.ID, members, len(m.live))
			}
			return err
		})
	}
}

// term requests an orderly stop of one member, and does not wait for its end.
func (m *mesh) term() {
	last := m.live[len(m.live)-1]
	m.live = m.live[:len(m.live)-1]
	last.Quit()
}

func (m *mesh) kill(n int) {
	for _, s := range m.live[len(m.live)-n:] {
		s.Kill()
	}
	m.live = m.live[:len(m.live)-n]
}

func (m *mesh) join() {
	m.joins.Start()
	m.live = append(m.live, m.joins)
}

// freeze stops etcd, and reports which share of the reads through all members succeed meanwhile.
func (m *mesh) freeze() {
	m.b.Helper()
	m.etcd.Freeze()
	succeeded, reads := 0, 0
	for began := time.Now(); time.Since(began) < frozen; time.Sleep(frozen / 10) {
		for i, s := range m.live {
			reads++
			response, err := m.client.Get(s.URL("rows", keyOf((reads*7+i)%m.keys)))
			if err == nil && response.StatusCode == http.StatusOK {
				succeeded++
			}
			if err == nil {
				response.Body.Close()
			}
		}
	}
	m.etcd.Thaw()
	m.b.ReportMetric(float64(reads), "reads-frozen")
	m.b.ReportMetric(float64(succeeded), "reads-ok")
	m.settle()
}
