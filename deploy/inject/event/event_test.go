package event

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
)

// server is the API server; the real one is in e2e/kube.
type server struct {
	eventsclient.EventInterface
	mu       sync.Mutex // guards the fields below
	err      error
	received []*eventsv1.Event
}

func (s *server) Events(string) eventsclient.EventInterface { return s }

func (s *server) Create(_ context.Context, e *eventsv1.Event, _ metav1.CreateOptions) (*eventsv1.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.received = append(s.received, e)
	}
	return e, s.err
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.received)
}

func start(t *testing.T, s *server) *Recorder {
	r := New(s, "injector-0", zap.NewNop(), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go r.Run(ctx)
	return r
}

func (r *Recorder) count(result string) float64 {
	return testutil.ToFloat64(r.results.WithLabelValues(result))
}

func TestEventsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		r := start(t, s)
		for range 100 {
			r.Warn(Subject{Namespace: "apps", Owner: &metav1.OwnerReference{Kind: "ReplicaSet", Name: "app", UID: "1"}}, []string{"typo"})
			synctest.Wait()
		}
		if s.count() != 1 || r.count(resultRepeated) != 99 {
			t.Errorf("got %d events, %v repeated; want 1 of 100 pods", s.count(), r.count(resultRepeated))
		}
		time.Sleep(quiet)
		for i := range maxQueued + burst + 1 {
			r.Warn(Subject{Namespace: "apps", Pod: fmt.Sprint("pod-", i)}, []string{"typo"})
			synctest.Wait()
		}
		if got := s.count() - 1; got != burst {
			t.Errorf("got %d events at once, want %d", got, burst)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := s.count() - 1; got != burst+10*perSecond {
			t.Errorf("got %d events after 10 s, want %d", got, burst+10*perSecond)
		}
	})
}

// The webhook must not wait for the API server.
func TestEventsThatDoNotFitAreDropped(t *testing.T) {
	s := &server{}
	r := New(s, "", zap.NewNop(), prometheus.NewRegistry()) // does not run
	for i := range maxQueued + 3 {
		r.Warn(Subject{Namespace: "apps", Pod: fmt.Sprint("pod-", i)}, []string{"typo"})
	}
	if r.count(resultDropped) != 3 {
		t.Errorf("got %v dropped, want 3", r.count(resultDropped))
	}
	var none *Recorder
	none.Warn(Subject{}, []string{"typo"})
}

func TestSubjects(t *testing.T) {
	owner := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "app-1", UID: "u"}
	for want, s := range map[string]Subject{
		"apps/v1 ReplicaSet apps/app-1 u": {Namespace: "apps", Pod: "x", Owner: owner},
		"v1 Pod apps/app ":                {Namespace: "apps", Pod: "app"},
		"v1 Namespace apps/apps ":         {Namespace: "apps"},
	} {
		at := s.regarding()
		if got := fmt.Sprintf("%s %s %s/%s %s", at.APIVersion, at.Kind, at.Namespace, at.Name, at.UID); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFailuresAreCountedAndTriedWithTheNextPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{err: errors.New("forbidden")}
		r := start(t, s)
		warn := func() {
			r.Warn(Subject{Namespace: "apps"}, []string{strings.Repeat("ü", maxNote)})
			synctest.Wait()
		}
		warn()
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		warn()
		if r.count(resultFailed) != 1 || r.count(resultSent) != 1 || len(s.received[0].Note) != maxNote {
			t.Errorf("got %v failed, %v sent, %d events; want 1, 1, 1", r.count(resultFailed), r.count(resultSent), s.count())
		}
	})
}
