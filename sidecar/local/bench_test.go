package local_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func benchServer(b *testing.B) *localtest.Server {
	d := localtest.NewDataset(b, "cnf-metrics", origintest.New(map[string]string{"CNF-001": localtest.BenchValue()}))
	if _, err := d.Get(context.Background(), "CNF-001", kv.ReadOptions{}); err != nil {
		b.Fatal(err)
	}
	return localtest.Start(b, local.Config{}, local.Served{Dataset: d, JSON: true})
}

// BenchmarkHTTP is one hit over keep-alive connections; the client is a loop of write and read on each.
func BenchmarkHTTP(b *testing.B) {
	for _, conns := range []int{1, 16, 64} {
		for _, server := range []string{"http", "routed"} {
			b.Run(fmt.Sprintf("server=%s/conns=%d", server, conns), func(b *testing.B) {
				s := benchServer(b)
				address := s.HTTP
				if server == "routed" {
					address = s.Listen(b, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
				}
				benchHTTP(b, address, conns)
			})
		}
	}
}

func benchHTTP(b *testing.B, address string, conns int) {
	request := []byte("GET /v1/cnf-metrics/CNF-001 HTTP/1.1\r\nHost: localhost:7070\r\n\r\n")
	b.ReportAllocs()
	var left atomic.Int64
	var clients sync.WaitGroup
	left.Store(int64(b.N))
	for range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		clients.Go(func() {
			r := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				if err := roundTrip(c, r, request); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkLargeValue is a hit of 1 MiB over keep-alive connections, limited by copies through the kernel.
func BenchmarkLargeValue(b *testing.B) {
	d := localtest.NewDataset(b, "cnf-metrics", origintest.New(map[string]string{"CNF-001": strings.Repeat("x", kv.MaxValueBytes)}))
	s := localtest.Start(b, local.Config{}, local.Served{Dataset: d})
	for network, address := range map[string]string{"tcp": s.HTTP, "unix": s.Unix} {
		b.Run(network, func(b *testing.B) {
			b.SetBytes(kv.MaxValueBytes)
			c := localtest.Dial(b, network, address)
			request := []byte(localtest.Get("/v1/cnf-metrics/CNF-001"))
			for b.Loop() {
				if err := roundTrip(c, c.Reader, request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// roundTrip reads a response without allocating, so that the benchmark measures the server.
func roundTrip(c net.Conn, r *bufio.Reader, request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answer %q", line)
		}
		if digits, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, d := range bytes.TrimSpace(digits) {
				length = length*10 + int(d-'0')
			}
		}
		if len(line) <= 2 {
			_, err := r.Discard(length)
			return err
		}
	}
}

// BenchmarkWatch is from the write of a value to its arrival at the client of a watch, including minInterval.
func BenchmarkWatch(b *testing.B) {
	for _, protocol := range []string{"http", "grpc"} {
		b.Run("protocol="+protocol, func(b *testing.B) {
			s, d := localtest.StartWatchable(b, local.Config{})
			next := openNext(b, s, protocol)
			for next() != "current" {
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				value := fmt.Append(nil, "v", i)
				if _, err := d.Write(b.Context(), kv.Change{Key: "a", Value: value}); err != nil {
					b.Fatal(err)
				}
				for next() != "a="+string(value) {
				}
			}
		})
	}
}

func openNext(tb testing.TB, s *localtest.Server, protocol string) func() string {
	if protocol == "http" {
		return localtest.OpenWatch(tb, "tcp", s.HTTP, "/v1/raw:watch?key=a").Next
	}
	return localtest.OpenGRPCWatch(tb, s.GRPC, "", "a").Next
}

// BenchmarkIdleWatch is the memory of an open watch, client included.
func BenchmarkIdleWatch(b *testing.B) {
	for _, protocol := range []string{"http", "grpc"} {
		b.Run("protocol="+protocol, func(b *testing.B) {
			s, _ := localtest.StartWatchable(b, local.Config{MaxWatches: 1 << 20, MaxConns: 1 << 20})
			before := localtest.LiveBytes()
			for b.Loop() {
				next := openNext(b, s, protocol)
				for next() != "current" {
				}
			}
			b.ReportMetric(float64(localtest.LiveBytes()-before)/float64(b.N), "B/watch")
		})
	}
}
