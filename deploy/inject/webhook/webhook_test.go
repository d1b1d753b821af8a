package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"

	"github.com/ringside-cache/ringside/deploy/inject"
	"github.com/ringside-cache/ringside/deploy/inject/event"
	"github.com/ringside-cache/ringside/sidecar/logging"
	"go.uber.org/zap"
)

func newWebhook(t testing.TB) *Webhook {
	t.Helper()
	template, err := inject.ParseTemplate([]byte("image: registry.example/ringside:1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	return New(template, nil, zap.NewNop(), prometheus.NewRegistry())
}

func post(h http.Handler, path, body string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return recorder
}

func review(pod string) string {
	return `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1", "namespace": "ns",
		"kind": {"version": "v1", "kind": "Pod"}, "object": ` + pod + `}}`
}

func TestReviews(t *testing.T) {
	tests := []struct {
		name, path, pod, result string
		check                   func(r *admissionv1.AdmissionResponse) bool
	}{
		{"the pod asks", "/inject/pod", `{"metadata": {"labels": {"ringside.dev/inject": "true"}}}`, resultInjected,
			func(r *admissionv1.AdmissionResponse) bool {
				return r.Allowed && *r.PatchType == admissionv1.PatchTypeJSONPatch && json.Valid(r.Patch)
			}},
		{"the namespace asks", "/inject/namespace", `{}`, resultInjected,
			func(r *admissionv1.AdmissionResponse) bool { return r.Allowed && r.Patch != nil }},
		{"nobody asks", "/inject/pod", `{}`, resultUnchanged,
			func(r *admissionv1.AdmissionResponse) bool { return r.Allowed && r.Patch == nil && r.PatchType == nil }},
		{"a bad value", "/inject/pod", `{"metadata": {"labels": {"ringside.dev/inject": "x"}}}`, resultRefused,
			func(r *admissionv1.AdmissionResponse) bool {
				return !r.Allowed && r.Result.Code == 422 && strings.Contains(r.Result.Message, `want "true" or "false"`)
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWebhook(t)
			recorder := post(w.Handler(), test.path, review(test.pod))
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || recorder.Code != http.StatusOK {
				t.Fatalf("%d %s: %v", recorder.Code, recorder.Body, err)
			}
			if answer.Kind != "AdmissionReview" || answer.Response.UID != "1" || !test.check(answer.Response) {
				t.Errorf("answer %s", recorder.Body)
			}
			if n := testutil.ToFloat64(w.reviews.WithLabelValues(test.result)); n != 1 {
				t.Errorf("%v reviews %s", n, test.result)
			}
		})
	}
}

// nowhere is an API server that is not asked, because the Recorder does not run.
type nowhere struct{ eventsclient.EventsGetter }

func TestDryRunsHaveNoEvents(t *testing.T) {
	const queued, more = 64, 3 // what the Recorder has room for, and beyond
	registry := prometheus.NewRegistry()
	w := newWebhook(t)
	w.events = event.New(nowhere{}, "", zap.NewNop(), registry)
	for _, test := range []struct {
		dryRun string
		want   float64
	}{{"true", 0}, {"false", more}} {
		for range queued + more {
			post(w.Handler(), "/inject/pod", strings.Replace(review(`{"metadata": {"annotations": {"ringside.dev/inject": "true", "ringside.dev/typo": "x"}}}`),
				`"request": {`, `"request": {"dryRun": `+test.dryRun+`, `, 1))
		}
		want := fmt.Sprintf(`# HELP ringside_injector_events_total Warnings about pods as Events of Kubernetes: sent; repeated, because the same one was sent not long ago; dropped, because too many were waiting; or failed.
# TYPE ringside_injector_events_total counter
ringside_injector_events_total{result="dropped"} %v
ringside_injector_events_total{result="failed"} 0
ringside_injector_events_total{result="repeated"} 0
ringside_injector_events_total{result="sent"} 0
`, test.want)
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ringside_injector_events_total"); err != nil {
			t.Errorf("dry run %s: %v", test.dryRun, err)
		}
	}
}

func TestOtherRequestsAreRejected(t *testing.T) {
	tests := []struct {
		name, path, body string
		code             int
	}{
		{"no JSON", "/inject/pod", "<html>", http.StatusBadRequest},
		{"no request", "/inject/pod", "{}", http.StatusBadRequest},
		{"no pod", "/inject/pod", `{"request": {"kind": {"kind": "Service"}, "object": {}}}`, http.StatusBadRequest},
		{"a pod that is none", "/inject/pod", review(`[]`), http.StatusBadRequest},
		{"too big", "/inject/pod", `{"x": "` + strings.Repeat("x", maxReview) + `", ` + review("{}")[1:],
			http.StatusRequestEntityTooLarge},
		{"another path", "/", "{}", http.StatusNotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if recorder := post(newWebhook(t).Handler(), test.path, test.body); recorder.Code != test.code {
				t.Errorf("%d %s", recorder.Code, recorder.Body)
			}
		})
	}
}

// A review that is refused while it is read gets a response, so that its user sees the reason.
func TestRefusalWhileReading(t *testing.T) {
	w := newWebhook(t)
	recorder := post(w.Handler(), "/inject/pod", review(`{"spec": {"containers": [`+strings.Repeat("{},", 100_000)+`{}]}}`))
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", recorder.Code, recorder.Body, err)
	}
	if r := answer.Response; r.Allowed || r.UID != "1" || !strings.Contains(r.Result.Message, "more than 128 containers") {
		t.Errorf("answer %s", recorder.Body)
	}
}

