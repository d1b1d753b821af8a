package publisher

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/xds/resources"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

func mustEndpoints(t testing.TB, members []ring.Member) proto.Message {
	t.Helper()
	list, err := resources.Endpoints(members)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// serve starts the publisher on a free port and returns a client of it.
func serve(t testing.TB, f *Publisher) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	xdstest.Serve(t, ln, f)
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

// client is a stream of either protocol.
type client interface {
	subscribe(typeURL string)
	// next waits for the next response; ack accepts it, nack rejects it.
	next() answer
	ack(answer)
	nack(answer, string)
}

type answer struct {
	typeURL, version, nonce string
	resources               []proto.Message
}

type sotwClient struct {
	t    testing.TB
	s    discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	held map[string]string // :: type → version in use
}

func newSotw(t testing.TB, c discoveryv3.AggregatedDiscoveryServiceClient) *sotwClient {
	s, err := c.StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &sotwClient{t: t, s: s, held: map[string]string{}}
}

func (c *sotwClient) send(q *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	q.Node = &corev3.Node{Id: "proxy-1"}
	if err := c.s.Send(q); err != nil {
		c.t.Fatal(err)
	}
}

func (c *sotwClient) subscribe(typeURL string) {
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: []string{resources.Name}, VersionInfo: c.held[typeURL]})
}

func (c *sotwClient) next() answer {
	c.t.Helper()
	r, err := c.s.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{typeURL: r.GetTypeUrl(), version: r.GetVersionInfo(), nonce: r.GetNonce()}
	for _, packed := range r.GetResources() {
		m, err := packed.UnmarshalNew()
		if err != nil {
			c.t.Fatal(err)
		}
		a.resources = append(a.resources, m)
	}
	return a
}

func (c *sotwClient) ack(a answer) {
	c.held[a.typeURL] = a.version
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: a.typeURL, ResourceNames: []string{resources.Name}, VersionInfo: a.version, ResponseNonce: a.nonce,
	})
}

func (c *sotwClient) nack(a answer, why string) {
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: a.typeURL, ResourceNames: []string{resources.Name}, VersionInfo: c.held[a.typeURL], ResponseNonce: a.nonce,
		ErrorDetail: &status.Status{Code: int32(codes.InvalidArgument), Message: why},
	})
}

type deltaClient struct {
	t testing.TB
	s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func newDelta(t testing.TB, c discoveryv3.AggregatedDiscoveryServiceClient) *deltaClient {
	s, err := c.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &deltaClient{t: t, s: s}
}

func (c *deltaClient) send(q *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	q.Node = &corev3.Node{Id: "proxy-1"}
	if err := c.s.Send(q); err != nil {
		c.t.Fatal(err)
	}
}

func (c *deltaClient) subscribe(typeURL string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{resources.Name}})
}

func (c *deltaClient) next() answer {
	c.t.Helper()
	r, err := c.s.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{typeURL: r.GetTypeUrl(), version: r.GetSystemVersionInfo(), nonce: r.GetNonce()}
	for _, one := range r.GetResources() {
		m, err := one.GetResource().UnmarshalNew()
		if err != nil {
			c.t.Fatal(err)
		}
		a.resources = append(a.resources, m)
	}
	return a
}

func (c *deltaClient) ack(a answer) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.typeURL, ResponseNonce: a.nonce})
}

func (c *deltaClient) nack(a answer, why string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: a.typeURL, ResponseNonce: a.nonce,
		ErrorDetail: &status.Status{Code: int32(codes.InvalidArgument), Message: why},
	})
}

// each runs test with both protocols.
func each(t *testing.T, c Config, test func(t *testing.T, f *Publisher, dial func() client)) {
	t.Run("sotw", func(t *testing.T) {
		f := New(c)
		ads := serve(t, f)
		test(t, f, func() client { return newSotw(t, ads) })
	})
	t.Run("delta", func(t *testing.T) {
		f := New(c)
		ads := serve(t, f)
		test(t, f, func() client { return newDelta(t, ads) })
	})
}

