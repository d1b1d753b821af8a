package sidecar

import (
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ringside-cache/ringside/xds/resources"
)

func TestXDSStateIsShownInConsoleAndMetrics(t *testing.T) {
	t.Parallel()
	c := load(t, newFile(t, ""))
	c.Listen.Peer, c.Listen.XDS = "127.0.0.1:0", "127.0.0.1:0"
	r := begin(t, c, nil)
	conn, err := grpc.NewClient(r.at.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &discoveryv3.DiscoveryRequest{
		TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", ResourceNames: []string{resources.Name},
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv() // a sidecar that is alone has a ring, too
	if err != nil || len(answer.GetResources()) != 1 {
		t.Fatalf("got %v, %v", answer, err)
	}
	request.ResponseNonce, request.ErrorDetail = answer.GetNonce(), &status.Status{Message: "not this one"}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.parts.publisher.Status().NACKs == 1 })
	for path, want := range map[string][]string{
		"/api/ring": {answer.GetVersionInfo(), `"clients":1`, "not this one"},
		"/api/explain?dataset=metrics&key=CNF-001": {answer.GetVersionInfo(), `"nacks":1`},
	} {
		if _, body := get(r.at.Admin, path); !containsAll(body, want) {
			t.Errorf("%s does not have all of %q:\n%s", path, want, body)
		}
	}
	want := []string{"ringside_xds_clients 1", "ringside_xds_nacks_total 1", "ringside_xds_endpoints 1"}
	if _, body := get(r.at.Metrics, "/metrics"); !containsAll(body, want) {
		t.Errorf("/metrics does not have all of %q", want)
	}
	if logged := r.logs.FilterMessageSnippet("rejected an update").Len(); logged != 1 {
		t.Errorf("the refusal was logged %d times", logged)
	}
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
