package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// conns is the number of concurrent connections, each with one request at a time.
const conns = 16

// exchange sends one request on its own connection and reads the response.
type exchange func() error

// measure splits b.N exchanges among connections, which dial opens by number.
func measure(b *testing.B, dial func(i int) (exchange, error)) {
	b.Helper()
	measureWith(b, conns, dial)
}

// measureWith is measure with n connections.
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

// wrk requests path with the program wrk on one thread, the client with the least overhead, because the servers take only a
// few microseconds per request. It reports the rate; ns/op is the time of the whole run.
func wrk(b *testing.B, address, path string) {
	b.Helper()
	if response, err := http.Get("http://" + address + path); err != nil || response.Body.Close() != nil { // load it
		b.Fatal(err)
	}
	for b.Loop() {
		out, err := exec.Command("wrk", "-t1", fmt.Sprint("-c", conns), "-d2s", "http://"+address+path).CombinedOutput()
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

// redisGet requests key over RESP.
func redisGet(b *testing.B, address, key string) func(int) (exchange, error) {
	request := fmt.Appendf(nil, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
	answer := make([]byte, len(fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)))
	return func(int) (exchange, error) {
		conn, err := dial(b, "tcp", address)
		if err != nil {
			return nil, err
		}
		r, buf := bufio.NewReader(conn), bytes.Clone(answer)
		return func() error {
			if _, err := conn.Write(request); err != nil {
				return err
			}
			if _, err := io.ReadFull(r, buf); err != nil {
				return err
			}
			if buf[0] != '$' {
				return fmt.Errorf("got %q", buf)
			}
			return nil
		}, nil
	}
}

func redisSet(address, key, value string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "+OK\r\n" {
		err = fmt.Errorf("redis: %q", line)
	}
	return err
}

// read returns the source of the value (hit, peer_hit, …).
func read(url string) (source string, err error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, response.Status)
	}
	return response.Header.Get("Ringside-Source"), nil
}
