package sqldb_test

import (
	"cmp"
	"context"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// rows is a dataset that can be read, written and listed.
type rows struct {
	origin.Origin
	origin.Writer
	origin.Lister
}

func (d database) rows(t testing.TB, ds origin.Dataset) rows {
	t.Helper()
	ds.Name = "rows"
	return rowsIn(t, d.open(t), ds)
}

func rowsIn(t testing.TB, db *sqldb.DB, ds origin.Dataset) rows {
	t.Helper()
	o, err := db.Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	w, err := db.Writer(ds)
	if err != nil {
		t.Fatal(err)
	}
	l, err := db.Lister(ds)
	if err != nil {
		t.Fatal(err)
	}
	return rows{o, w, l}
}

// exactKey is a unique column whose equality is that of bytes.
var exactKey = map[string]string{
	"postgres": "k TEXT PRIMARY KEY", "sqlite": "k TEXT PRIMARY KEY",
	"mysql8":  "k VARCHAR(255) COLLATE utf8mb4_0900_bin PRIMARY KEY",
	"mariadb": "k VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY",
}

func testConformanceWriter(t *testing.T, d database) {
	ds := origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"}
	origintest.ConformanceWriter(t, origintest.WriterSubject{
		New: func(t *testing.T, values map[string]string) origintest.Rows {
			d.fillExact(t, values)
			return d.rows(t, ds)
		},
		Unversioned: func(t *testing.T) origintest.Rows {
			d.fillExact(t, map[string]string{"a": "old"})
			return d.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v"})
		},
		Stuck: func(t *testing.T) (origintest.Rows, func()) {
			d.fillExact(t, map[string]string{"a": "old"})
			return d.rows(t, ds), d.lock(t)
		},
	})
}

func (d database) fillExact(t *testing.T, values map[string]string) {
	t.Helper()
	d.exec(t, "DROP TABLE IF EXISTS conformance")
	d.exec(t, "CREATE TABLE conformance ("+cmp.Or(exactKey[d.engine], exactKey[d.driver])+", v TEXT, ver BIGINT NOT NULL DEFAULT 1)")
	insert := map[bool]string{true: "($1, $2)", false: "(?, ?)"}[d.driver == "postgres"]
	for key, value := range values {
		d.exec(t, "INSERT INTO conformance (k, v) VALUES "+insert, key, value)
	}
}

// fileURL returns the DSN of SQLite with parameters.
func (d database) fileURL(query string) string {
	return "file:" + strings.NewReplacer(" ", "%20", "?", "%3F", "#", "%23", "%", "%25").Replace(d.dsn) + "?" + query
}

// A version identifies one state of a row; otherwise a conditional write could change another state.
func testVersionsOfARecreatedRow(t *testing.T, d database) {
	d.fillExact(t, nil)
	if d.driver == "sqlite" {
		d.dsn = d.fileURL("_pragma=synchronous(0)") // many writes within a millisecond
	}
	rows := d.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"})
	newest := int64(0)
	for range 50 {
		for _, c := range []origin.Change{{Key: "a", Data: []byte("x")}, {Key: "a", Data: []byte("y")}, {Key: "a", Delete: true}} {
			v, err := rows.Write(soon(t), c)
			if err != nil {
				t.Fatal(err)
			}
			if v.Version <= newest && !c.Delete {
				t.Fatalf("version %d after %d", v.Version, newest)
			}
			newest = max(newest, v.Version)
		}
	}
}

// lock makes another transaction block all changes of the row a until release is called.
func (d database) lock(t *testing.T) (release func()) {
	t.Helper()
	conn, err := d.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := func(statement string) {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	t.Cleanup(func() { conn.Close() })
	if d.driver == "sqlite" {
		run("BEGIN IMMEDIATE")
	} else {
		run("START TRANSACTION")
		run("UPDATE conformance SET v = v WHERE k = 'a'")
	}
	return func() { run("ROLLBACK") }
}
