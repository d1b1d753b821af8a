package resolver

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/xds/publisher"
	"github.com/ringside-cache/ringside/xds/resources"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

// resolving is a running Resolver.
type resolving struct {
	*Resolver
	t      *testing.T
	lists  chan []ring.Member
	events chan string
}

func resolve(t *testing.T, c Config) *resolving {
	t.Helper()
	d := &resolving{t: t, lists: make(chan []ring.Member, 16), events: make(chan string, 64)}
	c.OnEvent = func(what string, err error) {
		if err != nil {
			what += ": " + err.Error()
		}
		d.events <- what
	}
	var err error
	if d.Resolver, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Resolve(ctx, func(members []ring.Member) { d.lists <- members }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Resolve: %v", err)
		}
	})
	return d
}

// want waits for the next list and compares it with members, in the order of the ring.
func (d *resolving) want(members []ring.Member) {
	d.t.Helper()
	want := slices.Clone(members)
	for i := range want {
		want[i].HashKey, want[i].Zone, want[i].Version = want[i].Key(), "", "" // the endpoints do not have the latter
	}
	slices.SortFunc(want, func(a, b ring.Member) int { return strings.Compare(a.HashKey, b.HashKey) })
	if got := <-d.lists; !slices.Equal(got, want) {
		d.t.Fatalf("got members\n%v\nwant\n%v", got, want)
	}
}

// wantEvent waits for an event that contains part.
func (d *resolving) wantEvent(part string) {
	d.t.Helper()
	if got := <-d.events; !strings.Contains(got, part) {
		d.t.Fatalf("got event %q, want one with %q", got, part)
	}
}

