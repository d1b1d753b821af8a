package sidecar

import (
	"context"
	"errors"
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

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const oneDataset = `
origins:
  db: {driver: sqlite, dsn: test.db}
datasets:
  metrics:
    origin: db
    table: cnf_metrics
    key: cnf_id
`

// allPortsFree makes every listener pick a port.
const allPortsFree = `
listen: {http: 127.0.0.1:0, grpc: 127.0.0.1:0, metrics: 127.0.0.1:0, admin: 127.0.0.1:0}
peer_tls: {insecure: true}
`

// newOrigin makes a SQLite database with one row, CNF-001, and returns its path.
func newOrigin(t testing.TB) string {
	t.Helper()
	return sqlitetest.New(t, `CREATE TABLE cnf_metrics (cnf_id TEXT PRIMARY KEY, value REAL);
		INSERT INTO cnf_metrics VALUES ('CNF-001', 1.5)`)
}

// newFile writes a configuration that serves newOrigin, and returns its path.
func newFile(t testing.TB, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ringside.yaml")
	write(t, path, strings.Replace(oneDataset, "test.db", newOrigin(t), 1)+allPortsFree+more)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func noEnv(string) (string, bool) { return "", false }

func load(t testing.TB, file string) config.Config {
	t.Helper()
	c, err := config.Source{File: file, Getenv: noEnv, Drivers: drivers.All()}.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// running is a sidecar under test.
type running struct {
	*run
	logs   *observer.ObservedLogs
	at     Addrs
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
}

// begin runs a sidecar of c until the test ends. Before it starts, change may alter it.
func begin(t testing.TB, c config.Config, change func(*run)) *running {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{run: newRun(c, zap.New(core)), logs: logs, cancel: cancel, done: make(chan struct{})}
	if change != nil {
		change(r.run)
	}
	ready := make(chan struct{})
	go func() {
		defer close(r.done)
		r.err = r.run.run(ctx, func(a Addrs) { r.at = a; close(ready) })
	}()
	t.Cleanup(func() { r.end(t) })
	select {
	case <-ready:
	case <-r.done:
		t.Fatalf("the sidecar did not start: %v", r.err)
	}
	return r
}

func (r *running) ring() *ring.Ring { return r.parts.members.Ring() }

// dataset is the first one.
func (r *running) dataset() *cache.Dataset { return r.parts.datasets.All()[0] }

func (r *running) end(t testing.TB) {
	t.Helper()
	r.cancel()
	<-r.done
	if r.err != nil {
		t.Errorf("the run ended with %v", r.err)
	}
}

// get returns status and body of an answer; status 0 means that there was none.
func get(addr, path string) (status int, body string) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func wantGet(t testing.TB, addr, path string, status int, part string) {
	t.Helper()
	got, body := get(addr, path)
	if got != status || !strings.Contains(body, part) {
		t.Errorf("GET %s: %d %q, want %d with %q", path, got, body, status, part)
	}
}

const canary = "canary-5f3a"

const (
	row     = "/v1/metrics/CNF-001"
	rowJSON = `{"cnf_id":"CNF-001","value":1.5}`
)

func TestReadsThroughHTTPAndProbes(t *testing.T) {
	r := begin(t, load(t, newFile(t, "")), nil)
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
	wantGet(t, r.at.HTTP, "/v1/metrics/CNF-002", 404, "")
	wantGet(t, r.at.Admin, "/api/explain?dataset=metrics&key=CNF-001", 200, `"cached":true`)
	for _, probe := range []string{"/startupz", "/livez", "/readyz"} {
		wantGet(t, r.at.Metrics, probe, 200, "ok")
	}
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_requests_total{dataset="metrics",result="load"} 1`)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_config_reloads_total{result="ok"} 0`)
}

func TestRunsTwiceInOneProcess(t *testing.T) {
	t.Parallel()
	first, second := begin(t, load(t, newFile(t, "")), nil), begin(t, load(t, newFile(t, "")), nil)
	wantGet(t, first.at.HTTP, row, 200, rowJSON)
	wantGet(t, second.at.HTTP, row, 200, rowJSON)
	first.end(t)
	wantGet(t, second.at.HTTP, row, 200, rowJSON)
	third := begin(t, first.config, nil)
	wantGet(t, third.at.HTTP, row, 200, rowJSON)
}

func TestLocalhostIsIPv6Too(t *testing.T) {
	if ln, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("this host has no IPv6")
	} else {
		ln.Close()
	}
	r := begin(t, load(t, newFile(t, "")), nil)
	_, port, _ := net.SplitHostPort(r.at.HTTP)
	wantGet(t, net.JoinHostPort("::1", port), row, 200, rowJSON)
}

func TestTransportOfGRPCIsConfigured(t *testing.T) {
	c := load(t, newFile(t, ""))
	for _, grpcGo := range []bool{false, true} {
		c.Listen.GRPCGo = grpcGo
		r := begin(t, c, nil)
		if got := r.parts.applications.Server.Config().GRPCGo; got != grpcGo {
			t.Errorf("listen.grpc_go: %v: got %v", grpcGo, got)
		}
		r.end(t)
	}
}

func TestPortInUseNamesTheField(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := load(t, newFile(t, ""))
	c.Listen.HTTP, c.Listen.Admin = taken.Addr().String(), "192.0.2.1:0" // TEST-NET-1 (RFC 5737) is nobody's
	err = Run(t.Context(), c, zap.NewNop(), func(Addrs) { t.Error("it is ready") })
	for _, want := range []string{"listen.http: " + taken.Addr().String() + " is in use", "listen.admin: no interface"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestRunChecksConfigurationsMadeInGo(t *testing.T) {
	err := Run(t.Context(), config.Config{Ring: config.Ring{Min: 5000}}, zap.NewNop(), nil)
	if e := (*config.Error)(nil); !errors.As(err, &e) {
		t.Errorf("got %v, want a *config.Error", err)
	}
}

// A member that is not in the list of members would never be asked, and would not know.
func TestUnlistedMemberDoesNotStart(t *testing.T) {
	c := load(t, newFile(t, "membership: {static: [\"127.0.0.1:1\"]}"))
	c.Listen.Peer = "127.0.0.1:0"
	err := Run(t.Context(), c, zap.NewNop(), nil)
	if wrong, ok := errors.AsType[*config.Error](err); !ok || !strings.Contains(wrong.Error(), "not in the static list") {
		t.Errorf("got %v", err)
	}
}

// memoryDirectory is a ring.Directory whose list is what has registered.
type memoryDirectory struct {
	mu        sync.Mutex // guards the rest
	members   map[string]ring.Member
	followers map[int]func([]ring.Member)
	// leaving is called when Register ends, before the member is off the list.
	leaving func(ring.Member)
}

func newMemoryDirectory() *memoryDirectory {
	return &memoryDirectory{members: map[string]ring.Member{}, followers: map[int]func([]ring.Member){}}
}

func (d *memoryDirectory) Resolve(ctx context.Context, apply func([]ring.Member)) error {
	d.mu.Lock()
	id := len(d.followers)
	d.followers[id] = apply
	apply(d.listLocked())
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.followers[id] = func([]ring.Member) {}
	return nil
}

func (d *memoryDirectory) Register(ctx context.Context, self ring.Member) error {
	d.put(self)
	<-ctx.Done()
	if d.leaving != nil {
		d.leaving(self)
	}
	self.Leaving = true
	d.put(self)
	return nil
}

func (d *memoryDirectory) put(m ring.Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.members[m.ID] = m
	for _, apply := range d.followers {
		apply(d.listLocked())
	}
}

func (d *memoryDirectory) listLocked() []ring.Member {
	var list []ring.Member
	for _, m := range d.members {
		list = append(list, m)
	}
	return list
}

// beginMember runs a sidecar that finds others in d.
func beginMember(t testing.TB, d ring.Directory, id string) *running {
	t.Helper()
	c := load(t, newFile(t, "membership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nnode: {id: "+id+"}"))
	c.Listen.Peer = "127.0.0.1:0"
	return begin(t, c, func(r *run) { r.directory = d })
}

// panickingDirectory panics at its first list, as a decoder of records might.
type panickingDirectory struct {
	*memoryDirectory
	calls atomic.Int64
}

func (d *panickingDirectory) Resolve(ctx context.Context, apply func([]ring.Member)) error {
	if d.calls.Add(1) == 1 {
		panic("canary")
	}
	return d.memoryDirectory.Resolve(ctx, apply)
}

func TestPanicOfTheDirectoryIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	a := beginMember(t, &panickingDirectory{memoryDirectory: newMemoryDirectory()}, "a")
	lines := a.logs.FilterMessage("internal error: please report this as a bug").All()
	if len(lines) != 1 {
		t.Fatalf("got %d lines, want one for the panic", len(lines))
	}
	if text, _ := lines[0].ContextMap()["error"].(string); !strings.Contains(text, "canary") || !strings.Contains(text, "goroutine") {
		t.Errorf("logged %q, want the panic and its stack", text)
	}
	wantGet(t, a.at.Metrics, "/metrics", 200, "\nringside_internal_errors_total 1\n")
	a.end(t)
}

func TestMembersShareOneRing(t *testing.T) {
	t.Parallel()
	d := newMemoryDirectory()
	a, b := beginMember(t, d, "a"), beginMember(t, d, "b")
	waitFor(t, func() bool { return a.ring().Len() == 2 && b.ring().Len() == 2 })
	if a.ring().ID() != b.ring().ID() {
		t.Error("two members have different rings")
	}
	for i := range 20 {
		wantGet(t, a.at.HTTP, fmt.Sprintf("/v1/metrics/CNF-%d", i), 404, "")
		wantGet(t, b.at.HTTP, fmt.Sprintf("/v1/metrics/CNF-%d", i), 404, "")
	}
	queries := func(r *running) int64 { return r.dataset().Stats().Queries.Load() }
	unanswered := func(r *running) int64 { return r.dataset().Stats().PeerFetchErrors.Load() }
	got, more := queries(a)+queries(b), unanswered(a)+unanswered(b) // on a busy machine, a member may seem to be away
	if got < 20 || got > 20+more {
		t.Errorf("got %d queries of two members for 20 keys, want one per key and one for each of %d failed peer fetches", got, more)
	}
	wantGet(t, a.at.Admin, "/api/cluster", 200, `"id":"b"`)
}

func TestOtherSettingsOfTheRingAreShown(t *testing.T) {
	t.Parallel()
	d := newMemoryDirectory()
	a := beginMember(t, d, "a")
	c := load(t, newFile(t, "membership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nnode: {id: b}\nring: {max: 8192}"))
	c.Listen.Peer = "127.0.0.1:0"
	begin(t, c, func(r *run) { r.directory = d })
	waitFor(t, func() bool { return a.ring().Len() == 2 })
	wantGet(t, a.at.Admin, "/api/ring", 200, "ring.max is 8192 on b and 4096 on a")
	wantGet(t, a.at.Metrics, "/metrics", 200, "\nringside_ring_other_settings_members 1\n")
}

func TestDuplicateMemberIDIsLogged(t *testing.T) {
	t.Parallel()
	d := newMemoryDirectory()
	a := beginMember(t, d, "a")
	d.put(ring.Member{ID: "a", Addr: "127.0.0.1:9", Started: a.began.Add(time.Hour)})
	const text = "another member has the id or address of this one: give each its own node.id and node.advertise"
	if n := a.logs.FilterMessage(text).Len(); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

// waitFor waits for what other goroutines are about to do.
func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	const limit = time.Minute
	for deadline := time.Now().Add(limit); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not true after %v", limit)
		}
		time.Sleep(time.Millisecond)
	}
}

