package cnfmetrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestShowReadsThroughTheCache(t *testing.T) {
	fake := origintest.New(map[string]string{"CNF-001": string(encodeRow(sample("CNF-001")))})
	s := newSidecar(t, fake)
	eachProtocol(t, s, func(t *testing.T, d client) {
		for range 3 {
			if _, err := d.show(showOf("CNF-001")); err != nil {
				t.Fatal(err)
			}
			_, err := d.show(showOf("none"))
			wantProblem(t, "none", err, "not-found")
		}
	})
	if n := fake.Queries(); n != 2 {
		t.Errorf("%d queries for two ids", n)
	}
	if _, err := newGRPCClient(t, s).show(&cnfmetricsv1.ShowCnfMetricRequest{CnfId: "CNF-001", NoCache: true}); err != nil {
		t.Fatal(err)
	}
	if n := fake.Queries(); n != 3 {
		t.Errorf("no_cache made %d queries", n-2)
	}
}

// A change is read immediately, from memory.
func TestChangesAreWritesOfTheDataset(t *testing.T) {
	fake := origintest.New(nil)
	eachProtocol(t, newSidecar(t, fake), func(t *testing.T, d client) {
		m := sample("CNF-001")
		if _, err := d.show(showOf(m.GetCnfId())); problemOf(err) != "not-found" {
			t.Fatal(err)
		}
		asked := fake.Queries()
		made := mustCreate(t, d, m)
		found, err := d.show(&cnfmetricsv1.ShowCnfMetricRequest{CnfId: "CNF-001", MinVersion: made.GetVersion()})
		if err != nil || found.GetMetric().GetVersion() != made.GetVersion() {
			t.Errorf("after create: %v, %v", found, err)
		}
		if _, err := d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "CNF-001"}); err != nil {
			t.Fatal(err)
		}
		_, err = d.show(showOf("CNF-001"))
		wantProblem(t, "after delete", err, "not-found")
		if n := fake.Queries() - asked; n != 0 {
			t.Errorf("%d queries", n)
		}
	})
}

// rules are metrics with one wrong field, and valid ones, each at the edge of a limit.
var rules = []struct {
	name   string
	change func(*cnfmetricsv1.CnfMetric)
	field  string // "" when nothing is wrong
}{
	{"good", func(*cnfmetricsv1.CnfMetric) {}, ""},
	{"id empty", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "" }, "cnf_id"},
	{"id of 191", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = strings.Repeat("ü", 191) }, ""},
	{"id of 192", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = strings.Repeat("x", 192) }, "cnf_id"},
	{"id with slashes", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "proc/../1//cpu?#%2F" }, ""},
	{"id of dots", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "a/./.." }, ""},
	{"id in unicode", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "網元 🛰️" }, ""},
	{"id with NUL", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "a\x00b" }, "cnf_id"},
	{"id with DEL", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "a\x7fb" }, "cnf_id"},
	{"id with C1", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "a\u0085b" }, "cnf_id"},
	{"id with a space before", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = " a" }, "cnf_id"},
	{"id with a space behind", func(m *cnfmetricsv1.CnfMetric) { m.CnfId = "a " }, "cnf_id"},
	{"time at the epoch", func(m *cnfmetricsv1.CnfMetric) { m.Timestamp = timestamppb.New(time.Unix(0, 0)) }, ""},
	{"time before it", func(m *cnfmetricsv1.CnfMetric) { m.Timestamp = timestamppb.New(time.Unix(-1, 999999999)) }, "timestamp"},
	{"time at the end", func(m *cnfmetricsv1.CnfMetric) { m.Timestamp = timestamppb.New(lastSecond) }, ""},
	{"type in capitals", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "CPU" }, "metric_type"},
	{"type of a process", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "process.cpu:Web Content (ü)" }, ""},
	{"type with a digit", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "load.1m" }, ""},
	{"type of nobody", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "process.cpu:" }, "metric_type"},
	{"type with two dots", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "cpu..total" }, "metric_type"},
	{"type empty", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "" }, "metric_type"},
	{"type of 192", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = strings.Repeat("x", 192) }, "metric_type"},
	{"type with a line break", func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "process.cpu:a\nb" }, "metric_type"},
	{"value zero", func(m *cnfmetricsv1.CnfMetric) { m.Value = 0 }, ""},
	{"value largest", func(m *cnfmetricsv1.CnfMetric) { m.Value = -math.MaxFloat64 }, ""},
	{"unit of one", func(m *cnfmetricsv1.CnfMetric) { m.Unit = "1" }, ""},
	{"unit in unicode", func(m *cnfmetricsv1.CnfMetric) { m.Unit = "µs/°C" }, ""},
	{"unit empty", func(m *cnfmetricsv1.CnfMetric) { m.Unit = "" }, "unit"},
	{"unit of 65", func(m *cnfmetricsv1.CnfMetric) { m.Unit = strings.Repeat("x", 65) }, "unit"},
	{"unit with a space", func(m *cnfmetricsv1.CnfMetric) { m.Unit = "bytes per second" }, "unit"},
	{"status gone", func(m *cnfmetricsv1.CnfMetric) { m.Status = "gone" }, ""},
	{"status in capitals", func(m *cnfmetricsv1.CnfMetric) { m.Status = "OK" }, "status"},
	{"status empty", func(m *cnfmetricsv1.CnfMetric) { m.Status = "" }, "status"},
}