func mustEndpoints(t testing.TB, members []ring.Member) proto.Message {
	t.Helper()
	list, err := resources.Endpoints(members)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// publisherAt serves a publisher at addr until the returned function is called or the test ends.
func publisherAt(t *testing.T, addr string, f *publisher.Publisher, options ...grpc.ServerOption) (bound string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String(), xdstest.Serve(t, ln, f, options...)
}

func newPublisherAt(t *testing.T, addr string, list []ring.Member) (f *publisher.Publisher, bound string, stop func()) {
	t.Helper()
	f = publisher.New(publisher.Config{Delay: time.Millisecond})
	f.Publish(list)
	bound, stop = publisherAt(t, addr, f)
	return f, bound, stop
}

func TestResolverHasTheRingOfThePublisher(t *testing.T) {
	f, addr, _ := newPublisherAt(t, "127.0.0.1:0", xdstest.Three())
	d := resolve(t, Config{Addresses: []string{addr}})
	d.want(xdstest.Three())
	joined := append(xdstest.Three(), ring.Member{ID: "d", Addr: "10.0.0.8:7072"})
	f.Publish(joined)
	d.want(joined)
	joined[1].Leaving = true
	f.Publish(joined)
	d.want(joined)
	f.Publish(joined[2:])
	d.want(joined[2:])
	if s := d.Status(); s.Publisher != addr || s.Updates != 4 || s.Members != 2 || s.NACKs+s.Losses != 0 {
		t.Errorf("got status %+v", s)
	}
	if s := f.Status(); s.NACKs != 0 || s.Clients != 1 {
		t.Errorf("status of the publisher: got %+v", s)
	}
	list := mustEndpoints(t, joined).(*endpointv3.ClusterLoadAssignment)
	read, err := resources.Members(list)
	if err != nil {
		t.Fatal(err)
	}
	if mustRing(t, read).ID() != mustRing(t, joined).ID() {
		t.Error("the ring of the resolver has another id than that of the members")
	}
}

func mustRing(t *testing.T, members []ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResolverKeepsItsListWithoutAPublisher(t *testing.T) {
	_, addr, stop := newPublisherAt(t, "127.0.0.1:0", xdstest.Members(3))
	d := resolve(t, Config{Addresses: []string{addr}})
	d.want(xdstest.Members(3))
	d.wantEvent("connected to the xDS publisher at " + addr)
	stop()
	d.wantEvent("no connection to an xDS publisher; the last list of members stays in use: publisher at " + addr)
	if s := d.Status(); s.Publisher != "" || s.Members != 3 || s.LastError == "" {
		t.Errorf("got status %+v", s)
	}
	newPublisherAt(t, addr, xdstest.Members(4))
	d.want(xdstest.Members(4))
	d.wantEvent("connected to the xDS publisher at " + addr) // without another event of the outage
}

func TestOutageIsReportedOnce(t *testing.T) {
	f, err := New(Config{Addresses: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if first, second := f.lost(errNoList), f.lost(errNoList); !first || second {
			t.Errorf("reported: first attempt %v, second attempt %v; want the first only", first, second)
		}
		if f.Status().ContactAge == 0 {
			t.Error("contact age is 0 during an outage")
		}
		f.accept("127.0.0.1:1", 3)
		if s := f.Status().ContactAge; s != 0 {
			t.Errorf("got contact age %s while connected, want 0", s)
		}
	}
}

func TestResolverTriesTheNextPublisher(t *testing.T) {
	_, one, stopOne := newPublisherAt(t, "127.0.0.1:0", xdstest.Members(2))
	_, two, stopTwo := newPublisherAt(t, "127.0.0.1:0", xdstest.Members(2))
	d := resolve(t, Config{Addresses: []string{one, two}})
	d.want(xdstest.Members(2))
	stop, other := stopOne, two
	if d.Status().Publisher == two {
		stop, other = stopTwo, one
	}
	stop()
	d.want(xdstest.Members(2))
	if s := d.Status(); s.Publisher != other || s.Losses != 1 {
		t.Errorf("got status %+v, want the publisher %s", s, other)
	}
}

// A member that was restarted while etcd is unavailable has a publisher without members.
func TestResolverLeavesAPublisherWithoutAList(t *testing.T) {
	mute, _ := publisherAt(t, "127.0.0.1:0", publisher.New(publisher.Config{}))
	d := resolve(t, Config{Addresses: []string{mute}, AnswerTimeout: time.Millisecond})
	d.wantEvent(errNoList.Error())
}

func TestResolverNeedsAnAddress(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error")
	}
}

func TestRegisterOfAResolverWaits(t *testing.T) {
	f, err := New(Config{Addresses: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Register(ctx, ring.Member{}); err != nil {
		t.Error(err)
	}
}

// script is a publisher that sends given responses.
type script struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	answers  []*discoveryv3.DiscoveryResponse
	received chan *discoveryv3.DiscoveryRequest
}

func (s *script) StreamAggregatedResources(
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	for i := 0; ; i++ {
		q, err := stream.Recv()
		if err != nil {
			return err
		}
		s.received <- q
		if i < len(s.answers) {
			if err := stream.Send(s.answers[i]); err != nil {
				return err
			}
		}
	}
}

func (s *script) serve(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return ln.Addr().String()
}

func response(t *testing.T, version string, list proto.Message) *discoveryv3.DiscoveryResponse {
	t.Helper()
	value, err := anypb.New(list)
	if err != nil {
		t.Fatal(err)
	}
	return &discoveryv3.DiscoveryResponse{
		TypeUrl: resource.EndpointType, VersionInfo: version, Nonce: "n" + version, Resources: []*anypb.Any{value},
	}
}

// The second of three lists is invalid.
func TestResolverRejectsAnInvalidList(t *testing.T) {
	spoilt := mustEndpoints(t, xdstest.Members(2)).(*endpointv3.ClusterLoadAssignment)
	delete(spoilt.GetEndpoints()[0].GetLbEndpoints()[1].GetMetadata().GetFilterMetadata(), "envoy.lb")
	publisher := &script{received: make(chan *discoveryv3.DiscoveryRequest, 16), answers: []*discoveryv3.DiscoveryResponse{
		response(t, "1", mustEndpoints(t, xdstest.Members(1))), response(t, "2", spoilt),
		response(t, "3", mustEndpoints(t, xdstest.Members(3))),
	}}
	d := resolve(t, Config{Addresses: []string{publisher.serve(t)}, Node: "edge-1"})
	d.want(xdstest.Members(1))
	d.want(xdstest.Members(3))
	for i, want := range []struct{ version, nonce, reason string }{
		{"", "", ""}, {"1", "n1", ""}, {"1", "n2", "endpoint 1: its metadata lacks envoy.lb.hash_key"}, {"3", "n3", ""},
	} {
		q := <-publisher.received
		refused := q.GetErrorDetail()
		if q.GetVersionInfo() != want.version || q.GetResponseNonce() != want.nonce || q.GetNode().GetId() != "edge-1" ||
			!strings.HasPrefix(refused.GetMessage(), want.reason) || (refused == nil) != (want.reason == "") {
			t.Errorf("request %d is %v; want %+v", i, q, want)
		}
	}
	if s := d.Status(); s.Updates != 2 || s.NACKs != 1 || s.LastError != "" {
		t.Errorf("got status %+v", s)
	}
	d.wantEvent("connected to")
	d.wantEvent("rejected a list of members")
}

func TestInvalidLists(t *testing.T) {
	type list = *endpointv3.ClusterLoadAssignment
	first := func(l list) *endpointv3.LbEndpoint { return l.GetEndpoints()[0].GetLbEndpoints()[0] }
	socketOf := func(l list) *corev3.SocketAddress { return first(l).GetEndpoint().GetAddress().GetSocketAddress() }
	for name, test := range map[string]struct {
		spoil func(list)
		want  string
	}{
		"nobody": {func(l list) { l.Endpoints = nil }, "no member is on the ring"},
		"all are leaving": {func(l list) {
			for _, e := range l.GetEndpoints()[0].GetLbEndpoints() {
				e.HealthStatus = corev3.HealthStatus_DRAINING
			}
		}, "no member is on the ring"},
		"no metadata":  {func(l list) { first(l).Metadata = nil }, "lacks envoy.lb.hash_key"},
		"no id":        {func(l list) { delete(first(l).Metadata.FilterMetadata, "ringside.dev") }, "ringside.dev.id"},
		"a name":       {func(l list) { socketOf(l).Address = "a.example" }, `got "a.example"`},
		"an escape":    {func(l list) { idOf(first(l), "\x1b[2J") }, "not printable"},
		"a long id":    {func(l list) { idOf(first(l), strings.Repeat("x", 254)) }, "too long"},
		"a zone":       {func(l list) { socketOf(l).Address = "fe80::1%eth0" }, "has a zone"},
		"no port":      {func(l list) { socketOf(l).PortSpecifier = nil }, ":0 has no port"},
		"a large port": {func(l list) { socketOf(l).PortSpecifier = portOf(70720) }, ":70720 has no port"},
		"link-local":   {func(l list) { socketOf(l).Address = "169.254.169.254" }, "is link-local"},
		"no address":   {func(l list) { first(l).HostIdentifier = nil }, "want an IP address"},
		"sick":         {func(l list) { first(l).HealthStatus = corev3.HealthStatus_UNHEALTHY }, "UNHEALTHY"},
		"twice": {func(l list) {
			all := l.GetEndpoints()[0]
			all.LbEndpoints = append(all.LbEndpoints, all.LbEndpoints[0])
		}, "the same hash key"},
		"another's list": {func(l list) { l.ClusterName = "other" }, "no resource is named"},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustEndpoints(t, xdstest.Members(2)).(list)
			test.spoil(l)
			got, err := membersIn(response(t, "1", l))
			if err == nil || got != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error with %q", got, err, test.want)
			}
		})
	}
	other := response(t, "1", resources.Listener())
	if _, err := membersIn(other); err == nil {
		t.Error("a listener was accepted as a list of members")
	}
	other.TypeUrl = resource.ListenerType
	if _, err := membersIn(other); err == nil {
		t.Error("a type that was not requested was accepted")
	}
}

func portOf(n uint32) *corev3.SocketAddress_PortValue {
	return &corev3.SocketAddress_PortValue{PortValue: n}
}

// idOf changes the node id of an endpoint.
func idOf(e *endpointv3.LbEndpoint, id string) {
	e.Metadata.FilterMetadata["ringside.dev"].Fields["id"] = structpb.NewStringValue(id)
}
