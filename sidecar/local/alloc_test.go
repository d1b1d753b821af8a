//go:build !race

package local_test

import (
	"io"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// A hit is the product: neither the core nor the way through the server may allocate.
func TestHitDoesNotAllocate(t *testing.T) {
	d := localtest.NewDataset(t, "cnf-metrics", origintest.New(map[string]string{"CNF-001": localtest.BenchValue(), "a/b": localtest.BenchValue()}))
	view, _ := httpview.Fields{Headers: map[string]string{"X-Unit": "unit", "X-Status": "status"}}.Compile([]string{"cnf_id"})
	with := localtest.NewDataset(t, "with-headers", origintest.New(map[string]string{"CNF-001": localtest.BenchValue()}))
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: d, JSON: true}, local.Served{Dataset: with, JSON: true, View: view})
	for _, target := range []string{"/v1/cnf-metrics/CNF-001", "/v1/cnf-metrics/a%2Fb", "/v1/with-headers/CNF-001"} {
		conn := localtest.Dial(t, "tcp", s.HTTP)
		request := []byte(strings.Replace(localtest.Get("/"), " / ", " "+target+" ", 1))
		once := func() {
			if err := roundTrip(conn, conn.Reader, request); err != nil {
				t.Fatal(err)
			}
		}
		once()
		if n := testing.AllocsPerRun(1000, once); n > 0 {
			t.Errorf("%s: %v allocations per hit, client included", target, n)
		}
	}
}

// A request that nobody traces must not pay for those that are traced.
func TestHitThatIsNotSampledDoesNotAllocate(t *testing.T) {
	for name, hit := range tracedHits(t, newTracer(tracetest.NewSpanRecorder())) {
		for _, parent := range []string{"", notSampledParent, "malformed"} {
			once := hit(parent)
			check := func() {
				if err := once(); err != nil {
					t.Fatal(err)
				}
			}
			check()
			if n := testing.AllocsPerRun(1000, check); n > 0 {
				t.Errorf("%s, traceparent %q: %v allocations per hit, client included", name, parent, n)
			}
		}
	}
}

func TestHitOverRedisDoesNotAllocate(t *testing.T) {
	value := localtest.BenchValue()
	d := localtest.NewDataset(t, "cnf-metrics", origintest.New(map[string]string{"CNF-001": value}))
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}, local.Served{Dataset: d}).Redis)
	request := []byte(strings.Repeat("*2\r\n$3\r\nGET\r\n$19\r\ncnf-metrics:CNF-001\r\n", 4))
	response := make([]byte, 4*(len(value)+len("$203\r\n\r\n")))
	once := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Reader, response); err != nil {
			t.Fatal(err)
		}
	}
	once()
	if !strings.HasSuffix(string(response), value+"\r\n") {
		t.Fatalf("got %q", response)
	}
	if n := testing.AllocsPerRun(1000, once); n > 0 {
		t.Errorf("%v allocations per four hits, client included", n)
	}
}
