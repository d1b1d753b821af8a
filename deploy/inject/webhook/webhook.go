// Package webhook is the mutating admission webhook around inject.Patch.
package webhook

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringside-cache/ringside/deploy/inject"
)

// maxReview limits the size of a request: etcd stores objects of up to 1.5 MiB, and a review contains two.
const maxReview = 4 << 20

// Webhook serves admission reviews of pods.
type Webhook struct {
	template *inject.Template
	log      *slog.Logger
	reviews  *prometheus.CounterVec
	duration prometheus.Histogram
}

// results of a review, the values of the label result.
const (
	resultInjected  = "injected"
	resultUnchanged = "unchanged"
	resultRefused   = "refused"
	resultInvalid   = "invalid" // not an admission review of a pod
)

// New returns a webhook that injects t, and registers its metrics.
func New(t *inject.Template, log *slog.Logger, registry prometheus.Registerer) *Webhook {
	w := &Webhook{
		template: t, log: log,
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringside_injector_reviews_total", Help: "Admission reviews by result.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ringside_injector_review_duration_seconds", Help: "Time to process an admission review.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	for _, result := range []string{resultInjected, resultUnchanged, resultRefused, resultInvalid} {
		w.reviews.WithLabelValues(result) // so that rate() sees the first increase
	}
	registry.MustRegister(w.reviews, w.duration)
	return w
}

// Handler serves POST /inject/pod and /inject/namespace. The path is the inject.Asker, because the API server has already evaluated
// the selectors.
func (w *Webhook) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /inject/pod", w.review(inject.Pod))
	mux.Handle("POST /inject/namespace", w.review(inject.Namespace))
	return mux
}

func (w *Webhook) review(asker inject.Asker) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		began := time.Now()
		defer func() { w.duration.Observe(time.Since(began).Seconds()) }()
		request, pod, err := readReview(http.MaxBytesReader(rw, r.Body, maxReview))
		if err != nil {
			w.reviews.WithLabelValues(resultInvalid).Inc()
			w.log.Warn("rejected a request that is not an admission review of a pod", "error", err)
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		// A write fails only if the API server has disconnected; it retries or applies failurePolicy.
		_ = json.NewEncoder(rw).Encode(&admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
			Response: w.answer(request, pod, asker),
		})
	}
}

func readReview(body io.Reader) (*admissionv1.AdmissionRequest, *corev1.Pod, error) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(body).Decode(&review); err != nil {
		return nil, nil, fmt.Errorf("decode the admission review: %w", err)
	}
	if review.Request == nil {
		return nil, nil, errors.New("decode the admission review: it has no request")
	}
	if kind := review.Request.Kind; kind.Group != "" || kind.Kind != "Pod" {
		return nil, nil, fmt.Errorf("decode the admission review: it is for a %s; this webhook handles pods only", kind.Kind)
	}
	pod := new(corev1.Pod)
	if err := json.Unmarshal(review.Request.Object.Raw, pod); err != nil {
		return nil, nil, fmt.Errorf("decode the pod of the admission review: %w", err)
	}
	return review.Request, pod, nil
}

func (w *Webhook) answer(q *admissionv1.AdmissionRequest, pod *corev1.Pod, asker inject.Asker) *admissionv1.AdmissionResponse {
	log := w.log.With("namespace", q.Namespace, "pod", cmp.Or(pod.Name, pod.GenerateName),
		"dry_run", q.DryRun != nil && *q.DryRun)
	patch, warnings, err := inject.Patch(pod, asker, w.template)
	if err != nil {
		w.reviews.WithLabelValues(resultRefused).Inc()
		log.Info("refused", "error", err)
		return refusal(q, err)
	}
	response := &admissionv1.AdmissionResponse{UID: q.UID, Allowed: true, Warnings: warnings}
	if len(patch) == 0 {
		w.reviews.WithLabelValues(resultUnchanged).Inc()
		return response
	}
	if response.Patch, err = json.Marshal(patch); err != nil {
		return refusal(q, fmt.Errorf("encode the patch: %w", err))
	}
	response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	w.reviews.WithLabelValues(resultInjected).Inc()
	log.Info("injected", "warnings", warnings)
	return response
}

func refusal(q *admissionv1.AdmissionRequest, err error) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{UID: q.UID, Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: "ringside: " + err.Error(),
	}}
}
