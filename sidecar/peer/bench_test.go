package peer_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

const valueBytes = 1024

// echo answers with a message of the same size as a peer fetch, and does nothing else.
type echo struct {
	peerv1.UnimplementedPeerServer
	answer *peerv1.FetchResponse
}

func (e echo) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return e.answer, nil
}

var inMemory = kv.Answer{Value: make([]byte, valueBytes), Fresh: time.Second, Source: kv.SourceHit}

// held serves one value from memory.
func held(kv.Query) (kv.Answer, bool) { return inMemory, true }

// BenchmarkFetch compares a peer fetch with a bare gRPC call in the same run.
func BenchmarkFetch(b *testing.B) {
	b.Run("bare-grpc", func(b *testing.B) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		server := grpc.NewServer()
		peerv1.RegisterPeerServer(server, echo{answer: &peerv1.FetchResponse{Value: make([]byte, valueBytes)}})
		go func() { _ = server.Serve(listener) }()
		defer server.Stop()
		conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		client := peerv1.NewPeerClient(conn)
		run(b, func() error {
			// with a deadline, because every peer fetch has one
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := client.Fetch(ctx, &peerv1.FetchRequest{Dataset: "metrics", Key: "k"})
			return err
		})
	})
	ca := peertest.NewAuthority(b)
	for name, creds := range map[string]credentials.TransportCredentials{
		"plain": nil, "tls": peertest.NewCredentials(b, ca.Issue(b, nil), ca.PEM()),
	} {
		b.Run(name, func(b *testing.B) {
			m := peertest.StartMember(b, "m", peertest.Holding(held), peertest.ServerCredentials(creds))
			p := peertest.StartPool(b, peer.Config{Credentials: creds}, m)
			key := peertest.KeyWith(b, p, peertest.OwnedBy("m"))
			run(b, func() error {
				_, err := p.Route("metrics", key).Owner.Fetch(context.Background(), peertest.Get(key))
				return err
			})
		})
	}
}

// run makes one call at a time, and then 64.
func run(b *testing.B, call func() error) {
	b.Run("in-flight=1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("in-flight=64", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkRoute(b *testing.B) {
	for _, n := range []int{5, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			members := []ring.Member{{ID: "self", Addr: "127.0.0.1:1"}}
			for i := range n {
				members = append(members, ring.Member{ID: fmt.Sprint("m", i), Addr: fmt.Sprint("127.0.0.1:", 10_000+i)})
			}
			p := peer.NewPool(peer.Config{Self: "self"})
			defer p.Close()
			p.SetRing(peertest.NewRing(b, members...), nil)
			b.ReportAllocs()
			for b.Loop() {
				p.Route("metrics", "interface/eth0/rx")
			}
		})
	}
}

// BenchmarkIdleConnection reports the memory of a connection of one of a thousand members that was used once, both ends together, and
// the processor time per second of all of them.
func BenchmarkIdleConnection(b *testing.B) {
	const conns = 1000
	m := peertest.StartMember(b, "m", peertest.Holding(held))
	for b.Loop() {
		pools := make([]*peer.Pool, conns)
		for i := range pools {
			pools[i] = peertest.StartPool(b, peer.Config{}, m)
		}
		before := inUse()
		for _, p := range pools {
			if err := peertest.Fetch(b, p, "m"); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(inUse()-before)/conns, "B/conn-just-used")
		time.Sleep(rest)
		b.ReportMetric(float64(inUse()-before)/conns, "B/conn")
		b.ReportMetric(idleCPU(b), "ms-cpu/s")
		for _, p := range pools {
			p.Close()
		}
	}
}

// rest is after which time idle connections have given their buffers back: they do so after a second without frames.
const rest = 2 * time.Second

// inUse returns the bytes of heap and stacks.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse + s.StackInuse)
}

// BenchmarkPublish is the cost of a publication for the writer, with subscribers that cannot keep up.
func BenchmarkPublish(b *testing.B) {
	for _, subscribers := range []int{0, 1, 1000} {
		b.Run(fmt.Sprint(subscribers, "-subscribers"), func(b *testing.B) {
			writer, m := peertest.StartWriter(b, "m", peer.Config{})
			subscribeMany(b, m, subscribers)
			i := peertest.Drop("interface/eth0/rx", 1)
			b.ReportAllocs()
			for b.Loop() {
				writer.Publish(i)
			}
		})
	}
}