// In the other order, the others would ask a member that does not serve any more.
func TestLeavingMemberWithdrawsBeforeItStopsServing(t *testing.T) {
	t.Parallel()
	d := newMemoryDirectory()
	b := beginMember(t, d, "b")
	a := beginMember(t, d, "a")
	waitFor(t, func() bool { return b.ring().Len() == 2 })
	withdrawn := false
	d.leaving = func(m ring.Member) {
		withdrawn = true
		wantGet(t, a.at.HTTP, row, 200, rowJSON)
		wantGet(t, a.at.Metrics, "/readyz", 503, "left the ring")
		wantGet(t, a.at.Metrics, "/livez", 200, "ok")
		if err := b.parts.pool.Ping(t.Context(), m); err == nil || !strings.Contains(err.Error(), "leaving") {
			t.Errorf("its pong says %v, want that it is leaving", err)
		}
		if _, err := ownedBy(t, b, m.ID).Fetch(t.Context(), kv.Query{Dataset: "metrics", Key: "CNF-001"}); err != nil {
			t.Errorf("it does not answer other members any more: %v", err)
		}
	}
	a.end(t)
	d.leaving = nil
	if !withdrawn {
		t.Error("it never withdrew")
	}
	if n := b.ring().Len(); n != 1 {
		t.Errorf("the ring of the other has %d members after the goodbye, want 1", n)
	}
	if status, _ := get(a.at.HTTP, row); status != 0 {
		t.Errorf("it still answers after its end: %d", status)
	}
}