func wantEndpoints(t *testing.T, a answer, list []ring.Member) {
	t.Helper()
	if len(a.resources) != 1 || !proto.Equal(a.resources[0], mustEndpoints(t, list)) {
		t.Fatalf("version %s: got %v, want the endpoints of %d members", a.version, a.resources, len(list))
	}
}

func TestEveryResourceTypeIsServed(t *testing.T) {
	size := ring.Size{Min: 16, Max: 64}
	each(t, Config{Size: size}, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Three())
		c := dial()
		for typeURL, want := range map[string]proto.Message{
			resource.EndpointType: mustEndpoints(t, xdstest.Three()), resource.ClusterType: resources.Cluster(size),
			resource.ListenerType: resources.Listener(), resource.RouteType: resources.Routes(),
		} {
			c.subscribe(typeURL)
			a := c.next()
			if len(a.resources) != 1 || !proto.Equal(a.resources[0], want) {
				t.Errorf("%s: got %v, want %v", typeURL, a.resources, want)
			}
			c.ack(a)
		}
	})
}

func TestChangesAreSent(t *testing.T) {
	each(t, Config{Delay: time.Millisecond}, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Members(3))
		c := dial()
		c.subscribe(resource.EndpointType)
		for n := 3; n < 8; n++ {
			a := c.next()
			wantEndpoints(t, a, xdstest.Members(n))
			if s := f.Status(); s.Version != a.version || s.Endpoints != n || s.Updates != int64(n-2) || s.Clients != 1 {
				t.Errorf("got status %+v, want version %s of the client", s, a.version)
			}
			c.ack(a)
			f.Publish(xdstest.Members(n + 1))
		}
		late := dial()
		late.subscribe(resource.EndpointType)
		c.next()
		late.next()
	})
}

// A client would take a first response without endpoints for an empty ring.
func TestClientsWaitForTheFirstRing(t *testing.T) {
	each(t, Config{}, func(t *testing.T, f *Publisher, dial func() client) {
		c := dial()
		c.subscribe(resource.EndpointType)
		first := make(chan answer, 1)
		go func() { first <- c.next() }()
		f.Publish(nil)
		for f.Status().Clients == 0 {
			time.Sleep(time.Millisecond)
		}
		f.Publish(xdstest.Members(3))
		wantEndpoints(t, <-first, xdstest.Members(3))
	})
}

func TestEmptyRingIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var called error
		f := New(Config{OnUnpublishable: func(err error) { called = err }})
		defer f.Stop()
		f.Publish(xdstest.Members(3))
		before := f.Status()
		f.Publish(nil)
		time.Sleep(time.Second)
		if f.Status() != before || called == nil {
			t.Errorf("got status %+v, want it unchanged: %+v; unpublishable %v", f.Status(), before, called)
		}
	})
}

func TestManyChangesAreOneUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{})
		defer f.Stop()
		f.Publish(xdstest.Members(1))
		for n := range 50 {
			f.Publish(xdstest.Members(n + 2))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if s := f.Status(); s.Updates != 2 || s.Endpoints != 51 {
			t.Errorf("got status %+v after 50 changes in 50 ms, want one update", s)
		}
	})
}

func TestEqualListIsNotAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{})
		defer f.Stop()
		f.Publish(xdstest.Three())
		before := f.Status()
		again := xdstest.Three()
		again[1].Version = "for people"
		f.Publish(again)
		time.Sleep(time.Second)
		f.Publish(xdstest.Members(3)) // changed and changed back within Config.Delay
		f.Publish(xdstest.Three())
		time.Sleep(time.Second)
		if f.Status() != before {
			t.Errorf("got status %+v, want it unchanged: %+v", f.Status(), before)
		}
	})
}

