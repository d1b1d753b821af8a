package service

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// stream is a server stream whose other end is the test.
type stream[R any] struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *R
}

func (s stream[R]) Context() context.Context { return s.ctx }

func (s stream[R]) Send(r *R) error {
	select {
	case s.sent <- r:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// subscribe opens a stream of a log that blocks after the given number of unread responses.
func subscribe(t *testing.T, l *invalidationlog.Log, unread int) (s stream[peerv1.SubscribeResponse], ended chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	s, ended = stream[peerv1.SubscribeResponse]{ctx: ctx, sent: make(chan *peerv1.SubscribeResponse, unread)}, make(chan error, 1)
	service := New(Config{Log: l})
	go func() {
		ended <- service.Subscribe(&peerv1.SubscribeRequest{}, s)
		cancel() // as grpc does when the handler returns
	}()
	t.Cleanup(cancel)
	return s, ended
}

func TestHeartbeatAfterASecondWithoutNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := invalidationlog.New(8)
		s, _ := subscribe(t, l, 100)
		began := time.Now()
		<-s.sent
		for beat := range 3 {
			<-s.sent
			if got, want := time.Since(began), time.Duration(beat+1)*time.Second; got != want {
				t.Errorf("heartbeat %d: got it after %v, want %v", beat, got, want)
			}
		}
		time.Sleep(600 * time.Millisecond)
		l.Publish(kv.Invalidation{Dataset: "metrics", Key: "k", Age: time.Minute})
		if r := <-s.sent; len(r.GetInvalidations()) != 1 || r.GetInvalidations()[0].GetAgeNs() != int64(time.Minute) {
			t.Errorf("got response %v, want one invalidation of a minute ago", r)
		}
		<-s.sent
		if got, want := time.Since(began), 4600*time.Millisecond; got != want {
			t.Errorf("heartbeat: got it after %v, want a second after the last response: %v", got, want)
		}
	})
}

func TestSubscriberThatReadsNothingIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := invalidationlog.New(8)
		began := time.Now()
		_, ended := subscribe(t, l, 1) // the first response, and no heartbeat
		if err := <-ended; status.Code(err) != codes.OutOfRange || time.Since(began) != 3500*time.Millisecond {
			t.Errorf("got %v after %v, want OUT_OF_RANGE after 3.5 s", err, time.Since(began))
		}
	})
}

func TestAgeIncludesTheTimeInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := invalidationlog.New(8)
		l.Publish(kv.Invalidation{Age: time.Minute})
		time.Sleep(time.Hour)
		p, err := l.Read(new(invalidationlog.Cursor))
		if err != nil {
			t.Fatal(err)
		}
		if age := response(p, false).GetInvalidations()[0].GetAgeNs(); time.Duration(age) != time.Hour+time.Minute {
			t.Errorf("got age %v, want 1h1m", time.Duration(age))
		}
	})
}

// All subscribers miss the changes that a feed misses during an interruption, however short.
func TestInterruptedFeedIsReportedThoughItIsLiveAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := invalidationlog.New(8)
		l.SetLiveFeeds([]string{"b", "a", "a"})
		s, _ := subscribe(t, l, 100)
		time.Sleep(wire.Heartbeat / 2)
		l.SetLiveFeeds([]string{"b"})
		l.SetLiveFeeds([]string{"a", "b"})
		l.Publish(kv.Invalidation{Dataset: "metrics", Key: "k"})
		time.Sleep(wire.Heartbeat / 4)
		var got []string
		for range len(s.sent) {
			r := <-s.sent
			got = append(got, fmt.Sprintf("%v%d", r.GetLiveFeeds(), len(r.GetInvalidations())))
		}
		// The stream may also have read the log between the two changes.
		last := slices.Index(got, "[a b]0")
		gone := slices.IndexFunc(got[last+1:], func(s string) bool { return s == "[]0" || s == "[b]0" })
		if gone < 0 || got[len(got)-1] != "[a b]1" {
			t.Errorf("got %v, want a response without a before the last one", got)
		}
	})
}

// The cost of a response hardly depends on its size.
func TestBurstIsSentTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := invalidationlog.New(4096)
		s, _ := subscribe(t, l, 100)
		<-s.sent
		began := time.Now()
		for range 10 {
			l.Publish(kv.Invalidation{Dataset: "metrics", Key: "k"})
			synctest.Wait()
		}
		if r := <-s.sent; len(r.GetInvalidations()) != 1 || time.Since(began) != 0 {
			t.Errorf("first: got %d after %v, want 1 immediately", len(r.GetInvalidations()), time.Since(began))
		}
		if r := <-s.sent; len(r.GetInvalidations()) != 9 || time.Since(began) != pacePerSubscriber {
			t.Errorf("then: got %d after %v, want the other 9 together after %v", len(r.GetInvalidations()), time.Since(began), pacePerSubscriber)
		}
		for range 2 * invalidationlog.MaxPage {
			l.Publish(kv.Invalidation{Dataset: "metrics", Key: "k"})
		}
		time.Sleep(2 * pacePerSubscriber)
		if len(s.sent) != 2 {
			t.Errorf("got %d responses of a long burst, want 2: full responses do not wait", len(s.sent))
		}
	})
}

func TestSubscribersTakeMemory(t *testing.T) {
	b := budget.New(1 << 20)
	service := New(Config{Log: invalidationlog.New(8), Budget: b})
	most := int(b.Limit(budget.Subscribers) / subscriberBytes)
	ctx, cancel := context.WithCancel(t.Context())
	var streams sync.WaitGroup
	for range most {
		s := stream[peerv1.SubscribeResponse]{ctx: ctx, sent: make(chan *peerv1.SubscribeResponse, 100)}
		streams.Go(func() { _ = service.Subscribe(&peerv1.SubscribeRequest{}, s) })
		<-s.sent // it is open
	}
	err := service.Subscribe(&peerv1.SubscribeRequest{}, stream[peerv1.SubscribeResponse]{ctx: ctx, sent: make(chan *peerv1.SubscribeResponse, 1)})
	if status.Code(err) != codes.ResourceExhausted || service.Stats().SubscribersRefused != 1 {
		t.Errorf("got %v and %d refused, want RESOURCE_EXHAUSTED for subscriber %d", err, service.Stats().SubscribersRefused, most+1)
	}
	cancel()
	streams.Wait()
	if used := b.Stats()[budget.Subscribers].Used; used != 0 {
		t.Errorf("got %d bytes taken after all streams have ended, want 0", used)
	}
}