// endWhileAsked stops a member, with the given drain timeout, while another never stops asking it.
func endWhileAsked(t *testing.T, drain string, q kv.Query) {
	t.Helper()
	d := newMemoryDirectory()
	b := beginMember(t, d, "b")
	c := load(t, newFile(t, "membership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nnode: {id: a}\ndrain_timeout: "+drain))
	c.Listen.Peer = "127.0.0.1:0"
	a := begin(t, c, func(r *run) { r.directory = d })
	waitFor(t, func() bool { return b.ring().Len() == 2 })
	member := ownedBy(t, b, "a")
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default: // whether it is answered does not matter here
				_, _ = member.Fetch(t.Context(), q)
			}
		}
	})
	a.end(t)
	close(stop)
	asking.Wait()
}

// While others still ask, a leaving member serves them, but not for longer than the drain timeout. Without that bound
// this test does not end.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	endWhileAsked(t, "1500ms", kv.Query{Dataset: "metrics", Key: "CNF-001"})
}

// New owners request entries from a member that has left for ten seconds. A leaving member that waited for them took the whole
// drain timeout each time.
func TestHandoversDoNotProlongADrain(t *testing.T) {
	t.Parallel()
	endWhileAsked(t, "1h", kv.Query{Dataset: "metrics", Key: "CNF-001", MemoryOnly: true})
}

