package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/xds/publisher"
	"github.com/ringside-cache/ringside/xds/resources"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

// fakeMembers returns n members whose one server responds with the address that a request was sent to.
func fakeMembers(t *testing.T, n int) []ring.Member {
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

// servePublisher serves xDS until the end of the test, and returns the address.
func servePublisher(t *testing.T, f *publisher.Publisher) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	xdstest.Serve(t, ln, f)
	return ln.Addr().String()
}

// misrouted counts the keys that Envoy does not send to the owner on the ring.
func misrouted(t *testing.T, envoy *rig.EnvoyServer, members []ring.Member, keys int) (n int) {
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

// awaitMembers waits until the ring of Envoy has n members.
func awaitMembers(t *testing.T, envoy *rig.EnvoyServer, n int) {
	t.Helper()
	rig.Eventually(t, time.Minute, func() error {
		if got := envoy.Stat("cluster.ringside.membership_healthy"); got != int64(n) {
			return fmt.Errorf("Envoy has %d members; want %d", got, n)
		}
		return nil
	})
}

// withLongRun adds two dead members to a live one, so that the ring has a run of at least n entries of the dead ones.
func withLongRun(t *testing.T, live ring.Member, n int) []ring.Member {
	t.Helper()
	for try := range 250 * 250 {
		dead := func(i int) ring.Member { // nothing listens on port 1 (tcpmux)
			return ring.Member{ID: fmt.Sprint("dead-", i), Addr: fmt.Sprintf("127.%d.%d.%d:1", 100+i, try/250, 1+try%250)}
		}
		members := []ring.Member{live, dead(0), dead(1)}
		r, err := ring.New(members, ring.Size{})
		if err != nil {
			t.Fatal(err)
		}
		run := 0
		for _, m := range r.Entries() {
			if run++; m.ID == live.ID {
				run = 0
			}
			if run == n {
				return members
			}
		}
	}
	t.Fatalf("no ring has a run of %d entries", n)
	return nil
}

// The ring still has two members that have just died, and a few keys have many of their entries in a row.
func TestEnvoyRetriesAtTheOnlyLiveMember(t *testing.T) {
	t.Parallel()
	members := withLongRun(t, fakeMembers(t, 1)[0], 24)
	publisher := publisher.New(publisher.Config{})
	address := servePublisher(t, publisher)
	publisher.Publish(members)
	envoy := rig.Envoy(t, address)
	awaitMembers(t, envoy, len(members))
	var failed atomic.Int64
	var reading sync.WaitGroup
	const keys, readers = 8000, 32
	for first := range readers {
		reading.Go(func() {
			for i := first; i < keys; i += readers {
				response, err := http.Get(fmt.Sprint("http://", envoy.HTTP, "/v1/metrics/key-", i))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	reading.Wait()
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d keys failed, want 0: one of three members is alive", n, keys)
	}
}

func reportMisrouted(t *testing.T, done string, envoy *rig.EnvoyServer, members []ring.Member, keys int) {
	t.Helper()
	n := misrouted(t, envoy, members, keys)
	report(t, promise{number: "Z3", n: keys, held: n == 0, done: done,
		figure: fmt.Sprintf("%d of %d keys did not go to the owner", n, keys)})
}

// joinDelay is the default of xds.Config.Delay.
const joinDelay = 100 * time.Millisecond

// With 200 members, rounding gives some members one more entry on the ring. Then members join faster than Envoy can build
// rings, and a second Envoy starts late.
func TestPromiseZTwoHundredMembersAndManyJoins(t *testing.T) {
	members := fakeMembers(t, 250)
	publisher := publisher.New(publisher.Config{})
	address := servePublisher(t, publisher)
	publisher.Publish(members[:200])
	envoy := rig.Envoy(t, address)
	awaitMembers(t, envoy, 200)
	reportMisrouted(t, "200 members", envoy, members[:200], 3000)

	before, began := publisher.Status().Updates, time.Now()
	for n := range 50 {
		publisher.Publish(members[:201+n])
		time.Sleep(time.Second / 50)
	}
	took := time.Since(began) // longer than a second on a busy machine
	awaitMembers(t, envoy, 250)
	updates, most := publisher.Status().Updates-before, 1+int64(took/joinDelay)
	report(t, promise{number: "Z4", n: 50, held: updates <= most, done: fmt.Sprintf("50 joins in %v", took.Round(time.Second/10)),
		figure: fmt.Sprintf("%d updates for proxies", updates)})
	reportMisrouted(t, "250 members, after 50 joins", envoy, members, 3000)

	late := rig.Envoy(t, address)
	awaitMembers(t, late, 250)
	reportMisrouted(t, "an Envoy that started late", late, members, 1000)
	leaving := append([]ring.Member(nil), members...)
	for i := range 50 {
		leaving[i*5].Leaving = true
	}
	publisher.Publish(leaving)
	awaitMembers(t, envoy, 200)
	awaitMembers(t, late, 200)
	reportMisrouted(t, "50 of 250 leaving", envoy, leaving, 3000)
	reportMisrouted(t, "50 of 250 leaving, the second Envoy", late, leaving, 1000)
	if s := publisher.Status(); s.NACKs != 0 || s.Clients != 2 {
		t.Errorf("publisher: %+v, %+v", s, s.LastNACK)
	}
}

// The publisher counts a client that rejects all updates, and other clients get their updates.
func TestClientThatRejectsUpdatesDoesNotAffectOthers(t *testing.T) {
	members := fakeMembers(t, 5)
	nacks := make(chan publisher.NACK, 16)
	publisher := publisher.New(publisher.Config{OnNACK: func(n publisher.NACK) { nacks <- n }})
	address := servePublisher(t, publisher)
	publisher.Publish(members[:3])
	envoy := rig.Envoy(t, address)
	rejectAll(t, address)
	if r := <-nacks; r.Node != "rejecter" || r.Reason != "rejected by the test" {
		t.Errorf("got the rejection %+v", r)
	}
	publisher.Publish(members)
	awaitMembers(t, envoy, 5)
	reportMisrouted(t, "beside a client that rejects each update", envoy, members, 1000)
	if n := publisher.Status().NACKs; n > 2 {
		t.Errorf("got %d rejections of 2 updates", n)
	}
}

// rejectAll subscribes to xDS until the end of the test, and rejects each update.
func rejectAll(t *testing.T, publisher string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(dialGRPC(t, "passthrough:///"+publisher))
	stream, err := client.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	request := &discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: "rejecter"}, ResourceNames: []string{resources.Name},
		TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	}
	var rejecting sync.WaitGroup
	t.Cleanup(func() { cancel(); rejecting.Wait() })
	rejecting.Go(func() {
		for {
			if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
				return
			}
			update, err := stream.Recv()
			if err != nil {
				return // the end of the test
			}
			request.ResponseNonce = update.GetNonce()
			request.ErrorDetail = &status.Status{Message: "rejected by the test"}
		}
	})
}
