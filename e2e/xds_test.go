package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/ringside-cache/ringside/e2e/rig"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/ring/routekey"
)

// errPeerFetch means that the response came from a member that does not own the key, or that fetched it from the owner.
var errPeerFetch = errors.New("a peer fetch")

// A reader reads one key, and returns errPeerFetch if the request did not reach the owner directly.
type reader func(key string) error

// overHTTP returns a reader through Envoy. With header, Envoy routes by the header instead of the path.
func overHTTP(client *http.Client, envoy *rig.EnvoyServer, dataset string, header bool) reader {
	read := func(key string) error {
		request, err := http.NewRequest("GET", "http://"+envoy.HTTP+"/v1/"+dataset+"/"+key, nil)
		if err != nil {
			return err
		}
		if header {
			request.Header.Set("ringside-key", routekey.Format(dataset, key))
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errCutOff, err)
		case response.StatusCode != http.StatusOK:
			return fmt.Errorf("%s: %s", response.Status, body)
		case !fromOwner(response.Header):
			return fmt.Errorf("%w: Cache-Status %s", errPeerFetch, response.Header.Get("Cache-Status"))
		}
		return nil
	}
	return func(key string) error {
		err := read(key)
		if errors.Is(err, errCutOff) {
			cutOffs.Add(1)
			err = read(key)
		}
		return err
	}
}

// errCutOff means that a response ended in its content: its member was killed between the header and the content. Envoy
// retries no response whose header it has passed on (retry_on: reset is for those before), so that its users do; see cutOff.
var errCutOff = errors.New("the response was cut off")

// cutOffs counts the responses over HTTP, in all tests, that were tried again because of errCutOff.
var cutOffs atomic.Int64

// fromOwner reports whether the response came from the memory or the load of one cache, without another cache on its path and
// without a local copy. (A new owner that fetches from the previous one instead of the database counts as one cache.)
func fromOwner(h http.Header) bool {
	return h.Get("Ringside-Source") != "local_hit" && !strings.Contains(h.Get("Cache-Status"), ", ")
}

// overGRPC returns a reader over gRPC, with the header that Envoy and grpc-go hash.
func overGRPC(conn *grpc.ClientConn, dataset string) reader {
	stub := ringsidev1.NewCacheClient(conn)
	return func(key string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "ringside-key", routekey.Format(dataset, key))
		request := &ringsidev1.GetRequest{Dataset: dataset, Key: key}
		response, err := stub.Get(ctx, request)
		if cutOff(err) {
			response, err = stub.Get(ctx, request)
		}
		if err != nil {
			return err
		}
		meta := response.GetMeta()
		if meta.GetOwner() != "" || meta.GetSource() == ringsidev1.Source_SOURCE_LOCAL_HIT {
			return fmt.Errorf("%w: owner %q, source %s", errPeerFetch, meta.GetOwner(), meta.GetSource())
		}
		return nil
	}
}

// cutOff reports whether a member was killed while it sent a response. Neither gRPC nor Envoy retries a call whose response
// has begun: its users do. gRPC reports Unavailable; for a stream that Envoy resets for this reason it reports Internal.
func cutOff(err error) bool {
	s := status.Convert(err)
	return s.Code() == codes.Unavailable || s.Code() == codes.Internal && strings.Contains(s.Message(), "RST_STREAM")
}

