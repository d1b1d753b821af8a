package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/xds"
)

// stand are n members that are nothing but addresses: one server that says to which of them a request came.
func stand(t *testing.T, n int) []ring.Member {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
	})}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	members := make([]ring.Member, n)
	for i := range members {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.%d.%d:0", 1+i/250, 1+i%250))
		if err != nil {
			t.Fatal(err)
		}
		members[i] = ring.Member{ID: fmt.Sprint("m", i), Addr: ln.Addr().String()}
		serving.Go(func() { _ = server.Serve(ln) })
	}
	return members
}

// serveFeed serves a feed until the test ends, and returns its address.
func serveFeed(t *testing.T, f *xds.Feed) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(ln) }()
	t.Cleanup(func() {
		f.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// strays counts the keys that Envoy sends to another member than the ring does.
func strays(t *testing.T, envoy *rig.EnvoyServer, members []ring.Member, keys int) (n int) {
	t.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		key := fmt.Sprint("metrics/key-", i)
		response, err := http.Get("http://" + envoy.HTTP + "/v1/" + key)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s %v", key, response.Status, body, err)
		}
		if string(body) != r.Owner(key).Addr {
			n++
		}
	}
	return n
}

// awaitMembers waits until Envoy has so many members on its ring.
func awaitMembers(t *testing.T, envoy *rig.EnvoyServer, n int) {
	t.Helper()
	rig.Eventually(t, 15*time.Second, func() error {
		if got := envoy.Stat("cluster.ringside.membership_healthy"); got != int64(n) {
			return fmt.Errorf("Envoy has %d members; want %d", got, n)
		}
		return nil
	})
}

func reportStrays(t *testing.T, done string, envoy *rig.EnvoyServer, members []ring.Member, keys int) {
	t.Helper()
	n := strays(t, envoy, members, keys)
	report(t, promise{number: "Z3", n: keys, held: n == 0, done: done,
		figure: fmt.Sprintf("%d of %d keys went to another member than the owner", n, keys)})
}

// 200 members is where rounding gives single members an entry more; then members come and go faster than anybody can
// follow, and Envoys come late.
func TestPromiseZTwoHundredMembersAndAStorm(t *testing.T) {
	members := stand(t, 250)
	feed := xds.NewFeed(xds.Config{})
	address := serveFeed(t, feed)
	feed.Publish(members[:200])
	envoy := rig.Envoy(t, address)
	awaitMembers(t, envoy, 200)
	reportStrays(t, "200 members", envoy, members[:200], 3000)

	before := feed.Status().Updates
	for n := range 50 {
		feed.Publish(members[:201+n])
		time.Sleep(time.Second / 50)
	}
	awaitMembers(t, envoy, 250)
	updates := feed.Status().Updates - before
	report(t, promise{number: "Z4", n: 50, held: updates <= 15, done: "50 joins in a second",
		figure: fmt.Sprintf("%d updates for proxies", updates)})
	reportStrays(t, "250 members, after the storm", envoy, members, 3000)

	late := rig.Envoy(t, address)
	awaitMembers(t, late, 250)
	reportStrays(t, "an Envoy that came late", late, members, 1000)
	leaving := append([]ring.Member(nil), members...)
	for i := range 50 {
		leaving[i*5].Leaving = true
	}
	feed.Publish(leaving)
	awaitMembers(t, envoy, 200)
	awaitMembers(t, late, 200)
	reportStrays(t, "50 of 250 leaving", envoy, leaving, 3000)
	reportStrays(t, "50 of 250 leaving, the second Envoy", late, leaving, 1000)
	if s := feed.Status(); s.Refusals != 0 || s.Subscribers != 2 {
		t.Errorf("feed: %+v, %+v", s, s.LastRefusal)
	}
}

// A client that refuses everything is noted, and nobody else notices.
func TestAClientThatRefusesDisturbsNobody(t *testing.T) {
	members := stand(t, 5)
	refusals := make(chan xds.Refusal, 16)
	feed := xds.NewFeed(xds.Config{OnRefusal: func(r xds.Refusal) { refusals <- r }})
	address := serveFeed(t, feed)
	feed.Publish(members[:3])
	envoy := rig.Envoy(t, address)
	refuseAll(t, address)
	if r := <-refusals; r.Node != "refuser" || r.Reason != "I will not" {
		t.Errorf("told of %+v", r)
	}
	feed.Publish(members)
	awaitMembers(t, envoy, 5)
	reportStrays(t, "beside a client that refuses each update", envoy, members, 1000)
	if n := feed.Status().Refusals; n > 2 {
		t.Errorf("2 updates were refused %d times", n)
	}
}

// refuseAll follows the feed until the test ends, and refuses each update.
func refuseAll(t *testing.T, feed string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(dialGRPC(t, "passthrough:///"+feed))
	stream, err := client.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	request := &discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: "refuser"}, ResourceNames: []string{xds.Name},
		TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	}
	var refusing sync.WaitGroup
	t.Cleanup(func() { cancel(); refusing.Wait() })
	refusing.Go(func() {
		for {
			if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
				return
			}
			update, err := stream.Recv()
			if err != nil {
				return // the test has ended
			}
			request.ResponseNonce = update.GetNonce()
			request.ErrorDetail = &status.Status{Message: "I will not"}
		}
	})
}
