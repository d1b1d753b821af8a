package ring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	endpointhash "google.golang.org/grpc/resolver/ringhash"

	"github.com/ringside-cache/ringside/ring/routekey"
)

// grpcClient drives grpc-go's own ring_hash balancer through its public interface. It replaces the network only:
// a connection succeeds immediately, or fails immediately when its address is down.
type grpcClient struct {
	balancer.ClientConn // nil: the methods that grpc-go calls are implemented below
	t                   *testing.T
	down                map[string]bool
	picker              balancer.Picker
}

const hashHeader = "ringside-key"

// newGRPCClient and all methods of its result must be called within a synctest bubble.
func newGRPCClient(t *testing.T, members []Member, size Size, down ...string) *grpcClient {
	c := &grpcClient{t: t, down: make(map[string]bool)}
	for _, addr := range down {
		c.down[addr] = true
	}
	builder := balancer.Get(ringhash.Name)
	config, err := builder.(balancer.ConfigParser).ParseConfig(json.RawMessage(fmt.Sprintf(
		`{"minRingSize": %d, "maxRingSize": %d, "requestHashHeader": %q}`, size.Min, size.Max, hashHeader)))
	if err != nil {
		t.Fatal(err)
	}
	b := builder.Build(c, balancer.BuildOptions{})
	t.Cleanup(b.Close)
	state := balancer.ClientConnState{BalancerConfig: config}
	for _, m := range members {
		endpoint := resolver.Endpoint{Addresses: []resolver.Address{{Addr: m.Addr}}}
		state.ResolverState.Endpoints = append(state.ResolverState.Endpoints, endpointhash.SetHashKey(endpoint, m.HashKey))
	}
	if err := b.UpdateClientConnState(state); err != nil {
		t.Fatal(err)
	}
	return c
}

// owner returns the address to which gRPC sends a call with the given route key.
func (c *grpcClient) owner(routeKey string) string {
	ctx := metadata.AppendToOutgoingContext(context.Background(), hashHeader, routeKey)
	for {
		result, err := c.picker.Pick(balancer.PickInfo{Ctx: ctx})
		if err == nil {
			return result.SubConn.(*subConn).addr
		}
		if !errors.Is(err, balancer.ErrNoSubConnAvailable) {
			c.t.Fatalf("pick for %q: %v", routeKey, err)
		}
		synctest.Wait() // the pick makes the balancer connect
	}
}

func (c *grpcClient) UpdateState(s balancer.State)           { c.picker = s.Picker }
func (c *grpcClient) ResolveNow(resolver.ResolveNowOptions)  {}
func (c *grpcClient) MetricsRecorder() stats.MetricsRecorder { return &noMetrics{} }
func (c *grpcClient) Target() string                         { return "ringside" }

type noMetrics struct {
	stats.UnimplementedMetricsRecorder
}

func (c *grpcClient) NewSubConn(addrs []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	return &subConn{client: c, addr: addrs[0].Addr, changed: opts.StateListener}, nil
}

type subConn struct {
	balancer.SubConn // nil, like grpcClient.ClientConn
	client           *grpcClient
	addr             string
	changed          func(balancer.SubConnState)
}

func (s *subConn) Connect() {
	state := balancer.SubConnState{ConnectivityState: connectivity.Ready}
	if s.client.down[s.addr] {
		state = balancer.SubConnState{
			ConnectivityState: connectivity.TransientFailure,
			ConnectionError:   fmt.Errorf("%s is down", s.addr),
		}
	}
	go s.changed(state)
}

func (s *subConn) RegisterHealthListener(changed func(balancer.SubConnState)) {
	go changed(balancer.SubConnState{ConnectivityState: connectivity.Ready})
}

func (s *subConn) Shutdown() {}

func routeKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = routekey.Format("cnf-metrics", fmt.Sprintf("CNF-%05d/cpu load", i))
	}
	return keys
}

func TestGRPCSendsEachKeyToItsOwner(t *testing.T) {
	keys := routeKeys(10_000)
	for _, test := range []struct {
		n    int
		size Size
	}{
		{1, DefaultSize()}, {2, DefaultSize()}, {3, DefaultSize()}, {5, DefaultSize()}, {8, DefaultSize()},
		{13, DefaultSize()}, {50, DefaultSize()}, {75, DefaultSize()}, {99, DefaultSize()}, {100, DefaultSize()},
		{364, DefaultSize()}, {500, DefaultSize()},
		{75, Size{Min: 16, Max: 64}},   // some members own nothing
		{75, Size{Min: 100, Max: 128}}, // not 100: there grpc-go's own ring depends on the processor (DESIGN.md)
		{3, Size{Min: 4096, Max: 4096}},
	} {
		t.Run(fmt.Sprint(test.n, test.size), func(t *testing.T) {
			members := numbered(test.n, "10.0.0.%d:7072")
			r := mustNew(t, members, test.size)
			synctest.Test(t, func(t *testing.T) {
				client := newGRPCClient(t, members, test.size)
				for _, key := range keys {
					if got, want := client.owner(key), r.Owner(key).Addr; got != want {
						t.Fatalf("gRPC sends %s to %s; its owner is %s", key, got, want)
					}
				}
			})
		})
	}
}

func TestGRPCHashesHashKeys(t *testing.T) {
	members := numbered(7, "10.0.0.%d:7072")
	for i := range members {
		members[i].HashKey = fmt.Sprintf("cache-%03d", i)
	}
	r := mustNew(t, members, Size{})
	synctest.Test(t, func(t *testing.T) {
		client := newGRPCClient(t, members, DefaultSize())
		for _, key := range routeKeys(1000) {
			if got, want := client.owner(key), r.Owner(key).Addr; got != want {
				t.Fatalf("gRPC sends %s to %s; its owner is %s", key, got, want)
			}
		}
	})
}

func TestGRPCSkipsDeadMembersInTheOrderOfSuccessors(t *testing.T) {
	members := numbered(9, "10.0.0.%d:7072")
	r := mustNew(t, members, Size{})
	down := []string{members[2].Addr, members[5].Addr, members[6].Addr}
	synctest.Test(t, func(t *testing.T) {
		client := newGRPCClient(t, members, DefaultSize(), down...)
		for _, key := range routeKeys(10_000) {
			want := ""
			for m := range r.Successors(key) {
				if !client.down[m.Addr] {
					want = m.Addr
					break
				}
			}
			if got := client.owner(key); got != want {
				t.Fatalf("gRPC sends %s to %s; its first living successor is %s", key, got, want)
			}
		}
	})
}
