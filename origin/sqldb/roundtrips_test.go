package sqldb_test

import (
	"bytes"
	"context"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// wire counts the round trips of all connections through it, and keeps what clients send.
type wire struct {
	mu      sync.Mutex
	trips   int
	waiting map[net.Conn]bool // :: client → it was the last to send
	sent    bytes.Buffer
}

// forward is for interpose.
func (w *wire) forward(client, server net.Conn) {
	go func() {
		defer client.Close()
		w.copy(client, server, func([]byte) {
			if w.waiting[client] { // not before: to what closes a statement there is no answer
				w.trips++
			}
			w.waiting[client] = false
		})
	}()
	w.copy(server, client, func(b []byte) {
		w.waiting[client] = true
		w.sent.Write(b)
	})
}

func (w *wire) copy(to, from net.Conn, note func([]byte)) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		w.mu.Lock()
		note(b[:n])
		w.mu.Unlock()
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// during returns how many round trips run takes at least, of three times: the check of the server for a failover has its own.
func (w *wire) during(run func()) int {
	fewest := math.MaxInt
	for range 3 {
		before := w.count()
		run()
		fewest = min(fewest, w.count()-before)
	}
	return fewest
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trips
}

// hasSent reports whether a client has sent text.
func (w *wire) hasSent(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.sent.Bytes(), []byte(text))
}

// through returns d behind a wire.
func (d database) through(t *testing.T) (database, *wire) {
	w := &wire{waiting: map[net.Conn]bool{}}
	if d.driver == "postgres" {
		d.dsn = strings.Replace(d.dsn, hostOf(d.dsn), interpose(t, hostOf(d.dsn), w.forward), 1)
		return d, w
	}
	from, to := strings.Index(d.dsn, "@tcp(")+len("@tcp("), strings.Index(d.dsn, ")/")
	d.dsn = d.dsn[:from] + interpose(t, d.dsn[from:to], w.forward) + d.dsn[to:]
	return d, w
}

// TestRoundTripsOfALoad: each takes as long as the network does, whatever the machine.
func TestRoundTripsOfALoad(t *testing.T) {
	for name, start := range starts {
		if name == "sqlite" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT, f FLOAT, v VARCHAR(9))")
			for i := range 40 {
				d.exec(t, "INSERT INTO r VALUES ('k"+strconv.Itoa(i)+"', 7, 0.1, 'x')")
			}
			d, w := d.through(t)
			db := d.open(t)
			rows, values := mustDataset(t, db, origin.Dataset{Table: "r", Key: []string{"k"}}), mustDataset(t, db,
				origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
			load := func(o origin.Origin, n int) func() {
				keys := make([]string, n)
				for i := range keys {
					keys[i] = "k" + strconv.Itoa(i)
				}
				return func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // the limit is the same for half a minute
					defer cancel()
					results, err := o.Load(ctx, keys)
					if err != nil {
						t.Fatal(err)
					}
					for i, r := range results {
						if r.Err != nil || len(r.Value.Data) == 0 {
							t.Errorf("%d keys: %q: %v", n, keys[i], r.Err)
						}
					}
				}
			}
			for _, n := range []int{1, 2, 3, 40} { // the first ones connect, read the catalog, and prepare
				load(rows, n)()
				load(values, n)()
			}
			for _, o := range []origin.Origin{rows, values, rows} {
				if got := w.during(load(o, 1)); got != 1 {
					t.Errorf("a load of one key takes %d round trips, want 1", got)
				}
			}
			if got := w.during(load(rows, 3)); got != 1 {
				t.Errorf("a load of three keys takes %d round trips, want 1", got)
			}
			if got := w.during(load(rows, 40)); got > 2 { // MySQL prepares it
				t.Errorf("a load of 40 keys takes %d round trips, want at most 2", got)
			}
			if w.hasSent(", false)") {
				t.Error("a setting stays in a session although the server sees another client: others may get the session")
			}
		})
	}
}

func mustDataset(t *testing.T, db interface {
	Dataset(origin.Dataset) (origin.Origin, error)
}, ds origin.Dataset) origin.Origin {
	t.Helper()
	ds.Name = "rows"
	o, err := db.Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// PostgreSQL plans a statement with = ANY($1) for each run, which takes longer than to run it.
func TestOneKeyIsPlannedOnce(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, "CREATE TABLE r (k text, n int, v text, PRIMARY KEY (k, n))")
	d.exec(t, "INSERT INTO r VALUES ('a', 1, 'x')")
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows := mustDataset(t, db, origin.Dataset{Table: "r", Key: []string{"k", "n"}, Value: "v"})
	planned := mustDataset(t, db, origin.Dataset{Value: "n", Query: "SELECT string_agg(generic_plans || ' of ' || generic_plans + custom_plans, ', ') AS n " +
		"FROM pg_prepared_statements WHERE statement LIKE 'SELECT t.%' AND $1 <> ''"})
	for range 20 { // PostgreSQL plans the first five for their parameters
		d.wantValue(t, rows, "a/1", "x")
	}
	d.wantValue(t, planned, "a", "15 of 20")
}

// A query that changes the settings of its session does not change the values of other ones.
func TestSettingsThatAQueryChanges(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, formats)
	d.exec(t, formatsRow)
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	table := mustDataset(t, db, origin.Dataset{Table: "formats", Key: []string{"k"}, Version: "ver"})
	changes := mustDataset(t, db, origin.Dataset{Query: "SELECT set_config('bytea_output', 'escape', false) || " +
		"set_config('TimeZone', 'Asia/Tokyo', false) AS v WHERE $1 <> ''", Value: "v"})
	for range 3 {
		d.wantValue(t, table, "é", formatsValue)
		d.wantValue(t, changes, "a", "escapeAsia/Tokyo")
	}
	d.wantValue(t, table, "é", formatsValue)
}
