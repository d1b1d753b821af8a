package sqldb_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// withoutVersion removes the version, which a write changes, from a value.
func withoutVersion(value []byte) string {
	return regexp.MustCompile(`"ver":\d+`).ReplaceAllString(string(value), `"ver":N`)
}

// unwritable are values that SQLite stores although they do not fit their column, or have more digits than Ringside writes.
// They can be read and written back, but not to another row.
var unwritable = []string{
	"DATETIME 'yesterday'", "BOOLEAN 'maybe'", "INTEGER 'abc'", "INTEGER 1.5", "DATE '2024-02-30'", "JSON 'not json'",
	"DATETIME '0000-01-01 00:00:00+05:00'", "TEXT x'00ff'", "TEXT CAST(x'61ff62' AS TEXT)",
	"DATETIME '2024-02-29 12:34:56.123456789'", "DECIMAL(10,2) 1.005",
}

// A row is not written if it becomes too large to be read back, or if the database stores it under another key.
func testWritesThatCouldNotBeReadBack(t *testing.T, d database) {
	key := map[string]string{
		"postgres": "k NUMERIC(5,1)", "mysql": "k VARCHAR(9) COLLATE utf8mb4_general_ci", "sqlite": "k TEXT COLLATE NOCASE",
	}[d.driver]
	d.exec(t, "CREATE TABLE r ("+key+" PRIMARY KEY, v VARCHAR(200), w VARCHAR(200))")
	held, same := "Abc", "abc"
	if d.driver == "postgres" {
		held, same = "5.0", "5"
	}
	d.exec(t, "INSERT INTO r VALUES ('"+held+"', '', '"+strings.Repeat("w", 100)+"')")
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxValueBytes: 150})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w, err := db.Writer(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change origin.Change
		want   error
	}{
		{origin.Change{Key: held, Data: []byte(`{"v":"` + strings.Repeat("v", 50) + `"}`)}, origin.ErrInvalidValue},
		{origin.Change{Key: held, Data: []byte(`{"v":"` + strings.Repeat("v", 150) + `"}`)}, origin.ErrInvalidValue},
		{origin.Change{Key: same, Data: []byte(`{"v":"x"}`)}, origin.ErrInvalidKey},
		{origin.Change{Key: same, Data: []byte(`{"v":"x","w":"y"}`)}, origin.ErrInvalidKey},
		{origin.Change{Key: same, Data: []byte(`{"v":"x"}`), If: origin.Condition{Present: true}}, origin.ErrConflict},
		{origin.Change{Key: same, Data: []byte(`{"v":"x"}`), If: origin.Condition{Absent: true}}, origin.ErrConflict},
		{origin.Change{Key: same, Delete: true}, nil},
		{origin.Change{Key: same, Delete: true, If: origin.Condition{Present: true}}, origin.ErrConflict},
	} {
		v, err := w.Write(soon(t), c.change)
		if !errors.Is(err, c.want) || v.Version != 0 {
			t.Errorf("%+v: %v, want %v", c.change, err, c.want)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM r WHERE v = ''"); n != 1 {
		t.Error("the row has changed")
	}
	if n := d.count(t, "SELECT count(*) FROM r"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// In a dataset with value, a row whose value is NULL is absent, to readers and to writers.
func testConditionsOnANullValue(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('a', NULL, 1), ('b', 'x', 1)")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver", Value: "v"})
	if page, err := w.List(soon(t), origin.ListQuery{Limit: 2}); err != nil || len(page) != 1 || page[0].Key != "b" {
		t.Errorf("listed %v, %v", page, err)
	}
	for _, cond := range []origin.Condition{{Present: true}, {Version: 1}} {
		_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte("x"), If: cond})
		if !errors.Is(err, origin.ErrConflict) {
			t.Errorf("%+v: %v", cond, err)
		}
	}
	absent := origin.Change{Key: "a", Data: []byte("x"), If: origin.Condition{Absent: true}}
	if v, err := w.Write(soon(t), absent); err != nil || v.Version != 2 {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := w.Write(soon(t), absent); !errors.Is(err, origin.ErrConflict) {
		t.Errorf("%v", err)
	}
}

