package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// out is a stream whose other end is the test.
type out struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *peerv1.FollowResponse
}

func (o out) Context() context.Context { return o.ctx }

func (o out) Send(r *peerv1.FollowResponse) error {
	select {
	case o.sent <- r:
		return nil
	case <-o.ctx.Done():
		return o.ctx.Err()
	}
}

// follow opens a stream of a log that takes in as many responses as there is room for.
func follow(t *testing.T, l *Log, room int) (o out, ended chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	o, ended = out{ctx: ctx, sent: make(chan *peerv1.FollowResponse, room)}, make(chan error, 1)
	s := NewService(ServiceConfig{Log: l})
	go func() {
		ended <- s.Follow(&peerv1.FollowRequest{}, o)
		cancel() // as grpc does when the handler has returned
	}()
	t.Cleanup(cancel)
	return o, ended
}

func TestHeartbeatEverySecondOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(8)
		o, _ := follow(t, l, 100)
		began := time.Now()
		<-o.sent
		for beat := range 3 {
			<-o.sent
			if at := time.Since(began); at != time.Duration(beat+1)*time.Second {
				t.Errorf("heartbeat %d after %v", beat, at)
			}
		}
		time.Sleep(600 * time.Millisecond)
		l.publish(cache.Invalidation{Dataset: "metrics", Key: "k", Age: time.Minute})
		if r := <-o.sent; len(r.GetInvalidations()) != 1 || r.GetInvalidations()[0].GetAgeNs() != int64(time.Minute) {
			t.Errorf("response %v", r)
		}
		<-o.sent
		if at := time.Since(began); at != 4600*time.Millisecond {
			t.Errorf("heartbeat at %v, want a second after the last response", at)
		}
	})
}

func TestFollowerThatTakesInNothingIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(8)
		began := time.Now()
		_, ended := follow(t, l, 1) // the first response, and no heartbeat
		if err := <-ended; status.Code(err) != codes.OutOfRange || time.Since(began) != 3500*time.Millisecond {
			t.Errorf("ended after %v: %v", time.Since(began), err)
		}
	})
}

func TestAgeCountsTheTimeInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(8)
		l.publish(cache.Invalidation{Age: time.Minute})
		time.Sleep(time.Hour)
		at := cursor{}
		p, err := l.read(&at)
		if err != nil {
			t.Fatal(err)
		}
		if age := p.response().GetInvalidations()[0].GetAgeNs(); time.Duration(age) != time.Hour+time.Minute {
			t.Errorf("age %v", time.Duration(age))
		}
	})
}

// The changes that a feed has missed between two looks at it are missed by everybody.
func TestInterruptedFeedIsToldThoughItIsLiveAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(8)
		l.setLive([]string{"b", "a", "a"})
		o, _ := follow(t, l, 100)
		time.Sleep(heartbeat / 2)
		l.setLive([]string{"b"})
		l.setLive([]string{"a", "b"})
		l.publish(cache.Invalidation{Dataset: "metrics", Key: "k"})
		time.Sleep(heartbeat / 4)
		var told []string
		for range len(o.sent) {
			r := <-o.sent
			told = append(told, fmt.Sprintf("%v%d", r.GetLiveFeeds(), len(r.GetInvalidations())))
		}
		// The stream may have looked in between, too.
		last := slices.Index(told, "[a b]0")
		gone := slices.IndexFunc(told[last+1:], func(s string) bool { return s == "[]0" || s == "[b]0" })
		if gone < 0 || told[len(told)-1] != "[a b]1" {
			t.Errorf("told %v", told)
		}
	})
}

// Each response costs the same, however little is in it.
func TestBurstIsSentTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(4096)
		o, _ := follow(t, l, 100)
		<-o.sent
		began := time.Now()
		for range 10 {
			l.publish(cache.Invalidation{Dataset: "metrics", Key: "k"})
			synctest.Wait()
		}
		if r := <-o.sent; len(r.GetInvalidations()) != 1 || time.Since(began) != 0 {
			t.Errorf("first %d after %v, want one at once", len(r.GetInvalidations()), time.Since(began))
		}
		if r := <-o.sent; len(r.GetInvalidations()) != 9 || time.Since(began) != pacePerFollower {
			t.Errorf("then %d after %v, want the rest together", len(r.GetInvalidations()), time.Since(began))
		}
		for range 2 * maxBatch {
			l.publish(cache.Invalidation{Dataset: "metrics", Key: "k"})
		}
		time.Sleep(2 * pacePerFollower)
		if len(o.sent) != 2 {
			t.Errorf("%d responses of a long burst, want that full ones do not wait", len(o.sent))
		}
	})
}

func TestLogKeepsTheLatest(t *testing.T) {
	const size, published = 5, 12
	l := newLog(size)
	for n := range published {
		l.publish(cache.Invalidation{Key: fmt.Sprint(n + 1)})
	}
	for after := range uint64(published + 3) {
		at, err := l.from(l.epoch, after)
		if kept := after >= published-size && after <= published; (err == nil) != kept {
			t.Errorf("from %d: error %v, want kept: %v", after, err, kept)
			continue
		}
		if err != nil {
			continue
		}
		p, err := l.read(&at)
		if err != nil || p.sequence != published || at.sequence != published {
			t.Errorf("from %d: at %d, error %v", after, at.sequence, err)
		}
		for i, r := range p.records {
			if want := fmt.Sprint(after + uint64(i) + 1); r.invalidation.Key != want {
				t.Errorf("from %d: record %d is %s, want %s", after, i, r.invalidation.Key, want)
			}
		}
		if len(p.records) != int(published-after) || p.news != (after < published) || (p.changed == nil) != p.news {
			t.Errorf("from %d: %d records, news %v", after, len(p.records), p.news)
		}
	}
	for n := range size + 1 {
		l.publish(cache.Invalidation{Key: fmt.Sprint(published + n + 1)})
	}
	if _, err := l.read(&cursor{sequence: published}); err == nil {
		t.Error("what was overwritten is read")
	}
}

func TestReadIsBounded(t *testing.T) {
	l := newLog(2000)
	for range 1300 {
		l.publish(cache.Invalidation{})
	}
	var at cursor
	for _, want := range []int{maxBatch, maxBatch, 1300 - 2*maxBatch, 0} {
		if p, err := l.read(&at); err != nil || len(p.records) != want {
			t.Errorf("%d records, error %v, want %d", len(p.records), err, want)
		}
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	l := newLog(64)
	i := cache.Invalidation{Dataset: "metrics", Key: "k"}
	if n := testing.AllocsPerRun(100, func() { l.publish(i) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A connection that was ready may be gone when the write comes to it.
func TestWriteForWhichNoStreamWasMadeIsUnreachable(t *testing.T) {
	t.Parallel()
	p := NewPool(Config{})
	defer p.Close()
	m := newPeer(p, ring.Member{ID: "m", Addr: "127.0.0.1:1"}) // nobody listens there
	conn, err := m.connection()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if _, err := m.send(t.Context(), conn, cache.Change{Key: "k"}); !errors.Is(err, cache.ErrUnreachable) {
		t.Errorf("error %v, want unreachable", err)
	}
}
