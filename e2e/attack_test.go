package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/e2e/attack"
	"github.com/ringside-cache/ringside/e2e/promises"
	"github.com/ringside-cache/ringside/e2e/rig"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

const (
	// containerMemory is the default memory limit of a sidecar's container.
	containerMemory = 128 << 20
	// fewFiles is the limit of open files in half of the table: connections reach it before they use the memory. The other
	// half has manyFiles.
	fewFiles, manyFiles = 256, 20_000
	// attackTime is how long each attack lasts.
	attackTime = 3 * time.Second
	// peerPreface is wire.Preface, which begins the connections of members.
	peerPreface = "ringside/1\n"
)

// victim is a sidecar in a container of its own, with clients that behave well.
type victim struct {
	*rig.Sidecar
	t         *testing.T
	cgroup    *rig.Cgroup
	kept      net.Conn     // nil before its first use
	fresh     *http.Client // a connection for each request
	grpc      *grpc.ClientConn
	responses *bufio.Reader // of kept
}

// attacked is the database of the victims, each of which is a cluster of its own.
type attacked struct {
	dsn      string // the path of a file
	files    peertest.Files
	etcd     *rig.EtcdServer
	clusters atomic.Int64
}

// newAttacked makes rows of 1 MiB, and small ones.
func newAttacked(t *testing.T) *attacked {
	c := &cluster{t: t, database: rig.NewPostgres(t)}
	c.open()
	c.exec(`CREATE TABLE cnf_metrics (cnf_id text PRIMARY KEY, value float8 NOT NULL, ver bigint NOT NULL DEFAULT 1)`)
	c.exec(`CREATE VIEW large AS SELECT i::text AS id, repeat('x', 1048576) AS v FROM generate_series(0, 511) AS i`)
	c.fill("key-", 1000)
	a := &attacked{dsn: filepath.Join(t.TempDir(), "dsn"), etcd: rig.Etcd(t)}
	ca := peertest.NewAuthority(t)
	a.files = peertest.WriteFiles(t, ca.Issue(t, peertest.AsMember("sidecar-1")), ca.PEM())
	if err := os.WriteFile(a.dsn, []byte(c.database.DSN), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *attacked) config(withTLS bool) string {
	config := fmt.Sprintf(`
membership: {etcd: {endpoints: [%q], prefix: /attack/%d}}
origins:
  db: {driver: postgres, dsn_file: %q}
datasets:
  cnf-metrics: {origin: db, table: cnf_metrics, key: cnf_id, version: ver, ttl: 10m, writable: true}
  large: {origin: db, query: SELECT v FROM large WHERE id = $1, batch: "SELECT id, v FROM large WHERE id = ANY($1)", value: v, ttl: 1m}
`, a.etcd.Endpoint(), a.clusters.Add(1), a.dsn)
	if withTLS {
		config += fmt.Sprintf("peer_tls: {cluster: default, cert_file: %q, key_file: %q, ca_file: %q}\n", a.files.CertFile, a.files.KeyFile, a.files.CAFile)
	}
	return config
}

// newVictim starts a sidecar that owns all keys.
func (a *attacked) newVictim(t *testing.T, files int, withTLS bool) *victim {
	t.Helper()
	s := rig.NewSidecar(t, "sidecar-1", a.config(withTLS))
	s.PublishXDS()
	v := &victim{Sidecar: s, t: t, cgroup: s.LimitMemory(containerMemory)}
	s.LimitFiles(files)
	s.Start()
	v.fresh = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	v.grpc = dialGRPC(t, "passthrough:///"+s.GRPC)
	t.Cleanup(v.closeKept)
	return v
}

// service is what the clients that behave well have observed.
type service struct {
	reads, failed atomic.Int64
	fresh         atomic.Int64 // requests on new connections that were served during the attack
	retried       atomic.Int64 // new connections that were refused or closed, which the client tried again
	mu            sync.Mutex   // guards failures
	failures      []string     // the first of them
}

func (s *service) observe(what string, err error) {
	s.reads.Add(1)
	if err == nil {
		return
	}
	s.failed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) < 3 {
		s.failures = append(s.failures, what+": "+err.Error())
	}
}

