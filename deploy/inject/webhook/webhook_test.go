package webhook

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/ringside-cache/ringside/deploy/inject"
)

func newWebhook(t testing.TB) *Webhook {
	t.Helper()
	template, err := inject.ParseTemplate([]byte("image: registry.example/ringside:1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	return New(template, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
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
			http.StatusBadRequest},
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
