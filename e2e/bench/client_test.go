package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// conns is the number of concurrent connections, each with one request at a time.
const conns = 16

// exchange sends one request on its own connection and reads the response.
type exchange func() error

// measureWith splits b.N exchanges among n connections, which dial opens by number.
func measureWith(b *testing.B, n int, dial func(i int) (exchange, error)) {
	b.Helper()
	exchanges := make([]exchange, n)
	for i := range exchanges {
		var err error
		if exchanges[i], err = dial(i); err != nil {
			b.Fatal(err)
		}
		if err := exchanges[i](); err != nil { // connect and warm up before the measurement
			b.Fatal(err)
		}
	}
	times := make([][]time.Duration, n)
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ResetTimer()
	for i, once := range exchanges {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				if err := once(); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	sorted := slices.Sorted(slices.Values(slices.Concat(times...)))
	b.ReportMetric(float64(sorted[len(sorted)/2].Nanoseconds())/1e3, "p50-µs")
}

// httpGet requests path with minimal overhead, so that the client does not dominate the measurement.
func httpGet(b *testing.B, network, address, path string) func(int) (exchange, error) {
	return httpGetEach(b, network, address, func(int) string { return path })
}

// httpGetEach is httpGet with a path per connection, and headers.
func httpGetEach(b *testing.B, network, address string, path func(i int) string, header ...string) func(int) (exchange, error) {
	return func(i int) (exchange, error) {
		request := []byte("GET " + path(i) + " HTTP/1.1\r\nHost: localhost\r\n")
		for _, line := range header {
			request = append(request, line+"\r\n"...)
		}
		request = append(request, "\r\n"...)
		conn, err := dial(b, network, address)
		if err != nil {
			return nil, err
		}
		r := bufio.NewReaderSize(conn, 8<<10)
		return func() error {
			if _, err := conn.Write(request); err != nil {
				return err
			}
			return readHTTP(r, len(value))
		}, nil
	}
}

func dial(b *testing.B, network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err == nil {
		b.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// readHTTP reads a response with a body of size bytes.
func readHTTP(r *bufio.Reader, size int) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("got %q", status)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length: "
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return err
			}
		}
	}
	if length != size {
		return fmt.Errorf("got a body of %d bytes, want %d", length, size)
	}
	_, err = r.Discard(length)
	return err
}

// wrk requests all keys with the program wrk on one thread, which is written for HTTP alone and takes little of the CPUs.
func wrk(b *testing.B, address, prefix string) {
	b.Helper()
	script := filepath.Join(b.TempDir(), "keys.lua")
	if err := os.WriteFile(script, fmt.Appendf(nil, wrkScript, hitKeys, prefix), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		out, err := exec.Command("wrk", "-t1", fmt.Sprint("-c", conns), "-d1s", "-s", script, "http://"+address).CombinedOutput()
		_, rest, ok := strings.Cut(string(out), "Requests/sec:")
		if err != nil || !ok || strings.Contains(string(out), "Non-2xx") {
			b.Fatalf("wrk: %v\n%s", err, out)
		}
		var rate float64
		if _, err := fmt.Sscan(rest, &rate); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(rate, "req/s")
	}
}

// wrkScript takes the number of keys and what precedes a key in the path.
const wrkScript = `
local requests, i = {}, 0
function init(args)
	for n = 1, %[1]d do requests[n] = wrk.format("GET", string.format("%[2]sCNF-%%05d", n - 1)) end
end
function request()
	i = i %% #requests + 1
	return requests[i]
end
`

func grpcGet(b *testing.B, address, dataset, key string) func(int) (exchange, error) {
	request := &ringsidev1.GetRequest{Dataset: dataset, Key: key}
	return func(int) (exchange, error) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		b.Cleanup(func() { conn.Close() })
		client := ringsidev1.NewCacheClient(conn)
		ready := grpc.WaitForReady(true)
		return func() error {
			answer, err := client.Get(context.Background(), request, ready)
			if err == nil && len(answer.Value) != len(value) {
				err = fmt.Errorf("got a value of %d bytes, want %d", len(answer.Value), len(value))
			}
			return err
		}, nil
	}
}
