package hotkeys_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

var (
	herdMembers = flag.Int("members", 200, "members of the herd")
	herdTime    = flag.Duration("herd", 20*time.Second, "how long the herd reads")
)

const (
	readEvery  = 100 * time.Millisecond // of each member
	writeEvery = 2 * time.Second
)

// sink applies the invalidations of other members to the dataset of a member.
type sink struct {
	peertest.DiscardSink
	dataset *cache.Dataset
}

func (s *sink) Invalidate(list []kv.Invalidation) {
	for _, i := range list {
		s.dataset.ApplyInvalidation(i)
	}
}

func (s *sink) Missed(member string) { s.dataset.ExpireFrom(member) }

// herd is a cluster of members in this process that talk over loopback TCP.
type herd struct {
	origin *origintest.Fake
	list   []*cache.Dataset
	owner  *cache.Dataset
}

func newHerd(b *testing.B, n int, hot bool) *herd {
	h := &herd{origin: origintest.New(map[string]string{"k": "v"})}
	h.origin.Slow(5 * time.Millisecond)
	var pools []*peer.Pool
	var members []ring.Member
	for i := range n {
		id, s := fmt.Sprint("member-", i), &sink{}
		pool := peer.NewPool(peer.Config{Self: id, Sink: s, CopyLife: time.Second, PingAfter: time.Minute, AttemptTimeout: time.Minute})
		b.Cleanup(pool.Close)
		p := kv.DefaultPolicy()
		p.LoadTimeout = 20 * time.Second // two hundred members in one process connect at once
		c := cache.Config{Name: "metrics", Policy: p, Origin: origin.Origin(h.origin), Writer: h.origin, Peers: pool, MaxBytes: 1 << 20}
		if hot {
			c.Hot = hotkeys.New()
		}
		d, err := cache.New(c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(d.Close)
		s.dataset = d
		m := peertest.StartMember(b, id, peertest.Logging(pool), func(_ *peertest.Member, sc *service.Config, _ *server.Config) {
			sc.Datasets = func(string) (service.Dataset, bool) { return d, true }
			sc.Ring = pool
		})
		pools, members, h.list = append(pools, pool), append(members, m.Member), append(h.list, d)
	}
	r := peertest.NewRing(b, members...)
	for i, pool := range pools {
		pool.SetRing(r, nil)
		if pool.Owns("metrics", "k") {
			h.owner = h.list[i]
		}
	}
	return h
}

// read makes every member read the key for a time, and returns how long each read took, sorted.
func (h *herd) read(b *testing.B, d time.Duration) (took []time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	stop := time.Now().Add(d)
	for i, m := range h.list {
		all.Go(func() {
			time.Sleep(readEvery * time.Duration(i) / time.Duration(len(h.list)))
			var mine []time.Duration
			for time.Now().Before(stop) {
				began := time.Now()
				if _, err := m.Get(context.Background(), "k", kv.ReadOptions{}); err != nil {
					b.Error(err)
				}
				mine = append(mine, time.Since(began))
				time.Sleep(readEvery)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}

// BenchmarkHerd measures members that read one key all the time, without hot keys (before) and with them (after): without
// writes, and with one through another member every two seconds.
func BenchmarkHerd(b *testing.B) {
	for i := range 4 {
		writes, hot := i >= 2, i%2 == 1
		name := map[bool]string{false: "reads", true: "writes"}[writes] + "/" + map[bool]string{false: "before", true: "after"}[hot]
		b.Run(name, func(b *testing.B) {
			h := newHerd(b, *herdMembers, hot)
			for b.Loop() {
				h.read(b, 3*time.Second) // connections, subscriptions, and the rate of the key
				queries, fetches := h.origin.Queries(), h.owner.Stats().Served.Load()
				all := int64(0)
				for _, m := range h.list {
					all -= m.Stats().PeerFetches.Load()
				}
				ctx, cancel := context.WithCancel(context.Background())
				var writer sync.WaitGroup
				if writes {
					writer.Go(func() { h.write(ctx, b) })
				}
				took := h.read(b, *herdTime)
				cancel()
				writer.Wait()
				for _, m := range h.list {
					all += m.Stats().PeerFetches.Load()
				}
				b.ReportMetric(float64(h.origin.Queries()-queries), "queries")
				b.ReportMetric(float64(h.owner.Stats().Served.Load()-fetches)/herdTime.Seconds(), "owner-fetches/s")
				b.ReportMetric(float64(all)/herdTime.Seconds(), "all-fetches/s")
				b.ReportMetric(float64(len(took)), "reads")
				for name, share := range map[string]float64{"p50-us": .5, "p99-us": .99, "p999-us": .999} {
					b.ReportMetric(float64(took[int(share*float64(len(took)))].Microseconds()), name)
				}
			}
		})
	}
}

func (h *herd) write(ctx context.Context, b *testing.B) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(writeEvery):
		}
		if _, err := h.list[n%len(h.list)].Write(context.Background(), kv.Change{Key: "k", Value: fmt.Append(nil, n)}); err != nil {
			b.Error(err)
		}
	}
}