// again makes a request on a new connection until it succeeds: where all connections of a listener are taken, the sidecar
// cannot tell a client that behaves well from one that does not.
func (s *service) again(ctx context.Context, request func() error) error {
	const timeout = 10 * time.Second
	for began := time.Now(); ; {
		err := request()
		if err == nil && ctx.Err() == nil {
			s.fresh.Add(1)
		}
		if err == nil || time.Since(began) > timeout {
			return err
		}
		s.retried.Add(1)
		time.Sleep(50 * time.Millisecond)
	}
}

// serve makes requests of clients that behave well until ctx ends.
func (v *victim) serve(ctx context.Context) *service {
	s := &service{}
	var clients sync.WaitGroup
	every := func(d time.Duration, what string, request func() error) {
		clients.Go(func() {
			for ctx.Err() == nil {
				s.observe(what, request())
				time.Sleep(d)
			}
		})
	}
	cached := overGRPC(v.grpc, "cnf-metrics")
	every(20*time.Millisecond, "HTTP on an open connection", func() error { return v.readKept() })
	every(50*time.Millisecond, "gRPC on an open connection", func() error { return cached("key-1") })
	every(100*time.Millisecond, "HTTP on a new connection", func() error {
		return s.again(ctx, func() error { return get(v.fresh, v.URL("cnf-metrics", "key-2")) })
	})
	every(200*time.Millisecond, "/readyz", func() error {
		return s.again(ctx, func() error { return get(v.fresh, "http://"+v.Metrics+"/readyz") })
	})
	clients.Wait()
	return s
}

