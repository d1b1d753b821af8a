package functions

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// site is a database, a cluster of three sidecars in front of it, and a function twice: with its own SQL module and with
// Ringside.
type site struct {
	t              *testing.T
	f              *function
	etcd           *rig.EtcdServer
	database       *rig.Database
	sidecars       []*rig.Sidecar // the first is in the pod of the function, the second is its secondary endpoint
	direct, cached *place
}

// newSite starts all of it. Entries are fresh for ttl, or as long as the function's page says if that is empty.
func newSite(t *testing.T, f *function, e rig.Engine, ttl string) *site {
	t.Helper()
	s := &site{t: t, f: f, etcd: rig.Etcd(t), database: e.Start(t)}
	own := connect(t, e, s.database.DSN)
	newPlace := func() *place {
		return &place{t: t, f: f, engine: e, database: s.database, sql: own, dir: t.TempDir(), address: rig.FreeAddress(t)}
	}
	s.direct, s.cached = newPlace(), newPlace()
	f.fill(s.direct)
	config := s.config(e, ttl)
	for _, id := range []string{"sidecar-1", "sidecar-2", "sidecar-3"} {
		sidecar := rig.NewSidecar(t, id, config)
		sidecar.Supervise()
		sidecar.Start()
		s.sidecars = append(s.sidecars, sidecar)
	}
	rig.AwaitRing(t, s.sidecars)
	s.cached.local, s.cached.secondary = s.sidecars[0], s.sidecars[1]
	f.start(t, s.direct)
	f.start(t, s.cached)
	return s
}

var ttlLine = regexp.MustCompile(`([ {]ttl: )[0-9a-z]+`)

// config is the ringside.yaml of the function's folder with the test's database and etcd.
func (s *site) config(e rig.Engine, ttl string) string {
	dir := s.t.TempDir()
	dsn, page := filepath.Join(dir, "dsn"), filepath.Join(dir, "ringside.yaml")
	if err := os.WriteFile(dsn, []byte(s.database.DSN), 0o600); err != nil {
		s.t.Fatal(err)
	}
	rig.CopyPage(s.t, filepath.Join("deploy", "functions", s.f.name, "ringside.yaml"), page,
		"driver: postgres", "driver: "+e.Driver, "/etc/ringside/dsn", dsn)
	config, err := os.ReadFile(page)
	if err != nil {
		s.t.Fatal(err)
	}
	if e.Driver == "mysql" {
		config = regexp.MustCompile(`\$[12]\b`).ReplaceAll(config, []byte("?"))
	}
	if ttl != "" {
		config = ttlLine.ReplaceAll(config, []byte("${1}"+ttl))
	}
	return string(config) + fmt.Sprintf("membership: {etcd: {endpoints: [%q], lease_ttl: 2s}}\n", s.etcd.Endpoint())
}

// fault is something that fails while requests arrive.
type fault struct {
	name       string
	begin, end func(s *site)
	direct     bool // concerns a function with its own SQL module, too
	unread     bool // the requests during the fault are for keys that nobody has read
}

// localKilled is the fault that a function survives by its secondary endpoint.
const localKilled = "local sidecar killed"

var faults = []fault{
	{"database killed", func(s *site) { s.database.Kill() }, func(s *site) { s.database.Start() }, true, false},
	{"database frozen", func(s *site) { s.database.Freeze() }, func(s *site) { s.database.Thaw() }, true, false},
	{"database killed, keys never read", func(s *site) { s.database.Kill() }, func(s *site) { s.database.Start() }, true, true},
	{"peer killed", func(s *site) { s.sidecars[2].Kill() }, func(s *site) { s.sidecars[2].Start() }, false, false},
	{localKilled, func(s *site) { s.sidecars[0].Kill() }, func(s *site) { s.sidecars[0].Start() }, false, false},
	{"local sidecar restarted", func(s *site) { s.sidecars[0].Replace() }, func(*site) {}, false, false},
	{"database killed, local sidecar restarted", func(s *site) {
		s.database.Kill()
		s.sidecars[0].Replace()
	}, func(s *site) { s.database.Start() }, false, false},
	{"etcd frozen", func(s *site) { s.etcd.Freeze() }, func(s *site) { s.etcd.Thaw() }, false, false},
}

// awaitWarm waits until the members have loaded all rows that the traffic reads.
func (s *site) awaitWarm() {
	s.t.Helper()
	rig.Eventually(s.t, time.Minute, func() error {
		for _, dataset := range s.f.reads {
			loaded := 0.
			for _, sidecar := range s.sidecars {
				loaded += sidecar.Metric("ringside_warm_keys", fmt.Sprintf("dataset=%q", dataset))
			}
			if loaded < float64(s.f.keys) {
				return fmt.Errorf("%v of %d keys of %s are in memory", loaded, s.f.keys, dataset)
			}
		}
		return nil
	})
}

// during runs a load and lets the fault begin after the first tenth of it.
func (s *site) during(x fault, p *place, l load) outcome {
	s.t.Helper()
	type result struct {
		outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		o, err := s.f.traffic(p, l)
		done <- result{o, err}
	}()
	time.Sleep(time.Duration(l.requests) * time.Second / time.Duration(10*l.rate))
	x.begin(s)
	r := <-done
	x.end(s)
	if r.err != nil {
		s.t.Fatalf("%s: %v", x.name, r.err)
	}
	s.recover()
	return r.outcome
}

// recover waits until both functions answer requests for keys that no cache has.
func (s *site) recover() {
	s.t.Helper()
	rig.AwaitRing(s.t, s.sidecars)
	for _, p := range []*place{s.direct, s.cached} {
		s.f.spare++
		spare := load{address: p.address, first: s.f.keys - s.f.spare, keys: 1, requests: 1}
		rig.Eventually(s.t, time.Minute, func() error {
			o, err := s.f.traffic(p, spare)
			if err == nil && o.Failed > 0 {
				err = fmt.Errorf("%s at %s does not answer", s.f.name, p.address)
			}
			return err
		})
	}
}

// measure runs a load, once for the statements and, if the traffic program reports no times, once more through a relay that
// measures them: for keys that are next keys further.
func (s *site) measure(p *place, l load, next int) (m measurement) {
	s.t.Helper()
	before := p.sql.count()
	m.outcome = s.run(p, l)
	m.Statements = p.sql.count() - before
	if s.f.relayed != nil {
		r := newRelay(s.t, p.address, s.f.relayed)
		l.address = r.address
		l.first += next
		s.run(p, l)
		m.P50, m.P99 = r.stop()
	}
	return m
}

func (s *site) run(p *place, l load) outcome {
	s.t.Helper()
	o, err := s.f.traffic(p, l)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func engineOf(t *testing.T, name string) rig.Engine {
	t.Helper()
	i := slices.IndexFunc(rig.Engines, func(e rig.Engine) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("rig has no engine %q", name)
	}
	return rig.Engines[i]
}
