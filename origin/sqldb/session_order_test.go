package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// A pooler may send the result of another statement, not all results, or none. No row may then look absent, and no value may be that
// of another key: the statement is repeated on another connection.
func TestResultsThatDoNotBelongToTheStatement(t *testing.T) {
	d := startPostgres(t)
	for name, fault := range map[string]func(*proxy) *atomic.Int32{
		"stray": func(p *proxy) *atomic.Int32 { return &p.stray }, "missing": func(p *proxy) *atomic.Int32 { return &p.cut },
		"none": func(p *proxy) *atomic.Int32 { return &p.ready }, "shifted": func(p *proxy) *atomic.Int32 { return &p.shift },
	} {
		t.Run(name, func(t *testing.T) {
			d.fillExact(t, map[string]string{"a": "1", "b": "2"})
			p := newProxy(t, d.dsn)
			n := fault(p)
			behind := d
			behind.dsn = p.dsn
			ds := origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v", Version: "ver"}
			single := origin.Dataset{Query: "SELECT v, ver FROM conformance WHERE k = $1", Value: "v", Version: "ver"}
			table, query := behind.rows(t, ds), behind.dataset(t, single)
			for round := range 3 { // in the first one, a new connection has the fault
				for _, o := range []origin.Origin{table, query} {
					n.Store(1)
					checkOutcomes(t, o, map[string]string{"a": "1", "b": "2", "c": "absent"})
				}
				n.Store(1)
				if page, err := table.List(soon(t), origin.ListQuery{Limit: 10}); err != nil || len(page) < 2 {
					t.Errorf("round %d: listed %v, %v", round, page, err)
				}
				n.Store(1)
				key := fmt.Sprint("new", round)
				for _, c := range []origin.Change{
					{Key: key, Data: []byte("x")}, {Key: key, Data: []byte("y")}, {Key: key, Delete: true},
				} {
					n.Store(1)
					if _, err := table.Write(soon(t), c); err != nil && !errors.Is(err, origin.ErrUnknown) {
						t.Errorf("round %d: %+v: %v", round, c, err)
					}
					n.Store(0)
				}
			}
		})
	}
}

// The answer to COMMIT decides what a write reports.
func TestCommitWithoutAnAnswer(t *testing.T) {
	d := startPostgres(t)
	d.fillExact(t, map[string]string{"a": "1"})
	p := newProxy(t, d.dsn)
	behind := d
	behind.dsn = p.dsn
	w := behind.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v", Version: "ver"})
	loadOne(t, w, "a")
	p.commitUnanswered.Store(true)
	_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte("2")})
	if !errors.Is(err, origin.ErrUnknown) || !strings.Contains(err.Error(), "results of the statements") {
		t.Errorf("got %v, want an unknown outcome", err)
	}
	p.commitUnanswered.Store(false)
	checkOutcomes(t, w, map[string]string{"a": "2"})
}

// Callers give up all the time, whose statements the pooler cancels in sessions that others may have by then. Each value must
// be that of its key, and the sessions must serve the others.
func TestCanceledReadsThroughAPooler(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k text PRIMARY KEY, v text, ver bigint)")
		d.exec(t, "INSERT INTO r SELECT 'key-' || n, 'value of key-' || n, n FROM generate_series(1, 200) AS n")
		table := d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v", Version: "ver"})
		single := d.dataset(t, origin.Dataset{Query: "SELECT v FROM r WHERE k = $1", Value: "v"})
		slow := d.dataset(t, origin.Dataset{Query: "SELECT v FROM r, pg_sleep(0.003) WHERE k = $1", Value: "v"})
		var canceled, read atomic.Int64
		var wg sync.WaitGroup
		for worker := range 12 {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			wg.Go(func() {
				for range 150 {
					o := []origin.Origin{table, single, slow}[random.IntN(3)]
					key := fmt.Sprint("key-", 1+random.IntN(200))
					ctx := soon(t)
					if worker%2 == 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, time.Duration(random.IntN(6000))*time.Microsecond)
						defer cancel()
					}
					results, err := o.Load(ctx, []string{key})
					switch {
					case err != nil && worker%2 == 0:
						canceled.Add(1)
					case err != nil:
						t.Errorf("%s: %v", key, err)
					default:
						read.Add(1)
						if got := outcome(results[0]); got != "value of "+key {
							t.Errorf("%s: %s", key, got)
						}
					}
				}
			})
		}
		wg.Wait()
		t.Logf("%d reads, %d canceled", read.Load(), canceled.Load())
		if read.Load() < 900 || canceled.Load() == 0 { // six workers cancel nothing
			t.Errorf("%d reads and %d canceled ones", read.Load(), canceled.Load())
		}
	})
}
