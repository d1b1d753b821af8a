package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/e2e/rig"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// receiver is an OTLP receiver that keeps what it gets.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []span
	text  bytes.Buffer // all requests, encoded
}

// span is a span and the sidecar that has sent it.
type span struct {
	*otlp.Span
	node string
}

func (r *receiver) Export(_ context.Context, q *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	encoded, err := proto.Marshal(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(encoded)
	for _, of := range q.GetResourceSpans() {
		node := ""
		for _, a := range of.GetResource().GetAttributes() {
			if a.GetKey() == "service.instance.id" {
				node = a.GetValue().GetStringValue()
			}
		}
		for _, s := range of.GetScopeSpans() {
			for _, one := range s.GetSpans() {
				r.spans = append(r.spans, span{one, node})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, err
}

// trace returns the spans of a trace.
func (r *receiver) trace(id string) (list []span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if hex.EncodeToString(s.GetTraceId()) == id {
			list = append(list, s)
		}
	}
	return list
}

// find returns the first span of a trace with a name and a parent; any parent if it is empty.
func (r *receiver) find(id, name string, parent []byte) (span, bool) {
	for _, s := range r.trace(id) {
		if s.GetName() == name && (parent == nil || bytes.Equal(s.GetParentSpanId(), parent)) {
			return s, true
		}
	}
	return span{}, false
}

// newReceiver starts an OTLP receiver, and makes the sidecars that start from now on send it the spans of sampled requests.
func newReceiver(t *testing.T) *receiver {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, server := &receiver{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(server.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	return r
}

// traceID returns the id of trace n of this test, and parentOf the traceparent of an application that has begun it.
func traceID(n int) string { return fmt.Sprintf("0af7651916cd43dd%016x", n) }

const appSpan = "b7ad6b7169203331"

func parentOf(trace, flags string) string { return "00-" + trace + "-" + appSpan + "-" + flags }

// getTraced reads a key with a traceparent.
func (c *cluster) getTraced(i int, dataset, key, parent string) (status int) {
	c.t.Helper()
	request, err := http.NewRequest(http.MethodGet, c.sidecars[i].URL(dataset, key), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("traceparent", parent)
	request.Header.Set("tracestate", "vendor=1")
	response, err := c.client.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func TestTraceLeadsFromTheApplicationToTheStatement(t *testing.T) {
	spans := newReceiver(t)
	c := newClusterOf(t, 3, func(t testing.TB, n int, config string) []*rig.Sidecar {
		return rig.Sidecars(t, n, strings.Replace(config, "max_in_flight", "trace_comments: true, max_in_flight", 1))
	})
	c.fill("private-", 100)
	p := &prometheus{t: t, address: rig.Prometheus(t, nil, []string{c.sidecars[0].Metrics}), began: time.Now()}

	c.testPath(spans)
	c.testWaiters(spans)
	c.testHitOverGRPC(spans)
	if status := c.getTraced(0, "cnf-metrics", "private-70", parentOf(traceID(5000), "00")); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	c.testExemplars(p)
	c.testFailureInTheLog(spans)

	if list := spans.trace(traceID(5000)); len(list) > 0 {
		t.Errorf("a request that is not sampled has %d spans: %v", len(list), list)
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	if bytes.Contains(spans.text.Bytes(), []byte("private-")) {
		t.Error("a span has a key")
	}
}

// testPath reads keys until one of another member has been read, and follows its trace.
func (c *cluster) testPath(spans *receiver) {
	c.t.Helper()
	for n := range 20 {
		id := traceID(n + 1)
		if status := c.getTraced(0, "slow-metrics", fmt.Sprint("private-", n), parentOf(id, "01")); status != http.StatusOK {
			c.t.Fatalf("status %d", status)
		}
		var root span
		rig.Eventually(c.t, time.Minute, func() (err error) {
			var ok bool
			if root, ok = spans.find(id, "GET /v1/{dataset}/{key}", nil); !ok {
				err = fmt.Errorf("the trace has no request: %v", spans.trace(id))
			}
			return err
		})
		if hex.EncodeToString(root.GetParentSpanId()) != appSpan || root.node != "sidecar-1" || root.GetTraceState() != "vendor=1" {
			c.t.Fatalf("the request of the application is %v of %s", root.Span, root.node)
		}
		if _, ok := spans.find(id, "fetch slow-metrics", root.GetSpanId()); ok {
			c.followToStatement(spans, id, root)
			return
		}
	}
	c.t.Error("no key of 20 is one of another member")
}

func (c *cluster) followToStatement(spans *receiver, id string, at span) {
	c.t.Helper()
	for _, name := range []string{
		"fetch slow-metrics", "fetch from member", "ringside.peer.v1.Peer/Fetch", "load slow-metrics", "query slow-metrics",
	} {
		rig.Eventually(c.t, time.Minute, func() error {
			next, ok := spans.find(id, name, at.GetSpanId())
			if !ok {
				return fmt.Errorf("no span %q below %s: %v", name, at.GetName(), spans.trace(id))
			}
			at = next
			return nil
		})
	}
	if at.node == "sidecar-1" {
		c.t.Errorf("the statement is one of %s", at.node)
	}
	want := fmt.Sprintf("/*traceparent='00-%s-%x-01'*/", id, at.GetSpanId())
	var n int
	err := c.sql.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE strpos(query, $1) > 0 AND pid <> pg_backend_pid()`, want).Scan(&n)
	if err != nil || n != 1 {
		c.t.Errorf("%d connections had the statement with %s (%v), want 1", n, want, err)
	}
}

// testWaiters reads one key many times at once, each in a trace of its own.
func (c *cluster) testWaiters(spans *receiver) {
	c.t.Helper()
	const first, readers = 1000, 8
	tx, err := c.sql.Begin() // its lock keeps the load from ending before all readers wait
	if err == nil {
		_, err = tx.Exec("LOCK TABLE cnf_metrics IN ACCESS EXCLUSIVE MODE")
	}
	if err != nil {
		c.t.Fatal(err)
	}
	var running sync.WaitGroup
	for n := range readers {
		running.Go(func() { c.getTraced(0, "slow-metrics", "private-50", parentOf(traceID(first+n), "01")) })
	}
	rig.Eventually(c.t, time.Minute, func() error { // the load of the first reader waits for the lock
		var n int
		err := c.sql.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`).Scan(&n)
		if err == nil && n == 0 {
			err = fmt.Errorf("no statement waits")
		}
		return err
	})
	time.Sleep(500 * time.Millisecond) // for the other readers; one that is later finds the value in memory, and has no link
	if err := tx.Rollback(); err != nil {
		c.t.Fatal(err)
	}
	running.Wait()
	rig.Eventually(c.t, time.Minute, func() error {
		owner, links := "", map[string]string{} // :: trace → the one that it links to
		for n := range readers {
			id := traceID(first + n)
			root, ok := spans.find(id, "GET /v1/{dataset}/{key}", nil)
			if !ok {
				return fmt.Errorf("trace %d has no request", n)
			}
			for _, l := range root.GetLinks() {
				links[id] = hex.EncodeToString(l.GetTraceId())
			}
			if len(spans.trace(id)) > 1 {
				owner = id
			}
		}
		if len(links) == 0 {
			return fmt.Errorf("no reader of %d links to the load, which is in trace %q", readers, owner)
		}
		for id, to := range links {
			if to != owner {
				return fmt.Errorf("trace %s links to %q, want that of the load, %q", id, to, owner)
			}
		}
		return nil
	})
}

func (c *cluster) testHitOverGRPC(spans *receiver) {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:"+c.sidecars[0].GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	id := traceID(2000)
	ctx := metadata.AppendToOutgoingContext(c.t.Context(), "traceparent", parentOf(id, "01"))
	_, err = ringsidev1.NewCacheClient(conn).Get(ctx, &ringsidev1.GetRequest{Dataset: "slow-metrics", Key: "private-50"})
	if err != nil {
		c.t.Fatal(err)
	}
	rig.Eventually(c.t, time.Minute, func() error {
		if s, ok := spans.find(id, "ringside.v1.Cache/Get", nil); !ok || hex.EncodeToString(s.GetParentSpanId()) != appSpan {
			return fmt.Errorf("got %v", spans.trace(id))
		}
		return nil
	})
}

// testExemplars looks for the traces in a Prometheus that has scraped a sidecar.
func (c *cluster) testExemplars(p *prometheus) {
	c.t.Helper()
	for _, name := range []string{"ringside_request_duration_seconds_bucket", "ringside_read_duration_seconds_bucket"} {
		rig.Eventually(c.t, time.Minute, func() error {
			var data []struct {
				Exemplars []struct{ Labels map[string]string }
			}
			err := p.query("/api/v1/query_exemplars", url.Values{
				"query": {name}, "start": {fmt.Sprint(p.began.Unix())}, "end": {fmt.Sprint(time.Now().Unix() + 1)},
			}, &data)
			for _, series := range data {
				for _, x := range series.Exemplars {
					if strings.HasPrefix(x.Labels["trace_id"], "0af7651916cd43dd") && len(x.Labels["span_id"]) == 16 {
						return nil
					}
				}
			}
			return fmt.Errorf("%s has no exemplar: %v, %v", name, data, err)
		})
	}
}

// testFailureInTheLog looks for the trace of a read that failed.
func (c *cluster) testFailureInTheLog(spans *receiver) {
	c.t.Helper()
	c.exec(`ALTER TABLE cnf_metrics RENAME TO gone`)
	id := traceID(3000)
	if status := c.getTraced(0, "owned-metrics", "private-80", parentOf(id, "01")); status < 500 {
		c.t.Errorf("got status %d of a table that does not exist", status)
	}
	if want := `"trace_id":"` + id + `"`; !strings.Contains(c.sidecars[0].Log(), want) {
		c.t.Errorf("the log has no %s", want)
	}
	rig.Eventually(c.t, time.Minute, func() error {
		if s, ok := spans.find(id, "GET /v1/{dataset}/{key}", nil); !ok || s.GetStatus().GetCode() != otlp.Status_STATUS_CODE_ERROR {
			return fmt.Errorf("got %v", spans.trace(id))
		}
		return nil
	})
}