func TestNACKIsRecordedAndTheUpdateIsNotSentAgain(t *testing.T) {
	var mu sync.Mutex // guards called
	var called []NACK
	config := Config{Delay: time.Millisecond, OnNACK: func(n NACK) {
		mu.Lock()
		defer mu.Unlock()
		called = append(called, n)
	}}
	each(t, config, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Members(1))
		c := dial()
		// A type that is always sent completely, and one that changes.
		for _, typeURL := range []string{resource.ListenerType, resource.EndpointType} {
			c.subscribe(typeURL)
			c.nack(c.next(), "no\nthanks \x1b[31m"+strings.Repeat("!", 2*printable.MaxText))
		}
		f.Publish(xdstest.Members(2))
		// If the rejected update were sent again, it would be the next response.
		a := c.next()
		wantEndpoints(t, a, xdstest.Members(2))
		c.ack(a)
		s := f.Status()
		want := "no thanks  [31m!"
		if s.NACKs != 2 || s.LastNACK == nil || !strings.HasPrefix(s.LastNACK.Reason, want) ||
			len(s.LastNACK.Reason) > printable.MaxText || s.LastNACK.Node != "proxy-1" ||
			s.LastNACK.Resource != "ClusterLoadAssignment" {
			t.Errorf("got status %+v, last NACK %+v", s, s.LastNACK)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(called) != 1 {
			t.Errorf("two NACKs at once: got %d calls, want 1", len(called))
		}
		called = nil
	})
}

func TestOnNACKIsCalledOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		called := 0
		f := New(Config{OnNACK: func(NACK) { called++ }})
		defer f.Stop()
		for range 100 {
			f.nacked(nil, resource.EndpointType, "no")
			time.Sleep(30 * time.Millisecond)
		}
		if called != 3 || f.Status().NACKs != 100 {
			t.Errorf("100 NACKs in 3 s: got %d calls, %d counted", called, f.Status().NACKs)
		}
	})
}

// A client of another process sends the version that it had there.
func TestClientOfAnotherProcessGetsTheRing(t *testing.T) {
	config := Config{Delay: time.Millisecond}
	former := New(config)
	former.Publish(xdstest.Members(5))
	c := newSotw(t, serve(t, former))
	c.subscribe(resource.EndpointType)
	c.ack(c.next())
	next := New(config)
	next.Publish(xdstest.Members(2))
	again := newSotw(t, serve(t, next))
	again.held = c.held
	again.subscribe(resource.EndpointType)
	a := again.next()
	wantEndpoints(t, a, xdstest.Members(2))
	if a.version == c.held[resource.EndpointType] {
		t.Errorf("two processes have the version %s for different rings", a.version)
	}
	again.nack(a, "no")
	next.Publish(xdstest.Members(3))
	wantEndpoints(t, again.next(), xdstest.Members(3))
}

func TestUnknownTypesGetNoResponse(t *testing.T) {
	each(t, Config{}, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Members(1))
		c := dial()
		c.subscribe(resource.SecretType)
		c.subscribe("type.googleapis.com/nobody.knows.This")
		c.subscribe(resource.EndpointType)
		wantEndpoints(t, c.next(), xdstest.Members(1))
	})
}

func recvError(c client) error {
	switch c := c.(type) {
	case *sotwClient:
		_, err := c.s.Recv()
		return err
	case *deltaClient:
		_, err := c.s.Recv()
		return err
	}
	return nil
}

func wantRefused(t *testing.T, f *Publisher, err error) {
	t.Helper()
	if grpcstatus.Code(err) != codes.ResourceExhausted || f.Status().ClientsRefused != 1 {
		t.Errorf("got %v; status %+v", err, f.Status())
	}
}

// The library waits for all types of a stream with one reflect.Select, which panics at 65 536.
func TestTypesOfAStreamAreLimited(t *testing.T) {
	each(t, Config{}, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Members(1))
		c := dial()
		for i := range maxTypes + 1 {
			c.subscribe(fmt.Sprint("type.googleapis.com/T", i))
		}
		wantRefused(t, f, recvError(c))
	})
}

func TestResourceNamesOfAStreamAreLimited(t *testing.T) {
	each(t, Config{}, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Members(1))
		names := make([]string, maxNames+1)
		for i := range names {
			names[i] = fmt.Sprint("r", i)
		}
		c := dial()
		switch c := c.(type) {
		case *sotwClient:
			c.send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: names})
		case *deltaClient: // in two requests
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: names[:maxNames]})
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: names[maxNames:]})
		}
		wantRefused(t, f, recvError(c))
	})
}

