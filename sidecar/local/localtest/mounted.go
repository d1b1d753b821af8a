package localtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Mounted is a local.Mount whose gRPC service is that of package health under the name "mounted".
type Mounted struct {
	healthpb.UnimplementedHealthServer
}

// Register implements local.Mount.
func (m Mounted) Register(r grpc.ServiceRegistrar) {
	desc := healthpb.Health_ServiceDesc
	desc.ServiceName = "mounted"
	r.RegisterService(&desc, m)
}

// Check panics or waits if the name in the request demands it.
func (Mounted) Check(ctx context.Context, q *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch q.GetService() {
	case "panic":
		panic("canary-secret")
	case "wait":
		<-ctx.Done()
		return nil, status.Error(codes.Aborted, "the context ended")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// ServeHTTP implements local.Mount. It responds with what it received.
func (Mounted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/cnfmetrics/panic" {
		panic("canary-secret")
	}
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Allow", "GET")
	w.WriteHeader(http.StatusTeapot)
	fmt.Fprintf(w, "%s %s %s %v", r.Method, r.URL, body, err)
}

// PostOnly implements local.Mount.
func (Mounted) PostOnly(path string) bool { return path == "/cnfmetrics/post" }

// CallMounted calls Check of Mounted over gRPC.
func CallMounted(tb testing.TB, address, name string) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	in, out := &healthpb.HealthCheckRequest{Service: name}, new(healthpb.HealthCheckResponse)
	return Connect(tb, address).Invoke(ctx, "/mounted/Check", in, out)
}