func ownedBy(t testing.TB, from *running, id string) kv.Peer {
	t.Helper()
	for i := range 10_000 {
		if p := from.parts.pool.Route("metrics", fmt.Sprintf("CNF-%d", i)).Owner; p != nil && p.ID() == id {
			return p
		}
	}
	t.Fatalf("%s owns no key", id)
	return nil
}

func TestNoSecretInLogs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ringside.yaml")
	write(t, file, `
origins: {db: {driver: postgres, dsn: "postgres://user:`+canary+`@127.0.0.1:1/db?connect_timeout=1"}}
datasets: {metrics: {origin: db, table: t, key: k}}`+allPortsFree)
	r := begin(t, load(t, file), nil)
	wantGet(t, r.at.HTTP, row, 503, "")
	datasets.NewFailureLog(r.parts.datasets).Report()
	_, metrics := get(r.at.Metrics, "/metrics")
	_, state := get(r.at.Admin, "/api/state")
	r.end(t)
	text := metrics + state
	for _, entry := range r.logs.All() {
		text += entry.Message + fmt.Sprint(entry.ContextMap())
	}
	if !strings.Contains(text, "last_load_error") || strings.Contains(text, canary) {
		t.Errorf("want the failure of the load without the password in\n%s", text)
	}
}

const failureMessage = "loads, peer fetches, reads or writes of a dataset failed"

func TestInvalidRowIsLogged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ringside.yaml")
	write(t, file, `
origins: {db: {driver: sqlite, dsn: `+newOrigin(t)+`}}
datasets: {metrics: {origin: db, query: "SELECT ? UNION SELECT 2"}}`+allPortsFree)
	r := begin(t, load(t, file), nil)
	wantGet(t, r.at.HTTP, row, 500, `"cause":"several-rows"`)
	failures := datasets.NewFailureLog(r.parts.datasets)
	failures.Report()
	failures.Report()
	r.end(t)
	logged := r.logs.FilterMessage("rows in the database cannot be the values of their keys; correct the rows").All()
	if len(logged) != 1 || !strings.Contains(fmt.Sprint(logged[0].ContextMap()["last_data_error"]), "2 rows of one key") ||
		logged[0].ContextMap()["last_key"] != "CNF-001" {
		t.Errorf("got %v, want one line with the key and the reason", logged)
	}
	if failed := r.logs.FilterMessage(failureMessage).All(); len(failed) != 0 {
		t.Errorf("got %v, want no failure", failed)
	}
}

// A part that fails while it serves must not leave a sidecar that looks alive.
func TestListenerThatFailsEndsTheRun(t *testing.T) {
	c := load(t, newFile(t, ""))
	r := newRun(c, zap.NewNop())
	err := r.run(t.Context(), func(Addrs) { r.parts.listeners.Find("admin").Close() })
	if err == nil || !strings.Contains(err.Error(), "admin listener: ") {
		t.Errorf("got %v, want the error of a listener", err)
	}
}

func TestStagesStopInReverse(t *testing.T) {
	var order []string
	r := newRun(config.Config{}, zap.NewNop())
	for _, name := range []string{"a", "b", "c"} {
		r.started = append(r.started, stage{name, nil, func(context.Context) { order = append(order, name) }})
	}
	if err := r.stop(); err != nil || strings.Join(order, "") != "cba" {
		t.Errorf("stopped in the order %v, %v", order, err)
	}
}

func TestEntryMemory(t *testing.T) {
	const unlimited = 1<<63 - 1
	for _, test := range []struct {
		configured config.Size
		limit      int64
		want       int64
	}{
		{0, unlimited, 128 << 20},
		{0, 100 << 20, 48 << 20},
		{64 << 20, 100 << 20, 64 << 20},
		{0, 1 << 20, config.MinMemory},
	} {
		if got := shareOf(test.configured, test.limit, entryShare); got != test.want {
			t.Errorf("shareOf(%s, %d) = %d, want %d", test.configured, test.limit, got, test.want)
		}
	}
	if got := divideMemory(config.Config{}, 0).entries; got != 128<<20 {
		t.Errorf("without a limit: got %d, want 128 MiB", got)
	}
}