func TestClientsAreLimited(t *testing.T) {
	each(t, Config{MaxStreams: 1}, func(t *testing.T, f *Publisher, dial func() client) {
		f.Publish(xdstest.Members(1))
		first := dial()
		first.subscribe(resource.EndpointType)
		first.next()
		// The limit applies to one connection, too; the second client has another connection.
		if err := f.enter(); grpcstatus.Code(err) != codes.ResourceExhausted {
			t.Errorf("second stream of one client: got %v", err)
		}
		if s := f.Status(); s.Clients != 1 || s.ClientsRefused != 1 || s.MaxClients != 1 {
			t.Errorf("got status %+v", s)
		}
	})
}

func TestDisconnectedClientIsNotCounted(t *testing.T) {
	f := New(Config{})
	ads := serve(t, f)
	f.Publish(xdstest.Members(1))
	c := newSotw(t, ads)
	c.subscribe(resource.EndpointType)
	c.next()
	if err := c.s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.s.Recv(); err == nil {
		t.Fatal("the stream is open")
	}
	if n := f.Status().Clients; n != 0 {
		t.Errorf("got %d clients, want 0", n)
	}
}

func TestStopEndsWaitingStreams(t *testing.T) {
	each(t, Config{}, func(t *testing.T, f *Publisher, dial func() client) {
		c := dial()
		c.subscribe(resource.EndpointType)
		f.Stop()
		if err := recvError(c); grpcstatus.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
		f.Publish(xdstest.Members(1))
		if s := f.Status(); s.Updates != 0 {
			t.Errorf("after Stop: got status %+v", s)
		}
	})
}

// No request of a client affects the others.
func FuzzRequests(f *testing.F) {
	for _, q := range []proto.Message{
		&discoveryv3.DiscoveryRequest{},
		&discoveryv3.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"*", resources.Name, ""}, ResponseNonce: "9"},
		&discoveryv3.DiscoveryRequest{TypeUrl: resource.ListenerType, ErrorDetail: &status.Status{Message: "no"}},
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b, false)
	}
	for _, q := range []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: []string{"*"}},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ClusterType, ResourceNamesUnsubscribe: []string{"*", resources.Name},
			InitialResourceVersions: map[string]string{resources.Name: "x", "": ""}},
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b, true)
	}
	publisher := New(Config{Delay: time.Millisecond})
	ads := serve(f, publisher)
	publisher.Publish(xdstest.Members(3))
	f.Fuzz(func(t *testing.T, first, second []byte, increments bool) {
		if increments {
			fuzzDelta(t, ads, first, second)
		} else {
			fuzzSotw(t, ads, first, second)
		}
		good := newSotw(t, ads)
		good.subscribe(resource.EndpointType)
		if a := good.next(); len(a.resources) != 1 || a.resources[0].(*endpointv3.ClusterLoadAssignment) == nil {
			t.Fatalf("got %v", a)
		}
	})
}

func fuzzSotw(t *testing.T, ads discoveryv3.AggregatedDiscoveryServiceClient, requests ...[]byte) {
	c := newSotw(t, ads)
	for _, b := range requests {
		q := new(discoveryv3.DiscoveryRequest)
		if proto.Unmarshal(b, q) == nil && c.s.Send(q) != nil {
			return // the publisher has ended this stream
		}
	}
	drain(c.s.CloseSend, func() error { _, err := c.s.Recv(); return err })
}

func fuzzDelta(t *testing.T, ads discoveryv3.AggregatedDiscoveryServiceClient, requests ...[]byte) {
	c := newDelta(t, ads)
	for _, b := range requests {
		q := new(discoveryv3.DeltaDiscoveryRequest)
		if proto.Unmarshal(b, q) == nil && c.s.Send(q) != nil {
			return
		}
	}
	drain(c.s.CloseSend, func() error { _, err := c.s.Recv(); return err })
}

func drain(closeSend, recv func() error) {
	_ = closeSend() // fails only when the stream has ended
	for recv() == nil {
		continue
	}
}
