package service

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// checkedDataset reports each argument that a Service must have rejected.
type checkedDataset struct {
	t     *testing.T
	stats kv.Stats
}

func (d *checkedDataset) Stats() *kv.Stats { return &d.stats }

func (d *checkedDataset) ServeMany(ctx context.Context, qs []kv.Query, _ kv.BatchLimit) []kv.Result {
	results := make([]kv.Result, len(qs))
	for i, q := range qs {
		results[i].Answer, results[i].Err = d.Serve(ctx, q)
	}
	return results
}

func (d *checkedDataset) Serve(_ context.Context, q kv.Query) (kv.Answer, error) {
	d.check(q.Dataset, q.Key)
	if q.MinVersion < 0 || q.MaxAge < 0 {
		d.t.Errorf("got query %+v, want no negative numbers", q)
	}
	return kv.Answer{}, nil
}

func (d *checkedDataset) ServeHit(q kv.Query, _ int) (kv.Answer, bool) {
	a, err := d.Serve(context.Background(), q)
	return a, err == nil
}

func (d *checkedDataset) ServeWrite(_ context.Context, c kv.Change) (kv.Answer, error) {
	d.check(c.Dataset, c.Key)
	if len(c.Value) > kv.MaxValueBytes || len(c.ID) > 256 || len(c.If.ETag) > 256 {
		d.t.Errorf("got a change over the limits: %d, %d, %d bytes", len(c.Value), len(c.ID), len(c.If.ETag))
	}
	return kv.Answer{}, nil
}

func (d *checkedDataset) ServeWriteMany(ctx context.Context, cs []kv.Change) []kv.Result {
	if len(cs) > kv.MaxBatchWrites {
		d.t.Errorf("got %d changes", len(cs))
	}
	for _, c := range cs {
		_, _ = d.ServeWrite(ctx, c)
	}
	return make([]kv.Result, len(cs))
}

func (d *checkedDataset) check(dataset, key string) {
	if kv.CheckKey(key) != nil || len(dataset) > 128 {
		d.t.Errorf("got dataset %q, key %q over the limits", dataset, key)
	}
}

func (d *checkedDataset) invalidate(list []kv.Invalidation) {
	for _, i := range list {
		if !i.Prefix {
			d.check(i.Dataset, i.Key)
		}
		if i.Age < 0 || i.Version < 0 || len(i.Key) > kv.MaxKeyBytes || len(i.Dataset) > 128 {
			d.t.Errorf("got invalidation %+v over the limits", i)
		}
	}
}

type everyKey struct{}

func (everyKey) RingID() uint64           { return 0 }
func (everyKey) Owns(string, string) bool { return true }

// FuzzRequests passes any request that another program may send to a Service.
func FuzzRequests(f *testing.F) {
	long := strings.Repeat("k", kv.MaxKeyBytes+1)
	for _, seed := range []proto.Message{
		&peerv1.FetchRequest{Dataset: "metrics", Key: "k", MinVersion: -1, MaxAgeNs: -1},
		&peerv1.FetchBatchRequest{Requests: []*peerv1.FetchRequest{{Dataset: "metrics", Key: "k", MinVersion: -1}, {Key: long}, {}}},
		&peerv1.WriteRequest{Dataset: "metrics", Key: "k", Value: []byte("v"), IfEtag: "x", IdempotencyId: "y"},
		&peerv1.WriteRequest{Dataset: long, Key: long, IfEtag: long, IdempotencyId: long},
		&peerv1.WriteBatchRequest{Dataset: "metrics", Changes: []*peerv1.WriteRequest{{Key: "a", Value: []byte("v")}, {Key: "b", Delete: true}, {Key: "a"}}},
		&peerv1.WriteBatchRequest{Dataset: long, Changes: []*peerv1.WriteRequest{{Key: long, IfEtag: long}}},
		&peerv1.InvalidateRequest{Invalidations: []*peerv1.Invalidation{{Dataset: "metrics", Key: "k", AgeNs: -1}, {Key: long}}},
	} {
		data, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &checkedDataset{t: t}
		s := New(Config{
			Ring: everyKey{}, Invalidate: d.invalidate, Datasets: func(string) (Dataset, bool) { return d, true },
		})
		for _, call := range []func() error{
			func() error { return callWith(data, s.Fetch) },
			func() error {
				s.Fast().Append(context.Background(), h2.Call{Path: peerv1.Peer_Fetch_FullMethodName}, data, nil, 1<<20)
				return nil
			},
			func() error { return callWith(data, s.FetchBatch) },
			func() error { return callWith(data, s.Write) },
			func() error { return callWith(data, s.WriteBatch) },
			func() error { return callWith(data, s.Invalidate) },
		} {
			_ = call() // d checks what the Service accepts
		}
	})
}

// callWith makes a call with the request that data encodes.
func callWith[Req any, PReq interface {
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