var lastSecond = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)

func TestRules(t *testing.T) {
	s := newSidecar(t, origintest.New(nil))
	for _, c := range rules {
		t.Run(c.name, func(t *testing.T) {
			eachProtocol(t, s, func(t *testing.T, d client) {
				m := with(sample("CNF-001"), c.change)
				_, err := d.create(createOf(m))
				wantField(t, err, c.field)
				if c.field == "" {
					_, err = d.update(updateOf(m))
					wantField(t, err, "")
					if _, err := d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: m.GetCnfId()}); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// wantField fails unless err names one field alone, or is nil when field is empty.
func wantField(t *testing.T, err error, field string) {
	t.Helper()
	if field == "" {
		wantProblem(t, "good", err, "")
		return
	}
	var r *refusal
	if !errors.As(err, &r) || r.problem != "invalid-request" || len(r.fields) != 1 || r.fields[field] == "" {
		t.Errorf("%v %v, want that %s is wrong", err, r.fields, field)
	}
}

// JSON cannot represent these; protobuf can.
func TestRulesThatOnlyProtobufCanViolate(t *testing.T) {
	s := newSidecar(t, origintest.New(nil))
	d := newGRPCClient(t, s)
	for field, values := range map[string][]*cnfmetricsv1.CnfMetric{
		"value": {
			with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Value = math.NaN() }),
			with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Value = math.Inf(1) }),
			with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Value = math.Inf(-1) }),
		},
		"timestamp": {
			with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Timestamp = nil }),
			with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Timestamp.Nanos = -1 }),
			with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Timestamp.Seconds = math.MaxInt64 }),
		},
		"metric":  {nil},
		"version": {with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Version = -1 })},
	} {
		for _, m := range values {
			_, err := d.update(updateOf(m))
			wantField(t, err, field)
		}
	}
	// What is finer than a microsecond is cut off.
	made := mustCreate(t, d, with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Timestamp.Nanos = 1999 }))
	if n := made.GetTimestamp().GetNanos(); n != 1000 {
		t.Errorf("%d ns", n)
	}
}

func TestAllViolationsAreReportedAtOnce(t *testing.T) {
	s := newSidecar(t, origintest.New(nil))
	_, err := newGRPCClient(t, s).create(&cnfmetricsv1.CreateCnfMetricRequest{
		Metric: &cnfmetricsv1.CnfMetric{Value: math.NaN(), Version: 3}, IdempotencyId: "ü",
	})
	wantFields(t, err, "cnf_id", "idempotency_id", "metric_type", "status", "timestamp", "unit", "value", "version")
	d := &httpClient{t, "http://" + s.http}
	code, header, body := d.call(http.MethodPut, collection+"/%20a?idempotency_id=%C3%BC&x=1&x=2", `{
		"cnf_id": " b", "timestamp": "1969-12-31T23:59:59Z", "metric_type": 7, "value": "NaN", "unit": "a b",
		"version": 1.5, "colour": "red"}`)
	wantFields(t, httpRefusal(t, code, header, body),
		"cnf_id", "colour", "idempotency_id", "metric_type", "status", "timestamp", "unit", "value", "version", "x")
}

func wantFields(t *testing.T, err error, want ...string) {
	t.Helper()
	var r *refusal
	if !errors.As(err, &r) {
		t.Fatal(err)
	}
	var got []string
	for field := range r.fields {
		got = append(got, field)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v: %v", got, want, r.fields)
	}
}

// scripted returns fixed results, for states that a real dataset reaches only by a failure.
type scripted struct {
	origin.Lister
	err    error
	answer kv.Answer
}

func (s scripted) Get(context.Context, string, kv.ReadOptions) (kv.Answer, error) {
	return s.answer, s.err
}