// BenchmarkFanOut measures a thousand writes a second with a thousand subscribers, and their use of the processor, both ends
// together.
func BenchmarkFanOut(b *testing.B) {
	const subscribers, writes = 1000, 1000
	writer, m := peertest.StartWriter(b, "m", peer.Config{})
	received := subscribeMany(b, m, subscribers)
	i := peertest.Drop("interface/eth0/rx", 1)
	var publishing, used time.Duration
	for b.Loop() {
		before, began := received.Load(), cpu(b)
		for range writes {
			start := time.Now()
			writer.Publish(i)
			publishing += time.Since(start)
			time.Sleep(time.Second/writes - time.Since(start))
		}
		for received.Load() < before+subscribers*writes {
			time.Sleep(time.Millisecond)
			if m.Service.Stats().Subscribers < subscribers {
				b.Fatal("a subscriber was cut off")
			}
		}
		used += cpu(b) - began
	}
	n := float64(b.N * writes)
	b.ReportMetric(float64(publishing)/n, "ns/publish")
	b.ReportMetric(float64(used)/n, "cpu-ns/publish")
	b.ReportMetric(float64(used)/float64(b.Elapsed()), "cpus")
}

// subscribeMany opens streams, a hundred per connection, and returns the number of received invalidations.
func subscribeMany(b *testing.B, m *peertest.Member, n int) *atomic.Int64 {
	b.Helper()
	received := new(atomic.Int64)
	var client peerv1.PeerClient
	for i := range n {
		if i%100 == 0 {
			conn, err := grpc.NewClient("passthrough:///"+m.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { conn.Close() })
			client = peerv1.NewPeerClient(conn)
		}
		stream, err := client.Subscribe(b.Context(), &peerv1.SubscribeRequest{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					return
				}
				received.Add(int64(len(r.GetInvalidations())))
			}
		}()
	}
	return received
}

// BenchmarkInvalidationLatency is the time from Publish to the Sink of a subscriber, for writes that are 5 ms apart.
func BenchmarkInvalidationLatency(b *testing.B) {
	writer, m := peertest.StartWriter(b, "m", peer.Config{})
	s := newSink(b)
	p := peertest.StartPool(b, peer.Config{Sink: s}, m)
	if err := peertest.Fetch(b, p, "m"); err != nil {
		b.Fatal(err)
	}
	s.expect("missed m")
	i, times := peertest.Drop("interface/eth0/rx", 1), make([]time.Duration, 0, 1<<20)
	for b.Loop() {
		time.Sleep(5 * time.Millisecond)
		began := time.Now()
		writer.Publish(i)
		<-s.ages
		times = append(times, time.Since(began))
		<-s.calls
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2]), "p50-ns")
	b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns")
}

// BenchmarkSubscription reports the memory of a stream on an existing connection, both ends together, and the processor time per
// second of a thousand streams on which all subscribers rely, and while these sleep.
func BenchmarkSubscription(b *testing.B) {
	const streams = 1000
	_, m := peertest.StartWriter(b, "m", peer.Config{})
	for b.Loop() {
		pools := make([]*peer.Pool, streams)
		for i := range pools {
			pools[i] = peertest.StartPool(b, peer.Config{Sink: peertest.DiscardSink{}}, m)
			if err := pools[i].Ping(context.Background(), m.Member); err != nil {
				b.Fatal(err)
			}
		}
		before := inUse()
		for _, p := range pools {
			if err := peertest.Fetch(b, p, "m"); err != nil {
				b.Fatal(err)
			}
		}
		peertest.Eventually(b, "all are subscribed", func() bool { return m.Service.Stats().Subscribers == streams })
		time.Sleep(time.Second)
		b.ReportMetric(idleCPU(b), "ms-cpu/s")
		for _, p := range pools {
			p.Sleep()
		}
		time.Sleep(rest)
		b.ReportMetric(float64(inUse()-before)/streams, "B/stream")
		b.ReportMetric(idleCPU(b), "asleep-ms-cpu/s")
		for _, p := range pools {
			p.Close()
		}
	}
}

// idleCPU returns the milliseconds of processor time that this process takes in a second.
func idleCPU(b *testing.B) float64 {
	b.Helper()
	used := cpu(b)
	time.Sleep(5 * time.Second)
	return float64(cpu(b)-used) / 5e6
}

// cpu returns the processor time of this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
