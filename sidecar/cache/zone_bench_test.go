package cache_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// startZones starts the members a0 and a1 in zone a and b0 in zone b, which talk over loopback TCP.
func startZones(b *testing.B, o origin.Origin, zones bool) (datasets map[string]*cache.Dataset, pools map[string]*peer.Pool) {
	datasets, pools = map[string]*cache.Dataset{}, map[string]*peer.Pool{}
	var members []ring.Member
	for _, id := range []string{"a0", "a1", "b0"} {
		pool := peer.NewPool(peer.Config{Self: id, Zone: id[:1], Zones: zones, Sink: peertest.DiscardSink{}, CopyLife: time.Minute, PingAfter: time.Minute})
		b.Cleanup(pool.Close)
		p := kv.DefaultPolicy()
		p.TTL, p.TTLJitter, p.LocalTTL = time.Hour, 0, 0
		d, err := cache.New(cache.Config{Name: "metrics", Policy: p, Origin: o, Peers: pool, MaxBytes: 256 << 20})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(d.Close)
		m := peertest.StartMember(b, id, peertest.Logging(pool), func(_ *peertest.Member, sc *service.Config, _ *server.Config) {
			sc.Datasets = func(string) (service.Dataset, bool) { return d, true }
			sc.Ring = pool
		})
		m.Zone = id[:1]
		datasets[id], pools[id], members = d, pool, append(members, m.Member)
	}
	r := peertest.NewRing(b, members...)
	for _, pool := range pools {
		pool.SetRing(r, nil)
	}
	return datasets, pools
}

// BenchmarkZones measures reads through a0 of keys that the owner b0 in the other zone has in memory: without zones one fetch from
// the owner; with zones two, through a1, or one from a1 if that has a copy.
func BenchmarkZones(b *testing.B) {
	for name, zones := range map[string]bool{"owner": false, "zone-owner-and-owner": true, "zone-owner": true} {
		b.Run(name, func(b *testing.B) {
			values, keys := map[string]string{}, []string(nil)
			o := origintest.New(values)
			datasets, pools := startZones(b, o, zones)
			read := func(member, key string) time.Duration {
				began := time.Now()
				if _, err := datasets[member].Get(b.Context(), key, kv.ReadOptions{}); err != nil {
					b.Fatal(err)
				}
				return time.Since(began)
			}
			for i := 0; len(keys) < max(b.N, 100); i++ {
				key := fmt.Sprint("key-", i)
				near, _ := pools["a0"].ZoneOwner("metrics", key)
				if pools["b0"].Owns("metrics", key) && (!zones || near != nil) {
					o.Set(key, string(make([]byte, 1024)))
					keys = append(keys, key)
					read("b0", key)
				}
			}
			for _, key := range keys[:100] { // connections and subscriptions
				read("a0", key)
				read("a1", key)
			}
			if name == "zone-owner" {
				for _, key := range keys {
					read("a1", key)
				}
			}
			time.Sleep(100 * time.Millisecond)
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			for i := range took {
				took[i] = read("a0", keys[len(keys)-1-i])
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[b.N/2].Nanoseconds())/1e3, "p50-us")
			b.ReportMetric(float64(took[b.N*99/100].Nanoseconds())/1e3, "p99-us")
		})
	}
}
