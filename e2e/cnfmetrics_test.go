package e2e

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ringside-cache/ringside/deploy/schema"
	"github.com/ringside-cache/ringside/e2e/rig"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
)

// newCNFMetrics starts n sidecars that serve the table of deploy/schema with its seed rows. No entry expires during a test.
func newCNFMetrics(t *testing.T, n int) []*rig.Sidecar {
	t.Helper()
	dsn := rig.Postgres(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"postgres.sql", "seed.sql"} {
		statement, err := schema.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(string(statement)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(dsn), 0o600); err != nil {
		t.Fatal(err)
	}
	return rig.StaticSidecars(t, n, func(members string) string {
		return fmt.Sprintf(`
membership: {static: [%s]}
origins:
  db: {driver: postgres, dsn_file: %q}
datasets:
  cnf-metrics:
    {origin: db, table: cnf_metrics, key: cnf_id, version: ver, writable: true, ttl: 10m, local_ttl: 10m}
cnf_metrics: cnf-metrics
`, members, file)
	})
}

func cnfMetrics(t *testing.T, s *rig.Sidecar) cnfmetricsv1.CnfMetricsServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return cnfmetricsv1.NewCnfMetricsServiceClient(conn)
}

// A change through one sidecar is visible through all, although each has a copy with a ttl of ten minutes.
func TestChangeOfACNFMetricReachesEverySidecar(t *testing.T) {
	t.Parallel()
	sidecars := newCNFMetrics(t, 3)
	var clients []cnfmetricsv1.CnfMetricsServiceClient
	for _, s := range sidecars {
		clients = append(clients, cnfMetrics(t, s))
	}
	m := &cnfmetricsv1.CnfMetric{
		CnfId: "upf/1/sessions", Timestamp: timestamppb.New(time.Unix(1700000000, 0)), MetricType: "upf.sessions",
		Unit: "1", Status: "ok",
	}
	everywhere := func(what string, seen func(*cnfmetricsv1.CnfMetric, error) bool) {
		t.Helper()
		for i, client := range clients {
			rig.Eventually(t, time.Minute, func() error {
				shown, err := client.ShowCnfMetric(t.Context(), &cnfmetricsv1.ShowCnfMetricRequest{CnfId: m.GetCnfId()})
				if !seen(shown.GetMetric(), err) {
					return fmt.Errorf("%s: sidecar %d returns %v, %w", what, i, shown, err)
				}
				return nil
			})
		}
	}
	notFound := func(_ *cnfmetricsv1.CnfMetric, err error) bool { return status.Code(err) == codes.NotFound }
	everywhere("before", notFound)
	made, err := clients[0].CreateCnfMetric(t.Context(), &cnfmetricsv1.CreateCnfMetricRequest{Metric: m})
	if err != nil {
		t.Fatal(err)
	}
	version := made.GetMetric().GetVersion()
	for i := range 30 {
		everywhere("change", func(m *cnfmetricsv1.CnfMetric, err error) bool { return m.GetVersion() == version })
		m.Value, m.Version = float64(i), version
		changed, err := clients[i%3].UpdateCnfMetric(t.Context(), &cnfmetricsv1.UpdateCnfMetricRequest{Metric: m})
		if err != nil {
			t.Fatal(err)
		}
		version = changed.GetMetric().GetVersion()
		// A read that requires the version of the change returns the change through any sidecar.
		shown, err := clients[(i+1)%3].ShowCnfMetric(t.Context(),
			&cnfmetricsv1.ShowCnfMetricRequest{CnfId: m.GetCnfId(), MinVersion: version})
		if err != nil || shown.GetMetric().GetValue() != float64(i) {
			t.Errorf("%v, %v", shown, err)
		}
	}
	_, err = clients[1].DeleteCnfMetric(t.Context(),
		&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: m.GetCnfId(), Version: version})
	if err != nil {
		t.Fatal(err)
	}
	everywhere("delete", notFound)
}
