package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/bench/loadgen"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// peerKeys are read from another member's memory.
const peerKeys = 1000

// A read that another member serves from its memory, beside groupcache-go. over=process has the readers in the process of the
// client of the owner, as an application has that uses groupcache-go; Ringside's own readers are other processes.
func BenchmarkPeerFetch(b *testing.B) {
	sidecars := newSidecars(b, 2)
	var keys []string
	for i := 0; len(keys) < peerKeys; i++ {
		if key := keyOf(i); owner(b, sidecars, key) == 1 {
			keys = append(keys, key)
		}
	}
	pids := []int{sidecars[0].Pid(), sidecars[1].Pid()}
	overHTTP := server{"tcp", sidecars[0].HTTP, pids}
	reads := loadgen.HTTP(prefixed("/v1/peer-metrics/", keys), len(value))
	warm(b, overHTTP, reads, len(keys))
	cluster := newGroupcache(b)
	theirs := loadgen.HTTP(prefixed("/k/", cluster.keys), len(value))
	warm(b, cluster.server, theirs, len(cluster.keys))
	calls := grpcReads("peer-metrics", len(keys), func(i int) string { return keys[i] })
	for _, l := range []struct{ conns, depth int }{{1, 1}, {64, 1}, {4, 16}} {
		measurePeers := func(name string, s server, open func() loadgen.Stream) {
			b.Run(fmt.Sprintf("%s/load=%dx%d", name, l.conns, l.depth), func(b *testing.B) {
				measureLoad(b, s, open, l.conns, loadgen.Load{Depth: l.depth, For: hitFor})
			})
		}
		if l.depth == 1 {
			measurePeers("over=HTTP/server=ringside", overHTTP, reads)
			measurePeers("over=HTTP/server=groupcache", cluster.server, theirs)
			b.Run(fmt.Sprintf("over=process/server=ringside/load=%dx1", l.conns), func(b *testing.B) { measureFetches(b, sidecars[1], keys, l.conns) })
			b.Run(fmt.Sprintf("over=process/server=groupcache/load=%dx1", l.conns), func(b *testing.B) { cluster.measure(b, l.conns) })
		}
		measurePeers("over=gRPC/server=ringside", server{"tcp", sidecars[0].GRPC, pids}, calls)
	}
}

// measureFetches fetches keys from their owner with concurrent readers in this process, as the readers of groupcache-go do.
func measureFetches(b *testing.B, from *rig.Sidecar, keys []string, readers int) {
	pool := peertest.StartPool(b, peer.Config{}, &peertest.Member{Member: ring.Member{ID: "owner", Addr: from.Peer}})
	to := peertest.PeerTo(b, pool, "owner")
	for b.Loop() {
		latencies := make([][]time.Duration, readers)
		began := time.Now()
		var all sync.WaitGroup
		for r := range readers {
			all.Go(func() {
				for i := r; time.Since(began) < hitFor; i += readers {
					start := time.Now()
					answer, err := to.Fetch(b.Context(), kv.Query{Dataset: "peer-metrics", Key: keys[i%len(keys)]})
					if err != nil || len(answer.Value) != len(value) {
						b.Errorf("got %d bytes and %v, want %d", len(answer.Value), err, len(value))
						return
					}
					latencies[r] = append(latencies[r], time.Since(start))
				}
			})
		}
		all.Wait()
		elapsed, sorted := time.Since(began), slices.Sorted(slices.Values(slices.Concat(latencies...)))
		if b.Failed() {
			return
		}
		b.ReportMetric(float64(len(sorted))/elapsed.Seconds(), "req/s")
		b.ReportMetric(microseconds(sorted[len(sorted)/2]), "p50-us")
	}
}

func prefixed(prefix string, keys []string) []string {
	all := make([]string, len(keys))
	for i, key := range keys {
		all[i] = prefix + key
	}
	return all
}

// owner returns the number of the sidecar that owns a key of peer-metrics.
func owner(b *testing.B, sidecars []*rig.Sidecar, key string) int {
	b.Helper()
	members := make([]ring.Member, len(sidecars))
	for i, s := range sidecars {
		members[i] = ring.Member{ID: strconv.Itoa(i), Addr: s.Peer}
	}
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		b.Fatal(err)
	}
	i, _ := strconv.Atoi(r.Owner(routekey.Format("peer-metrics", key)).ID) // written above
	return i
}

// groupcache is a cluster of two members of groupcache-go, the first of which fetches all keys from the second.
type groupcache struct {
	server
	keys []string
}

func newGroupcache(b *testing.B) groupcache {
	b.Helper()
	reader, other := rig.FreeAddress(b), rig.FreeAddress(b)
	second := startGroupcache(b, "-self", other, "-other", reader)
	first := startGroupcache(b, "-self", reader, "-other", other, "-peers-only")
	g := groupcache{server: server{"tcp", first.Address, []int{first.Pid(), second.Pid()}}}
	g.keys = strings.Fields(string(g.get(b, "/owned")))
	return g
}

func startGroupcache(b *testing.B, args ...string) *rig.Rival {
	b.Helper()
	api := rig.FreeAddress(b)
	return rig.RivalProgram(b, "groupcache", api, append(args, "-api", api, "-size", strconv.Itoa(len(value)))...)
}

func (g groupcache) get(b *testing.B, path string) []byte {
	b.Helper()
	response, err := http.Get("http://" + g.address + path)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		b.Fatalf("groupcache: %s, %v: %s", response.Status, err, body)
	}
	return body
}

// measure lets the first member itself read with concurrent goroutines.
func (g groupcache) measure(b *testing.B, readers int) {
	for b.Loop() {
		var run struct {
			Reads           int
			Elapsed, Median time.Duration
		}
		before := cpuTime(b, g.pids)
		if err := json.Unmarshal(g.get(b, fmt.Sprintf("/run?readers=%d&for=%v", readers, hitFor)), &run); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(run.Reads)/run.Elapsed.Seconds(), "req/s")
		b.ReportMetric(microseconds(cpuTime(b, g.pids)-before)/float64(run.Reads), "cpu-us/req")
		b.ReportMetric(microseconds(run.Median), "p50-us")
	}
}