func dialGRPC(t testing.TB, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// viaXDS dials with grpc-go's xDS resolver and the bootstrap of deploy/envoy.
func viaXDS(t testing.TB, server string) *grpc.ClientConn {
	t.Helper()
	bootstrap, err := os.ReadFile("../deploy/envoy/grpc-bootstrap.json")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(bootstrap), "127.0.0.1:7074", server, 1)
	builder, err := xds.NewXDSResolverWithConfigForTesting([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return dialGRPC(t, "xds:///ringside", grpc.WithResolvers(builder))
}

// viaEtcd dials with the resolver of etcd's client, without xDS.
func viaEtcd(t testing.TB, etcd *rig.EtcdServer) *grpc.ClientConn {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	var builder resolver.Builder
	if builder, err = etcdresolver.NewBuilder(client); err != nil {
		t.Fatal(err)
	}
	return dialGRPC(t, "etcd:////ringside/default/ring", grpc.WithResolvers(builder), grpc.WithDefaultServiceConfig(`{
		"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": "ringside-key"}}],
		"methodConfig": [{"name": [{"service": "ringside.v1.Cache"}], "retryPolicy": {"maxAttempts": 4,
			"initialBackoff": "0.002s", "maxBackoff": "0.020s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`))
}

// peerFetches reads each key once and returns the number of peer fetches. Any other failure ends the test.
func peerFetches(t testing.TB, keys int, read reader) (n int, last error) {
	t.Helper()
	var mu sync.Mutex // guards n, last and failed
	var failed error
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := w; i < keys; i += 16 {
				err := read(fmt.Sprint("key-", i))
				mu.Lock()
				switch {
				case errors.Is(err, errPeerFetch):
					n, last = n+1, err
				case err != nil:
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	return n, last
}

// awaitNoPeerFetches waits until reads of a sample of keys need no peer fetch: clients get a new ring a moment after the sidecars,
// and grpc-go reconnects to an xDS server with growing pauses.
func awaitNoPeerFetches(t testing.TB, name string, read reader) {
	t.Helper()
	rig.Eventually(t, time.Minute, func() error {
		for i := range 300 {
			if err := read(fmt.Sprint("key-", i)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

// stream is a closed loop of reads until stop is called.
type stream struct {
	reads, failed atomic.Int64
	last          atomic.Pointer[string] // the last failure
	stop          func()
}

func newStream(t testing.TB, workers, keys int, read reader) *stream {
	s := &stream{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; ctx.Err() == nil; i++ {
				err := read(fmt.Sprint("key-", i*7%keys))
				s.reads.Add(1)
				if err != nil && !errors.Is(err, errPeerFetch) { // correct while the ring changes
					s.failed.Add(1)
					why := err.Error()
					s.last.Store(&why)
				}
			}
		})
	}
	s.stop = func() { cancel(); all.Wait() }
	t.Cleanup(s.stop)
	return s
}

func (s *stream) awaitReads(t testing.TB, n int64) {
	t.Helper()
	until := s.reads.Load() + n
	rig.Eventually(t, time.Minute, func() error {
		if got := s.reads.Load(); got < until {
			return fmt.Errorf("%d reads; want %d", got, until)
		}
		return nil
	})
}

func (s *stream) failure() string {
	if why := s.last.Load(); why != nil {
		return *why
	}
	return ""
}

// routedKeys is the number of keys that are routed in each way.
func routedKeys() int { return sampleOf(10_000) }

// routers are the ways to send a request directly to the owner.
type routers map[string]reader

func newRouters(t testing.TB, c *cluster, envoy *rig.EnvoyServer) routers {
	const dataset = "owned-metrics" // without local copies, so that each read shows whether it reached the owner
	return routers{
		"Envoy, HTTP by path":     overHTTP(c.client, envoy, dataset, false),
		"Envoy, HTTP by header":   overHTTP(c.client, envoy, dataset, true),
		"Envoy, gRPC by header":   overGRPC(dialGRPC(t, "passthrough:///"+envoy.HTTP), dataset),
		"grpc-go, xds:///":        overGRPC(viaXDS(t, c.sidecars[0].XDS), dataset),
		"grpc-go, etcd:/// alone": overGRPC(viaEtcd(t, c.etcd), dataset),
	}
}

// check reports, for each way, the number of peer fetches for all keys.
func (r routers) check(t *testing.T, when string) {
	t.Helper()
	for name, read := range r {
		awaitNoPeerFetches(t, name, read)
		n, last := peerFetches(t, routedKeys(), read)
		report(t, promise{
			number: "Z1", n: routedKeys(), held: n == 0, done: name + ", " + when,
			figure: peerFetchFigure(n, routedKeys(), last),
		})
	}
}

func peerFetchFigure(n, of int, last error) string {
	return strings.TrimSuffix(fmt.Sprintf("%d of %d keys needed a peer fetch: %v", n, of, last), ": <nil>")
}

// during reports, for each way, the number of failed reads during a change of the ring.
func (r routers) during(t *testing.T, what string, change func()) {
	t.Helper()
	streams := map[string]*stream{}
	for name, read := range r {
		streams[name] = newStream(t, 3, 500, read)
	}
	await := func(n int64) {
		for _, s := range streams {
			s.awaitReads(t, n)
		}
	}
	await(500)
	before := cutOffs.Load()
	change()
	await(1000)
	for name, s := range streams {
		s.stop()
		report(t, promise{
			number: "Z2", n: int(s.reads.Load()), held: s.failed.Load() == 0, done: name + ", under load, " + what,
			figure: fmt.Sprintf("%d of %d reads failed %s", s.failed.Load(), s.reads.Load(), s.failure()),
		})
	}
	t.Logf("%d responses over HTTP were cut off by a kill, and tried again", cutOffs.Load()-before)
}

// Z: requests that are routed by the ring reach the owner directly while members join, stop and die, and no read fails.
func TestPromiseZNoPeerFetch(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 4, rig.XDSSidecars)
	c.fill("key-", routedKeys())
	r := newRouters(t, c, rig.Envoy(t, c.sidecars[0].XDS))
	r.check(t, "4 members")
	r.during(t, "a member joins", func() {
		c.sidecars = append(c.sidecars, rig.NewSidecar(t, "sidecar-5", c.config()))
		c.sidecars[4].Start()
		rig.AwaitRing(t, c.sidecars)
	})
	r.check(t, "after a join")
	r.during(t, "a member stops", func() {
		c.sidecars[1].Stop()
		c.drop(1)
	})
	r.check(t, "after a stop")
	r.during(t, "kill -9", func() {
		c.sidecars[1].Kill()
		c.drop(1)
	})
	r.check(t, "after kill -9")
	noRejections(t, c.sidecars)
}

// drop removes sidecar i from the cluster and waits until the others have the new ring.
func (c *cluster) drop(i int) {
	c.t.Helper()
	c.sidecars = append(c.sidecars[:i:i], c.sidecars[i+1:]...)
	rig.AwaitRing(c.t, c.sidecars)
}

func noRejections(t *testing.T, sidecars []*rig.Sidecar) {
	t.Helper()
	for _, s := range sidecars {
		if s.XDS == "" {
			continue
		}
		if n := s.Metric("ringside_xds_nacks_total"); n != 0 {
			t.Errorf("%s: clients rejected %v updates:\n%s", s.ID, n, s.Log())
		}
		if n := s.Metric("ringside_xds_updates_total"); n == 0 {
			t.Errorf("%s has published nothing", s.ID)
		}
	}
}

// Envoy's xDS server dies and restarts under load while another member stops. Then etcd is unavailable.
func TestPromiseZXDSServerAndEtcdUnavailable(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, rig.XDSSidecars)
	c.fill("key-", 500)
	envoy := rig.Envoy(t, c.sidecars[0].XDS)
	path := overHTTP(c.client, envoy, "owned-metrics", false)
	r := routers{
		"Envoy, HTTP by path": path,
		"grpc-go, xds:///":    overGRPC(viaXDS(t, c.sidecars[0].XDS), "owned-metrics"),
	}
	for name, read := range r {
		awaitNoPeerFetches(t, name, read)
	}
	r.during(t, "the xDS server killed and restarted, another member stopped meanwhile", func() {
		c.sidecars[0].Kill()
		c.sidecars[2].Stop()
		c.sidecars[0].Start()
		c.drop(2)
		for name, read := range r {
			awaitNoPeerFetches(t, name, read)
		}
	})
	r.during(t, "etcd unavailable for 15s (leases of 2s), the xDS server killed and restarted meanwhile", func() {
		c.etcd.Kill()
		c.sidecars[0].Kill()
		c.sidecars[0].Start()        // it knows no other member, and publishes nothing
		time.Sleep(15 * time.Second) // long after the end of the leases: every registration is lost
		c.etcd.Start()
		rig.AwaitRing(t, c.sidecars)
	})
	for name, read := range r {
		awaitNoPeerFetches(t, name, read)
	}
	noRejections(t, c.sidecars)
}
