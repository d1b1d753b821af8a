package bench

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // for the query without a sidecar

	"github.com/ringside-cache/ringside/e2e/rig"
)

// value is the response of every server, about the size of a row of telemetry.
var value = `{"cnf_id":"CNF-001","pad":"` + strings.Repeat("x", 200-29) + `"}`

const key = "CNF-001"

// sidecarConfig takes the membership and the DSN. It returns one column unchanged (value: body), so that every server sends the same bytes. peer-metrics keeps no local
// copies; loads use cnf-metrics with no-cache.
const sidecarConfig = `
%s
origins: {db: {driver: postgres, dsn: %q, max_conns: 16}}
datasets:
  cnf-metrics: {origin: db, table: rows, key: id, value: body, ttl: 1h, local_ttl: 1h}
  peer-metrics: {origin: db, table: rows, key: id, value: body, ttl: 1h, local_ttl: 0s}
`

func newDatabase(b *testing.B) (dsn string) {
	b.Helper()
	dsn = rig.Postgres(b)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE rows (id text PRIMARY KEY, body text NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO rows SELECT 'CNF-' || lpad(i::text, 3, '0'), $1 FROM generate_series(0, 99) AS i`, value); err != nil {
		b.Fatal(err)
	}
	return dsn
}

func staticMembers(list string) string { return "membership: {static: [" + list + "]}" }

func newSidecars(b *testing.B, n int) []*rig.Sidecar {
	b.Helper()
	dsn := newDatabase(b)
	if n == 1 {
		return rig.Sidecars(b, 1, fmt.Sprintf(sidecarConfig, "", dsn))
	}
	return rig.StaticSidecars(b, n, func(members string) string { return fmt.Sprintf(sidecarConfig, staticMembers(members), dsn) })
}

// A hit in the sidecar's memory, compared with servers that return a constant and with Redis.
func BenchmarkHit(b *testing.B) {
	s := newSidecars(b, 1)[0]
	path := "/v1/cnf-metrics/" + key
	b.Run("over=HTTP/server=ringside", func(b *testing.B) { wrk(b, s.HTTP, path) })
	b.Run("over=HTTP/server=nginx", func(b *testing.B) { wrk(b, rig.Nginx(b, value), "/") })
	b.Run("over=TCP/server=ringside", func(b *testing.B) { measure(b, httpGet(b, "tcp", s.HTTP, path)) })
	b.Run("over=unix/server=ringside", func(b *testing.B) { measure(b, httpGet(b, "unix", s.Unix, path)) })
	b.Run("over=RESP/server=redis", func(b *testing.B) {
		address := rig.Redis(b)
		if err := redisSet(address, key, value); err != nil {
			b.Fatal(err)
		}
		measure(b, redisGet(b, address, key))
	})
	b.Run("over=gRPC/server=ringside", func(b *testing.B) { measure(b, grpcGet(b, s.GRPC, "cnf-metrics", key)) })
	b.Run("over=gRPC/server=echo", func(b *testing.B) { measure(b, grpcGet(b, startEcho(b), "cnf-metrics", key)) })
}

// A read that another member serves from its memory.
func BenchmarkPeerFetch(b *testing.B) {
	sidecars := newSidecars(b, 2)
	path := "/v1/peer-metrics/" + ownedByTheOther(b, sidecars)
	b.Run("over=HTTP/server=ringside", func(b *testing.B) { measure(b, httpGet(b, "tcp", sidecars[0].HTTP, path)) })
}

// ownedByTheOther finds a key that the first sidecar must fetch from the second on every read.
func ownedByTheOther(b *testing.B, sidecars []*rig.Sidecar) string {
	b.Helper()
	for i := range 100 {
		url := sidecars[0].URL("peer-metrics", keyOf(i))
		for range 2 { // the first read loads it
			source, err := read(url)
			if err != nil {
				b.Fatal(err)
			}
			if source == "peer_hit" {
				return keyOf(i)
			}
		}
	}
	b.Fatal("the first of two sidecars owns all of 100 keys")
	return ""
}

// The cost of an idle sidecar. Each iteration starts one.
func BenchmarkStart(b *testing.B) {
	dsn := newDatabase(b)
	binary, err := os.Stat(rig.Binary(b))
	if err != nil {
		b.Fatal(err)
	}
	var ready time.Duration
	var memory float64
	for b.Loop() {
		s := rig.NewSidecar(b, "sidecar-1", fmt.Sprintf(sidecarConfig, "", dsn))
		began := time.Now()
		s.Start()
		ready += time.Since(began)
		time.Sleep(time.Second) // memory of the start is released
		memory += residentMiB(b, s.Pid())
		s.Stop()
	}
	b.ReportMetric(float64(ready.Milliseconds())/float64(b.N), "ready-ms")
	b.ReportMetric(memory/float64(b.N), "idle-MiB")
	b.ReportMetric(float64(binary.Size())/(1<<20), "binary-MiB")
}

// residentMiB reads the resident set of a process (proc(5), status).
func residentMiB(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
