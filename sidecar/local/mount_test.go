package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// mounted is an API whose gRPC service is one that exists, under another name.
type mounted struct {
	healthpb.UnimplementedHealthServer
}

func (m mounted) Register(r grpc.ServiceRegistrar) {
	desc := healthpb.Health_ServiceDesc
	desc.ServiceName = "mounted"
	r.RegisterService(&desc, m)
}

// Check answers as the name that is asked for says.
func (mounted) Check(ctx context.Context, q *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch q.GetService() {
	case "panic":
		panic("canary-secret")
	case "wait":
		<-ctx.Done()
		return nil, status.Error(codes.Aborted, "cut off")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (mounted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == mountPath+"panic" {
		panic("canary-secret")
	}
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", typeText)
	w.Header().Set("Allow", "GET")
	w.WriteHeader(http.StatusTeapot)
	fmt.Fprintf(w, "%s %s %s %v", r.Method, r.URL, body, err)
}

func TestMountIsBehindTheEntrance(t *testing.T) {
	s := start(t, Config{CNFMetrics: mounted{}})
	for _, c := range []struct {
		request string // first line and headers, without Host
		body    string
		status  int
		want    string
	}{
		{"GET /cnfmetrics/x", "", 418, "GET /cnfmetrics/x  <nil>"},
		{"POST /cnfmetrics/a%2Fb//../c?d=e%20f", "body", 418, "POST /cnfmetrics/a%2Fb//../c?d=e%20f body <nil>"},
		{"GET http://localhost/cnfmetrics/x?y=1", "", 418, "GET /cnfmetrics/x?y=1"},
		{"GET /cnfmetrics/x#y", "", 400, "malformed-request"},
		{"GET /cnfmetrics/%zz", "", 400, "malformed-request"},
		{"B@D /cnfmetrics/x", "", 400, "malformed-request"},
		{"GET /cnfmetrics/panic", "", 500, "problems/internal"},
		{"GET /cnfmetrics", "", 404, "no-such-route"},
		{"GET /v1/cnf-metrics/CNF-001?x", "", 400, "malformed-request"},
		{"GET /cnfmetrics/x|Sec-Fetch-Site: cross-site", "", 403, "cross-site"},
		{"POST /cnfmetrics/x|Sec-Fetch-Site: same-site", "", 403, "cross-site"},
		{"POST /cnfmetrics/x|Origin: http://evil.example", "", 403, "cross-site"},
		{"GET http://evil.example/cnfmetrics/x", "", 421, "wrong-host"},
	} {
		conn := dial(t, "tcp", s.http)
		line, header, _ := strings.Cut(c.request, "|")
		if header != "" {
			header += "\r\n"
		}
		conn.send(fmt.Sprintf("%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", line, header, len(c.body), c.body))
		resp, body := conn.answer("GET")
		if resp.StatusCode != c.status || !strings.Contains(body, c.want) || strings.Contains(body, "canary") {
			t.Errorf("%s: %d %s, want %d %s", c.request, resp.StatusCode, body, c.status, c.want)
		}
		if resp.StatusCode == 418 && (resp.Header.Get("Allow") != "GET" || resp.Header.Get("Content-Type") != typeText) {
			t.Errorf("%s: %v", c.request, resp.Header)
		}
	}
	if n := s.Stats().Defects.Load(); n != 1 {
		t.Errorf("%d defects", n)
	}
}

// check calls the mounted service.
func check(t *testing.T, address, name string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	in, out := &healthpb.HealthCheckRequest{Service: name}, new(healthpb.HealthCheckResponse)
	return connect(t, address).Invoke(ctx, "/mounted/Check", in, out)
}

// The pod's listeners have a service that the one for clients that route has not.
func TestHealthKnowsEachServiceOfItsListener(t *testing.T) {
	s, routed := startRouted(t, Config{CNFMetrics: mounted{}}, nil)
	services := []string{"", "ringside.v1.Cache", "groupcachepb.GroupCache", "mounted"}
	for _, serving := range []bool{true, false} {
		s.SetServing(serving)
		for _, address := range []string{s.grpc, "unix:" + s.unix, routed} {
			for _, name := range services {
				got, err := healthpb.NewHealthClient(connect(t, address)).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
				if name == "mounted" && address == routed {
					if status.Code(err) != codes.NotFound {
						t.Errorf("%s: %q: %v, %v", address, name, got, err)
					}
				} else if err != nil || (got.GetStatus() == healthpb.HealthCheckResponse_SERVING) != serving {
					t.Errorf("%s: %q: %v, %v", address, name, got, err)
				}
			}
		}
	}
}

func TestMountedCallsAreBoundedCountedAndSurvived(t *testing.T) {
	s := start(t, Config{CNFMetrics: mounted{}, RequestTimeout: 50 * time.Millisecond})
	for name, want := range map[string]codes.Code{"": codes.OK, "panic": codes.Internal, "wait": codes.Aborted} {
		for _, address := range []string{s.grpc, "unix:" + s.unix} {
			if err := check(t, address, name); status.Code(err) != want || strings.Contains(fmt.Sprint(err), "canary") {
				t.Errorf("%q: %v, want %v", name, err, want)
			}
		}
	}
	if n, _, _ := s.Stats().GRPC.Duration.Snapshot(); n != 3 {
		t.Errorf("%d calls were counted", n)
	}
	if n := s.Stats().Defects.Load(); n != 2 {
		t.Errorf("%d defects", n)
	}
}

// Clients that route by the ring come from other pods.
func TestMountIsNotReachedByTheRing(t *testing.T) {
	s := start(t, Config{CNFMetrics: mounted{}})
	routed := s.listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	if err := check(t, routed, ""); status.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
	target := url.URL{Scheme: "http", Host: routed, Path: mountPath + "x"}
	resp, err := http.Get(target.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("HTTP: %d", resp.StatusCode)
	}
}

func TestSidecarWithoutMountHasNone(t *testing.T) {
	s := start(t, Config{})
	if err := check(t, s.grpc, ""); status.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
	conn := dial(t, "tcp", s.http)
	conn.send("GET /cnfmetrics/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if resp, body := conn.answer("GET"); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "no-such-route") {
		t.Errorf("HTTP: %d %s", resp.StatusCode, body)
	}
}
