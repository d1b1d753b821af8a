package local_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/grpcapi"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// BenchmarkGRPC is a hit over gRPC, of a value of 1 KiB, from a server in a process of its own: of Ringside; of the same
// service on the transport of grpc-go; and of a bare grpc-go server that returns a constant. The client works on frames, so
// that it costs little beside the server. To compare them, run it several times and use benchstat -col /server.
func BenchmarkGRPC(b *testing.B) {
	for _, load := range []struct{ conns, streams int }{{1, 1}, {16, 1}, {64, 1}, {4, 16}} {
		for _, server := range []string{"ringside", "grpcgo", "echo"} {
			b.Run(fmt.Sprintf("conns=%d/streams=%d/server=%s", load.conns, load.streams, server), func(b *testing.B) {
				p := startServer(b, server)
				cpu := p.cpu(b)
				latencies := loadGRPC(b, p.address, load.conns, load.streams)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
				b.ReportMetric(float64((p.cpu(b)-cpu).Nanoseconds())/float64(b.N), "server-ns/req")
				b.ReportMetric(float64(latencies[len(latencies)/2].Nanoseconds()), "p50-ns")
				b.ReportMetric(float64(latencies[len(latencies)*99/100].Nanoseconds()), "p99-ns")
			})
		}
	}
}

// serverVariable turns the test program into a server of a benchmark.
const serverVariable = "RINGSIDE_BENCH_GRPC"

func TestMain(m *testing.M) {
	if name := os.Getenv(serverVariable); name != "" {
		fmt.Fprintln(os.Stderr, serveBenchmark(name))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const benchKey = "CNF-001"

// serveBenchmark serves forever, and prints its address.
func serveBenchmark(name string) error {
	rows := origintest.New(map[string]string{benchKey: strings.Repeat("v", 1<<10)})
	p := kv.DefaultPolicy()
	p.TTL, p.TTLJitter = time.Hour, 0
	d, err := cache.New(cache.Config{Name: "cnf-metrics", Origin: rows, MaxBytes: 16 << 20, Policy: p})
	if err != nil {
		return err
	}
	if _, err := d.Get(context.Background(), benchKey, kv.ReadOptions{}); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	catalog := local.NewCatalog(local.Served{Dataset: d})
	backend := api.NewBackend(context.Background(), local.Config{}, catalog)
	switch name {
	case "ringside":
		return local.New(local.Config{}, catalog).ServeGRPC(ln)
	case "grpcgo":
		return grpcapi.NewServer(backend, watch.NewEngine(backend), new(api.Protocol), false).Serve(ln)
	}
	server := grpc.NewServer()
	ringsidev1.RegisterCacheServer(server, echo{response: &ringsidev1.GetResponse{
		Value: []byte(strings.Repeat("v", 1<<10)), Meta: &ringsidev1.Meta{Etag: `"0123456789ab"`, Source: ringsidev1.Source_SOURCE_HIT}}})
	return server.Serve(ln)
}

// echo returns a fixed response: the least work of a grpc-go server.
type echo struct {
	ringsidev1.UnimplementedCacheServer
	response *ringsidev1.GetResponse
}

func (e echo) Get(context.Context, *ringsidev1.GetRequest) (*ringsidev1.GetResponse, error) {
	return e.response, nil
}

// benchProcess is a running server.
type benchProcess struct {
	cmd     *exec.Cmd
	address string
}

func startServer(b *testing.B, name string) *benchProcess {
	b.Helper()
	p := &benchProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), serverVariable+"="+name)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	if p.address, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		b.Fatalf("the server %s printed no address: %v", name, err)
	}
	p.address = strings.TrimSpace(p.address)
	return p
}

// cpu returns the time that the process has used (proc(5), stat: utime and stime, in ticks of 10 ms).
func (p *benchProcess) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):]))
	total := 0
	for _, ticks := range fields[12:14] {
		n, err := strconv.Atoi(ticks)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	return time.Duration(total) * 10 * time.Millisecond
}

