package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

const canary = "c4n4ry"

// Drivers quote a DSN that they cannot parse, including its password.
func TestNoErrorContainsASecret(t *testing.T) {
	for _, c := range []struct{ driver, dsn string }{
		{"postgres", "postgres://user:" + canary + "@host:notaport/db"},
		{"postgres", "postgres://user:" + canary + "@host/db?connect_timeout=" + canary},
		{"postgres", "postgres://user:" + canary + "@host/db?sslmode=" + canary},
		{"postgres", "postgres://user:a/" + canary + "@host/db"},
		{"postgres", "postgres://user:%zz" + canary + "@host/db"},
		{"postgres", "host=h password='" + canary},
		{"postgres", "password " + canary},
		{"postgres", "host=h password=" + canary + " sslrootcert=/nowhere/" + canary},
		{"postgres", ""},
		{"mysql", "user:" + canary + "@host"},
		{"mysql", "user:" + canary + "@tcp(host:3306"},
		{"mysql", "user:" + canary + "@" + canary + "(host)/db"},
		{"mysql", "user:pass@tcp(host)/db?parseTime=" + canary},
		{"mysql", "user:pass@tcp(host)/db?tls=" + canary},
		{"mysql", ""},
		{"sqlite", "file:x.db?_key=" + canary + "%zz"},
		{"sqlite", "file:x.db?vfs=a&vfs=" + canary},
		{"sqlite", "postgres://user:" + canary + "@host/db"},
		{"sqlite", "user:" + canary + "@tcp(host:3306)/db"},
		{"sqlite", "host=h password=" + canary},
		{"sqlite", ":memory:"},
		{"sqlite", ""},
		{"oracle", canary},
	} {
		config := origin.SourceConfig{Name: "db", DSN: c.dsn}
		_, err := openDB(c.driver, config)
		if err == nil {
			t.Errorf("%s %q was opened", c.driver, c.dsn)
			continue
		}
		for _, printed := range []string{
			err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%v %+v %#v %s", config, config, config, &config),
		} {
			if strings.Contains(printed, canary) {
				t.Errorf("%s: the secret is in %s", c.driver, printed)
			}
		}
	}
}

