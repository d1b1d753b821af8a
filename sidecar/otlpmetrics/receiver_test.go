package otlpmetrics_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
	"github.com/ringside-cache/ringside/sidecar/otlpmetrics"
)

// receiver is a receiver of metrics, whose rows are the values of "rows", and its clients.
type receiver struct {
	*otlpmetrics.Receiver
	origin *origintest.Fake
	budget *budget.Budget
	addr   string
	client metricsservice.MetricsServiceClient
}

func start(t *testing.T, gate *access.Gate, change func(*otlpmetrics.Config)) *receiver {
	t.Helper()
	return startWith(t, gate, 5*time.Minute, change)
}

func startWith(t *testing.T, gate *access.Gate, timeout time.Duration, change func(*otlpmetrics.Config)) *receiver {
	t.Helper()
	rules, err := metricrow.Compile(map[string]metricrow.Rule{"r": {
		Metrics: []string{"cpu", "mem.*"}, Dataset: "rows", Key: []string{"{resource.host}/{name}"},
		Columns: map[string]string{"v": "{value}", "t": "{time}"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{origin: origintest.New(nil), budget: budget.New(64 << 20)}
	served := local.Served{Dataset: localtest.NewWritable(t, "rows", r.origin), JSON: true, Gate: gate}
	c := otlpmetrics.Config{
		Rules: rules, Datasets: local.NewCatalog(served), Memory: 24 << 20, Budget: r.budget,
		Errors: apierror.NewLog(func(apierror.Line) {}),
	}
	if change != nil {
		change(&c)
	}
	r.Receiver = otlpmetrics.New(c)
	s := localtest.Start(t, local.Config{OTLP: r.Receiver, Budget: r.budget, RequestTimeout: timeout}, served)
	r.addr = s.Listen(t, "tcp", s.ServeOTLP)
	conn, err := grpc.NewClient(r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r.Stop(ctx)
	})
	r.client = metricsservice.NewMetricsServiceClient(conn)
	return r
}

// row returns the row of a key.
func (r *receiver) row(t *testing.T, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results, err := r.origin.Load(ctx, []string{key})
	if err != nil {
		t.Fatal(err)
	}
	if errors.Is(results[0].Err, origin.ErrNotFound) {
		return ""
	}
	return string(results[0].Value.Data)
}

// exporters are the ways to send a request.
func (r *receiver) exporters() map[string]func(ctx context.Context, m *metricsservice.ExportMetricsServiceRequest) (*metricsservice.ExportMetricsServiceResponse, error) {
	type export = func(context.Context, *metricsservice.ExportMetricsServiceRequest) (*metricsservice.ExportMetricsServiceResponse, error)
	all := map[string]export{
		"gRPC": func(ctx context.Context, m *metricsservice.ExportMetricsServiceRequest) (*metricsservice.ExportMetricsServiceResponse, error) {
			return r.client.Export(ctx, m)
		},
		"gRPC with gzip": func(ctx context.Context, m *metricsservice.ExportMetricsServiceRequest) (*metricsservice.ExportMetricsServiceResponse, error) {
			return r.client.Export(ctx, m, grpc.UseCompressor("gzip"))
		},
	}
	for _, contentType := range []string{"application/x-protobuf", "application/json"} {
		for _, coding := range []string{"", "gzip"} {
			all["HTTP "+contentType+" "+coding] = func(ctx context.Context, m *metricsservice.ExportMetricsServiceRequest) (*metricsservice.ExportMetricsServiceResponse, error) {
				return r.post(ctx, m, contentType, coding)
			}
		}
	}
	return all
}

// post sends a request by HTTP. The error is that of the google.rpc.Status in the response, as over gRPC.
func (r *receiver) post(ctx context.Context, m *metricsservice.ExportMetricsServiceRequest, contentType, coding string) (*metricsservice.ExportMetricsServiceResponse, error) {
	marshal, unmarshal := proto.Marshal, proto.Unmarshal
	if contentType == "application/json" {
		marshal, unmarshal = protojson.Marshal, protojson.Unmarshal
	}
	body, err := marshal(m)
	if err != nil {
		return nil, err
	}
	resp, got, err := r.send(ctx, body, contentType, coding)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		s := &rpcstatus.Status{}
		if err := unmarshal(got, s); err != nil {
			return nil, fmt.Errorf("status %d without a google.rpc.Status: %w: %s", resp.StatusCode, err, got)
		}
		return nil, status.ErrorProto(s)
	}
	if ack := resp.Header.Get("Ringside-Ack"); ack == "" {
		return nil, errors.New("the response does not say whether the points are committed")
	}
	response := &metricsservice.ExportMetricsServiceResponse{}
	return response, unmarshal(got, response)
}

func (r *receiver) send(ctx context.Context, body []byte, contentType, coding string) (*http.Response, []byte, error) {
	if coding == "gzip" {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(body); err != nil {
			return nil, nil, err
		}
		if err := w.Close(); err != nil {
			return nil, nil, err
		}
		body = b.Bytes()
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.addr+"/v1/metrics", bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	q.Header.Set("Content-Type", contentType)
	if coding != "" {
		q.Header.Set("Content-Encoding", coding)
	}
	if md, ok := metadata.FromOutgoingContext(ctx); ok {
		q.Header.Set("Authorization", strings.Join(md.Get("authorization"), ""))
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, got, err
}

func point(at time.Time, v float64) *metricsv1.NumberDataPoint {
	return &metricsv1.NumberDataPoint{TimeUnixNano: uint64(at.UnixNano()), Value: &metricsv1.NumberDataPoint_AsDouble{AsDouble: v}}
}

func gauge(name string, points ...*metricsv1.NumberDataPoint) *metricsv1.Metric {
	return &metricsv1.Metric{Name: name, Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: points}}}
}

func request(host string, metrics ...*metricsv1.Metric) *metricsservice.ExportMetricsServiceRequest {
	value := &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: host}}
	return &metricsservice.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{
		Resource:     &resourcev1.Resource{Attributes: []*commonv1.KeyValue{{Key: "host", Value: value}}},
		ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: metrics}},
	}}}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestPointsAreRowsOverEachProtocol(t *testing.T) {
	r := start(t, nil, nil)
	for name, export := range r.exporters() {
		host := strings.ReplaceAll(name, "/", "-")
		sum := &metricsv1.Metric{Name: "mem.used", Data: &metricsv1.Metric_Sum{Sum: &metricsv1.Sum{
			AggregationTemporality: metricsv1.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
			DataPoints: []*metricsv1.NumberDataPoint{{TimeUnixNano: uint64(noon.UnixNano()),
				Value: &metricsv1.NumberDataPoint_AsInt{AsInt: 1<<53 + 1}}},
		}}}
		got, err := export(t.Context(), request(host, gauge("cpu", point(noon.Add(time.Second), 2), point(noon, 1)), sum))
		if err != nil || got.GetPartialSuccess() != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		if got, want := r.row(t, host+"/cpu"), `{"t":"2026-01-02T12:00:01.000000Z","v":2}`; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got, want := r.row(t, host+"/mem.used"), `{"t":"2026-01-02T12:00:00.000000Z","v":9007199254740993}`; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if s := r.Stats(); s.Memory.Load() != 0 || s.Points[otlpmetrics.Written].Load() != 18 {
		t.Errorf("%d bytes are taken, %d points are written; want 0 and 18", s.Memory.Load(), s.Points[otlpmetrics.Written].Load())
	}
}

// What cannot be a row is rejected with its reason, and the other points are written.
func TestRejectedPointsDoNotKeepOthersFromBeingWritten(t *testing.T) {
	r := start(t, nil, nil)
	delta := &metricsv1.Metric_Sum{Sum: &metricsv1.Sum{
		AggregationTemporality: metricsv1.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA,
		DataPoints:             []*metricsv1.NumberDataPoint{point(noon, 1)}}}
	histogram := &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{DataPoints: []*metricsv1.HistogramDataPoint{{}, {}}}}
	stale := point(noon, 1)
	stale.Flags = 1
	for name, export := range r.exporters() {
		for _, c := range []struct {
			metric *metricsv1.Metric
			points int64
			want   string
		}{
			{gauge("other", point(noon, 1), point(noon, 2)), 2, "2 points: metric other: no rule of otlp.rows lists it"},
			{&metricsv1.Metric{Name: "cpu", Data: delta}, 1, "metric cpu: it is a sum of changes"},
			{&metricsv1.Metric{Name: "cpu", Data: histogram}, 2, "metric cpu: it is a histogram; gauges and cumulative sums can be rows"},
			{gauge("cpu", point(noon, math.NaN())), 1, "the value is not a finite number"},
			{gauge("cpu", point(noon, math.Inf(1))), 1, "the value is not a finite number"},
			{gauge("cpu", stale), 1, "no value was recorded"},
			{gauge("cpu", &metricsv1.NumberDataPoint{TimeUnixNano: 1}), 1, "the point has no value"},
			{gauge("cpu", point(time.Unix(0, 0), 1)), 1, "the point has no time"},
			{gauge("cpu", point(time.Now().Add(time.Hour), 1)), 1, "in the future; compare the clocks"},
		} {
			host := fmt.Sprint(c.want, name)
			good := gauge("mem.x", point(noon, 7))
			got, err := export(t.Context(), request("h"+name, good, c.metric))
			p := got.GetPartialSuccess()
			if err != nil || p.GetRejectedDataPoints() != c.points || !strings.Contains(p.GetErrorMessage(), c.want) {
				t.Errorf("%s: got %v, %v; want %d rejected", host, p, err, c.points)
			}
			if r.row(t, "h"+name+"/mem.x") == "" || r.row(t, "h"+name+"/cpu") != "" {
				t.Errorf("%s: the good point is not written, or a rejected one is", host)
			}
		}
		m := request("no host", gauge("cpu", point(noon, 1)))
		m.ResourceMetrics[0].Resource = nil
		if got, err := export(t.Context(), m); err != nil || !strings.Contains(got.GetPartialSuccess().GetErrorMessage(), "its key: it has no attribute host") {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// Old points and duplicates are no errors, and change nothing.
func TestOldPointsChangeNothing(t *testing.T) {
	r := start(t, nil, nil)
	for name, export := range r.exporters() {
		for i, v := range []float64{5, 3, 5, 4} {
			if got, err := export(t.Context(), request(name, gauge("cpu", point(noon.Add(time.Duration(v)*time.Second), v+float64(i)/8)))); err != nil || got.GetPartialSuccess() != nil {
				t.Errorf("%s: got %v, %v", name, got, err)
			}
		}
		if got := r.row(t, name+"/cpu"); !strings.Contains(got, `"v":5}`) {
			t.Errorf("%s: got %s, want the newest point", name, got)
		}
	}
}

// While the database is down, the response asks exporters to send again; what they send again is written.
func TestExportersSendAgainAfterAnOutage(t *testing.T) {
	r := start(t, nil, nil)
	for name, export := range r.exporters() {
		r.origin.FailWrites(errors.New("the database is down"))
		m := request(name, gauge("cpu", point(noon, 1)))
		_, err := export(t.Context(), m)
		if s := status.Convert(err); s.Code() != codes.Unavailable || retryDelay(s) <= 0 || strings.Contains(s.Message(), "is down") {
			t.Errorf("%s: got %v with retry delay %v; want Unavailable, when to retry, and no text of the database", name, err, retryDelay(s))
		}
		r.origin.FailWrites(nil)
		r.origin.LoseAnswers(true)
		if _, err := export(t.Context(), m); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: unknown outcome: got %v", name, err)
		}
		r.origin.LoseAnswers(false)
		if got, err := export(t.Context(), m); err != nil || got.GetPartialSuccess() != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		if r.row(t, name+"/cpu") == "" {
			t.Errorf("%s: the point is not written", name)
		}
	}
}

func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// A response with "accepted" in its header comes before the write. A stop writes what waits.
func TestAcceptedPointsAreWrittenLater(t *testing.T) {
	r := start(t, nil, func(c *otlpmetrics.Config) { c.Accepted = true })
	release := r.origin.BlockWrites()
	body, err := proto.Marshal(request("h", gauge("cpu", point(noon, 1))))
	if err != nil {
		t.Fatal(err)
	}
	resp, _, err := r.send(t.Context(), body, "application/x-protobuf", "")
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Ringside-Ack") != "accepted" {
		t.Fatalf("got %v, %v; want 200 with Ringside-Ack: accepted", resp, err)
	}
	var header metadata.MD
	if _, err := r.client.Export(t.Context(), request("h", gauge("cpu", point(noon.Add(time.Second), 2))), grpc.Header(&header)); err != nil || len(header.Get("ringside-ack")) != 1 || header.Get("ringside-ack")[0] != "accepted" {
		t.Errorf("gRPC: got %v, %v", header, err)
	}
	if r.row(t, "h/cpu") != "" || r.Stats().Points[otlpmetrics.Accepted].Load() != 2 {
		t.Error("the points are written already, or not counted as accepted")
	}
	release()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.Stop(ctx)
	if got := r.row(t, "h/cpu"); !strings.Contains(got, `"v":2}`) {
		t.Errorf("after the stop the row is %q, want the newest point", got)
	}
	if used := r.Stats().Memory.Load(); used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
}

// Points that wait for a slow database are limited: then the response asks exporters to send later.
func TestWaitingPointsAreLimited(t *testing.T) {
	r := start(t, nil, func(c *otlpmetrics.Config) { c.Accepted, c.Memory = true, 1<<20 })
	release := r.origin.BlockWrites()
	defer release()
	refused := 0
	for i := range 400 {
		var metrics []*metricsv1.Metric
		for n := range 50 {
			metrics = append(metrics, gauge(fmt.Sprintf("mem.%d.%d", i, n), point(noon, 1)))
		}
		_, err := r.client.Export(t.Context(), request("h", metrics...))
		if s := status.Convert(err); s.Code() == codes.ResourceExhausted && retryDelay(s) > 0 {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		if used := r.Stats().Memory.Load(); used > 1<<20 {
			t.Fatalf("%d bytes are taken, want at most 1 MiB", used)
		}
	}
	if refused == 0 || refused == 400 || r.Stats().Refused.Load() == 0 {
		t.Errorf("%d of 400 requests were refused, %d are counted", refused, r.Stats().Refused.Load())
	}
}

// Requests that are small on the wire and large in memory are refused before they take it.
func TestBombsAreRefused(t *testing.T) {
	r := start(t, nil, nil)
	zeros := make([]byte, 8<<20)
	resp, _, err := r.send(t.Context(), zeros, "application/x-protobuf", "gzip")
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("8 MiB of zeros in gzip: got %v, %v; want 413", resp, err)
	}
	empty := `{"resourceMetrics":[` + strings.Repeat("{},", 1<<18) + `{}]}`
	resp, _, err = r.send(t.Context(), []byte(empty), "application/json", "gzip")
	if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("many empty objects: got %v, %v; want 429", resp, err)
	}
	large := request(strings.Repeat("x", r.MaxRequest()+1))
	if _, err := r.client.Export(t.Context(), large, grpc.UseCompressor("gzip")); status.Code(err) != codes.ResourceExhausted || retryDelay(status.Convert(err)) != 0 {
		t.Errorf("too large over gRPC: got %v, want ResourceExhausted without RetryInfo", err)
	}
	if used := r.Stats().Memory.Load(); used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	r := start(t, nil, nil)
	for _, c := range []struct {
		body, contentType, coding string
		want                      int
	}{
		{"\x0a\xff", "application/x-protobuf", "", 400},
		{"{", "application/json", "", 400},
		{"no gzip", "application/x-protobuf", "x-gzip", 415},
		{"", "text/plain", "", 415},
		{"", "application/x-protobuf", "", 200},
		{"{}", "application/json", "gzip", 200},
	} {
		resp, got, err := r.send(t.Context(), []byte(c.body), c.contentType, c.coding)
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%q as %s: got %v, %s, %v; want %d", c.body, c.contentType, resp, got, err, c.want)
		}
	}
	resp, err := http.Get("http://" + r.addr + "/v1/metrics")
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %v, %v", resp, err)
	}
	resp, err = http.Get("http://" + r.addr + "/v1/rows/a")
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("a key: got %v, %v; want 404: the listener has metrics only", resp, err)
	}
}