// Writes depend on a unique index of the key; without it, two rows of one key must not both be changed.
func testKeyThatIsNotUnique(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9), v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('a', 'x'), ('a', 'y')")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
	for _, c := range []origin.Change{
		{Data: []byte("new")}, {Data: []byte("new"), If: origin.Condition{Present: true}}, {Delete: true},
	} {
		c.Key = "a"
		if _, err := w.Write(soon(t), c); err == nil || !strings.Contains(err.Error(), "unique") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM r WHERE v IN ('x', 'y')"); n != 2 {
		t.Error("rows have changed")
	}
	if d.driver == "postgres" {
		return // none of its usual collations considers 'b' and 'B' equal
	}
	nocase := map[string]string{"mysql": "utf8mb4_general_ci", "sqlite": "NOCASE"}[d.driver]
	d.exec(t, "CREATE TABLE two (k VARCHAR(9) COLLATE "+nocase+", v VARCHAR(9))")
	d.exec(t, "INSERT INTO two VALUES ('b', 'x'), ('B', 'y')")
	w = d.rows(t, origin.Dataset{Table: "two", Key: []string{"k"}, Value: "v"})
	_, err := w.Write(soon(t), origin.Change{Key: "b", Data: []byte("new"), If: origin.Condition{Present: true}})
	if n := d.count(t, "SELECT count(*) FROM two WHERE v IN ('x', 'y')"); err == nil || n != 2 {
		t.Errorf("%v; %d rows are as they were", err, n)
	}
}

// The writer caches the columns; after an ALTER TABLE it must read them again.
func testWritesToAnAlteredTable(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	if _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "ALTER TABLE r DROP COLUMN v")
	d.exec(t, "ALTER TABLE r ADD COLUMN w INT")
	if _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"y"}`)}); err == nil {
		t.Error("got no error for a dropped column")
	}
	if v, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"w":5}`)}); err != nil {
		t.Errorf("%s, %v", v.Data, err)
	}
}

func testWritesToAMissingTable(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	d.exec(t, "DROP TABLE r")
	for _, c := range []origin.Change{{Key: "a", Data: []byte(`{"v":"x"}`)}, {Key: "a", Delete: true}} {
		_, err := w.Write(soon(t), c)
		if err == nil || errors.Is(err, origin.ErrInvalidValue) || errors.Is(err, origin.ErrUnknown) ||
			!strings.Contains(err.Error(), "read the columns of table r: ") {
			t.Errorf("got %v", err)
		}
	}
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	if _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}); err != nil {
		t.Error(err)
	}
}

func TestDatasetsThatCannotBeWritten(t *testing.T) {
	db := database{driver: "postgres", dsn: "postgres://127.0.0.1:1/db"}.open(t)
	for want, ds := range map[string]origin.Dataset{
		"not one with query":     {Query: "SELECT $1"},
		"table needs key":        {Table: "r"},
		"must be another column": {Table: "r", Key: []string{"k"}, Value: "k"},
	} {
		ds.Name = "rows"
		_, err := db.Writer(ds)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", ds, err, want)
		}
	}
}

// Readers and writers of an SQLite file block a writer; the context limits both waits.
func TestWriteWaitsNoLongerThanItsContext(t *testing.T) {
	d := startSQLite(t)
	d.exec(t, "PRAGMA journal_mode = DELETE")
	d.fillExact(t, map[string]string{"a": "old"})
	w := d.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"})
	conn, err := d.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, begin := range []string{"BEGIN IMMEDIATE", "BEGIN; SELECT * FROM conformance"} {
		if _, err := conn.ExecContext(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := w.Write(ctx, origin.Change{Key: "a", Data: []byte("new")})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, origin.ErrUnknown) {
			t.Errorf("behind %s: %v", begin, err)
		}
		if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	if v := write(t, w, "new"); v.Version != 2 {
		t.Errorf("got version %d, want 2: an abandoned write was made", v.Version)
	}
}
