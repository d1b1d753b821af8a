//go:build !noxds

// Package resources builds the ring as xDS resources, for an Envoy or a gRPC client that sends each request to the member
// that owns its key, and reads the members from them. Every Envoy and gRPC client builds the same ring from them.
package resources

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/ring/printable"
)

const (
	// Name is the name of every resource: a gRPC client dials xds:///ringside, and an Envoy requests the endpoints of the
	// service ringside.
	Name = "ringside"
	// HashHeader is the header with the route key of a request.
	HashHeader = "ringside-key"
)

// errEmpty: with an empty ring clients fail every request, and no ring in use is empty.
var errEmpty = errors.New("no member is on the ring")

// Endpoints lists the members in the order in which the ring is built: bytewise by hash key. Envoy and gRPC build theirs
// from the healthy ones, which are the members of ring.New. Leaving members are listed as draining, so that running
// requests end normally.
//
// Clients accept IP addresses only, and reject the whole list otherwise. The list therefore omits members without one, and
// the error names them; other members answer their keys with a peer fetch. The list is nil when the ring is empty.
func Endpoints(members []ring.Member) (*endpointv3.ClusterLoadAssignment, error) {
	listed := inOrder(members)
	var left []error
	var endpoints []*endpointv3.LbEndpoint
	healthy := 0
	for i := range listed {
		e, err := endpoint(&listed[i])
		if err != nil {
			left = append(left, err)
			continue
		}
		endpoints = append(endpoints, e)
		if !listed[i].Leaving {
			healthy++
		}
	}
	if healthy == 0 {
		return nil, errors.Join(append(left, errEmpty)...)
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: Name,
		// gRPC ignores a locality that is nil or has no weight (gRFC A27).
		Endpoints: []*endpointv3.LocalityLbEndpoints{{
			Locality: &corev3.Locality{}, LoadBalancingWeight: wrapperspb.UInt32(1), LbEndpoints: endpoints,
		}},
	}, errors.Join(left...)
}

// inOrder sorts members by hash key. It drops a leaving member whose hash key or address another member has: the next pod
// has got the address, and clients reject a list with duplicates.
func inOrder(members []ring.Member) []ring.Member {
	taken := make(map[string]bool, 2*len(members))
	listed := make([]ring.Member, 0, len(members))
	for _, leaving := range []bool{false, true} {
		for _, m := range members {
			if m.Leaving != leaving || leaving && (taken[m.Key()] || taken[m.Addr]) {
				continue
			}
			taken[m.Key()], taken[m.Addr] = true, true
			listed = append(listed, m)
		}
	}
	slices.SortFunc(listed, func(a, b ring.Member) int { return strings.Compare(a.Key(), b.Key()) })
	return listed
}

// endpoint sets no weight: unequal weights give different rings in Envoy and in gRPC. It sets nothing that changes during
// the life of a member, because each change makes Envoy rebuild its hosts.
func endpoint(m *ring.Member) (*endpointv3.LbEndpoint, error) {
	canonical, err := address.Member(m.Addr)
	if err != nil {
		return nil, fmt.Errorf("member %.300q cannot be published to xDS clients: set its node.advertise: %w", m.ID, err)
	}
	addr, err := netip.ParseAddrPort(canonical)
	if err != nil {
		return nil, err // impossible: canonical is valid
	}
	if !utf8.ValidString(m.Key()) || !utf8.ValidString(m.ID) {
		return nil, fmt.Errorf("member %q: its id or its hash key %q is not UTF-8", m.ID, m.Key())
	}
	status := corev3.HealthStatus_HEALTHY
	if m.Leaving {
		status = corev3.HealthStatus_DRAINING
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socket(addr)}},
		HealthStatus:   status,
		Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			lbNamespace: field("hash_key", m.Key()), ownNamespace: field("id", m.ID),
		}},
	}, nil
}

// maxID and maxHashKey are the limits of the directory in etcd.
const maxID, maxHashKey = 253, 512

// Namespaces of the metadata: Envoy and gRPC read the first one. Sidecars read both, because the node id is part of the
// ring's id.
const lbNamespace, ownNamespace = "envoy.lb", "ringside.dev"

func field(name, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{name: structpb.NewStringValue(value)}}
}

func socket(addr netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       addr.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(addr.Port())},
	}}}
}

// Members is the inverse of Endpoints: the members of a list, in its order. It rejects the whole list when a member lacks
// its id, hash key or address, when they cannot form a ring, or when the ring is empty.
func Members(list *endpointv3.ClusterLoadAssignment) ([]ring.Member, error) {
	var members []ring.Member
	for _, locality := range list.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			m, err := member(e)
			if err != nil {
				return nil, fmt.Errorf("endpoint %d: %w", len(members), err)
			}
			members = append(members, m)
		}
	}
	r, err := ring.New(members, ring.Size{})
	switch {
	case err != nil:
		return nil, err
	case r.Len() == 0:
		return nil, errEmpty
	}
	return members, nil
}