// The rules of the dataset say who may send points, and how often.
func TestPermissionToSendPoints(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	const secret = "canary-token-0123456789"
	if err := os.WriteFile(token, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	config := access.Config{Tokens: map[string]string{"exporter": token}, Datasets: map[string]access.Dataset{"rows": {
		Rules: access.Rules{Write: []string{"token:exporter"}},
	}}}
	control, err := access.New(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, control.Gate("rows"), nil)
	m := request("h", gauge("cpu", point(noon, 1)))
	with := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	wrong := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer wrong")
	for name, export := range r.exporters() {
		for _, ctx := range []context.Context{t.Context(), wrong} {
			if _, err := export(ctx, m); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s: got %v, want Unauthenticated", name, err)
			}
		}
		if r.origin.Writes() > 0 {
			t.Fatalf("%s: points without permission are written", name)
		}
	}
	for name, export := range r.exporters() {
		if _, err := export(with, m); err != nil {
			t.Errorf("%s with the token: %v", name, err)
		}
	}
	rows := config.Datasets["rows"]
	rows.Limits.Write = access.Rate{Count: 1, Per: time.Hour}
	config.Datasets["rows"] = rows
	if err := control.Apply(config); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first one may be the one of this hour
		_, err = r.client.Export(with, m)
	}
	if s := status.Convert(err); s.Code() != codes.ResourceExhausted || retryDelay(s) <= 0 {
		t.Errorf("above the limit of writes: got %v, want ResourceExhausted and when to retry", err)
	}
}

