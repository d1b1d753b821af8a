package sqldb_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func testCheckWritable(t *testing.T, d database) {
	for _, statement := range []string{
		"CREATE TABLE good (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)",
		"CREATE TABLE number (k INTEGER PRIMARY KEY, v VARCHAR(9), ver BIGINT)",
		"CREATE TABLE indexed (k VARCHAR(9), v VARCHAR(9), ver BIGINT)",
		"CREATE UNIQUE INDEX by_k ON indexed (k)",
		"CREATE TABLE many (k VARCHAR(9), v VARCHAR(9), ver BIGINT)",
		"CREATE INDEX by_k2 ON many (k)",
		"CREATE TABLE pair (k VARCHAR(9), v VARCHAR(9), ver BIGINT, PRIMARY KEY (k, v))",
		"CREATE TABLE small (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver INT)",
		"CREATE TABLE word (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver VARCHAR(9))",
	} {
		d.exec(t, statement)
	}
	db := d.open(t)
	cases := map[string]string{"good": "", "number": "", "indexed": "",
		"many": `key: column "k" of table many is not unique`, "pair": `key: column "k" of table pair is not unique`, "small": `version: column "ver" must be a bigint`,
		"word": `version: column "ver" must be a bigint`, "nowhere": "nowhere"}
	if d.driver == "sqlite" {
		cases["small"] = "" // every integer of SQLite has 64 bits
	}
	if d.driver == "mysql" {
		d.exec(t, "CREATE TABLE isam (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT) ENGINE = MyISAM")
		cases["isam"] = "has no transactions"
	}
	for table, want := range cases {
		err := db.CheckWritable(soon(t), origin.Dataset{Name: "rows", Table: table, Key: []string{"k"}, Version: "ver"})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", table, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), `dataset "rows"`) {
			t.Errorf("got %v, want the names of origin and dataset", err)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM good"); n != 0 {
		t.Errorf("the check has written %d rows", n)
	}
}

func testCheckWritableOfAReadOnlyAccount(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)")
	ds := origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}, Version: "ver"}
	switch d.driver {
	case "postgres":
		schema := d.dsn[strings.LastIndex(d.dsn, "=")+1:]
		d.exec(t, "CREATE ROLE reader LOGIN PASSWORD 'reader'")
		d.exec(t, "GRANT USAGE ON SCHEMA "+schema+" TO reader")
		d.exec(t, "GRANT SELECT, INSERT ON r TO reader")
		d.dsn = strings.Replace(d.dsn, "ringside:ringside@", "reader:reader@", 1)
	case "mysql": // whose account may not create accounts
		d.exec(t, "CREATE VIEW readable AS SELECT DISTINCT k, v, ver FROM r")
		ds.Table = "readable"
	case "sqlite":
		d.dsn = d.fileURL("mode=ro")
	}
	db := d.open(t)
	if err := db.Check(soon(t), ds); err != nil {
		t.Errorf("check of reads: %v", err)
	}
	err := db.CheckWritable(soon(t), ds)
	if err == nil || !strings.Contains(err.Error(), "UPDATE") || !strings.Contains(err.Error(), "DELETE: ") ||
		strings.Count(err.Error(), "a writable dataset needs an account that may") != 1 {
		t.Errorf("got %v", err)
	}
	if d.driver == "postgres" && err != nil && !strings.Contains(err.Error(), "writes: UPDATE, DELETE: ") {
		t.Errorf("got %v, want one reason for UPDATE and DELETE", err)
	}
	w, err := db.Writer(ds)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(soon(t), origin.Change{Key: "a", Delete: true})
	if d.driver == "mysql" {
		return // whose account lacks no right; only this view cannot be written
	}
	if err == nil || !strings.Contains(err.Error(), "the account of the DSN may not do this; `ringside validate` says") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

// Otherwise the database would reject the query at run time, for each key.
func testCheckRejectsAQueryThatWrites(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('0', 'x')")
	mark := d.placeholders("?")
	queries := []string{"DELETE FROM r WHERE k = " + mark + " RETURNING v"}
	if d.driver == "postgres" {
		queries = append(queries, "WITH d AS (DELETE FROM r RETURNING v) SELECT v FROM d WHERE v = $1")
	}
	for _, query := range queries {
		if err := d.open(t).Check(soon(t), origin.Dataset{Name: "rows", Query: query}); err == nil {
			t.Errorf("accepted %s", query)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM r"); n != 1 {
		t.Error("a check has deleted a row")
	}
}

func TestConnectionErrorOfPostgresHasOneLine(t *testing.T) {
	for _, dsn := range []string{
		"postgres://user:" + canary + "@127.0.0.1:1/db", "postgres://user:" + canary + "@127.0.0.1:1,127.0.0.1:2/db",
	} {
		d := database{driver: "postgres", dsn: dsn}
		ds := origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}}
		db := d.open(t)
		for _, err := range []error{db.Check(soon(t), ds), db.CheckWritable(soon(t), ds)} {
			text := err.Error()
			once := strings.Count(text, "dial tcp 127.0.0.1:1:") == 1
			if !once || strings.Contains(text, "\n") || strings.Contains(text, canary) {
				t.Errorf("got %q", text)
			}
		}
	}
}

func TestConnectionErrorWrapsItsCause(t *testing.T) {
	d := database{driver: "postgres", dsn: "postgres://user@127.0.0.1:1/db"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w, err := d.open(t).Writer(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(ctx, origin.Change{Key: "a", Delete: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