// readKept reads a key on a connection that the sidecar must not close. It does not use http.Transport, which itself closes a
// connection when the machine is so busy that the request is not reported as written within 50 ms.
func (v *victim) readKept() (err error) {
	if v.kept == nil {
		if v.kept, err = net.Dial("tcp", v.HTTP); err != nil {
			return err
		}
		v.responses = bufio.NewReader(v.kept)
	}
	defer func() {
		if err != nil {
			v.closeKept()
		}
	}()
	if err = v.kept.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err = io.WriteString(v.kept, attack.Get("/v1/cnf-metrics/key-0")); err != nil {
		return err
	}
	response, err := http.ReadResponse(v.responses, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || response.Close {
		return fmt.Errorf("%s %s, close %v: %v", response.Status, body, response.Close, err)
	}
	return nil
}

func (v *victim) closeKept() {
	if v.kept != nil {
		_ = v.kept.Close() // it is not used any more
		v.kept = nil
	}
}

// outcome is what came of one cell of the table.
type outcome struct {
	began, reads, failed int64
	retried              int64
	fault                string // why the cell failed; empty if it did not
	peak                 int64  // bytes
}

// endure attacks the victim while clients that behave well use it, and then checks that it has recovered.
func (v *victim) endure(dial attack.Dial, a attack.Attack) (o outcome) {
	for _, read := range []func() error{v.readKept, func() error { return overGRPC(v.grpc, "cnf-metrics")("key-1") },
		func() error { return get(v.fresh, v.URL("cnf-metrics", "key-2")) }} {
		if err := read(); err != nil {
			return outcome{fault: "before the attack: " + err.Error()}
		}
	}
	before, pid := v.Metric("ringside_budget_bytes"), v.Pid()
	ctx, cancel := context.WithTimeout(v.t.Context(), attackTime)
	defer cancel()
	var attacker sync.WaitGroup
	attacker.Go(func() { o.began = a(ctx, dial) })
	s := v.serve(ctx)
	attacker.Wait()
	o.reads, o.failed, o.retried, o.peak = s.reads.Load(), s.failed.Load(), s.retried.Load(), v.cgroup.Peak()
	o.fault = v.faultOf(o, s, pid)
	if o.fault == "" {
		o.fault = v.recovered(before)
	}
	return o
}

func (v *victim) faultOf(o outcome, s *service, pid int) string {
	switch kills := v.cgroup.OOMKills(); {
	case kills > 0:
		return fmt.Sprintf("oom_kill is %d", kills)
	case !v.Running() || v.Pid() != pid:
		return "the sidecar has exited"
	case o.began == 0:
		return "the attack did not begin"
	case o.failed > 0:
		return fmt.Sprintf("%d of %d requests of other clients failed: %s", o.failed, o.reads, strings.Join(s.failures, "; "))
	case s.fresh.Load() < 5:
		return fmt.Sprintf("only %d requests on new connections were served during the attack", s.fresh.Load())
	case o.reads < 20:
		return fmt.Sprintf("other clients made only %d requests", o.reads)
	}
	return ""
}

// returnTime is longer than it takes to find that a client is gone: a ping after a minute without a sign of life.
const returnTime = 2 * time.Minute

// recovered waits until the bytes of the attackers have been returned, and reads on new connections.
func (v *victim) recovered(before float64) string {
	const more = 1 << 20 // for what the clients that behave well use
	deadline := time.Now().Add(returnTime)
	for {
		used := v.Metric("ringside_budget_bytes")
		if used <= before+more {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Sprintf("%.0f bytes of the budget are not returned %v after the attack, %.0f before it", used, returnTime, before)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, url := range []string{v.URL("cnf-metrics", "key-3"), v.URL("large", "0"), "http://" + v.Metrics + "/readyz"} {
		for { // the database may still work on the requests of the attackers
			err := get(v.fresh, url)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return "after the attack: " + err.Error()
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return ""
}

// entryPoint is one way into a sidecar.
type entryPoint struct {
	name    string
	tls     bool // the members use TLS
	dial    func(v *victim) attack.Dial
	attacks map[string]attack.Attack // :: kind → attack
}

var attackKinds = []string{"slow", "huge", "many", "idle", "reset"}

func message(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // the messages are constants
	}
	return b
}

// largeKeys are the keys of n rows of 1 MiB.
func largeKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint(i))
	}
	return keys
}

func fetchBatch(n int) attack.Call {
	request := &peerv1.FetchBatchRequest{}
	for _, key := range largeKeys(n) {
		request.Requests = append(request.Requests, &peerv1.FetchRequest{Dataset: "large", Key: key})
	}
	return attack.Call{Path: "/ringside.peer.v1.Peer/FetchBatch", Message: message(request)}
}

const (
	putPath    = "/v1/cnf-metrics/key-9"
	batchPath  = "/v1/large:batchGet"
	cacheGet   = "/ringside.v1.Cache/Get"
	cachePut   = "/ringside.v1.Cache/Put"
	peerFetch  = "/ringside.peer.v1.Peer/Fetch"
	peerWrite  = "/ringside.peer.v1.Peer/Write"
	peerStream = "/ringside.peer.v1.Peer/Subscribe"
	adsStream  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
)

func batchBody(n int) string { return `{"keys": ["` + strings.Join(largeKeys(n), `", "`) + `"]}` }

// watchRequest watches 100 keys.
func watchRequest() string {
	path := "/v1/cnf-metrics:watch?"
	for i := range 100 {
		path += fmt.Sprintf("key=key-%d&", i)
	}
	return attack.Get(strings.TrimSuffix(path, "&"))
}

// onHTTP is the attacks on HTTP/1 with the API of applications.
func onHTTP() map[string]attack.Attack {
	return map[string]attack.Attack{
		"slow": attack.Together(attack.SlowBodies(150, "PUT", putPath), attack.SlowHeaders(50, putPath),
			attack.SlowChunks(50, "PUT", putPath)),
		"huge": attack.Together(attack.Announce(130, "GET", putPath, "localhost"), attack.Announce(130, "PUT", putPath, "localhost"),
			attack.HugeHeaders(20, putPath), attack.HugeChunkExtensions(20, "PUT", putPath)),
		"many": attack.Together(attack.SlowReaders(32, attack.Post(batchPath, batchBody(100))), attack.Pipelined(20, attack.Get("/v1/large/1")),
			attack.SlowReaders(300, attack.Get("/v1/large/2"))),
		"idle":  attack.Idle(2000),
		"reset": attack.Together(attack.Reset(20, attack.Get(putPath)), attack.Reset(10, attack.Post(batchPath, batchBody(50)))),
	}
}

// onGRPC is the attacks on HTTP/2 with gRPC: with a call that takes a large message, and one with a large response.
func onGRPC(write string, read, small attack.Call) map[string]attack.Attack {
	return map[string]attack.Attack{
		"slow": attack.Together(attack.LastByteMissing(4, 200, 1<<20, write), attack.LastByteMissing(20, 200, 16<<10, write)),
		"huge": attack.Together(attack.AnnounceMessages(2, 200, 1<<20, write), attack.AnnounceMessages(2, 200, 1<<32-1, write),
			attack.HugeHeaderLists(4, 1<<20, write)),
		"many":  attack.Together(attack.Calls(4, 200, 0, read), attack.Calls(20, 200, 100, small), attack.Calls(2, 50, 1<<24, read)),
		"idle":  attack.Together(attack.Idle(1000), attack.IdleH2(1000)),
		"reset": attack.Together(attack.RapidReset(2, small), attack.RapidReset(1, read), attack.FloodFrames(1), attack.Reset(10, "PRI * HTTP/2.0\r\n")),
	}
}

// onOperators is the attacks on a listener for operators.
func onOperators(path string) map[string]attack.Attack {
	return map[string]attack.Attack{
		"slow": attack.Together(attack.SlowHeaders(100, path), attack.SlowBodies(100, "GET", path), attack.SlowBodies(50, "POST", path)),
		"huge": attack.Together(attack.Announce(130, "POST", path, "localhost"), attack.HugeHeaders(30, path),
			attack.HugeChunkExtensions(20, "POST", path)),
		"many":  attack.Together(attack.Pipelined(10, attack.Get(path)), attack.SlowReaders(100, attack.Get(path))),
		"idle":  attack.Idle(4000),
		"reset": attack.Reset(30, attack.Get(path)),
	}
}

func entryPoints() []entryPoint {
	localBatch := attack.Call{Path: "/ringside.v1.Cache/BatchGet",
		Message: message(&ringsidev1.BatchGetRequest{Dataset: "large", Keys: largeKeys(100)})}
	localGet := attack.Call{Path: cacheGet, Message: message(&ringsidev1.GetRequest{Dataset: "large", Key: "1"})}
	fetch := attack.Call{Path: peerFetch, Message: message(&peerv1.FetchRequest{Dataset: "large", Key: "1"})}
	subscribe := attack.Call{Path: peerStream, Message: message(&peerv1.SubscribeRequest{Node: "x"})}
	ads := attack.Call{Path: adsStream, Message: message(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: "x"}, TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster"})}
	members := onGRPC(peerWrite, fetchBatch(512), fetch)
	members["many"] = attack.Together(members["many"], attack.Calls(10, 200, 100, subscribe))
	local, unixSocket := onGRPC(cachePut, localBatch, localGet), onGRPC(cachePut, localBatch, localGet)
	return []entryPoint{
		{"local HTTP", false, func(v *victim) attack.Dial { return attack.TCP(v.HTTP) }, onHTTP()},
		{"local gRPC", false, func(v *victim) attack.Dial { return attack.TCP(v.GRPC) }, local},
		{"unix HTTP", false, func(v *victim) attack.Dial { return attack.Unix(v.Unix) }, onHTTP()},
		{"unix gRPC", false, func(v *victim) attack.Dial { return attack.Unix(v.Unix) }, unixSocket},
		{"peer members", false, func(v *victim) attack.Dial { return attack.TCP(v.Peer).After(peerPreface) }, members},
		{"routed HTTP", false, func(v *victim) attack.Dial { return attack.TCP(v.Peer) }, onHTTP()},
		{"routed gRPC", false, func(v *victim) attack.Dial { return attack.TCP(v.Peer) }, onGRPC(cachePut, localBatch, localGet)},
		{"peer TLS handshake", true, func(v *victim) attack.Dial { return attack.TCP(v.Peer) }, map[string]attack.Attack{
			"slow": attack.Together(attack.HalfHandshakes(2000), attack.SlowHandshakes(200)),
			"huge": attack.HugeHandshakes(40), "many": attack.Handshakes(40), "idle": attack.Idle(2000), "reset": attack.ResetHandshakes(40),
		}},
		{"metrics", false, func(v *victim) attack.Dial { return attack.TCP(v.Metrics) }, onOperators("/metrics")},
		{"admin", false, func(v *victim) attack.Dial { return attack.TCP(v.Admin) }, onOperators("/api/state")},
		{"xds", false, func(v *victim) attack.Dial { return attack.TCP(v.XDS) }, onGRPC(adsStream, ads, ads)},
	}
}

// literalAttack is an attack that has killed a sidecar in a container of 128 MiB.
type literalAttack struct {
	name   string
	on     string // name of the entry point
	attack attack.Attack
}

func literalAttacks() []literalAttack {
	slow := attack.SlowBodies(200, "PUT", putPath)
	return []literalAttack{
		{"130 announced bodies", "local HTTP", attack.Announce(130, "GET", putPath, "localhost")},
		{"130 announced bodies, foreign Host", "local HTTP", attack.Announce(130, "GET", putPath, "attacker.example")},
		{"200 slow bodies", "local HTTP", slow},
		{"200 slow bodies", "unix HTTP", slow},
		{"200 slow bodies", "routed HTTP", slow},
		{"200 streams without the last byte", "local gRPC", attack.LastByteMissing(1, 200, 1<<20, cachePut)},
		{"200 streams without the last byte", "peer members", attack.LastByteMissing(1, 200, 1<<20, peerWrite)},
		{"200 streams without the last byte", "routed gRPC", attack.LastByteMissing(1, 200, 1<<20, cachePut)},
		{"6000 half handshakes", "peer TLS handshake", attack.HalfHandshakes(6000)},
		{"32 slow readers of large batches", "local HTTP", attack.SlowReaders(32, attack.Post(batchPath, batchBody(100)))},
		{"100 FetchBatch of 512 keys", "peer members", attack.Calls(1, 100, 1<<24, fetchBatch(512))},
		{"8000 idle connections", "metrics", attack.Idle(8000)},
		{"208 watches of 100 keys", "local HTTP", attack.SlowReaders(208, watchRequest())},
	}
}

// attackOn runs one part of the table.
func attackOn(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		test(t)
	})
}

