package service_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

func held(q kv.Query) (kv.Answer, bool) {
	a, err := peertest.Held(context.Background(), q)
	a.Version, a.Age = 7, time.Millisecond
	return a, err == nil
}

// Values in memory are answered without a goroutine, and everything else by Fetch.
func TestFetchIsAnsweredFromMemory(t *testing.T) {
	t.Parallel()
	var loads atomic.Int64
	m := peertest.StartMember(t, "m",
		peertest.Holding(func(q kv.Query) (kv.Answer, bool) {
			if q.Key != "k" {
				return kv.Answer{}, false
			}
			return held(q)
		}),
		peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
			loads.Add(1)
			return peertest.Held(ctx, q)
		}))
	p := peertest.StartConnected(t, peer.Config{}, m)
	to := peertest.PeerTo(t, p, "m")
	a, err := to.Fetch(t.Context(), peertest.Get("k"))
	if err != nil || string(a.Value) != "k" || a.Version != 7 || a.Source != kv.SourcePeerHit || a.Owner != "m" || loads.Load() != 0 {
		t.Errorf("got %+v, %v after %d loads, want the value in memory", a, err, loads.Load())
	}
	if a, err = to.Fetch(t.Context(), peertest.Get("other")); err != nil || string(a.Value) != "other" || loads.Load() != 1 {
		t.Errorf("got %+v, %v after %d loads, want a load", a, err, loads.Load())
	}
}

// FuzzFast sends any message: what Fast answers is what Fetch answers.
func FuzzFast(f *testing.F) {
	for _, seed := range []*peerv1.FetchRequest{
		{Dataset: "metrics", Key: "k", RingId: 1, DataErrors: true, MaxBytes: 8 << 10},
		{Dataset: "metrics", Key: "k", RingId: 2, MaxBytes: 1},
		{Dataset: "metrics", Key: "key", MaxBytes: 2},
		{Dataset: "other", Key: "k"},
	} {
		data, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, 1000)
	}
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		d := &peertest.Dataset{HitFunc: held, ServeFunc: func(_ context.Context, q kv.Query) (kv.Answer, error) {
			a, _ := held(q)
			return a, nil
		}}
		ring := &peertest.View{}
		ring.ID.Store(1)
		s := service.New(service.Config{Ring: ring, Datasets: func(name string) (service.Dataset, bool) { return d, name == "metrics" }})
		prefix := []byte("prefix")
		got, ok := s.Fast().Append(t.Context(), h2.Call{Path: peerv1.Peer_Fetch_FullMethodName}, data, slices.Clone(prefix), limit)
		if !ok {
			if n := d.Fetches.Load(); n != 0 || string(got) != string(prefix) {
				t.Errorf("it did not answer, counted %d fetches and returned %q", n, got)
			}
			return
		}
		req := new(peerv1.FetchRequest)
		if err := proto.Unmarshal(data, req); err != nil {
			t.Fatal(err)
		}
		resp, err := s.Fetch(t.Context(), req)
		if err != nil {
			t.Fatalf("got %x, want error %v", got, err)
		}
		want, err := proto.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		if got = got[len(prefix):]; string(got) != string(want) || len(got) > limit {
			t.Errorf("got %x, want %x and at most %d bytes", got, want, limit)
		}
		if st := s.Stats(); st.RingMismatch%2 != 0 || d.Counters.NotOwner.Load() != 2 {
			t.Errorf("got stats %+v, %d not owner, want the same counts of both", st, d.Counters.NotOwner.Load())
		}
	})
}
