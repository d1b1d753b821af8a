package cnfmetrics

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/origin/origintest"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func newFuzzed(f *testing.F) *Service {
	f.Helper()
	fake := origintest.New(map[string]string{"CNF-001": string(encodeRow(sample("CNF-001"))), "bad": "7"})
	d, err := cache.New(cache.Config{
		Name: "cnf-metrics", Policy: kv.DefaultPolicy(), Origin: fake, Writer: fake, MaxBytes: 1 << 20,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(d.Close)
	return New(Config{Dataset: d, Lister: fake, Errors: apierror.NewLog(func(l apierror.Line) {
		if l.Kind == kv.KindInternal {
			f.Errorf("defect: %s", l.Text)
		}
	})})
}

// FuzzHTTP: every request gets JSON with a documented status, and none reveals a defect.
func FuzzHTTP(f *testing.F) {
	s := newFuzzed(f)
	for _, seed := range []struct{ method, target, body string }{
		{"GET", collection, ""}, {"GET", collection + "?page_size=1&status=ok&metric_type=cpu.total", ""},
		{"GET", collection + "?page_token=" + pageToken{After: "A"}.String(), ""},
		{"GET", collection + "/CNF-001?no_cache=true&min_version=1", ""}, {"GET", collection + "/bad", ""},
		{"POST", collection + "?idempotency_id=x", goodBody}, {"PUT", collection + "/CNF-001", goodBody},
		{"PUT", collection + "/CNF-001", strings.Replace(goodBody, "}", `,"version":1}`, 1)},
		{"DELETE", collection + "/a%2Fb?version=1", ""}, {"POST", batchShow, `{"cnf_ids":["CNF-001","bad",""]}`},
		{"GET", description, ""}, {"HEAD", collection + "/%ff", ""}, {"BREW", "/cnfmetrics/", "{"},
	} {
		f.Add(seed.method, seed.target, seed.body)
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequestWithContext(soon(t), method, target, strings.NewReader(body))
		if err != nil {
			return // no listener lets it pass
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		answer, _ := io.ReadAll(w.Result().Body)
		switch w.Code {
		case 200, 201, 400, 404, 405, 409, 412:
		case 500:
			if !strings.Contains(string(answer), `unreadable-row"`) {
				t.Errorf("%s", answer)
			}
		default:
			t.Errorf("%d %s", w.Code, answer)
		}
		if !json.Valid(answer) {
			t.Errorf("no JSON: %q", answer)
		}
	})
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// FuzzGRPC: every message gets a response or a documented code.
func FuzzGRPC(f *testing.F) {
	s := newFuzzed(f)
	calls := []func(context.Context, []byte) error{
		call(s.ShowCnfMetric), call(s.CreateCnfMetric), call(s.ListCnfMetrics), call(s.UpdateCnfMetric),
		call(s.DeleteCnfMetric), call(s.BatchShowCnfMetrics),
	}
	for i, m := range []proto.Message{
		showOf("CNF-001"), createOf(sample("a")), &cnfmetricsv1.ListCnfMetricsRequest{PageSize: 1, Status: "ok"},
		updateOf(sample("CNF-001")), &cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "a", Version: 1, IdempotencyId: "x"},
		&cnfmetricsv1.BatchShowCnfMetricsRequest{CnfIds: []string{"CNF-001", "bad", ""}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
	}
	f.Fuzz(func(t *testing.T, method byte, message []byte) {
		err := calls[int(method)%len(calls)](soon(t), message)
		switch status.Code(err) {
		case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.Aborted, codes.FailedPrecondition:
		case codes.Internal:
			if !strings.Contains(err.Error(), apierror.UnreadableRow.Reason) {
				t.Error(err)
			}
		default:
			t.Error(err)
		}
	})
}

// call returns a method that takes its message as bytes. It ignores bytes that are not a message.
func call[Q any, A any, M interface {
	*Q
	proto.Message
}](method func(context.Context, M) (A, error)) func(context.Context, []byte) error {
	return func(ctx context.Context, b []byte) error {
		q := M(new(Q))
		if proto.Unmarshal(b, q) != nil {
			return nil
		}
		_, err := method(ctx, q)
		return err
	}
}

// FuzzRow: a decoded row encodes to one that decodes to the same, or the error names what is wrong.
func FuzzRow(f *testing.F) {
	f.Add([]byte(goodBody))
	f.Add([]byte(`{"value":1e308,"value":NaN}`))
	f.Add([]byte(strings.Replace(goodBody, "{", `{"ver":7,`, 1)))
	f.Fuzz(func(t *testing.T, row []byte) {
		m, err := decodeRow("a", row, 0)
		if err != nil {
			return
		}
		again, err := decodeRow("a", encodeRow(m), 0)
		if err != nil || !proto.Equal(m, again) {
			t.Errorf("%s: %v, then %v, %v", row, m, again, err)
		}
	})
}
