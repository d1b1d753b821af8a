package cnfmetrics

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ringside-cache/ringside/origin"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
)

// source holds the rows.
type source interface {
	origin.Writer
	origin.Lister
	Load(ctx context.Context, keys []string) ([]origin.Result, error)
}

// sidecar is a service over a real dataset, mounted on real listeners.
type sidecar struct {
	service    *Service
	dataset    *cache.Dataset
	http, grpc string // addresses
}

func newSidecar(tb testing.TB, s source) *sidecar {
	tb.Helper()
	policy := kv.DefaultPolicy()
	policy.TTL, policy.TTLJitter = time.Hour, 0
	d, err := cache.New(cache.Config{
		Name: "cnf-metrics", Policy: policy, Origin: s, Writer: s, MaxBytes: 64 << 20,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return serve(tb, d, s)
}

// serve mounts a service over d and l on real listeners.
func serve(tb testing.TB, d Dataset, l origin.Lister) *sidecar {
	tb.Helper()
	errors := apierror.NewLog(func(l apierror.Line) { tb.Logf("error: %s", l.Text) })
	s := &sidecar{service: New(Config{Dataset: d, Lister: l, Errors: errors})}
	s.dataset, _ = d.(*cache.Dataset)
	server := local.New(local.Config{CNFMetrics: s.service, Errors: errors}, local.NewCatalog())
	s.http, s.grpc = listen(tb, server.ServeHTTP), listen(tb, server.ServeGRPC)
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = server.Shutdown(ctx) // cuts off the connections, which are idle
	})
	return s
}

func listen(tb testing.TB, serve func(net.Listener) error) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		if err := serve(ln); err != nil {
			tb.Errorf("serve: %v", err)
		}
	}()
	return ln.Addr().String()
}

// client is the service over one protocol. Its errors are of type *refusal.
type client interface {
	show(*cnfmetricsv1.ShowCnfMetricRequest) (*cnfmetricsv1.ShowCnfMetricResponse, error)
	create(*cnfmetricsv1.CreateCnfMetricRequest) (*cnfmetricsv1.CnfMetric, error)
	update(*cnfmetricsv1.UpdateCnfMetricRequest) (*cnfmetricsv1.CnfMetric, error)
	remove(*cnfmetricsv1.DeleteCnfMetricRequest) (int64, error)
	list(*cnfmetricsv1.ListCnfMetricsRequest) (*cnfmetricsv1.ListCnfMetricsResponse, error)
	// batch returns for each id its value as text, or why there is none.
	batch(ids ...string) ([]string, error)
}

// refusal is an error as a client sees it.
type refusal struct {
	code    string // the gRPC code, or the HTTP status
	problem string // the end of the problem type; of gRPC the reason in its form
	message string
	fields  map[string]string // :: field → what is wrong with it
	retry   bool              // it says when to try again
}

func (r *refusal) Error() string { return r.code + " " + r.problem + ": " + r.message }