func (s scripted) Write(context.Context, kv.Change) (kv.Answer, error) { return s.answer, s.err }

func (s scripted) GetMany(_ context.Context, keys []string, _ kv.ReadOptions, _ kv.BatchLimit) []kv.Result {
	return slices.Repeat([]kv.Result{{Answer: s.answer, Err: s.err}}, len(keys))
}

func (s scripted) List(context.Context, origin.ListQuery) ([]origin.Row, error) { return nil, s.err }

func TestEachErrorHasItsCode(t *testing.T) {
	failed := func(kind kv.Kind, err string) error { return &kv.Error{Kind: kind, Err: errors.New(err)} }
	for _, c := range []struct {
		err           error
		code, problem string // of gRPC; of both
		status        string
		retry         bool
	}{
		{failed(kv.KindReadOnly, "x"), "FailedPrecondition", "read-only", "405", false},
		{failed(kv.KindVersion, "x"), "FailedPrecondition", "version-not-reached", "412", false},
		{failed(kv.KindUnknown, "x"), "Unknown", "outcome-unknown", "500", true},
		{failed(kv.KindOverloaded, "x"), "ResourceExhausted", "overloaded", "429", true},
		{failed(kv.KindUnavailable, "x"), "Unavailable", "origin-unavailable", "503", true},
		{failed(kv.KindDeadline, "x"), "DeadlineExceeded", "deadline", "504", false},
		{failed(kv.KindCanceled, "x"), "Canceled", "canceled", "503", true},
		{failed(kv.KindInvalidKey, "x"), "InvalidArgument", "invalid-request", "400", false},
		{failed(kv.KindInvalidValue, "x"), "InvalidArgument", "invalid-request", "400", false},
		{errors.New("postgres://canary-secret"), "Internal", "internal", "500", false},
	} {
		eachProtocol(t, serve(t, scripted{err: c.err}, scripted{err: c.err}), func(t *testing.T, d client) {
			code, problem := c.code, c.problem
			if _, ok := d.(*httpClient); ok {
				code, problem = c.status, strings.ReplaceAll(c.problem, "canceled", "stopping")
			}
			_, shown := d.show(showOf("a"))
			_, created := d.create(createOf(sample("a")))
			_, deleted := d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "a"})
			for _, err := range []error{shown, created, deleted} {
				var r *refusal
				if !errors.As(err, &r) || r.code != code || r.problem != problem || r.retry != c.retry {
					t.Errorf("%v: %v, retry %v", c.err, err, r.retry)
				}
				if strings.Contains(r.message, "canary") {
					t.Errorf("the secret is shown: %v", err)
				}
			}
			one, err := d.batch("a")
			if err != nil || strings.ReplaceAll(one[0], "canceled", "stopping") != strings.ReplaceAll(problem, "canceled", "stopping") {
				t.Errorf("batch: %v, %v", one, err)
			}
		})
	}
}

// The lister is an origin, whose errors no dataset has classified.
func TestErrorsOfList(t *testing.T) {
	for err, want := range map[error]string{
		errors.New("connection refused"): "origin-unavailable",
		origin.ErrOverloaded:             "overloaded",
		context.DeadlineExceeded:         "deadline",
		origin.ErrInvalidKey:             "invalid-request",

		&origin.ValueError{Column: "status", Reason: "is not a text"}: "invalid-request",
	} {
		eachProtocol(t, serve(t, nil, scripted{err: err}), func(t *testing.T, d client) {
			_, got := d.list(&cnfmetricsv1.ListCnfMetricsRequest{})
			wantProblem(t, err.Error(), got, want)
		})
	}
}

func TestColumnRejectedByTheDatabaseIsNamed(t *testing.T) {
	err := &kv.Error{Kind: kv.KindInvalidValue, Err: fmt.Errorf("dataset x: %w",
		&origin.ValueError{Column: "unit", Reason: "is too long"})}
	eachProtocol(t, serve(t, scripted{err: err}, nil), func(t *testing.T, d client) {
		_, err := d.update(updateOf(sample("a")))
		wantField(t, err, "unit")
	})
	err = &kv.Error{Kind: kv.KindInvalidKey, Err: errors.New("not a number")}
	eachProtocol(t, serve(t, scripted{err: err}, nil), func(t *testing.T, d client) {
		_, err := d.update(updateOf(sample("a")))
		wantField(t, err, "cnf_id")
	})
}

