package local_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"golang.org/x/net/http2"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

const (
	sampledParent    = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	notSampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

// dropped is an exporter of nothing, as fast as any.
type dropped struct{ sdk.SpanProcessor }

func (dropped) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (dropped) OnEnd(sdk.ReadOnlySpan)                     {}

func newTracer(p sdk.SpanProcessor) *tracing.Tracer {
	return tracing.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(p)).Tracer("test"), tracing.Ratio(0, true))
}

// tracedHit makes one request for a hit with a traceparent, which may be empty, again and again.
type tracedHit func(parent string) (once func() error)

// tracedHits returns the requests of each protocol to a server with a tracer.
func tracedHits(tb testing.TB, tracer *tracing.Tracer) map[string]tracedHit {
	d := localtest.NewDataset(tb, "cnf-metrics", origintest.New(map[string]string{"CNF-001": localtest.BenchValue()}))
	s := localtest.Start(tb, local.Config{Tracer: tracer}, local.Served{Dataset: d, JSON: true})
	return map[string]tracedHit{
		"http": func(parent string) func() error {
			c := localtest.Dial(tb, "tcp", s.HTTP)
			request := []byte(localtest.Get("/v1/cnf-metrics/CNF-001", "Traceparent: "+parent))
			if parent == "" {
				request = []byte(localtest.Get("/v1/cnf-metrics/CNF-001"))
			}
			return func() error { return roundTrip(c, c.Reader, request) }
		},
		"grpc": func(parent string) func() error { return grpcHit(tb, s.GRPC, parent) },
	}
}

// grpcHit returns a client that allocates nothing. The second header has the fields of the first one as indices.
func grpcHit(tb testing.TB, address, parent string) func() error {
	f := localtest.DialFrames(tb, "tcp", address, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	f.Try(f.WriteWindowUpdate(0, 1<<30))
	var more []string
	if parent != "" {
		more = []string{"traceparent", parent}
	}
	get := &ringsidev1.GetRequest{Dataset: "cnf-metrics", Key: "CNF-001"}
	f.Call(1, ringsidev1.Cache_Get_FullMethodName, get, more...)
	f.Answer(1)
	fields := f.Block(localtest.CallHeader(ringsidev1.Cache_Get_FullMethodName, more...)...)
	message, id := localtest.Message(tb, get), uint32(1)
	request := append(frameOf(http2.FrameHeaders, http2.FlagHeadersEndHeaders, fields), frameOf(http2.FrameData, http2.FlagDataEndStream, message)...)
	second, header, body := 9+len(fields), make([]byte, 9), make([]byte, 16<<10)
	return func() error {
		id += 2
		binary.BigEndian.PutUint32(request[5:], id)
		binary.BigEndian.PutUint32(request[second+5:], id)
		if _, err := f.Conn.Write(request); err != nil {
			return err
		}
		for {
			if _, err := io.ReadFull(f.Conn.Reader, header); err != nil {
				return err
			}
			n := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
			if _, err := io.ReadFull(f.Conn.Reader, body[:n]); err != nil {
				return err
			}
			if http2.FrameType(header[3]) == http2.FrameRSTStream {
				return fmt.Errorf("stream %d is reset", id)
			}
			if binary.BigEndian.Uint32(header[5:]) == id && http2.Flags(header[4]).Has(http2.FlagHeadersEndStream) {
				return nil
			}
		}
	}
}

func frameOf(kind http2.FrameType, flags http2.Flags, payload []byte) []byte {
	return append([]byte{0, byte(len(payload) >> 8), byte(len(payload)), byte(kind), byte(flags), 0, 0, 0, 0}, payload...)
}

func TestSampledHitsHaveSpans(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	for name, hit := range tracedHits(t, newTracer(recorder)) {
		if err := hit("")(); err != nil { // the load
			t.Fatal(err)
		}
		before := len(recorder.Ended())
		for _, parent := range []string{sampledParent, notSampledParent, "malformed", sampledParent + ", " + sampledParent} {
			if err := hit(parent)(); err != nil {
				t.Fatal(err)
			}
		}
		spans := recorder.Ended()[before:]
		want := 1
		if name == "grpc" {
			want = 2 // the first call of the client, and the measured one
		}
		if len(spans) != want {
			t.Fatalf("%s: got %d spans, want %d", name, len(spans), want)
		}
		for _, s := range spans {
			if s.Parent().SpanID().String() != "b7ad6b7169203331" || !slices.Contains(s.Attributes(), attribute.String(tracing.Source, "hit")) {
				t.Errorf("%s: got %s below %s with %v", name, s.Name(), s.Parent().SpanID(), s.Attributes())
			}
			if strings.Contains(fmt.Sprint(s), "CNF-001") {
				t.Errorf("%s: the span has the key: %v", name, s)
			}
		}
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTraced is a hit on one connection, client and kernel included: without a tracer, with one and not sampled, and sampled.
func BenchmarkTraced(b *testing.B) {
	for _, state := range []string{"off", "not-sampled", "sampled"} {
		tracer, parent := newTracer(dropped{tracetest.NewSpanRecorder()}), notSampledParent
		switch state {
		case "off":
			tracer = nil
		case "sampled":
			parent = sampledParent
		}
		for name, hit := range tracedHits(b, tracer) {
			b.Run("protocol="+name+"/tracing="+state, func(b *testing.B) {
				once := hit(parent)
				b.ReportAllocs()
				began := cpuTime(b)
				defer func() { b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op") }()
				for b.Loop() {
					if err := once(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
