package table_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/deploy/collector/table"
	"github.com/ringside-cache/ringside/deploy/collector/telemetry"
	"github.com/ringside-cache/ringside/deploy/schema"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 123456000, time.UTC)

// database is an empty database for a test.
type database struct {
	driver, dsn string
	sql         *sql.DB // direct access, without the Table
	table       *table.Table
}

func open(t *testing.T, driver, dsn, sqlDriver, sqlDSN string) *database {
	t.Helper()
	d := &database{driver: driver, dsn: dsn}
	var err error
	if d.sql, err = sql.Open(sqlDriver, sqlDSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.sql.Close() })
	if d.table, err = table.Open(driver, dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.table.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// databases runs a test on each database, with an empty table.
func databases(t *testing.T, test func(t *testing.T, d *database)) {
	for name, open := range map[string]func(t *testing.T) *database{
		"sqlite": func(t *testing.T) *database {
			path := filepath.Join(t.TempDir(), "a b?c.db")
			return open(t, "sqlite", path, "sqlite", "file:"+(&url.URL{Path: path}).EscapedPath())
		},
		"postgres": func(t *testing.T) *database {
			dsn := rig.Postgres(t)
			return open(t, "postgres", dsn, "pgx", dsn)
		},
		"pgbouncer": func(t *testing.T) *database {
			server := rig.NewPostgres(t)
			return open(t, "postgres", rig.PgBouncer(t, server, rig.TransactionPool).DSN, "pgx", server.DSN)
		},
		"mariadb": func(t *testing.T) *database {
			dsn := rig.MariaDB(t)
			return open(t, "mysql", dsn, "mysql", dsn)
		},
		"mysql8": func(t *testing.T) *database {
			dsn := rig.MySQL(t)
			return open(t, "mysql", dsn+"?charset=latin1&AUTOCOMMIT=0&completion_type=1&loc=Europe%2FBerlin", "mysql", dsn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func (d *database) upsert(t *testing.T, rows ...telemetry.Row) {
	t.Helper()
	if err := d.table.Upsert(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
}

func (d *database) delete(t *testing.T, ids ...string) {
	t.Helper()
	if err := d.table.Delete(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
}

// read returns the row as a sidecar reads it, or "" if it does not exist.
func (d *database) read(t *testing.T, id string) string {
	t.Helper()
	db, err := drivers.All().Open(d.driver, origin.SourceConfig{Name: "test", DSN: d.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	o, err := db.Dataset(origin.Dataset{Name: "cnf-metrics", Table: "cnf_metrics", Key: []string{"cnf_id"}, Version: "ver"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	results, err := o.Load(ctx, []string{id})
	if err != nil {
		t.Fatal(err)
	}
	return string(results[0].Value.Data)
}

func (d *database) version(t *testing.T, id string) (ver int64) {
	t.Helper()
	statement := map[bool]string{true: "$1", false: "?"}[d.driver == "postgres"]
	if err := d.sql.QueryRow("SELECT ver FROM cnf_metrics WHERE cnf_id = "+statement, id).Scan(&ver); err != nil {
		t.Fatal(err)
	}
	return ver
}

func (d *database) count(t *testing.T) (n int) {
	t.Helper()
	if err := d.sql.QueryRow("SELECT count(*) FROM cnf_metrics").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func row(id string, value float64) telemetry.Row {
	return telemetry.Row{ID: id, Type: "cpu.total", Value: value, Unit: "percent", Status: telemetry.OK, Time: noon}
}

// One server per database; the subtests run in order, each on an empty table.
func TestDatabases(t *testing.T) {
	databases(t, func(t *testing.T, d *database) {
		for _, part := range []struct {
			name string
			test func(t *testing.T, d *database)
		}{
			{"a sidecar reads the same bytes from all of them", rowsAreReadAlike},
			{"versions grow", versionsGrow},
			{"a row that comes back has a newer version", rowsComeBackNewer},
			{"ids are compared by bytes", idsAreComparedByBytes},
			{"what an earlier run left", heldRows},
			{"more rows than one statement takes", manyRows},
			{"create leaves a table alone", createAgain},
			{"seed", seed},
		} {
			d.exec(t, "DELETE FROM cnf_metrics")
			t.Run(part.name, func(t *testing.T) { part.test(t, d) })
		}
	})
}

func (d *database) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := d.sql.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func rowsAreReadAlike(t *testing.T, d *database) {
	d.upsert(t, row("CNF-001", 42.123456789012345))
	want := `{"cnf_id":"CNF-001","timestamp":"2026-01-02T12:00:00.123456Z","metric_type":"cpu.total",` +
		`"value":42.123456789012344,"unit":"percent","status":"ok","ver":1767355200123456}`
	if got := d.read(t, "CNF-001"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func versionsGrow(t *testing.T, d *database) {
	for i := range int64(3) {
		d.upsert(t, row("a", float64(i)), row("b", 1))
		if got, want := d.version(t, "a"), noon.UnixMicro()+i; got != want {
			t.Errorf("write %d: version %d, want %d", i, got, want)
		}
	}
	changed := telemetry.Row{
		ID: "a", Type: "t", Value: -1.5, Unit: "µs", Status: telemetry.Gone, Time: noon.Add(time.Hour),
	}
	d.upsert(t, changed)
	want := `{"cnf_id":"a","timestamp":"2026-01-02T13:00:00.123456Z","metric_type":"t","value":-1.5,"unit":"µs",` +
		`"status":"gone","ver":1767355200123459}`
	if got := d.read(t, "a"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func rowsComeBackNewer(t *testing.T, d *database) {
	later := row("a", 1)
	for range 5 {
		d.upsert(t, later)
		later.Time = later.Time.Add(100 * time.Millisecond)
	}
	before := d.version(t, "a")
	d.delete(t, "a", "never there")
	d.upsert(t, later)
	if after := d.version(t, "a"); after <= before {
		t.Errorf("the version was %d and is %d", before, after)
	}
}

func idsAreComparedByBytes(t *testing.T, d *database) {
	ids := []string{"proc/1/cpu", "PROC/1/cpu", "é", "e", "fs/ /used", "%", "_", "fs/Straße/used", "fs/Strasse/used"}
	for _, id := range ids {
		d.upsert(t, row(id, 1))
	}
	if n := d.count(t); n != len(ids) {
		t.Errorf("%d rows, want %d", n, len(ids))
	}
	d.delete(t, "_", "é")
	if n := d.count(t); n != len(ids)-2 {
		t.Errorf("%d rows, want %d", n, len(ids)-2)
	}
}

func heldRows(t *testing.T, d *database) {
	for _, id := range []string{
		"n_1/proc/1/cpu", "n_1/proc/ü/rss", "n_1/net/eth0/rx", "n_1/CNF-001", "nx1/proc/1/cpu", "n_1/proc", "n_1/proc0",
		"proc/1/cpu", "n_1/procs/1", "N_1/proc/1/cpu",
	} {
		d.upsert(t, row(id, 5))
	}
	held, err := d.table.Held(t.Context(), []string{"n_1/net/", "n_1/proc/"})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(held, func(a, b telemetry.Row) int { return strings.Compare(a.ID, b.ID) })
	var want []telemetry.Row
	for _, id := range []string{"n_1/net/eth0/rx", "n_1/proc/1/cpu", "n_1/proc/ü/rss"} {
		r := row(id, 5)
		r.Time = time.Time{}
		want = append(want, r)
	}
	if !slices.Equal(held, want) {
		t.Errorf("got  %+v\nwant %+v", held, want)
	}
}

func manyRows(t *testing.T, d *database) {
	const n = 10_000
	rows, ids := make([]telemetry.Row, n), make([]string, n)
	for i := range rows {
		ids[i] = fmt.Sprint("proc/", i, "/cpu")
		rows[i] = row(ids[i], float64(i))
	}
	d.upsert(t, rows...)
	if got := d.count(t); got != n {
		t.Errorf("%d rows, want %d", got, n)
	}
	d.delete(t, ids...)
	if got := d.count(t); got != 0 {
		t.Errorf("%d rows are left", got)
	}
}

func createAgain(t *testing.T, d *database) {
	d.upsert(t, row("CNF-001", 1))
	if err := d.table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := d.count(t); n != 1 {
		t.Errorf("%d rows are left of one", n)
	}
}

func seed(t *testing.T, d *database) {
	d.upsert(t, row("CNF-001", 42))
	statement, err := schema.Files.ReadFile("seed.sql")
	if err != nil {
		t.Fatal(err)
	}
	d.exec(t, string(statement))
	d.exec(t, string(statement))
	if n := d.count(t); n != 14 {
		t.Errorf("%d rows, want 14", n)
	}
	if got := d.read(t, "CNF-001"); !strings.Contains(got, `"value":42,`) {
		t.Errorf("the seed has changed a row that was there: %s", got)
	}
	if got := d.read(t, "CNF-005"); !strings.Contains(got, `"unit":"percent","status":"unknown","ver":1`) {
		t.Errorf("the seed of memory is %s", got)
	}
	d.upsert(t, row("CNF-005", 1))
	if ver := d.version(t, "CNF-005"); ver != 2 {
		t.Errorf("a seeded row that is written has version %d, want 2", ver)
	}
}

func TestOpenRejects(t *testing.T) {
	for name, c := range map[string]struct{ driver, dsn string }{
		"no driver":              {"", "secret"},
		"unknown driver":         {"oracle", "secret"},
		"PostgreSQL without DSN": {"postgres", ""},
		"PostgreSQL":             {"postgres", "postgres://user:secret@host:port/db"},
		"MySQL without DSN":      {"mysql", ""},
		"MySQL":                  {"mysql", "user:secret@tcp(host/db"},
		"SQLite without DSN":     {"sqlite", ""},
		"SQLite":                 {"sqlite", "file:x?secret=%zz"},
	} {
		t.Run(name, func(t *testing.T) {
			tab, err := table.Open(c.driver, c.dsn)
			if err == nil {
				tab.Close()
				t.Fatal("it was taken")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds the DSN: %v", err)
			}
		})
	}
}

// Drivers report details of a failed connection.
func TestErrorsContainNoPasswords(t *testing.T) {
	const closed = "127.0.0.1:1"
	for driver, dsn := range map[string]string{
		"postgres": "postgres://user:secret@" + closed + "/db",
		"mysql":    "user:secret@tcp(" + closed + ")/db",
	} {
		t.Run(driver, func(t *testing.T) {
			tab, err := table.Open(driver, dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Close()
			_, errHeld := tab.Held(t.Context(), []string{"proc/"})
			for _, err := range []error{
				errHeld, tab.Create(t.Context()), tab.Upsert(t.Context(), []telemetry.Row{row("a", 1)}),
				tab.Delete(t.Context(), []string{"a"}),
			} {
				if err == nil || strings.Contains(err.Error(), "secret") {
					t.Errorf("got the error: %v", err)
				}
			}
		})
	}
}
