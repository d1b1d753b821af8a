// Package webhook is the mutating admission webhook around inject.Patch.
//
// The webhook bounds what a review costs, because one that is out of memory stops the creation of pods. A review is read as it
// arrives, and only the fields that are used are kept (package admission). A few reviews at a time are then processed; the
// others wait for a moment. Responses are small, whatever the pod contains.
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringside-cache/ringside/deploy/inject"
	"github.com/ringside-cache/ringside/deploy/inject/admission"
	"github.com/ringside-cache/ringside/deploy/inject/event"
	"go.uber.org/zap"
)

const (
	// maxReview limits the size of a request: the API server accepts objects of up to 3 MiB.
	maxReview = 4 << 20
	// atOnce is how many reviews are processed at a time. One takes less than a millisecond.
	atOnce = 4
	// maxWait is how long a review waits for its turn; the API server waits 5 s in all.
	maxWait = 3 * time.Second
	// maxPatch, maxMessage and maxWarnings bound a response. The largest patch mounts the socket into each container.
	maxPatch    = 256 << 10
	maxMessage  = 8 << 10
	maxWarnings = 4 // and each is at most 1 KiB; the API server shortens them further
	maxWarning  = 1 << 10
	// refusalsLogged is how many refusals per second are logged; the metric counts all. They could fill the disk of the node.
	refusalsLogged = 20
)

// Webhook serves admission reviews of pods.
type Webhook struct {
	template *inject.Template
	log      *zap.Logger
	events   *event.Recorder // nil: none
	turns    chan struct{}   // has an element for each review that is processed
	logged   *rate.Limiter   // of refusals
	reviews  *prometheus.CounterVec
	warned   prometheus.Counter
	duration prometheus.Histogram
}

// results of a review, the values of the label result.
const (
	resultInjected  = "injected"
	resultUnchanged = "unchanged"
	resultRefused   = "refused"
	resultInvalid   = "invalid" // not an admission review of a pod
	resultBusy      = "busy"    // too many others were processed
)

// New returns a webhook that injects t, and registers its metrics. Warnings are events, too, unless the Recorder is nil.
func New(t *inject.Template, events *event.Recorder, log *zap.Logger, registry prometheus.Registerer) *Webhook {
	w := &Webhook{
		template: t, events: events, log: log, turns: make(chan struct{}, atOnce), logged: rate.NewLimiter(refusalsLogged, refusalsLogged),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringside_injector_reviews_total", Help: "Admission reviews by result.",
		}, []string{"result"}),
		warned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ringside_injector_warnings_total", Help: "Warnings about pods, such as annotations that do not exist.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ringside_injector_review_duration_seconds", Help: "Time to process an admission review.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	for _, result := range []string{resultInjected, resultUnchanged, resultRefused, resultInvalid, resultBusy} {
		w.reviews.WithLabelValues(result) // so that rate() sees the first increase
	}
	template := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ringside_injector_template_info", Help: "1; the labels are the version and the revision of the template that is injected.",
		ConstLabels: prometheus.Labels{"version": t.Version, "revision": t.Revision()},
	})
	template.Set(1)
	registry.MustRegister(w.reviews, w.warned, w.duration, template)
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
		if r.ContentLength > maxReview {
			w.reject(rw, &http.MaxBytesError{Limit: maxReview})
			return
		}
		body := http.MaxBytesReader(rw, r.Body, maxReview)
		request, err := admission.Read(body)
		// A client that is still sending might not read the response otherwise: after an error, or what follows the review.
		_, _ = io.Copy(io.Discard, body) //guard:response-is-lost-while-the-client-sends
		var rejected *admission.Rejection
		switch {
		case errors.As(err, &rejected) && request != nil && request.UID != "":
			w.respond(rw, w.refuse(w.logOf(request), request, err))
			return
		case err != nil:
			w.reject(rw, err)
			return
		}
		response := w.inTurn(r.Context(), request, asker)
		if response == nil {
			rw.Header().Set("Retry-After", "1")
			http.Error(rw, "too many admission reviews at a time; try again", http.StatusTooManyRequests)
			return
		}
		w.respond(rw, response)
	}
}

