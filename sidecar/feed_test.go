package sidecar

import (
	"context"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/xds"
)

func newXDSPublisher(t *testing.T) *xdsPublisher {
	t.Helper()
	f := &xdsPublisher{publisher: xds.NewPublisher(xds.Config{})}
	t.Cleanup(f.publisher.Stop)
	return f
}

func mustRing(t *testing.T, members ...ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A sidecar that was restarted while the directory is away knows itself alone. Its proxies still have the whole ring.
func TestProxiesAreNotToldOfARingBeforeTheFirstList(t *testing.T) {
	f := newXDSPublisher(t)
	self, other := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}, ring.Member{ID: "other", Addr: "10.0.0.2:7072"}
	f.useRing(mustRing(t, self))
	if s := f.publisher.Status(); s.Updates != 0 {
		t.Fatalf("published: %+v", s)
	}
	f.useRing(mustRing(t, self, other))
	f.list([]ring.Member{self, other})
	if s := f.publisher.Status(); s.Updates != 1 || s.Endpoints != 2 {
		t.Errorf("status %+v", s)
	}
}

func TestProxiesAreToldWhoIsLeaving(t *testing.T) {
	f := newXDSPublisher(t)
	self, gone := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}, ring.Member{ID: "gone", Addr: "10.0.0.2:7072"}
	gone.Leaving = true
	f.useRing(mustRing(t, self))
	f.list([]ring.Member{self, gone})
	if s := f.publisher.Status(); s.Endpoints != 2 {
		t.Errorf("status %+v: want one member on the ring and one that is leaving", s)
	}
	new(process).stopFeed(context.Background()) // without a feed there is nothing to stop, and nobody to tell
	(*xdsPublisher)(nil).useRing(mustRing(t, self))
	(*xdsPublisher)(nil).list(nil)
}

func TestFeedIsShownWhereOperatorsLook(t *testing.T) {
	t.Parallel()
	c := load(t, newFile(t, ""))
	c.Listen.Peer, c.Listen.XDS = "127.0.0.1:0", "127.0.0.1:0"
	r := begin(t, c, nil)
	conn, err := grpc.NewClient(r.addrs.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &discoveryv3.DiscoveryRequest{
		TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", ResourceNames: []string{xds.Name},
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv() // a sidecar that is alone is a ring, too
	if err != nil || len(answer.GetResources()) != 1 {
		t.Fatalf("got %v, %v", answer, err)
	}
	request.ResponseNonce, request.ErrorDetail = answer.GetNonce(), &status.Status{Message: "not this one"}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.xdsPublisher.publisher.Status().NACKs == 1 })
	for path, want := range map[string][]string{
		"/api/ring": {answer.GetVersionInfo(), `"clients":1`, "not this one"},
		"/api/explain?dataset=metrics&key=CNF-001": {answer.GetVersionInfo(), `"nacks":1`},
	} {
		if _, body := get(r.addrs.Admin, path); !containsAll(body, want) {
			t.Errorf("%s does not have all of %q:\n%s", path, want, body)
		}
	}
	want := []string{"ringside_xds_clients 1", "ringside_xds_nacks_total 1", "ringside_xds_endpoints 1"}
	if _, body := get(r.addrs.Metrics, "/metrics"); !containsAll(body, want) {
		t.Errorf("/metrics does not have all of %q", want)
	}
	if logged := r.logs.FilterMessageSnippet("rejected an update (NACK)").Len(); logged != 1 {
		t.Errorf("the NACK was logged %d times, want 1", logged)
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