func TestNoConnectionErrorContainsASecret(t *testing.T) {
	for _, c := range []struct{ driver, dsn string }{
		{"postgres", "postgres://user:" + canary + "@127.0.0.1:1/db"},
		{"postgres", "postgres://user:a#" + canary + "@127.0.0.1:1/db"},
		{"mysql", "user:" + canary + "@tcp(127.0.0.1:1)/db"},
		{"sqlite", "file:/nowhere/x.db?_key=" + canary},
	} {
		db, err := openDB(c.driver, origin.SourceConfig{Name: "db", DSN: c.dsn})
		if err != nil {
			if strings.Contains(err.Error(), canary) {
				t.Errorf("%s: the secret is in %v", c.driver, err)
			}
			continue
		}
		o, err := db.Dataset(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Load(soon(t), []string{"a"})
		if err == nil || strings.Contains(fmt.Sprintf("%+v", err), canary) {
			t.Errorf("%s: %v", c.driver, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenDoesNotConnect(t *testing.T) {
	for driver, dsn := range map[string]string{
		"postgres": "postgres://user@127.0.0.1:1/db", "mysql": "user@tcp(127.0.0.1:1)/db", "sqlite": "/nowhere/x.db",
	} {
		db, err := openDB(driver, origin.SourceConfig{Name: "db", DSN: dsn})
		if err != nil {
			t.Errorf("%s: %v", driver, err)
			continue
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMissingSQLiteFileIsNotCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	d := database{driver: "sqlite", dsn: path}
	o := d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	if _, err := o.Load(soon(t), []string{"a"}); err == nil || !strings.Contains(err.Error(), "open "+path+": ") {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if made, _ := filepath.Glob(path); made != nil {
		t.Error("a load created a file")
	}
}

func TestInvalidDatasets(t *testing.T) {
	db := database{driver: "postgres", dsn: "postgres://127.0.0.1:1/db"}.open(t)
	for want, ds := range map[string]origin.Dataset{
		"either table and key, or query":  {},
		"set either table and key":        {Table: "r", Key: []string{"k"}, Query: "SELECT $1"},
		"table needs key":                 {Table: "r"},
		"batch belongs to query":          {Table: "r", Key: []string{"k"}, Batch: "SELECT $1"},
		"columns belongs to table":        {Query: "SELECT $1", Columns: []string{"a"}},
		"either value or columns":         {Table: "r", Key: []string{"k"}, Value: "v", Columns: []string{"a"}},
		"with its parameter, $1":          {Query: "SELECT 1"},
		"its keys once, as in: = ANY($1)": {Query: "SELECT $1", Batch: "SELECT 1"},
	} {
		ds.Name = "rows"
		_, err := db.Dataset(ds)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", ds, err, want)
		}
	}
}

func testCheck(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)")
	db := d.open(t)
	table := func(change func(*origin.Dataset)) origin.Dataset {
		ds := origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}, Version: "ver", Value: "v"}
		change(&ds)
		return ds
	}
	query := func(query, batch string) origin.Dataset {
		if d.driver == "postgres" {
			query, batch = strings.ReplaceAll(query, "?", "$1"), strings.ReplaceAll(batch, "IN (?)", "= ANY($1)")
		}
		return origin.Dataset{Name: "rows", Query: query, Batch: batch, Version: "ver"}
	}
	const good = "SELECT v, ver FROM r WHERE k = ?"
	for _, c := range []struct {
		ds   origin.Dataset
		want string // of the error; empty for none
	}{
		{table(func(*origin.Dataset) {}), ""},
		{table(func(ds *origin.Dataset) { ds.Table = "nowhere" }), "nowhere"},
		{table(func(ds *origin.Dataset) { ds.Key = []string{"kk"} }), `key: there is no column "kk": it has k, v, ver`},
		{table(func(ds *origin.Dataset) { ds.Version = "vv" }), `version: there is no column "vv"`},
		{table(func(ds *origin.Dataset) { ds.Value = "vv" }), `value: there is no column "vv"`},
		{table(func(ds *origin.Dataset) { ds.Value, ds.Columns = "", []string{"v", "w"} }), `columns: there is no column "w"`},
		{table(func(ds *origin.Dataset) { ds.Version = "v" }), `column "v" is not an integer`},
		{query(good, ""), ""},
		{query(good, "SELECT k, v, ver FROM r WHERE k IN (?)"), ""},
		{query("SELEKT v FROM r WHERE k = ?", ""), "query"},
		{query(good, "SELECT k, v, ver FROM r WHERE kk IN (?)"), "batch"},
		{query(good, "SELECT k, v FROM r WHERE k IN (?)"), `version: there is no column "ver"`},
		{query("SELECT v, v, ver FROM r WHERE k = ?", ""), `two columns are named "v"`},
	} {
		err := db.Check(soon(t), c.ds)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v:\ngot  %v\nwant %q", c.ds, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), `origin "db", dataset "rows"`) {
			t.Errorf("got %v, want the names of origin and dataset", err)
		}
	}
}

// A PostgreSQL server waits for the client to begin.
func TestAddressOfAnotherServerThanMySQLIsReported(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	db := database{driver: "mysql", dsn: "user:" + canary + "@tcp(" + ln.Addr().String() + ")/db"}.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = db.Check(ctx, origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), canary) ||
		!strings.Contains(err.Error(), "no MySQL or MariaDB has answered at "+ln.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestCheckOfADatabaseThatIsDown(t *testing.T) {
	d := database{driver: "postgres", dsn: "postgres://user@127.0.0.1:1/db"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := d.open(t).Check(ctx, origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}}); err == nil {
		t.Error("got no error")
	}
}