func member(e *endpointv3.LbEndpoint) (ring.Member, error) {
	metadata := e.GetMetadata().GetFilterMetadata()
	text := func(namespace, name string) string { return metadata[namespace].GetFields()[name].GetStringValue() }
	m := ring.Member{ID: text(ownNamespace, "id"), HashKey: text(lbNamespace, "hash_key")}
	if m.ID == "" || m.HashKey == "" {
		return ring.Member{}, fmt.Errorf("its metadata lacks %s.hash_key or %s.id", lbNamespace, ownNamespace)
	}
	if len(m.ID) > maxID || printable.Text(m.ID) != m.ID || len(m.HashKey) > maxHashKey || printable.Text(m.HashKey) != m.HashKey {
		return ring.Member{}, fmt.Errorf("its id or its hash key is too long or not printable: %.100q, %.100q", m.ID, m.HashKey)
	}
	at := e.GetEndpoint().GetAddress().GetSocketAddress()
	ip, err := netip.ParseAddr(at.GetAddress())
	if err != nil {
		return ring.Member{}, fmt.Errorf("want an IP address and a port; got %.300q and %d", at.GetAddress(), at.GetPortValue())
	}
	if m.Addr, err = address.MemberIP(ip, at.GetPortValue()); err != nil {
		return ring.Member{}, err
	}
	switch status := e.GetHealthStatus(); status {
	case corev3.HealthStatus_HEALTHY:
	case corev3.HealthStatus_DRAINING:
		m.Leaving = true
	default:
		return ring.Member{}, fmt.Errorf("want HEALTHY or DRAINING; got the health status %s", status)
	}
	return m, nil
}

// Cluster balances by the ring. An Envoy has its own cluster instead (deploy/envoy), with the same policy. Panic mode is off:
// sending requests to members that are not on the ring is never right. There is no health check and no outlier detection:
// they would give each proxy its own ring.
func Cluster(size ring.Size) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 Name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: fromADS(), ServiceName: Name},
		ConnectTimeout:       durationpb.New(time.Second),
		LbPolicy:             clusterv3.Cluster_RING_HASH,
		LbConfig: &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(size.Min),
			MaximumRingSize: wrapperspb.UInt64(size.Max),
			HashFunction:    clusterv3.Cluster_RingHashLbConfig_XX_HASH,
		}},
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
		// gRPC ignores it; other clients of this cluster must not send HTTP/1.1 to a gRPC service.
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(http2()),
		},
	}
}

func http2() *upstreamsv3.HttpProtocolOptions {
	type explicit = upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig
	return &upstreamsv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &explicit{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
			},
		}},
	}
}

func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// Listener is the first resource that a gRPC client of xds:///ringside requests (gRFC A27).
func Listener() *listenerv3.Listener {
	return &listenerv3.Listener{Name: Name, ApiListener: &listenerv3.ApiListener{
		ApiListener: packed(&hcmv3.HttpConnectionManager{
			StatPrefix:     Name,
			RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: fromADS(), RouteConfigName: Name}},
			HttpFilters: []*hcmv3.HttpFilter{{
				Name:       "router",
				ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})},
			}},
		}),
	}}
}

const (
	// retries is the number of attempts after the first; each goes to the next connectable member of the ring.
	retries = 3
	// retryBase and retryMax limit the wait between two attempts.
	retryBase, retryMax = 2 * time.Millisecond, 20 * time.Millisecond
)

// Routes sends every call to the cluster, by the hash of its route key. Clients retry a call whose connection breaks, as a
// sidecar does (gRFC A44): the service only reads.
func Routes() *routev3.RouteConfiguration {
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: Name},
		HashPolicy: []*routev3.RouteAction_HashPolicy{{
			PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
				Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: HashHeader},
			},
		}},
		RetryPolicy: &routev3.RetryPolicy{
			RetryOn: "unavailable", NumRetries: wrapperspb.UInt32(retries),
			RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
				BaseInterval: durationpb.New(retryBase), MaxInterval: durationpb.New(retryMax),
			},
		},
	}
	all := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}}
	return &routev3.RouteConfiguration{Name: Name, VirtualHosts: []*routev3.VirtualHost{{
		Name: Name, Domains: []string{"*"},
		Routes: []*routev3.Route{{Match: all, Action: &routev3.Route_Route{Route: action}}},
	}}}
}

// Encode returns the same bytes for equal resources, so that a change is found by comparison.
func Encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func packed(m proto.Message) *anypb.Any {
	value, err := Encode(m)
	if err != nil {
		panic(err) // impossible: all messages are built in this file
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}
