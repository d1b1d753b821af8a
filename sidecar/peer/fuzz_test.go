package peer

import (
	"context"
	"strings"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// FuzzStatus reads whatever another program may send as grpc-status-details-bin.
func FuzzStatus(f *testing.F) {
	for _, after := range []time.Duration{0, time.Second, -time.Second, 1 << 62} {
		seed, err := proto.Marshal(withRetry(status.New(codes.Aborted, "the origin failed"), after).Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Add([]byte("\x08\x0a\x1a\x04\x0a\x02xy"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var raw spb.Status
		if proto.Unmarshal(data, &raw) != nil {
			return
		}
		for _, call := range []answersTo{toFetch, toWrite} {
			e := fromStatus(status.FromProto(&raw), call)
			if e == nil {
				continue
			}
			if e.RetryAfter < 0 {
				t.Errorf("retry after %v", e.RetryAfter)
			}
			again := fromStatus(status.Convert(toStatus(e)), call)
			if again == nil || again.Kind != e.Kind || again.RetryAfter != e.RetryAfter {
				t.Errorf("%+v came back as %+v", e, again)
			}
			if cache.KindOf(e) == cache.KindInternal {
				t.Errorf("an answer of kind internal: %v", e)
			}
		}
	})
}

// checking is a dataset that complains about what must not have reached it.
type checking struct {
	t     *testing.T
	stats cache.Stats
}

func (d *checking) Stats() *cache.Stats          { return &d.stats }
func (d *checking) PrefetchServed([]cache.Query) {} // it has checks of its own

func (d *checking) Serve(_ context.Context, q cache.Query) (cache.Answer, error) {
	d.check(q.Dataset, q.Key)
	if q.MinVersion < 0 || q.MaxAge < 0 {
		d.t.Errorf("query %+v", q)
	}
	return cache.Answer{}, nil
}

func (d *checking) ServeWrite(_ context.Context, c cache.Change) (cache.Answer, error) {
	d.check(c.Dataset, c.Key)
	if len(c.Value) > maxValueBytes || len(c.ID) > maxIDBytes || len(c.If.ETag) > maxETagBytes {
		d.t.Errorf("change beyond the bounds: %d, %d, %d bytes", len(c.Value), len(c.ID), len(c.If.ETag))
	}
	return cache.Answer{}, nil
}

func (d *checking) check(dataset, key string) {
	if key == "" || len(key) > cache.MaxKeyBytes || len(dataset) > maxDatasetBytes {
		d.t.Errorf("dataset %q, key %q", dataset, key)
	}
}

// Invalidate, Missed and LiveFeeds implement Sink.
func (d *checking) Invalidate(list []cache.Invalidation) {
	for _, i := range list {
		if !i.Prefix {
			d.check(i.Dataset, i.Key)
		}
		if i.Age < 0 || i.Version < 0 || len(i.Key) > cache.MaxKeyBytes || len(i.Dataset) > maxDatasetBytes {
			d.t.Errorf("invalidation %+v", i)
		}
	}
}
func (d *checking) Missed(string)              {}
func (d *checking) LiveFeeds(string, []string) {}

type everyKey struct{}

func (everyKey) RingID() uint64           { return 0 }
func (everyKey) Owns(string, string) bool { return true }

// FuzzRequests gives a Service, and one who follows, whatever another program may send.
func FuzzRequests(f *testing.F) {
	long := strings.Repeat("k", cache.MaxKeyBytes+1)
	for _, seed := range []proto.Message{
		&peerv1.FetchRequest{Dataset: "metrics", Key: "k", MinVersion: -1, MaxAgeNs: -1},
		&peerv1.FetchBatchRequest{Requests: []*peerv1.FetchRequest{{Dataset: "metrics", Key: "k", MinVersion: -1}, {Key: long}, {}}},
		&peerv1.WriteRequest{Dataset: "metrics", Key: "k", Value: []byte("v"), IfEtag: "x", IdempotencyId: "y"},
		&peerv1.WriteRequest{Dataset: long, Key: long, IfEtag: long, IdempotencyId: long},
		&peerv1.InvalidateRequest{Invalidations: []*peerv1.Invalidation{{Dataset: "metrics", Key: "k", AgeNs: -1}, {Key: long}}},
		&peerv1.FollowResponse{Epoch: 1, Sequence: 1, Invalidations: []*peerv1.Invalidation{{Key: "k", Version: -1}, {}}},
	} {
		data, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &checking{t: t}
		s := NewService(ServiceConfig{
			Ring: everyKey{}, Invalidate: d.Invalidate, Datasets: func(string) (Dataset, bool) { return d, true },
		})
		p := NewPool(Config{Sink: d})
		defer p.Close()
		follower := &follower{peer: newPeer(p, ring.Member{ID: "m"})}
		for _, call := range []func() error{
			func() error { return given(data, s.Fetch) },
			func() error { return given(data, s.FetchBatch) },
			func() error { return given(data, s.Write) },
			func() error { return given(data, s.Invalidate) },
			func() error {
				return given(data, func(_ context.Context, r *peerv1.FollowResponse) (any, error) { return nil, follower.take(r) })
			},
		} {
			_ = call() // refused or taken; d complains
		}
	})
}

// given makes a call with a request that holds data.
func given[Req any, PReq interface {
	*Req
	proto.Message
}, Resp any](data []byte, call func(context.Context, PReq) (Resp, error)) error {
	req := PReq(new(Req))
	if err := proto.Unmarshal(data, req); err != nil {
		return err
	}
	_, err := call(context.Background(), req)
	return err
}
