package bench

import (
	"fmt"
	"net"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/xds/publisher"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

// The latency of a read from memory for one sequential reader, by route.
func BenchmarkRoute(b *testing.B) {
	sidecars := newSidecars(b, 2)
	members := []ring.Member{{ID: "1", Addr: sidecars[0].Peer}, {ID: "2", Addr: sidecars[1].Peer}}
	envoy := rig.Envoy(b, serveFeed(b, members))
	theirs := ownedBy(b, members, 1)
	local, owned := "/v1/cnf-metrics/"+theirs, "/v1/peer-metrics/"+theirs
	for _, way := range []struct {
		name string
		dial func(int) (exchange, error)
	}{
		{"way=sidecar", httpGet(b, "tcp", sidecars[0].HTTP, local)}, // a local copy
		{"way=sidecar-owner", httpGet(b, "tcp", sidecars[0].HTTP, owned)},
		{"way=envoy-owner", httpGet(b, "tcp", envoy.HTTP, owned)},
		{"way=owner", httpGet(b, "tcp", sidecars[1].Peer, owned)}, // a client that knows the ring
		{"way=sidecar/over=gRPC", grpcGet(b, sidecars[0].GRPC, "cnf-metrics", theirs)},
		{"way=sidecar-owner/over=gRPC", grpcGet(b, sidecars[0].GRPC, "peer-metrics", theirs)},
		{"way=owner/over=gRPC", grpcGet(b, sidecars[1].Peer, "peer-metrics", theirs)}, // grpc-go with xds:///
	} {
		b.Run(way.name, func(b *testing.B) {
			once, err := way.dial(0)
			for range 100 { // connect, warm up
				if err == nil {
					err = once()
				}
			}
			for b.Loop() && err == nil {
				err = once()
			}
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// ownedBy finds a key of peer-metrics that member i owns.
func ownedBy(b *testing.B, members []ring.Member, i int) string {
	b.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		b.Fatal(err)
	}
	for n := range 100 {
		if r.Owner(routekey.Format("peer-metrics", keyOf(n))).ID == members[i].ID {
			return keyOf(n)
		}
	}
	b.Fatalf("member %d owns none of 100 keys", i)
	return ""
}

// serveFeed publishes the ring of members by xDS until the benchmark ends, and returns the address.
func serveFeed(b *testing.B, members []ring.Member) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	feed := publisher.New(publisher.Config{OnNACK: func(n publisher.NACK) { b.Error(fmt.Sprint(n)) }})
	xdstest.Serve(b, ln, feed)
	feed.Publish(members)
	return ln.Addr().String()
}