// A request whose rows do not fit into the memory together is written in parts.
func TestLargeRequestsAreWrittenInParts(t *testing.T) {
	r := start(t, nil, func(c *otlpmetrics.Config) { c.Memory = 4 << 20 })
	var points []*metricsv1.Metric
	const n = 8000
	for i := range n {
		points = append(points, gauge(fmt.Sprint("mem.", i), point(noon, 1)))
	}
	m := request("h", points...)
	for name, export := range r.exporters() {
		if strings.Contains(name, "json") {
			continue // it takes the memory of the generated types
		}
		if got, err := export(t.Context(), m); err != nil || got.GetPartialSuccess() != nil {
			t.Errorf("%s: %d bytes of at most %d: got %v, %v", name, proto.Size(m), r.MaxRequest(), got, err)
		}
	}
	if r.row(t, fmt.Sprint("h/mem.", n-1)) == "" {
		t.Error("the last row is not written")
	}
}

// A request waits for a slow database until its deadline, and then the exporter sends it again.
func TestExportsHaveADeadline(t *testing.T) {
	for _, name := range []string{"gRPC", "HTTP application/x-protobuf "} {
		r := startWith(t, nil, 100*time.Millisecond, nil) // a write may take seconds
		release := r.origin.BlockWrites()
		if _, err := r.exporters()[name](t.Context(), request(name, gauge("cpu", point(noon, 1)))); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s: got %v, want DeadlineExceeded", name, err)
		}
		release()
	}
}
