package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
)

// never is an interval longer than a test, so that the result has another cause.
const never = time.Hour

func TestMembersSeeJoinsAndLeaves(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	a, b := member("a", 1), member("b", 2)
	a.HashKey, a.Zone, a.Version = "key-of-a", "zone 1", "v1"
	watching := open(t, e.Endpoint(), func(tm *timing) { tm.check = 50 * time.Millisecond })
	seen := resolve(t, watching)
	seen.waitFor(t, "no member")
	register(t, open(t, e.Endpoint(), nil), a)
	seen.waitFor(t, "a", a)
	leaveB := register(t, open(t, e.Endpoint(), nil), b)
	seen.waitFor(t, "a and b", a, b)
	leaveB()
	b.Leaving = true
	seen.waitFor(t, "b is leaving", a, b)
	lists, checks := watching.Stats().Lists, watching.checks.Load()
	waitFor(t, "more checks", func() bool { return watching.checks.Load() > checks+2 })
	if now := watching.Stats().Lists; now != lists {
		t.Errorf("got %d lists while nothing is wrong", now-lists)
	}
	watching.Relist()
	waitFor(t, "another list", func() bool { return watching.Stats().Lists > lists })
	if got := seen.changes(); got != 4 {
		t.Errorf("the list was applied %d times, want 4", got)
	}
}

func TestRelist(t *testing.T) {
	t.Parallel()
	d := open(t, rig.Etcd(t).Endpoint(), func(tm *timing) { tm.check = never })
	resolve(t, d).waitFor(t, "no member")
	lists := d.Stats().Lists
	for range 10 { // it does not block, and requests are not queued
		d.Relist()
	}
	waitFor(t, "another list", func() bool { return d.Stats().Lists > lists })
}

// etcd does not answer progress requests while a watch waits for a future revision.
func TestWatchWithoutChangesIsNotStalled(t *testing.T) {
	t.Parallel()
	d := open(t, rig.Etcd(t).Endpoint(), func(tm *timing) { tm.check, tm.stall = 5*time.Second, 2*time.Second })
	resolve(t, d).waitFor(t, "no member")
	waitFor(t, "the check that is due", func() bool { return d.checks.Load() > 0 })
	if n := d.events(errStalled.Error()); n != 0 { // a busy machine may lose the connection
		t.Errorf("the watch of an idle etcd stalled %d times, want 0", n)
	}
}

// A registration that is lost and repeated continuously would pass all other tests.
func TestRegistrationIsStable(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	d := open(t, e.Endpoint(), func(tm *timing) { tm.verify = 50 * time.Millisecond })
	register(t, d, member("a", 1))
	waitRegistered(t, d, 1)
	until := time.Now().Add(3 * d.cfg.LeaseTTL)
	waitFor(t, "three leases", func() bool { return time.Now().After(until) })
	if s := d.Stats(); !s.Registered || s.Registrations != 1 || len(keysIn(t, e)) != 2 {
		t.Errorf("got stats %+v; want one registration", s)
	}
}

