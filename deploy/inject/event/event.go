// Package event publishes warnings about pods as Events of Kubernetes, so that `kubectl get events` and `kubectl describe` show what
// otherwise only the client that created the pod has seen. It is best effort: it never delays the creation of a pod.
package event

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
)

const (
	// maxQueued is how many events wait to be sent; more are dropped.
	maxQueued = 64
	// perSecond and burst are how many events one injector sends: a Deployment with a typo may create thousands of pods.
	perSecond, burst = 1, 20
	// quiet is how long the same warning about the same object is not repeated; the API server keeps events for an hour. maxQuiet is
	// how many of them are remembered.
	quiet    = 30 * time.Minute
	maxQuiet = 1024
	// maxNote is the longest note of an event that the API server accepts.
	maxNote = 1024
	timeout = 5 * time.Second

	controller = "ringside.dev/injector"
	reason     = "RingsideWarning"
	action     = "Injecting"
)

// results of a warning, the values of the label result.
const (
	resultSent     = "sent"
	resultRepeated = "repeated" // about the same object not long ago
	resultDropped  = "dropped"  // too many others waited
	resultFailed   = "failed"   // the API server did not take it
)

// Subject is what a warning is about. A pod whose name the API server makes later has none yet: its controller is shown instead, or else
// its namespace.
type Subject struct {
	Namespace string
	Pod       string                 // "" if it has no name yet
	Owner     *metav1.OwnerReference // nil without a controller
}

func (s Subject) regarding() corev1.ObjectReference {
	at := corev1.ObjectReference{Namespace: s.Namespace}
	switch {
	case s.Owner != nil: // it has a UID, by which `kubectl describe` finds events
		at.APIVersion, at.Kind, at.Name, at.UID = s.Owner.APIVersion, s.Owner.Kind, s.Owner.Name, s.Owner.UID
	case s.Pod != "":
		at.APIVersion, at.Kind, at.Name = "v1", "Pod", s.Pod
	default:
		at.APIVersion, at.Kind, at.Name = "v1", "Namespace", s.Namespace
	}
	return at
}

// Recorder sends events. Use New, and Run.
type Recorder struct {
	client   eventsclient.EventsGetter
	instance string
	log      *zap.Logger
	queue    chan *eventsv1.Event
	limit    *rate.Limiter
	sent     map[string]time.Time // :: object and note → when; used by Run only
	results  *prometheus.CounterVec
}

// New returns a Recorder for the injector with the name instance, and registers its metric.
func New(client eventsclient.EventsGetter, instance string, log *zap.Logger, registry prometheus.Registerer) *Recorder {
	r := &Recorder{
		client: client, instance: cmp.Or(instance, "injector"), log: log, queue: make(chan *eventsv1.Event, maxQueued),
		limit: rate.NewLimiter(perSecond, burst), sent: map[string]time.Time{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringside_injector_events_total",
			Help: "Warnings about pods as Events of Kubernetes: sent; repeated, because the same one was sent not long ago; dropped, because too many were waiting; or failed.",
		}, []string{"result"}),
	}
	for _, result := range []string{resultSent, resultRepeated, resultDropped, resultFailed} {
		r.results.WithLabelValues(result)
	}
	registry.MustRegister(r.results)
	return r
}

// Warn publishes warnings later. It does not wait. A nil Recorder does nothing.
func (r *Recorder) Warn(about Subject, warnings []string) {
	if r == nil || len(warnings) == 0 {
		return
	}
	note := strings.Join(warnings, "\n")
	note = strings.ToValidUTF8(note[:min(len(note), maxNote)], "")
	e := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: "ringside-", Namespace: about.Namespace},
		EventTime:           metav1.NowMicro(),
		ReportingController: controller, ReportingInstance: r.instance, Action: action, Reason: reason, Type: corev1.EventTypeWarning,
		Regarding: about.regarding(), Note: note,
	}
	select {
	case r.queue <- e:
	default:
		r.results.WithLabelValues(resultDropped).Inc()
	}
}

// Run sends events until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.queue:
			r.results.WithLabelValues(r.send(ctx, e)).Inc()
		}
	}
}

func (r *Recorder) send(ctx context.Context, e *eventsv1.Event) (result string) {
	key := e.Namespace + "/" + e.Regarding.Kind + "/" + e.Regarding.Name + "/" + e.Note
	if time.Since(r.sent[key]) < quiet { //guard:same-event-again-and-again
		return resultRepeated
	}
	if r.limit.Wait(ctx) != nil { //guard:events-without-rate-limit
		return resultDropped
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := r.client.Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		r.log.Debug("an event was not published", zap.Error(err)) // the metric counts them
		return resultFailed
	}
	if len(r.sent) >= maxQuiet {
		clear(r.sent)
	}
	r.sent[key] = time.Now()
	return resultSent
}