func TestStaleMetricsAreMarked(t *testing.T) {
	stale := scripted{answer: kv.Answer{Value: encodeRow(sample("a")), Stale: true, Age: 90 * time.Second}}
	s := serve(t, stale, nil)
	eachProtocol(t, s, func(t *testing.T, d client) {
		found, err := d.show(showOf("a"))
		if err != nil || !found.GetFreshness().GetStale() {
			t.Errorf("%v, %v", found, err)
		}
	})
	d := &httpClient{t, "http://" + s.http}
	if _, header, _ := d.call(http.MethodGet, pathOf("a"), ""); header.Get("Age") != "90" {
		t.Errorf("Age: %s", header.Get("Age"))
	}
	if _, _, body := d.call(http.MethodPost, batchShow, `{"cnf_ids":["a"]}`); !strings.Contains(string(body),
		`"age":90,"stale":true`) {
		t.Errorf("batch: %s", body)
	}
}

// A row of another program that is not a metric fails alone, with the name of the wrong column.
func TestUnreadableRowNamesItsColumn(t *testing.T) {
	good := string(encodeRow(sample("a")))
	for name, c := range map[string]struct{ row, want string }{
		"no JSON":           {"7", "it is not a JSON object"},
		"cut off":           {good[:20], "it is not a JSON object"},
		"no UTF-8":          {"{\"\xff\":1}", "it is not a JSON object"},
		"two objects":       {good + good, "it is not a JSON object"},
		"column missing":    {strings.Replace(good, `"unit"`, `"Unit"`, 1), "column unit is missing"},
		"value NULL":        {strings.Replace(good, "12.5", "null", 1), "column value is not a finite number"},
		"value NaN":         {strings.Replace(good, "12.5", `"NaN"`, 1), "column value is not a finite number"},
		"value too large":   {strings.Replace(good, "12.5", "1e999", 1), "column value is not a finite number"},
		"timestamp endless": {strings.Replace(good, "2026-01-02T03:04:05.000006Z", "infinity", 1), "column timestamp is not"},
		"timestamp too late": {strings.Replace(good, "2026-01-02T03:04:05.000006Z", "9999-12-31T23:00:00-01:00", 1),
			"column timestamp is not between"},
		"status a number": {strings.Replace(good, `"ok"`, "7", 1), "column status is not a string"},
		"unit too long":   {strings.Replace(good, "percent", strings.Repeat("x", 1025), 1), "column unit has 1025 bytes"},
		"two at once":     {`{}`, "column cnf_id is missing; column timestamp is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := origintest.New(map[string]string{"a": good, "b": c.row, "c": strings.Replace(good, `"a"`, `"c"`, 1)})
			eachProtocol(t, newSidecar(t, fake), func(t *testing.T, d client) {
				_, err := d.show(showOf("b"))
				if wantProblem(t, "show", err, "unreadable-row"); !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("%v, want %s", err, c.want)
				}
				page, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageSize: 3})
				if err != nil || len(page.GetMetrics()) != 2 || len(page.GetUnreadable()) != 1 ||
					page.GetUnreadable()[0].GetCnfId() != "b" || !strings.Contains(page.GetUnreadable()[0].GetMessage(), c.want) {
					t.Errorf("list: %v, %v", page, err)
				}
				if all, err := d.batch("a", "b", "c"); err != nil || !slices.Equal(all, []string{"12.5", "unreadable-row", "12.5"}) {
					t.Errorf("batch: %v, %v", all, err)
				}
			})
		})
	}
	// Columns that are no part of the model are left out.
	fake := origintest.New(map[string]string{"a": strings.Replace(good, "{", `{"ver":7,"note":[1],`, 1)})
	eachProtocol(t, newSidecar(t, fake), func(t *testing.T, d client) {
		if _, err := d.show(showOf("a")); err != nil {
			t.Error(err)
		}
	})
}

func TestPageTokens(t *testing.T) {
	fake := origintest.New(nil)
	eachProtocol(t, newSidecar(t, fake), func(t *testing.T, d client) {
		for i := range 3 {
			fake.Set(fmt.Sprint("m", i), string(encodeRow(sample(fmt.Sprint("m", i)))))
		}
		first, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageSize: 2, Status: "ok"})
		if err != nil || len(first.GetMetrics()) != 2 || first.GetNextPageToken() == "" {
			t.Fatalf("%v, %v", first, err)
		}
		last, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageSize: 2, Status: "ok", PageToken: first.GetNextPageToken()})
		if err != nil || len(last.GetMetrics()) != 1 || last.GetNextPageToken() != "" {
			t.Errorf("%v, %v", last, err)
		}
		for _, token := range []string{"x", "!!", "e30", "bnVsbA", first.GetNextPageToken() + "A"} {
			_, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageToken: token, Status: "ok"})
			wantField(t, err, "page_token")
		}
		_, err = d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageToken: first.GetNextPageToken(), Status: "warn"})
		wantField(t, err, "page_token")
		_, err = d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageSize: -1})
		wantField(t, err, "page_size")
		_, err = d.list(&cnfmetricsv1.ListCnfMetricsRequest{PageSize: 1001})
		wantField(t, err, "page_size")
		_, err = d.list(&cnfmetricsv1.ListCnfMetricsRequest{MetricType: "a\x00"})
		wantField(t, err, "metric_type")
		_, err = d.list(&cnfmetricsv1.ListCnfMetricsRequest{Status: strings.Repeat("x", 33)})
		wantField(t, err, "status")
	})
}