// loadGRPC makes b.N calls, and returns how long each took, sorted.
func loadGRPC(b *testing.B, address string, conns, streams int) []time.Duration {
	b.Helper()
	clients := make([]*frameClient, conns)
	for i := range clients {
		clients[i] = dialFrames(b, address)
		if err := clients[i].run(func() bool { return clients[i].answered < 100 }, streams); err != nil { // warm up
			b.Fatal(err)
		}
		clients[i].latencies = clients[i].latencies[:0]
	}
	var left atomic.Int64
	var all sync.WaitGroup
	left.Store(int64(b.N))
	b.ResetTimer()
	for _, c := range clients {
		all.Go(func() {
			if err := c.run(func() bool { return left.Add(-1) >= 0 }, streams); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	b.StopTimer()
	var latencies []time.Duration
	for _, c := range clients {
		latencies = append(latencies, c.latencies...)
	}
	slices.Sort(latencies)
	if len(latencies) != b.N {
		b.Fatalf("%d responses to %d calls", len(latencies), b.N)
	}
	return latencies
}

// frameClient makes calls on one connection. It encodes the request once, and reads no more of a response than it must.
type frameClient struct {
	conn      net.Conn
	in        *bufio.Reader
	out       []byte
	request   []byte // HEADERS and DATA of a later request, whose header fields are all in the table
	next      uint32 // stream id
	window    int    // what the server may be sent
	unread    int    // bytes of DATA since the last WINDOW_UPDATE
	received  int    // bytes of DATA
	began     map[uint32]time.Time
	answered  int
	latencies []time.Duration
}

func dialFrames(b *testing.B, address string) *frameClient {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	c := &frameClient{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), next: 1, window: 65535, began: map[uint32]time.Time{}}
	message, err := proto.Marshal(&ringsidev1.GetRequest{Dataset: "cnf-metrics", Key: benchKey})
	if err != nil {
		b.Fatal(err)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func() []byte {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
			{Name: ":path", Value: ringsidev1.Cache_Get_FullMethodName}, {Name: ":authority", Value: address},
			{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "grpc-go/1.85.0"},
			{Name: "te", Value: "trailers"}} {
			_ = encoder.WriteField(f) // to memory
		}
		var frames bytes.Buffer
		framer := http2.NewFramer(&frames, nil)
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
		_ = framer.WriteData(1, true, body)
		return frames.Bytes()
	}
	var hello bytes.Buffer
	hello.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&hello, nil)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = framer.WriteWindowUpdate(0, 1<<31-1-65535)
	hello.Write(encode())
	if _, err := conn.Write(hello.Bytes()); err != nil {
		b.Fatal(err)
	}
	c.request, c.window = encode(), c.window-len(body)
	c.began[c.next] = time.Now()
	c.next += 2
	for c.answered == 0 {
		if err := c.read(); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

// run keeps streams calls open while more returns true, and waits for all of them.
func (c *frameClient) run(more func() bool, streams int) error {
	for open, done := 0, false; ; {
		now := time.Now()
		for ; !done && open < streams && c.window > 1<<10; open++ {
			if done = !more(); done {
				break
			}
			at := len(c.out)
			c.out = append(c.out, c.request...)
			binary.BigEndian.PutUint32(c.out[at+5:], c.next)
			headers := 9 + int(c.request[2]) + int(c.request[1])<<8
			binary.BigEndian.PutUint32(c.out[at+headers+5:], c.next)
			c.window -= len(c.request) - headers - 9
			c.began[c.next] = now
			c.next += 2
		}
		if _, err := c.conn.Write(c.out); err != nil {
			return err
		}
		c.out = c.out[:0]
		if open == 0 && done {
			return nil
		}
		before := c.answered
		for first := true; first || c.in.Buffered() > 0; first = false {
			if err := c.read(); err != nil {
				return err
			}
		}
		open -= c.answered - before
	}
}

var errFrame = errors.New("unexpected frame")

// read reads one frame.
func (c *frameClient) read() error {
	header, err := c.in.Peek(9)
	if err != nil {
		return err
	}
	length := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
	kind, flags, id := http2.FrameType(header[3]), http2.Flags(header[4]), binary.BigEndian.Uint32(header[5:])
	_, _ = c.in.Discard(9) // they are buffered
	switch kind {
	case http2.FrameHeaders:
		if flags.Has(http2.FlagHeadersEndStream) {
			c.latencies = append(c.latencies, time.Since(c.began[id]))
			delete(c.began, id)
			if c.answered++; c.received < c.answered<<10 {
				return fmt.Errorf("%w: a response without its value of 1 KiB", errFrame)
			}
		}
	case http2.FrameData:
		c.received += length
		if c.unread += length; c.unread > 1<<29 {
			c.out = binary.BigEndian.AppendUint32(append(c.out, 0, 0, 4, byte(http2.FrameWindowUpdate), 0, 0, 0, 0, 0), uint32(c.unread))
			c.unread = 0
		}
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			c.out = append(c.out, 0, 0, 0, byte(http2.FrameSettings), byte(http2.FlagSettingsAck), 0, 0, 0, 0)
		}
	case http2.FramePing, http2.FrameWindowUpdate:
		payload := make([]byte, length)
		if _, err := io.ReadFull(c.in, payload); err != nil {
			return err
		}
		switch {
		case kind == http2.FramePing && !flags.Has(http2.FlagPingAck):
			c.out = append(append(c.out, 0, 0, 8, byte(kind), byte(http2.FlagPingAck), 0, 0, 0, 0), payload...)
		case kind == http2.FrameWindowUpdate && id == 0:
			c.window += int(binary.BigEndian.Uint32(payload))
		}
		return nil
	default:
		return fmt.Errorf("%w: %v", errFrame, kind)
	}
	_, err = c.in.Discard(length)
	return err
}