func TestCloseDeletesTheKeys(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	d := open(t, e.Endpoint(), nil)
	seen := resolve(t, open(t, e.Endpoint(), nil))
	leave := register(t, d, member("a", 1))
	waitRegistered(t, d, 1)
	leave()
	if got := keysIn(t, e); !slices.Equal(got, []string{"/ringside/default/members/a"}) {
		t.Errorf("after deregistration etcd has %q, want the record only", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := keysIn(t, e); len(got) != 0 {
		t.Errorf("after Close etcd has %q, want nothing", got)
	}
	seen.waitFor(t, "no member")
}

// The keys may be deleted before the change to leaving is applied; without it the member would stay on the rings.
func TestLeavingIsAppliedBeforeTheKeysAreDeleted(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	d := open(t, e.Endpoint(), nil)
	f := open(t, e.Endpoint(), nil)
	f.timing.settle = 300 * time.Millisecond
	seen := resolve(t, f)
	leave := register(t, d, member("a", 1))
	seen.waitFor(t, "a", member("a", 1))
	leave()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	seen.waitFor(t, "no member")
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if !slices.ContainsFunc(seen.lists, func(l []ring.Member) bool { return len(l) == 1 && l[0].Leaving }) {
		t.Errorf("got lists %v, want one with the leaving member", seen.lists)
	}
}

func TestDeregisterKeepsTheRecordOfANewProcess(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	old, young := open(t, e.Endpoint(), nil), open(t, e.Endpoint(), nil)
	leave := register(t, old, member("a", 1))
	waitRegistered(t, old, 1)
	successor := member("a", 1)
	successor.Started = successor.Started.Add(time.Minute)
	register(t, young, successor)
	waitRegistered(t, young, 1)
	leave()
	resolve(t, young).waitFor(t, "the new process", successor)
	if got := len(keysIn(t, e)); got != 2 {
		t.Errorf("etcd has %d keys, want both of the successor", got)
	}
}

func TestStockResolverFindsMembers(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(l)
	defer server.Stop()
	self := ring.Member{ID: "a", HashKey: "key-of-a", Addr: l.Addr().String()}
	d := open(t, e.Endpoint(), nil)
	register(t, d, self)
	waitRegistered(t, d, 1)

	c := client(t, e)
	naming, err := endpoints.NewManager(c, "/ringside/default/ring")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := naming.List(t.Context())
	got := listed["/ringside/default/ring/a"]
	metadata, _ := got.Metadata.(map[string]any)
	if err != nil || len(listed) != 1 || got.Addr != self.Addr || metadata["hash_key"] != "key-of-a" {
		t.Errorf("List: %v, %v", listed, err)
	}

	stock, err := resolver.NewBuilder(c)
	if err != nil {
		t.Fatal(err)
	}
	// Four slashes: the resolver removes one, and the prefix begins with one.
	conn, err := grpc.NewClient("etcd:////ringside/default/ring", grpc.WithResolvers(stock),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("call with the stock resolver: %v", err)
	}
}

func TestRegistersAgain(t *testing.T) {
	for name, fault := range map[string]func(*testing.T, *clientv3.Client, *Directory){
		"after the lease was revoked": func(t *testing.T, c *clientv3.Client, d *Directory) {
			if _, err := c.Revoke(t.Context(), clientv3.LeaseID(d.lease.Load())); err != nil {
				t.Fatal(err)
			}
		},
		"after the keys were deleted": func(t *testing.T, c *clientv3.Client, _ *Directory) {
			if _, err := c.Delete(t.Context(), "/ringside/", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		},
		"after a key was overwritten": func(t *testing.T, c *clientv3.Client, _ *Directory) {
			if _, err := c.Put(t.Context(), "/ringside/default/ring/a", "nonsense"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := rig.Etcd(t)
			d := open(t, e.Endpoint(), nil)
			d.timing.verify = 200 * time.Millisecond
			register(t, d, member("a", 1))
			waitRegistered(t, d, 1)
			fault(t, client(t, e), d.Directory)
			waitRegistered(t, d, 2)
			resolve(t, d).waitFor(t, "a", member("a", 1))
			if got := len(keysIn(t, e)); got != 2 {
				t.Errorf("etcd has %d keys, want 2", got)
			}
		})
	}
}

// Each fault occurs while a is registered and b resolves. Both must recover without help.
func TestSurvivesFaultsOfEtcd(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  func(*testing.T, *rig.EtcdServer, *link)
		tuning func(*timing)
	}{
		"etcd killed and restarted": {fault: func(t *testing.T, e *rig.EtcdServer, _ *link) {
			e.Kill()
			e.Start()
		}},
		"etcd frozen for longer than the lease": {fault: func(t *testing.T, e *rig.EtcdServer, _ *link) {
			e.Freeze()
			time.Sleep(4 * time.Second) // the fault: twice the lease
			e.Thaw()
		}},
		"etcd compacted while the watch was down": {fault: func(t *testing.T, e *rig.EtcdServer, l *link) {
			l.cut()
			c := client(t, e)
			put(t, c, "passing", `{"id":"passing","addr":"10.0.0.9:1"}`)
			if _, err := c.Delete(t.Context(), "/ringside/default/members/passing"); err != nil {
				t.Fatal(err)
			}
			e.Compact()
			l.restore()
		}},
		"etcd wiped, seen by the watch": {fault: wipe},
		"etcd wiped, seen by the connection": {
			fault:  wipe,
			tuning: func(tm *timing) { tm.progress, tm.stall = never, never },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := rig.Etcd(t)
			l := newLink(t, e.Endpoint())
			c := client(t, e)
			for range 200 { // so that a wiped etcd does not reach the revision of the watch
				put(t, c, "passing", `{}`)
			}
			a, b := open(t, l.url(), tc.tuning), open(t, l.url(), tc.tuning)
			register(t, a, member("a", 1))
			seen := resolve(t, b)
			seen.waitFor(t, "a", member("a", 1))
			tc.fault(t, e, l)
			register(t, b, member("b", 2))
			seen.waitFor(t, "a and b", member("a", 1), member("b", 2))
			waitFor(t, "a registered", func() bool { return a.Stats().Registered && len(keysIn(t, e)) >= 4 })
		})
	}
}

// A watch that begins after a change stands for one that has missed it.
func TestCheckFindsMissedChanges(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	d := open(t, e.Endpoint(), func(tm *timing) { tm.check = 50 * time.Millisecond })
	c, r := client(t, e), &watcher{d: d.Directory, apply: func([]ring.Member) {}}
	put(t, c, "bad", `{}`) // rejected records count, too
	if err := r.list(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if complete, err := r.complete(t.Context(), c); err != nil || !complete {
		t.Errorf("got %t, %v after a list, want that it is complete", complete, err)
	}
	put(t, c, "b", `{"id":"b","addr":"10.0.0.2:7072"}`)
	r.revision += 2
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.watch(ctx, c); err != nil {
		t.Errorf("got %v, want the end of the watch for another list", err)
	}
}

// A new etcd may reach the revision that the watch of the old one waits for. Then the watch looks healthy.
func TestEtcdWipedWhileItsRevisionsCatchUp(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	a := open(t, e.Endpoint(), func(tm *timing) { tm.progress, tm.stall = never, never })
	register(t, a, member("a", 1))
	seen := resolve(t, a)
	seen.waitFor(t, "a", member("a", 1))
	e.Wipe()
	e.Start()
	put(t, client(t, e), "b", `{"id":"b","addr":"10.0.0.2:7072"}`)
	seen.waitFor(t, "a and b", member("a", 1), ring.Member{ID: "b", Addr: "10.0.0.2:7072"})
}

func wipe(_ *testing.T, e *rig.EtcdServer, _ *link) {
	e.Wipe()
	e.Start()
}

func TestWaitingChangesAreAppliedWhenTheWatchEnds(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	l := newLink(t, e.Endpoint())
	d := open(t, l.url(), func(tm *timing) { tm.settle = never })
	seen := resolve(t, d)
	seen.waitFor(t, "no member")
	put(t, client(t, e), "a", `{"id":"a","addr":"10.0.0.1:7072"}`)
	put(t, client(t, e), "b", "malformed")
	waitFor(t, "the second event", func() bool { return d.Stats().Rejected[record.Malformed] == 1 })
	l.hang()
	seen.waitFor(t, "a", ring.Member{ID: "a", Addr: "10.0.0.1:7072"})
}

func TestEtcdUnavailableAtStart(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	e.Stop()
	d := open(t, e.Endpoint(), nil)
	seen := resolve(t, d)
	register(t, d, member("a", 1))
	waitFor(t, "a failed attempt", func() bool { return d.events("list of members lost") > 0 })
	if seen.changes() != 0 {
		t.Error("a list was applied before etcd answered")
	}
	e.Start()
	seen.waitFor(t, "a", member("a", 1))
	if s := d.Stats(); !s.Registered || !s.Connected || s.Members != 1 || s.ContactAge > time.Minute {
		t.Errorf("got stats %+v", s)
	}
}

// A client that balances over its endpoints keeps its streams, even at a member of etcd that hangs.
func TestOneOfTwoEndpointsHangs(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	a, hangOfA := openTwice(t, e)
	b, hangOfB := openTwice(t, e)
	register(t, a, member("a", 1))
	waitRegistered(t, a, 1)
	seen := resolve(t, b)
	seen.waitFor(t, "a", member("a", 1))
	gone := watchForDeletion(t, e, "/ringside/default/members/a")
	hangOfA()
	hangOfB()
	waitRegistered(t, a, 2)
	waitFor(t, "a list from the other endpoint", func() bool { return b.Stats().Lists == 2 })
	register(t, open(t, e.Endpoint(), nil), member("b", 2))
	seen.waitFor(t, "a and b", member("a", 1), member("b", 2))
	if n := gone(); n > 0 {
		t.Errorf("the record of a expired %d times, want 0", n)
	}
}

// openTwice opens a directory with two proxies to the same etcd; hang blocks the one in use.
func openTwice(t *testing.T, e *rig.EtcdServer) (d *tested, hang func()) {
	t.Helper()
	links := [2]*link{newLink(t, e.Endpoint()), newLink(t, e.Endpoint())}
	d = open(t, links[0].url(), nil)
	d.cfg.LeaseTTL = 4 * time.Second
	d.cfg.Endpoints = append(d.cfg.Endpoints, links[1].url())
	return d, func() {
		for _, l := range links {
			if l.used() {
				l.hang()
				return
			}
		}
		t.Error("no proxy is used")
	}
}

func TestInvalidRecordsAreRejectedOneByOne(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	c := client(t, e)
	good := member("good", 1)
	register(t, open(t, e.Endpoint(), nil), good)
	d := open(t, e.Endpoint(), nil)
	seen := resolve(t, d)
	seen.waitFor(t, "good", good)

	put(t, c, "empty", "")
	put(t, c, "garbage", "\x00\xff{")
	put(t, c, "", `{"id":"","addr":"10.0.0.1:1"}`)
	put(t, c, "other", `{"id":"good","addr":"10.0.0.1:1"}`)
	for i := range 10 { // 10 MB in total; etcd accepts at most 1.5 MiB per request
		put(t, c, fmt.Sprintf("huge-%d", i), strings.Repeat("x", 1<<20))
	}
	waitFor(t, "the rejections", func() bool {
		r := d.Stats().Rejected
		return r[record.Malformed] >= 2 && r[record.Invalid] >= 2 && r[record.Oversized] >= 10
	})
	second := open(t, e.Endpoint(), nil)
	resolve(t, second).waitFor(t, "good", good)
	if r := second.Stats().Rejected; r[record.Malformed] != 2 || r[record.Invalid] != 2 || r[record.Oversized] != 10 {
		t.Errorf("got rejected %v, want 2 malformed, 2 invalid, 10 oversized", r)
	}

	put(t, c, "duplicate", fmt.Sprintf(`{"id":"duplicate","addr":%q,"started":"2020-01-01T00:00:00Z"}`, good.Addr))
	duplicate := ring.Member{ID: "duplicate", Addr: good.Addr, Started: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}
	seen.waitFor(t, "the later of two members with one address", duplicate)
	if d.Stats().Rejected[record.Duplicate] == 0 {
		t.Error("the duplicate was not counted")
	}
	put(t, c, "duplicate", "garbage")
	seen.waitFor(t, "good", good)
	if s := d.Stats(); s.WatchRestarts != 0 || s.LastRejected == "" {
		t.Errorf("got stats %+v", s)
	}
}

func TestListHasSeveralPages(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	c := client(t, e)
	const n = 2*pageSize + 1
	for first := 0; first < n; first += 100 {
		var puts []clientv3.Op
		for i := first; i < min(first+100, n); i++ {
			m := member(fmt.Sprintf("m%04d", i), i+1)
			full, _, err := record.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			puts = append(puts, clientv3.OpPut("/ringside/default/members/"+m.ID, full))
		}
		if _, err := c.Txn(t.Context()).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, e.Endpoint(), nil)
	resolve(t, d)
	waitFor(t, "all members", func() bool { return d.Stats().Members == n })
}

func TestRegisterRejectsAnInvalidMember(t *testing.T) {
	d, err := Open(Config{Endpoints: []string{"http://127.0.0.1:1"}, Prefix: "/ringside/default", LeaseTTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // otherwise a Register that accepts it would never return
	if err := d.Register(ctx, ring.Member{ID: "a", Addr: "0.0.0.0:7072"}); err == nil {
		t.Error("got no error for an address that cannot be dialed")
	}
}

// tested is a Directory with short intervals.
type tested struct {
	*Directory
	mu     sync.Mutex
	counts map[string]int // guarded by mu; events by name
}

func (d *tested) events(what string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[what]
}

func open(t *testing.T, endpoint string, tune func(*timing)) *tested {
	t.Helper()
	d := &tested{counts: map[string]int{}}
	var err error
	d.Directory, err = Open(Config{
		Endpoints: []string{endpoint},
		Prefix:    "/ringside/default",
		LeaseTTL:  2 * time.Second,
		OnEvent: func(what string, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if errors.Is(err, errStalled) {
				d.counts[errStalled.Error()]++
			}
			for _, w := range []string{"list of members lost", "registration lost"} {
				if strings.HasPrefix(what, w) {
					d.counts[w]++
				}
			}
			t.Logf("%s: %v", what, err)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.timing = timing{
		request: time.Second, withdraw: time.Second, settle: 20 * time.Millisecond, check: never,
		progress: 200 * time.Millisecond, stall: time.Second, verify: never, retryMax: 500 * time.Millisecond,
	}
	if tune != nil {
		tune(&d.timing)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

// register runs Register until the test ends or leave is called, which waits for it.
func register(t *testing.T, d *tested, self ring.Member) (leave func()) {
	t.Helper()
	return inBackground(t, func(ctx context.Context) error { return d.Register(ctx, self) })
}

// sightings are the lists that a Resolve applied.
type sightings struct {
	mu    sync.Mutex
	lists [][]ring.Member // guarded by mu
}

func resolve(t *testing.T, d *tested) *sightings {
	t.Helper()
	s := new(sightings)
	inBackground(t, func(ctx context.Context) error {
		return d.Resolve(ctx, func(members []ring.Member) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lists = append(s.lists, members)
		})
	})
	return s
}

func inBackground(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

func (s *sightings) changes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lists)
}

func (s *sightings) last() []ring.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lists) == 0 {
		return nil
	}
	return s.lists[len(s.lists)-1]
}

func (s *sightings) waitFor(t *testing.T, what string, want ...ring.Member) {
	t.Helper()
	waitFor(t, what, func() bool { return s.changes() > 0 && slices.Equal(s.last(), want) })
}

func waitRegistered(t *testing.T, d *tested, times int64) {
	t.Helper()
	waitFor(t, fmt.Sprintf("registration %d", times), func() bool {
		s := d.Stats()
		return s.Registered && s.Registrations >= times
	})
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const limit = time.Minute
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func member(id string, n int) ring.Member {
	return ring.Member{
		ID: id, Addr: fmt.Sprintf("10.0.%d.%d:7072", n>>8, n&255), Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

func client(t *testing.T, e *rig.EtcdServer) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func put(t *testing.T, c *clientv3.Client, id, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), "/ringside/default/members/"+id, value); err != nil {
		t.Fatal(err)
	}
}

func keysIn(t *testing.T, e *rig.EtcdServer) (keys []string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.Get(t.Context(), "/ringside/default/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// watchForDeletion counts the deletions of key until its result is called.
func watchForDeletion(t *testing.T, e *rig.EtcdServer, key string) (count func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	changes := client(t, e).Watch(ctx, key, clientv3.WithFilterPut())
	n, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for change := range changes {
			n += len(change.Events)
		}
	}()
	return func() int {
		cancel()
		<-done
		return n
	}
}

func TestReasonsToListAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		cluster  uint64
		revision int64
		change   clientv3.WatchResponse
		again    bool
	}{
		"progress":          {7, 10, clientv3.WatchResponse{}, false},
		"news":              {7, 11, clientv3.WatchResponse{}, false},
		"another cluster":   {8, 11, clientv3.WatchResponse{}, true},
		"an older revision": {7, 9, clientv3.WatchResponse{}, true},
		"compacted":         {7, 11, clientv3.WatchResponse{CompactRevision: 11}, true},
		"cancelled":         {7, 11, clientv3.WatchResponse{Canceled: true}, true},
	} {
		f := watcher{d: new(Directory), cluster: 7, revision: 10}
		tc.change.Header = newOf(tc.change.Header)
		tc.change.Header.ClusterId, tc.change.Header.Revision = tc.cluster, tc.revision
		if err := f.applyChange(tc.change); (err != nil) != tc.again {
			t.Errorf("%s: %v, want an error: %t", name, err, tc.again)
		}
	}
}

// newOf avoids an import of the package of T.
func newOf[T any](*T) *T { return new(T) }