// D: no client makes a sidecar exceed the memory of its container, whatever listener it attacks, and others are served. The
// attacks that have killed a sidecar have many files each; of the table, make test runs the half with few files.
func TestPromiseDNoClientExhaustsASidecar(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	points := map[string]entryPoint{}
	for _, p := range entryPoints() {
		points[p.name] = p
		for _, files := range filesOfTable() {
			attackOn(t, fmt.Sprintf("%s with %d files", p.name, files), func(t *testing.T) { a.attackPoint(t, p, files) })
		}
	}
	for _, l := range literalAttacks() {
		attackOn(t, l.on+": "+l.name, func(t *testing.T) {
			p := points[l.on]
			v := a.newVictim(t, manyFiles, p.tls)
			o := v.endure(p.dial(v), l.attack)
			reportAttacks(t, fmt.Sprintf("%s: %s, limit of %d MiB", l.on, l.name, containerMemory>>20), []outcome{o}, v.cgroup.OOMKills())
		})
	}
}

func filesOfTable() []int {
	if os.Getenv(promises.Env) != "" {
		return []int{fewFiles, manyFiles}
	}
	return []int{fewFiles}
}

// attackPoint makes all kinds of attacks on one entry point. A sidecar that did not survive one is replaced for the next.
func (a *attacked) attackPoint(t *testing.T, p entryPoint, files int) {
	var v *victim
	var all []outcome
	var kills int64
	for _, kind := range attackKinds {
		if v == nil || !v.Running() {
			v = a.newVictim(t, files, p.tls)
		}
		o := v.endure(p.dial(v), p.attacks[kind])
		if o.fault != "" {
			o.fault = kind + ": " + o.fault
			kills += v.cgroup.OOMKills()
			v.Kill()
		}
		t.Logf("%s, %s, %d files: %d connections or streams begun, %d requests of others, %d failed, %d tried again, peak %d MiB: %q",
			p.name, kind, files, o.began, o.reads, o.failed, o.retried, o.peak>>20, o.fault)
		all = append(all, o)
	}
	reportAttacks(t, fmt.Sprintf("%s: %s; limits of %d MiB and %d files", p.name, strings.Join(attackKinds, ", "), containerMemory>>20, files),
		all, kills)
}

func reportAttacks(t *testing.T, done string, all []outcome, kills int64) {
	var reads, failed, retried, peak int64
	var faults []string
	for _, o := range all {
		reads, failed, retried, peak = reads+o.reads, failed+o.failed, retried+o.retried, max(peak, o.peak)
		if o.fault != "" {
			faults = append(faults, o.fault)
		}
	}
	figure := fmt.Sprintf("oom_kill %d; %d of %d requests of other clients failed, %d new connections were tried again; %d of %d attacks "+
		"withstood; at most %d MiB", kills, failed, reads, retried, len(all)-len(faults), len(all), peak>>20)
	for _, f := range faults {
		t.Log(f)
	}
	report(t, promise{number: "D", n: int(reads), held: len(faults) == 0, done: done, figure: figure})
}