// Otherwise net/http would cut the connection of a client that is still sending.
func TestRequestsAreReadToTheirEnd(t *testing.T) {
	for _, text := range []string{review(`{}`), "not JSON", review(`{"spec": {"containers": [` + strings.Repeat("{},", 200) + `{}]}}`)} {
		body := strings.NewReader(text + strings.Repeat(" ", 1<<20))
		newWebhook(t).Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/inject/pod", body))
		if body.Len() != 0 {
			t.Errorf("%.60q: %d bytes are left", text, body.Len())
		}
	}
}

// What is announced is refused before it is read.
func TestAnnouncedSizeIsBounded(t *testing.T) {
	request := httptest.NewRequest(http.MethodPost, "/inject/pod", iotest.ErrReader(errors.New("the body is read")))
	request.ContentLength = maxReview + 1
	recorder := httptest.NewRecorder()
	newWebhook(t).Handler().ServeHTTP(recorder, request)
	if recorder.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d %s, want %d", recorder.Code, recorder.Body, http.StatusRequestEntityTooLarge)
	}
}

// Reviews beyond those that are processed wait for a moment, and are then refused.
func TestReviewsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWebhook(t)
		for range atOnce {
			w.turns <- struct{}{}
		}
		began := time.Now()
		recorder := post(w.Handler(), "/inject/pod", review("{}"))
		if recorder.Code != http.StatusTooManyRequests || recorder.Header().Get("Retry-After") == "" || time.Since(began) != maxWait {
			t.Errorf("got %d after %v, want %d after %v", recorder.Code, time.Since(began), http.StatusTooManyRequests, maxWait)
		}
		go func() {
			time.Sleep(maxWait / 2)
			<-w.turns
		}()
		if recorder := post(w.Handler(), "/inject/pod", review("{}")); recorder.Code != http.StatusOK {
			t.Errorf("got %d %s after a turn became free, want 200", recorder.Code, recorder.Body)
		}
		if n := len(w.turns); n != atOnce-1 {
			t.Errorf("%d turns are taken, want %d", n, atOnce-1)
		}
	})
}

// A flood of invalid requests and rejected pods does not fill the log.
func TestRefusalsInTheLogAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWebhook(t)
		var err error
		if w.log, err = logging.New("json", "info", &log); err != nil {
			t.Fatal(err)
		}
		const flood = 100
		for range flood {
			post(w.Handler(), "/inject/pod", "<html>")
			post(w.Handler(), "/inject/pod", review(`{"metadata": {"labels": {"ringside.dev/inject": "x"}}}`))
		}
		if n := bytes.Count(log.Bytes(), []byte("\n")); n != refusalsLogged {
			t.Errorf("%d lines in the log, want %d", n, refusalsLogged)
		}
		if n := testutil.ToFloat64(w.reviews.WithLabelValues(resultInvalid)); n != flood {
			t.Errorf("%v requests are counted, want %d", n, flood)
		}
		time.Sleep(time.Second)
		post(w.Handler(), "/inject/pod", "<html>")
		if n := bytes.Count(log.Bytes(), []byte("\n")); n != refusalsLogged+1 {
			t.Errorf("%d lines in the log after a second, want %d", n, refusalsLogged+1)
		}
	})
}

// The response is small, whatever the pod contains.
func TestResponsesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 2000)
	container := `{"name": "` + long[:250] + `", "ports": [{"containerPort": 7070}], "volumeMounts": [{"name": "ringside-secret"}]}`
	for name, test := range map[string]struct{ metadata, spec string }{
		"conflicts": {"", `{"containers": [` + strings.Repeat(container+",", 99) + container + `]}`},
		"sockets": {`, "ringside.dev/unix-socket": "true"`,
			`{"containers": [` + strings.Repeat("{},", 127) + `{}]}`},
		"an annotation": {`, "ringside.dev/log-level": "` + long + `", "ringside.dev/config": "` + long + `"`, "{}"},
		"unknown keys":  {`, "ringside.dev/` + long[:300] + `": "", "ringside.dev/x` + long[:299] + `": "", "ringside.dev/y": ""`, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := post(newWebhook(t).Handler(), "/inject/pod",
				review(`{"metadata": {"annotations": {"ringside.dev/inject": "true"`+test.metadata+`}}, "spec": `+test.spec+`}`))
			if n := recorder.Body.Len(); recorder.Code != http.StatusOK || n > 64<<10 {
				t.Errorf("got %d with %d bytes, want 200 with at most 64 KiB", recorder.Code, n)
			}
		})
	}
}

func FuzzReview(f *testing.F) {
	f.Add([]byte(review(`{"metadata": {"labels": {"ringside.dev/inject": "true"}}}`)))
	f.Add([]byte(`{"request": {"kind": {"kind": "Pod"}, "object": 1}}`))
	handler := newWebhook(f).Handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/inject/namespace", bytes.NewReader(body)))
		if text, _ := io.ReadAll(recorder.Body); recorder.Code == http.StatusOK && !json.Valid(text) {
			t.Fatalf("answer %s", text)
		}
	})
}

func BenchmarkReview(b *testing.B) {
	handler, body := newWebhook(b).Handler(), review(`{"metadata": {"labels": {"ringside.dev/inject": "true"}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if recorder := post(handler, "/inject/pod", body); recorder.Code != http.StatusOK {
			b.Fatal(recorder.Body)
		}
	}
}