// reject answers a request that is not an admission review of a pod.
func (w *Webhook) reject(rw http.ResponseWriter, err error) {
	w.reviews.WithLabelValues(resultInvalid).Inc()
	if w.logged.Allow() { //guard:refusals-fill-the-log
		w.log.Warn("rejected a request that is not an admission review of a pod", zap.String("error", cut(err.Error(), maxWarning)))
	}
	code := http.StatusBadRequest
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		code = http.StatusRequestEntityTooLarge
		err = fmt.Errorf("the admission review has more than %d bytes", large.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		code = http.StatusRequestTimeout
	}
	http.Error(rw, cut(err.Error(), maxWarning), code)
}

// inTurn processes a review when fewer than atOnce others are processed. It returns nil if that takes too long.
func (w *Webhook) inTurn(ctx context.Context, q *admission.Request, asker inject.Asker) *admissionv1.AdmissionResponse {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case w.turns <- struct{}{}: //guard:reviews-run-all-at-once
	case <-ctx.Done():
		w.reviews.WithLabelValues(resultBusy).Inc()
		return nil
	}
	defer func() { <-w.turns }()
	return w.answer(q, asker)
}

func (w *Webhook) respond(rw http.ResponseWriter, response *admissionv1.AdmissionResponse) {
	rw.Header().Set("Content-Type", "application/json")
	// A write fails only if the API server has disconnected; it retries or applies failurePolicy.
	_ = json.NewEncoder(rw).Encode(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: response,
	})
}

func (w *Webhook) logOf(q *admission.Request) *zap.Logger {
	name := ""
	if q.Pod != nil {
		name = q.Pod.Name()
	}
	return w.log.With(zap.String("namespace", q.Namespace), zap.String("pod", name), zap.Bool("dry_run", q.DryRun))
}

func (w *Webhook) answer(q *admission.Request, asker inject.Asker) *admissionv1.AdmissionResponse {
	log := w.logOf(q)
	patch, warnings, err := inject.Patch(q.Pod.ForPatch(), asker, w.template)
	if err != nil {
		return w.refuse(log, q, err)
	}
	warnings = shorten(warnings)
	w.warned.Add(float64(len(warnings)))
	if !q.DryRun { //guard:dry-run-has-an-event
		w.events.Warn(event.Subject{Namespace: q.Namespace, Pod: q.Pod.ForPatch().Name, Owner: q.Pod.Controller()}, warnings)
	}
	response := &admissionv1.AdmissionResponse{UID: q.UID, Allowed: true, Warnings: warnings}
	if len(patch) == 0 {
		w.reviews.WithLabelValues(resultUnchanged).Inc()
		return response
	}
	if response.Patch, err = json.Marshal(patch); err != nil {
		return w.refuse(log, q, fmt.Errorf("encode the patch: %w", err))
	}
	if len(response.Patch) > maxPatch {
		return w.refuse(log, q, fmt.Errorf("the patch of the pod has more than %d bytes", maxPatch))
	}
	response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	w.reviews.WithLabelValues(resultInjected).Inc()
	log.Info("injected", zap.Strings("warnings", warnings))
	return response
}

func shorten(warnings []string) []string {
	for i, warning := range warnings {
		warnings[i] = cut(warning, maxWarning)
	}
	return warnings[:min(len(warnings), maxWarnings)]
}

// cut returns at most limit bytes of text and says how many are missing.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + fmt.Sprintf("… (%d more bytes)", len(text)-limit)
}

// refuse rejects a pod.
func (w *Webhook) refuse(log *zap.Logger, q *admission.Request, err error) *admissionv1.AdmissionResponse {
	w.reviews.WithLabelValues(resultRefused).Inc()
	message := cut(err.Error(), maxMessage)
	if w.logged.Allow() {
		log.Info("refused", zap.String("error", message))
	}
	return &admissionv1.AdmissionResponse{UID: q.UID, Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: "ringside: " + message,
	}}
}
