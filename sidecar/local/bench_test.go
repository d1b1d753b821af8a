package local

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// benchValue is a row of about 200 bytes.
func benchValue() string {
	return `{"cnf_id":"CNF-001","timestamp":"2025-01-01T00:00:00Z","metric_type":"cpu","value":0.25,` +
		`"unit":"cores","status":"ok","note":"` + strings.Repeat("x", 76) + `"}`
}

func benchServer(b *testing.B) *started {
	d := newDataset(b, "cnf-metrics", origintest.New(map[string]string{"CNF-001": benchValue()}))
	if _, err := d.Get(context.Background(), "CNF-001", cache.ReadOptions{}); err != nil {
		b.Fatal(err)
	}
	return start(b, Config{}, Served{Dataset: d, JSON: true})
}

// BenchmarkHTTP is one hit over keep-alive connections; the client is a loop of write and read on each.
func BenchmarkHTTP(b *testing.B) {
	for _, conns := range []int{1, 16, 64} {
		for _, server := range []string{"fasthttp", "nethttp"} {
			b.Run(fmt.Sprintf("server=%s/conns=%d", server, conns), func(b *testing.B) {
				s := benchServer(b)
				address := s.http
				if server == "nethttp" {
					address = serveNetHTTP(b, s.Server.http.entrance)
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

// roundTrip reads an answer without allocating: what is measured is the server.
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

// echo answers with the request's value and nothing else: the least that grpc-go can do.
type echo struct {
	ringsidev1.UnimplementedCacheServer
	response *ringsidev1.GetResponse
}

func (e echo) Get(context.Context, *ringsidev1.GetRequest) (*ringsidev1.GetResponse, error) {
	return e.response, nil
}

// BenchmarkGRPC is one hit at 16 connections, beside a bare server that answers with as many bytes.
func BenchmarkGRPC(b *testing.B) {
	for _, server := range []string{"ringside", "echo"} {
		b.Run("server="+server, func(b *testing.B) {
			s := benchServer(b)
			address := s.grpc
			if server == "echo" {
				address = serveEcho(b, s.grpc)
			}
			benchGRPC(b, address, 16)
		})
	}
}

func client(tb testing.TB, address string) ringsidev1.CacheClient {
	tb.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return ringsidev1.NewCacheClient(c)
}

// serveEcho serves what the real server at model answers.
func serveEcho(b *testing.B, model string) string {
	response, err := client(b, model).Get(context.Background(), benchRequest())
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	ringsidev1.RegisterCacheServer(server, echo{response: response})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ln) })
	b.Cleanup(func() { server.Stop(); serving.Wait() })
	return ln.Addr().String()
}

func benchRequest() *ringsidev1.GetRequest {
	return &ringsidev1.GetRequest{Dataset: "cnf-metrics", Key: "CNF-001"}
}

func benchGRPC(b *testing.B, address string, conns int) {
	b.ReportAllocs()
	var left atomic.Int64
	var clients sync.WaitGroup
	stubs := make([]ringsidev1.CacheClient, conns)
	for i := range stubs {
		stubs[i] = client(b, address)
		if _, err := stubs[i].Get(context.Background(), benchRequest()); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	left.Store(int64(b.N))
	for _, stub := range stubs {
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := stub.Get(context.Background(), benchRequest()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkHandle is the core without any server or socket.
func BenchmarkHandle(b *testing.B) {
	s := benchServer(b)
	c := newCall()
	b.ReportAllocs()
	for b.Loop() {
		fillHit(c)
		s.Server.http.entrance.answer(context.Background(), c)
		c.recycle()
	}
}

func fillHit(c *call) {
	c.method, c.target, c.host, c.http11 = "GET", "/v1/cnf-metrics/CNF-001", "localhost:7070", true
}

// BenchmarkWatch is from the write of a value to its arrival at the client of a watch, with the breath between.
func BenchmarkWatch(b *testing.B) {
	for _, protocol := range []string{"http", "grpc"} {
		b.Run("protocol="+protocol, func(b *testing.B) {
			s, d := startWatchable(b, Config{})
			word := openWord(b, s, protocol)
			for word() != "current" {
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				value := fmt.Append(nil, "v", i)
				if _, err := d.Write(b.Context(), cache.Change{Key: "a", Value: value}); err != nil {
					b.Fatal(err)
				}
				for word() != "a="+string(value) {
				}
			}
		})
	}
}

func openWord(tb testing.TB, s *started, protocol string) func() string {
	if protocol == "http" {
		return openWatch(tb, "tcp", s.http, "/v1/raw:watch?key=a").word
	}
	return grpcWatch(tb, s.grpc, "", "a").word
}

// BenchmarkIdleWatch is what an open watch takes, client included.
func BenchmarkIdleWatch(b *testing.B) {
	for _, protocol := range []string{"http", "grpc"} {
		b.Run("protocol="+protocol, func(b *testing.B) {
			s, _ := startWatchable(b, Config{MaxWatches: 1 << 20, MaxConns: 1 << 20})
			before := taken()
			for b.Loop() {
				word := openWord(b, s, protocol)
				for word() != "current" {
				}
			}
			b.ReportMetric(float64(taken()-before)/float64(b.N), "B/watch")
		})
	}
}

// taken returns the bytes of the live heap and of stacks.
func taken() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
