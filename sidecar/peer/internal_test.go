package peer

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// A connection may break between the check that it is ready and the write.
func TestWriteWithoutAStreamIsUnreachable(t *testing.T) {
	t.Parallel()
	p := NewPool(Config{})
	defer p.Close()
	m := newPeer(p, ring.Member{ID: "m", Addr: "127.0.0.1:1"}) // no listener
	conn, err := m.connection()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if _, err := m.send(t.Context(), conn, kv.Change{Key: "k"}); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
}

// checkedSink reports each invalidation that a subscription must have rejected.
type checkedSink struct{ t *testing.T }

func (s checkedSink) Invalidate(list []kv.Invalidation) {
	for _, i := range list {
		if !i.Prefix && kv.CheckKey(i.Key) != nil || i.Age < 0 || i.Version < 0 || len(i.Key) > kv.MaxKeyBytes || len(i.Dataset) > 128 {
			s.t.Errorf("got invalidation %+v over the limits", i)
		}
	}
}
func (checkedSink) Missed(string)              {}
func (checkedSink) LiveFeeds(string, []string) {}

// FuzzSubscription passes any response that another program may send to a subscription.
func FuzzSubscription(f *testing.F) {
	seed, err := proto.Marshal(&peerv1.SubscribeResponse{
		Epoch: 1, Sequence: 1, Invalidations: []*peerv1.Invalidation{{Key: "k", Version: -1}, {}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var r peerv1.SubscribeResponse
		if proto.Unmarshal(data, &r) != nil {
			return
		}
		p := NewPool(Config{Sink: checkedSink{t}})
		defer p.Close()
		s := &subscription{peer: newPeer(p, ring.Member{ID: "m"}), open: &openStream{}}
		_ = s.receive(t.Context(), &r) // the sink checks what the subscription accepts
	})
}

// A member without room for more subscribers gets few attempts of those that it has refused, and another one as many as before.
func TestRefusedSubscriberWaits(t *testing.T) {
	p := NewPool(Config{})
	defer p.Close()
	s := subscription{peer: newPeer(p, ring.Member{ID: "m"}), wait: backoff.Backoff{First: subscribeBackoff}}
	longest := func(err error) (wait time.Duration) {
		for range 20 {
			s.end(err)
			wait = s.wait.Next()
		}
		return wait
	}
	if wait := longest(status.Error(codes.ResourceExhausted, "the limit of subscribers is reached")); wait < maxRefusedBackoff/2 {
		t.Errorf("a refused subscriber waits %v, want at least %v", wait, maxRefusedBackoff/2)
	}
	if wait := longest(status.Error(codes.Unavailable, "the member restarts")); wait > maxSubscribeBackoff {
		t.Errorf("a subscriber of a member that restarts waits %v, want at most %v", wait, maxSubscribeBackoff)
	}
}

// Longer ones would be proven with pings, as many as the fetches that they save.
func TestCopiesOfHotKeysNeedNoProof(t *testing.T) {
	if kv.HotCopyTTL > streamTimeout {
		t.Errorf("copies of hot keys live for %v, a silent stream for %v", kv.HotCopyTTL, streamTimeout)
	}
}
