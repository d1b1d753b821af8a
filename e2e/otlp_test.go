package e2e

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

const (
	pointsTable = `CREATE TABLE points (id VARCHAR(100) PRIMARY KEY, at TIMESTAMP, value DOUBLE PRECISION, unit VARCHAR(20), ver BIGINT NOT NULL DEFAULT 1)`
	pointsRule  = `
datasets: {points: {origin: db, table: points, key: id, version: ver, ttl: 1h, writable: true}}
otlp:
  rows:
    hosts:
      metrics: [cpu]
      dataset: points
      key: "{resource.host.name}/{name}"
      columns: {value: "{value}", unit: "{unit}", at: "{time}"}
`
)

// otlpClient is the program of e2e/oldclient/otlp.
func otlpClient(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "otlpclient")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join("oldclient", "otlp")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the exporters of OpenTelemetry: %v\n%s", err, out)
	}
	return path
}

// export sends a value with an exporter. The exporter reports the histogram that has no rule as a partial success.
func export(t *testing.T, client, protocol string, s *rig.Sidecar, host, value string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), client, protocol, s.OTLP, host, value).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "metric latency: no rule of otlp.rows lists it") {
		t.Errorf("%s to %s: %v\n%s", protocol, s.ID, err, out)
	}
}

// wantPoint waits until the row of a host has a value, read through a sidecar: invalidations take milliseconds.
func wantPoint(t *testing.T, s *rig.Sidecar, host, value string) {
	t.Helper()
	want := fmt.Sprintf(`"value":%s,"unit":"percent"`, value)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		body, err := getBody(s.URL("points", host+"/cpu"))
		if err == nil && strings.Contains(body, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of %s: got %s, %v; want %s", host, s.ID, body, err, want)
		}
	}
}

func getBody(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// The exporters of OpenTelemetry write rows through any sidecar; all sidecars read them, also while a sidecar is down.
func TestExportersOfOpenTelemetry(t *testing.T) {
	t.Parallel()
	client := otlpClient(t)
	t.Run("sqlite", func(t *testing.T) {
		s := rig.Sidecars(t, 1, fmt.Sprintf("origins: {db: {driver: sqlite, dsn: %q}}", sqlitetest.New(t, pointsTable))+pointsRule)[0]
		for i, protocol := range []string{"grpc", "http", "grpc"} {
			value := fmt.Sprint(1.5 + float64(i))
			export(t, client, protocol, s, "a", value)
			wantPoint(t, s, "a", value)
		}
		if n := s.Metric("ringside_otlp_points_total", `result="written"`); n != 3 {
			t.Errorf("%v points are counted as written, want 3", n)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		dsn := rig.Postgres(t)
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(pointsTable); err != nil {
			t.Fatal(err)
		}
		sidecars := rig.Sidecars(t, 3, fmt.Sprintf("membership: {etcd: {endpoints: [%q], lease_ttl: 2s}}\norigins: {db: {driver: postgres, dsn: %q}}",
			rig.Etcd(t).Endpoint(), dsn)+pointsRule)
		hosts := map[string]string{} // :: owner → a host
		for i := 0; len(hosts) < len(sidecars); i++ {
			host := fmt.Sprint("host-", i)
			hosts[sidecars[0].Owner("points", host+"/cpu")] = host
		}
		for _, host := range hosts {
			export(t, client, "grpc", sidecars[0], host, "1.5")
			export(t, client, "http", sidecars[1], host, "2.5")
			for _, s := range sidecars {
				wantPoint(t, s, host, "2.5")
			}
		}
		sidecars[2].Kill() // the owner of one of them
		for _, host := range hosts {
			export(t, client, "grpc", sidecars[0], host, "3.5")
			wantPoint(t, sidecars[1], host, "3.5")
		}
	})
}
