package peer_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

const valueBytes = 1024

// echo answers with a message of the same size as a hop's, and does nothing else.
type echo struct {
	peerv1.UnimplementedPeerServer
	answer *peerv1.FetchResponse
}

func (e echo) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return e.answer, nil
}

// value returns what serves one value from memory.
func value() func(context.Context, cache.Query) (cache.Answer, error) {
	a := cache.Answer{Value: make([]byte, valueBytes), Fresh: time.Second, Source: cache.SourceHit}
	return func(context.Context, cache.Query) (cache.Answer, error) { return a, nil }
}

// BenchmarkHop compares a hop with what grpc itself costs, on the same machine in the same run.
func BenchmarkHop(b *testing.B) {
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
			// A hop never goes without a deadline, so neither does what it is compared with.
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := client.Fetch(ctx, &peerv1.FetchRequest{Dataset: "metrics", Key: "k"})
			return err
		})
	})
	ca := newAuthority(b)
	for name, creds := range map[string]credentials.TransportCredentials{
		"plain": nil, "tls": newTLS(b, ca.issue(b, nil), ca.pem()),
	} {
		b.Run(name, func(b *testing.B) {
			m := startMember(b, "m", serving(value()), serverCreds(creds))
			p := startPool(b, peer.Config{Credentials: creds}, m)
			key := keyOf(b, p, ownedBy("m"))
			run(b, func() error {
				_, err := p.Route("metrics", key).Owner.Fetch(context.Background(), get(key))
				return err
			})
		})
	}
}

func run(b *testing.B, call func() error) {
	b.ReportAllocs()
	for b.Loop() {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
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
			p.SetRing(newRing(b, members...), nil)
			b.ReportAllocs()
			for b.Loop() {
				p.Route("metrics", "interface/eth0/rx")
			}
		})
	}
}

// BenchmarkIdleConnection reports the memory of a connection that was used once, both its ends together.
func BenchmarkIdleConnection(b *testing.B) {
	const conns = 200
	m := startMember(b, "m", serving(value()))
	for b.Loop() {
		pools := make([]*peer.Pool, conns)
		for i := range pools {
			pools[i] = startPool(b, peer.Config{}, m)
		}
		before := inUse()
		for _, p := range pools {
			if err := fetch(b, p, "m"); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(inUse()-before)/conns, "B/conn")
		for _, p := range pools {
			p.Close()
		}
	}
}

// inUse is heap and stacks.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse + s.StackInuse)
}