func TestDefaultPageSize(t *testing.T) {
	fake := origintest.New(nil)
	for i := range 101 {
		fake.Set(fmt.Sprintf("m%03d", i), string(encodeRow(sample(fmt.Sprintf("m%03d", i)))))
	}
	eachProtocol(t, newSidecar(t, fake), func(t *testing.T, d client) {
		page, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{})
		if err != nil || len(page.GetMetrics()) != 100 {
			t.Errorf("%d, %v", len(page.GetMetrics()), err)
		}
	})
}

func TestBatchHasOneResultPerID(t *testing.T) {
	fake := origintest.New(map[string]string{"a": string(encodeRow(sample("a")))})
	eachProtocol(t, newSidecar(t, fake), func(t *testing.T, d client) {
		got, err := d.batch("a", "none", "", "a")
		if err != nil || !slices.Equal(got, []string{"12.5", "not-found", "invalid-request", "12.5"}) {
			t.Errorf("%v, %v", got, err)
		}
		_, err = d.batch()
		wantField(t, err, "cnf_ids")
		_, err = d.batch(slices.Repeat([]string{"a"}, 1001)...)
		wantField(t, err, "cnf_ids")
		if got, err := d.batch(slices.Repeat([]string{"a"}, 1000)...); err != nil || len(got) != 1000 {
			t.Errorf("%d, %v", len(got), err)
		}
	})
}

type panicking struct{ scripted }

func (panicking) Get(context.Context, string, kv.ReadOptions) (kv.Answer, error) {
	panic("canary-secret")
}

func (panicking) GetMany(context.Context, []string, kv.ReadOptions, kv.BatchLimit) []kv.Result {
	panic("canary-secret")
}

func TestPanicFailsOnlyItsRequest(t *testing.T) {
	s := serve(t, panicking{}, nil)
	eachProtocol(t, s, func(t *testing.T, d client) {
		_, err := d.batch("a", "b")
		wantProblem(t, "batch", err, "internal")
		_, err = d.show(showOf("a"))
		wantProblem(t, "show", err, "internal")
	})
}

func TestBatchesAndPagesTakeMemory(t *testing.T) {
	b := budget.New(1 << 20)
	taken := int64(0)
	for b.Take(budget.Responses, 1<<10) {
		taken += 1 << 10
	}
	d := scripted{answer: kv.Answer{NotFound: true}}
	s := New(Config{Dataset: d, Lister: d, Budget: b})
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = fmt.Sprint("id-", i)
	}
	for _, c := range []struct {
		what    string
		request func(n int) error
	}{
		{"batch", func(n int) error {
			_, err := s.BatchShowCnfMetrics(t.Context(), &cnfmetricsv1.BatchShowCnfMetricsRequest{CnfIds: ids[:n]})
			return err
		}},
		{"page", func(n int) error {
			_, err := s.ListCnfMetrics(t.Context(), &cnfmetricsv1.ListCnfMetricsRequest{PageSize: int32(n)})
			return err
		}},
	} {
		var e *apierror.Error
		if err := c.request(100); !errors.As(err, &e) || e.Type.Code != codes.ResourceExhausted {
			t.Errorf("%s of 100 rows without memory: got %v, want RESOURCE_EXHAUSTED", c.what, err)
		}
		if err := c.request(prepaidRows); err != nil {
			t.Errorf("%s of few rows without memory: got %v, want a response", c.what, err)
		}
	}
	b.Return(budget.Responses, taken)
	if _, err := s.ListCnfMetrics(t.Context(), &cnfmetricsv1.ListCnfMetricsRequest{}); err != nil || b.Stats()[budget.Responses].Used != 0 {
		t.Errorf("got %v, and %d bytes taken after the request, want a response and none", err, b.Stats()[budget.Responses].Used)
	}
}
