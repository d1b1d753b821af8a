package bench

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/e2e/rig"
)

const (
	// pointsPerHost is how many keys each client has, and how many points a request over OTLP has.
	pointsPerHost = 1000
	// writeFor is how long each way to write is measured.
	writeFor = 4 * time.Second

	pointsTable  = `CREATE TABLE points (id text PRIMARY KEY, at timestamptz, value double precision, unit text, ver bigint NOT NULL DEFAULT 1)`
	pointsConfig = `
origins: {db: {driver: postgres, dsn: %q, max_conns: 16}}
datasets: {points: {origin: db, table: points, key: id, version: ver, ttl: 1h, writable: true, limits: {write: 1000000/s}}}
otlp:
  rows:
    hosts: {metrics: [cpu], dataset: points, key: "{resource.host.name}/{point.core}", columns: {value: "{value}", unit: "{unit}", at: "{time}"}}
`
	pointsUpsert = `INSERT INTO points VALUES ($1, $2, $3, '%', 1) ON CONFLICT (id) DO UPDATE SET at = excluded.at, value = excluded.value, ` +
		`unit = excluded.unit, ver = points.ver + 1`
)

// BenchmarkPoints writes data points as rows of PostgreSQL, in turns: over OTLP, by single PUTs, and by a client of the database, each
// upsert a transaction. Each client has keys of its own, which exist. Requests that are to be sent again are, as by exporters.
func BenchmarkPoints(b *testing.B) {
	dsn := rig.Postgres(b)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(conns)
	if _, err := db.Exec(pointsTable); err != nil {
		b.Fatal(err)
	}
	s := rig.Sidecars(b, 1, fmt.Sprintf(pointsConfig, dsn))[0]
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns}}
	post := func(ctx context.Context, n int) (int, error) {
		return pointsPerHost, send(ctx, client, http.MethodPost, "http://"+s.OTLP+"/v1/metrics", "application/x-protobuf", points(n))
	}
	put := func(ctx context.Context, n int) (int, error) {
		now := time.Now()
		body := fmt.Appendf(nil, `{"value":%d.5,"unit":"%%","at":%q}`, now.UnixMicro()%100, now.Format(time.RFC3339Nano))
		return 1, send(ctx, client, http.MethodPut, s.URL("points", pointKey(n, int(now.UnixNano()%pointsPerHost))), "application/json", body)
	}
	upsert := func(ctx context.Context, n int) (int, error) {
		now := time.Now()
		_, err := db.ExecContext(ctx, pointsUpsert, pointKey(n, int(now.UnixNano()%pointsPerHost)), now, float64(now.UnixMicro()%100)+0.5)
		return 1, err
	}
	for n := range conns { // the rows exist
		for {
			if _, err := post(b.Context(), n); err == nil {
				break
			} else if !errors.Is(err, errAgain) {
				b.Fatal(err)
			}
		}
	}
	for _, w := range []struct {
		name    string
		clients int
		write   func(ctx context.Context, client int) (rows int, err error)
	}{{"otlp", 1, post}, {"otlp", conns, post}, {"put", conns, put}, {"insert", conns, upsert}} {
		b.Run(fmt.Sprintf("by=%s/clients=%d", w.name, w.clients), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(writeRate(b, w.clients, w.write), "rows/s")
			}
		})
	}
}

// writeRate returns how many rows clients write in a second.
func writeRate(b *testing.B, clients int, write func(ctx context.Context, client int) (int, error)) float64 {
	var rows, again atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for n := range clients {
		all.Go(func() {
			for time.Since(began) < writeFor {
				written, err := write(b.Context(), n)
				switch {
				case errors.Is(err, errAgain):
					again.Add(1)
				case err != nil:
					b.Error(err)
					return
				}
				rows.Add(int64(written))
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(again.Load()), "again")
	return float64(rows.Load()) / time.Since(began).Seconds()
}

// errAgain is the error of a request that the client has to send again.
var errAgain = errors.New("to be sent again")

func pointKey(client, n int) string { return fmt.Sprintf("host-%d/%d", client, n) }

// points returns a request of a client with a point of each of its keys.
func points(client int) []byte {
	text := func(key, s string) *commonv1.KeyValue {
		return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}}
	}
	now := time.Now()
	gauge := &metricsv1.Gauge{}
	for n := range pointsPerHost {
		gauge.DataPoints = append(gauge.DataPoints, &metricsv1.NumberDataPoint{TimeUnixNano: uint64(now.UnixNano()),
			Attributes: []*commonv1.KeyValue{text("core", fmt.Sprint(n))},
			Value:      &metricsv1.NumberDataPoint_AsDouble{AsDouble: float64(now.UnixMicro()%100) + 0.5}})
	}
	metric := &metricsv1.Metric{Name: "cpu", Unit: "%", Data: &metricsv1.Metric_Gauge{Gauge: gauge}}
	request, err := proto.Marshal(&collectorv1.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{
		Resource:     &resourcev1.Resource{Attributes: []*commonv1.KeyValue{text("host.name", fmt.Sprint("host-", client))}},
		ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: []*metricsv1.Metric{metric}}}}}})
	if err != nil {
		panic(err) // all texts are UTF-8
	}
	return request
}

func send(ctx context.Context, client *http.Client, method, url, contentType string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", contentType)
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil || resp.StatusCode/100 == 2:
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout:
		err = errAgain
	default:
		err = fmt.Errorf("%s %s: %s: %q", method, url, resp.Status, answer)
	}
	return err
}