// problemOf returns the problem type of err, or "".
func problemOf(err error) string {
	if r, ok := err.(*refusal); ok {
		return r.problem
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// eachProtocol runs test for gRPC and HTTP.
func eachProtocol(t *testing.T, s *sidecar, test func(t *testing.T, d client)) {
	t.Run("grpc", func(t *testing.T) { test(t, newGRPCClient(t, s)) })
	t.Run("http", func(t *testing.T) { test(t, &httpClient{t, "http://" + s.http}) })
}

type grpcClient struct {
	tb   testing.TB
	stub cnfmetricsv1.CnfMetricsServiceClient
}

func newGRPCClient(tb testing.TB, s *sidecar) *grpcClient {
	tb.Helper()
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &grpcClient{tb, cnfmetricsv1.NewCnfMetricsServiceClient(conn)}
}

func rpcRefusal(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	r := &refusal{code: s.Code().String(), message: s.Message()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			r.problem = strings.ToLower(strings.ReplaceAll(d.GetReason(), "_", "-"))
		case *errdetails.RetryInfo:
			r.retry = d.GetRetryDelay().AsDuration() > 0
		case *errdetails.BadRequest:
			r.fields = map[string]string{}
			for _, v := range d.GetFieldViolations() {
				r.fields[strings.TrimPrefix(v.GetField(), "metric.")] = v.GetDescription()
			}
		}
	}
	return r
}

func (d *grpcClient) show(q *cnfmetricsv1.ShowCnfMetricRequest) (*cnfmetricsv1.ShowCnfMetricResponse, error) {
	a, err := d.stub.ShowCnfMetric(d.tb.Context(), q)
	return a, rpcRefusal(err)
}

func (d *grpcClient) create(q *cnfmetricsv1.CreateCnfMetricRequest) (*cnfmetricsv1.CnfMetric, error) {
	a, err := d.stub.CreateCnfMetric(d.tb.Context(), q)
	return a.GetMetric(), rpcRefusal(err)
}

func (d *grpcClient) update(q *cnfmetricsv1.UpdateCnfMetricRequest) (*cnfmetricsv1.CnfMetric, error) {
	a, err := d.stub.UpdateCnfMetric(d.tb.Context(), q)
	return a.GetMetric(), rpcRefusal(err)
}

func (d *grpcClient) remove(q *cnfmetricsv1.DeleteCnfMetricRequest) (int64, error) {
	a, err := d.stub.DeleteCnfMetric(d.tb.Context(), q)
	return a.GetVersion(), rpcRefusal(err)
}

func (d *grpcClient) list(q *cnfmetricsv1.ListCnfMetricsRequest) (*cnfmetricsv1.ListCnfMetricsResponse, error) {
	a, err := d.stub.ListCnfMetrics(d.tb.Context(), q)
	return a, rpcRefusal(err)
}

func (d *grpcClient) batch(ids ...string) ([]string, error) {
	a, err := d.stub.BatchShowCnfMetrics(d.tb.Context(), &cnfmetricsv1.BatchShowCnfMetricsRequest{CnfIds: ids})
	var list []string
	for _, r := range a.GetResults() {
		said := strings.ToLower(strings.ReplaceAll(r.GetError().GetReason(), "_", "-"))
		if found := r.GetFound(); found != nil {
			said = floatText(found.GetMetric().GetValue())
		}
		list = append(list, said)
	}
	return list, rpcRefusal(err)
}

func floatText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

type httpClient struct {
	tb   testing.TB
	base string
}

// call returns the status, header and body of a response. An empty body is not sent.
func (d *httpClient) call(method, target, body string) (int, http.Header, []byte) {
	d.tb.Helper()
	return d.callWith(nil, method, target, body)
}

func (d *httpClient) callWith(header http.Header, method, target, body string) (int, http.Header, []byte) {
	d.tb.Helper()
	r, err := http.NewRequestWithContext(d.tb.Context(), method, d.base+target, strings.NewReader(body))
	if err != nil {
		d.tb.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		d.tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.tb.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

// ask decodes a successful response into to, strictly, and any other into a refusal.
func (d *httpClient) ask(method, target string, body, to any) (http.Header, error) {
	d.tb.Helper()
	var sent []byte
	if body != nil {
		sent, _ = json.Marshal(body)
	}
	code, header, b := d.call(method, target, string(sent))
	if code < 300 {
		strict(d.tb, b, to)
		return header, nil
	}
	return header, httpRefusal(d.tb, code, header, b)
}

func httpRefusal(tb testing.TB, code int, header http.Header, body []byte) *refusal {
	tb.Helper()
	var p apierror.Problem
	strict(tb, body, &p)
	r := &refusal{code: strconv.Itoa(code), message: p.Detail, retry: header.Get("Retry-After") != ""}
	r.problem = strings.TrimPrefix(p.Type, apierror.BaseURI)
	if p.Status != code || header.Get("Content-Type") != "application/problem+json" || p.Title == "" {
		tb.Errorf("%d, %s, %s", code, header.Get("Content-Type"), body)
	}
	for _, v := range p.Errors {
		if r.fields == nil {
			r.fields = map[string]string{}
		}
		if r.fields[v.Field] != "" {
			tb.Errorf("%s is named twice: %s", v.Field, body)
		}
		r.fields[v.Field] = v.Detail
	}
	return r
}

func strict(tb testing.TB, body []byte, to any) {
	tb.Helper()
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		tb.Fatalf("%v: %s", err, body)
	}
}

func (m *metricJSON) message(tb testing.TB) *cnfmetricsv1.CnfMetric {
	tb.Helper()
	at, err := time.Parse(time.RFC3339Nano, m.Timestamp)
	if err != nil {
		tb.Fatal(err)
	}
	return &cnfmetricsv1.CnfMetric{
		CnfId: m.CnfID, Timestamp: timestamppb.New(at), MetricType: m.MetricType, Value: m.Value, Unit: m.Unit,
		Status: m.Status, Version: m.Version,
	}
}

func pathOf(id string) string { return collection + "/" + url.PathEscape(id) }

func query(values map[string]string) string {
	q := url.Values{}
	for name, value := range values {
		if value != "" && value != "0" && value != "false" {
			q.Set(name, value)
		}
	}
	return "?" + q.Encode()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func (d *httpClient) show(q *cnfmetricsv1.ShowCnfMetricRequest) (*cnfmetricsv1.ShowCnfMetricResponse, error) {
	d.tb.Helper()
	var m metricJSON
	header, err := d.ask(http.MethodGet, pathOf(q.GetCnfId())+query(map[string]string{
		"no_cache": strconv.FormatBool(q.GetNoCache()), "min_version": number(q.GetMinVersion()),
	}), nil, &m)
	if err != nil {
		return nil, err
	}
	if header.Get("Age") == "" {
		d.tb.Error("no Age")
	}
	return &cnfmetricsv1.ShowCnfMetricResponse{Metric: m.message(d.tb), Freshness: &cnfmetricsv1.Freshness{
		Stale: header.Get("Ringside-Stale") == "true",
	}}, nil
}

func (d *httpClient) change(method, target string, m *cnfmetricsv1.CnfMetric) (*cnfmetricsv1.CnfMetric, error) {
	d.tb.Helper()
	var answer metricJSON
	if _, err := d.ask(method, target, toJSON(m), &answer); err != nil {
		return nil, err
	}
	return answer.message(d.tb), nil
}

func (d *httpClient) create(q *cnfmetricsv1.CreateCnfMetricRequest) (*cnfmetricsv1.CnfMetric, error) {
	d.tb.Helper()
	id := query(map[string]string{"idempotency_id": q.GetIdempotencyId()})
	return d.change(http.MethodPost, collection+id, q.GetMetric())
}

func (d *httpClient) update(q *cnfmetricsv1.UpdateCnfMetricRequest) (*cnfmetricsv1.CnfMetric, error) {
	d.tb.Helper()
	id := query(map[string]string{"idempotency_id": q.GetIdempotencyId()})
	return d.change(http.MethodPut, pathOf(q.GetMetric().GetCnfId())+id, q.GetMetric())
}

func (d *httpClient) remove(q *cnfmetricsv1.DeleteCnfMetricRequest) (int64, error) {
	d.tb.Helper()
	var answer deletedJSON
	_, err := d.ask(http.MethodDelete, pathOf(q.GetCnfId())+query(map[string]string{
		"version": number(q.GetVersion()), "idempotency_id": q.GetIdempotencyId(),
	}), nil, &answer)
	return answer.Version, err
}

func (d *httpClient) list(q *cnfmetricsv1.ListCnfMetricsRequest) (*cnfmetricsv1.ListCnfMetricsResponse, error) {
	d.tb.Helper()
	var page pageJSON
	_, err := d.ask(http.MethodGet, collection+query(map[string]string{
		"page_size": number(int64(q.GetPageSize())), "page_token": q.GetPageToken(),
		"metric_type": q.GetMetricType(), "status": q.GetStatus(),
	}), nil, &page)
	if err != nil {
		return nil, err
	}
	answer := &cnfmetricsv1.ListCnfMetricsResponse{NextPageToken: page.NextPageToken}
	for _, m := range page.Metrics {
		answer.Metrics = append(answer.Metrics, m.message(d.tb))
	}
	for _, u := range page.Unreadable {
		answer.Unreadable = append(answer.Unreadable, &cnfmetricsv1.UnreadableRow{CnfId: u.CnfID, Message: u.Message})
	}
	return answer, nil
}

func (d *httpClient) batch(ids ...string) ([]string, error) {
	d.tb.Helper()
	var answer batchJSON
	_, err := d.ask(http.MethodPost, batchShow, map[string]any{"cnf_ids": ids}, &answer)
	var list []string
	for _, r := range answer.Results {
		switch {
		case r.Error != nil:
			list = append(list, strings.TrimPrefix(r.Error.Type, apierror.BaseURI))
		case r.Age == nil:
			d.tb.Errorf("%s has no age", r.CnfID)
		default:
			list = append(list, floatText(r.Metric.Value))
		}
	}
	return list, err
}

// sample is a valid metric.
func sample(id string) *cnfmetricsv1.CnfMetric {
	return &cnfmetricsv1.CnfMetric{
		CnfId: id, Timestamp: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)),
		MetricType: "cpu.total", Value: 12.5, Unit: "percent", Status: "ok",
	}
}

// with changes a copy of m.
func with(m *cnfmetricsv1.CnfMetric, change func(*cnfmetricsv1.CnfMetric)) *cnfmetricsv1.CnfMetric {
	m = proto.CloneOf(m)
	change(m)
	return m
}

func showOf(id string) *cnfmetricsv1.ShowCnfMetricRequest {
	return &cnfmetricsv1.ShowCnfMetricRequest{CnfId: id}
}

func createOf(m *cnfmetricsv1.CnfMetric) *cnfmetricsv1.CreateCnfMetricRequest {
	return &cnfmetricsv1.CreateCnfMetricRequest{Metric: m}
}

func updateOf(m *cnfmetricsv1.CnfMetric) *cnfmetricsv1.UpdateCnfMetricRequest {
	return &cnfmetricsv1.UpdateCnfMetricRequest{Metric: m}
}

// mustCreate fails the test unless m could be created.
func mustCreate(t *testing.T, d client, m *cnfmetricsv1.CnfMetric) *cnfmetricsv1.CnfMetric {
	t.Helper()
	made, err := d.create(createOf(m))
	if err != nil {
		t.Fatalf("create %q: %v", m.GetCnfId(), err)
	}
	return made
}

func wantProblem(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := problemOf(err); got != want {
		t.Errorf("%s: %q, want %q (%v)", what, got, want, err)
	}
}
