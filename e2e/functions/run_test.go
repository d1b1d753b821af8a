package functions

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// resultsEnv names the environment variable with the path of the file to which the results are appended, one JSON object per
// line. `make functions` sets it; it selects the long form: more requests, and all databases.
const resultsEnv = "RINGSIDE_FUNCTIONS"

const seed = 14

// form is how much a run sends.
type form struct {
	keys     int // whose first reads are measured
	repeated int // requests for these keys that are measured next
	cached   int // keys that are cached before a fault
	during   int // requests during a fault
	rate     int // of these, per second
}

var (
	short = form{keys: 200, repeated: 400, cached: 100, during: 300, rate: 100} // longer than faultTTL
	long  = form{keys: 1000, repeated: 10000, cached: 400, during: 1000, rate: 100}
)

// result is one row of the table: one function with one database, with its own SQL module or with Ringside.
type result struct {
	Function string             `json:"function"`
	Database string             `json:"database"`
	Via      string             `json:"via"` // direct or ringside
	Lines    int                `json:"setup_lines"`
	Seed     uint64             `json:"seed"`
	First    measurement        `json:"first"`    // of keys that no cache has
	Repeated measurement        `json:"repeated"` // of the same keys
	Faults   map[string]outcome `json:"faults"`
}

// measurement is a load and the statements that the database ran for it.
type measurement struct {
	outcome
	Statements int `json:"statements"`
}

// functions are all network functions, in the order of the table.
var functions = []*function{
	freeradius,
	kamailio,
	powerdns,
	nginx,
	haproxy,
	envoy,
	prometheus,
}

func TestFunctions(t *testing.T) {
	rig.NeedServers(t)
	size, engines := short, 1
	if os.Getenv(resultsEnv) != "" {
		size, engines = long, len(rig.Engines)
	}
	for _, f := range functions {
		for _, engine := range f.engines[:min(engines, len(f.engines))] {
			t.Run(f.name+"/"+engine, func(t *testing.T) { size.test(t, *f, engineOf(t, engine)) })
		}
	}
}

// faultTTL is the ttl of entries while faults are injected: shorter than a fault, so that entries expire during each.
const faultTTL = "2s"

// test checks the answers, measures, and injects all faults. The long form measures one function at a time, with the ttl of its
// page, and then injects faults into several, each at its own site.
func (size form) test(t *testing.T, f function, e rig.Engine) {
	if size == short {
		t.Parallel()
		s := newSite(t, &f, e, faultTTL)
		s.inject(size, s.compareAndMeasure(size))
		return
	}
	var results []result
	measured := t.Run("measured", func(t *testing.T) {
		f := f // its spare keys are those of this site
		results = newSite(t, &f, e, "").compareAndMeasure(size)
	})
	t.Parallel()
	if measured {
		newSite(t, &f, e, faultTTL).inject(size, results)
	}
}

func (s *site) compareAndMeasure(size form) []result {
	s.t.Helper()
	s.compareAnswers()
	return []result{s.measured(s.direct, size), s.measured(s.cached, size)}
}

// inject adds the outcomes of all faults to the results, and records them.
func (s *site) inject(size form, results []result) {
	s.t.Helper()
	for i, p := range []*place{s.direct, s.cached} {
		for _, x := range faults {
			if p.local != nil || x.direct && size == long {
				results[i].Faults[x.name] = s.injected(x, p, size)
			}
		}
		s.record(results[i])
	}
}

func (s *site) measured(p *place, size form) result {
	s.t.Helper()
	r := result{
		Function: s.f.name, Database: p.engine.Name, Via: "direct", Lines: s.f.lines(s.t, s.f.direct),
		Seed: seed, Faults: map[string]outcome{},
	}
	if p.local != nil {
		r.Via, r.Lines = "ringside", s.f.lines(s.t, s.f.ringside)
	}
	l := load{address: p.address, keys: size.keys, requests: size.keys, seed: seed}
	again := l
	again.requests = size.repeated
	r.First, r.Repeated = s.measure(p, l, size.keys), s.measure(p, again, 0)
	return r
}

// injected sends requests during a fault, for keys that were read before or that nobody has read. With Ringside none of them may
// fail, except while the only sidecar that the function knows is down.
func (s *site) injected(x fault, p *place, size form) outcome {
	s.t.Helper()
	l := load{address: p.address, keys: size.cached, requests: size.cached, seed: seed}
	if p.local != nil {
		s.awaitWarm()
	}
	if x.unread {
		l.first = (s.f.keys - reserved) / 2
	} else {
		rig.Eventually(s.t, time.Minute, func() error { // a first load may take too long on a busy machine
			if o := s.run(p, l); o.Failed > 0 {
				return fmt.Errorf("%d of %d first requests for a key failed", o.Failed, o.Requests)
			}
			return nil
		})
	}
	l.requests, l.rate = size.during, size.rate
	o := s.during(x, p, l)
	if p.local != nil && o.Failed > 0 && !(s.f.alone && x.name == localKilled) {
		s.t.Errorf("%s, %s: %d of %d requests failed\n%s", s.f.name, x.name, o.Failed, o.Requests, o.report)
	}
	return o
}

// compareAnswers sends a request of each kind to both.
func (s *site) compareAnswers() {
	s.t.Helper()
	for _, r := range s.f.requests {
		direct, err := s.f.ask(s.direct, r)
		if err != nil {
			s.t.Errorf("%s, %s, direct: %v", s.f.name, r.name, err)
		}
		for _, what := range []string{"from the database", "from the cache"} {
			cached, err := s.f.ask(s.cached, r)
			if err != nil {
				s.t.Errorf("%s, %s, %s: %v", s.f.name, r.name, what, err)
			}
			if direct != r.want || cached != r.want {
				s.t.Errorf("%s, %s, %s: got\n%s\nwith Ringside and\n%s\nwith SQL; want\n%s", s.f.name, r.name, what, cached, direct, r.want)
			}
		}
	}
}

// record logs a result, and appends it to the results of the long form.
func (s *site) record(r result) {
	s.t.Helper()
	line, err := json.Marshal(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%s", line)
	path := os.Getenv(resultsEnv)
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		s.t.Fatal(err)
	}
}
