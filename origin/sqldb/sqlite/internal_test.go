package sqlite

import (
	"database/sql/driver"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

func FuzzSQLiteURI(f *testing.F) {
	for _, seed := range []string{
		"rows.db", "/a b/rows?.db", "file:x.db?mode=rw&_pragma=a", "file::memory:?cache=shared", "file:%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		read, write, err := connectionURIs(dsn)
		if err != nil {
			return
		}
		for uri, pragma := range map[string]string{read: "query_only(1)", write: "foreign_keys(1)"} {
			path, query, _ := strings.Cut(strings.TrimPrefix(uri, "file:"), "?")
			values, err := url.ParseQuery(query)
			if err != nil || !values.Has("mode") || !slices.Contains(values["_pragma"], pragma) {
				t.Fatalf("%q: %v", uri, err)
			}
			if plain, err := url.PathUnescape(path); !strings.HasPrefix(dsn, "file:") && (err != nil || plain != dsn) {
				t.Fatalf("%q became %q, %v", dsn, plain, err)
			}
		}
	})
}

// A file may be removed between the look at it and the connection to it. Neither connection then creates an empty one.
func TestConnectionsCreateNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	database, err := connect(origin.SourceConfig{Name: "db", DSN: path})
	if err != nil {
		t.Fatal(err)
	}
	for name, connector := range map[string]driver.Connector{"reads": database.Reads, "writes": database.Writes} {
		conn, err := connector.Connect(t.Context())
		if err == nil {
			_ = conn.Close() // the test fails anyway
			t.Errorf("%s: connected to a file that is missing", name)
		}
		if made, _ := filepath.Glob(path + "*"); made != nil {
			t.Errorf("%s: %v was created", name, made)
		}
	}
}

// Whatever SQLite stores in a column, the row is JSON.
func FuzzCellIsJSON(f *testing.F) {
	types := []string{"BOOLEAN", "INTEGER", "DECIMAL(10,2)", "NUMERIC", "REAL", "DATE", "DATETIME", "TIMESTAMP WITH TIME ZONE", "TIME",
		"JSON", "BLOB", "TEXT", ""}
	for i := range types {
		for _, v := range []float64{0, math.Copysign(0, -1), math.Inf(1), math.NaN(), 1e300, 1.005, 2460370.5, -1, 1687366926347} {
			f.Add(uint8(i), v, int64(v), []byte("2024-02-29 01:02:03-05:00"))
		}
		f.Add(uint8(i), 0.5, int64(math.MinInt64), []byte("\xff\"\x00"))
		f.Add(uint8(i), 0.5, int64(math.MaxInt64), []byte("{\"\xff\":1}"))
	}
	f.Fuzz(func(t *testing.T, kind uint8, float float64, integer int64, text []byte) {
		for _, unit := range []string{"", origin.IntegerSeconds, origin.IntegerMilliseconds} {
			for _, v := range []any{float, integer, string(text), text} {
				cell := cells{unit}.cell("v", types[int(kind)%len(types)], v)
				row := rowjson.EncodeRow([]string{"v"}, []rowjson.Cell{cell})
				if _, err := rowjson.ParseRow(row); err != nil {
					t.Fatalf("%v in %s: %q: %v", v, types[int(kind)%len(types)], row, err)
				}
			}
		}
	})
}
