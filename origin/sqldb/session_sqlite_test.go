package sqldb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// The pragmas of a DSN change neither what is read nor what may be written.
func TestPragmasOfADSN(t *testing.T) {
	for _, parameters := range []string{
		"", "_fk=0", "_foreign_keys=off", "_pragma=foreign_keys(0)", "_query_only=1", "_query_only=0&mode=rw", "_pragma=query_only(0)&mode=rw",
		"_pragma=full_column_names(1)&_pragma=short_column_names(0)", "_pragma=ignore_check_constraints(1)", "_pragma=count_changes(1)",
		"_pragma=read_uncommitted(1)", "_busy_timeout=0", "_pragma=busy_timeout(0)", "_pragma=case_sensitive_like(1)",
	} {
		t.Run("with "+parameters, func(t *testing.T) {
			d := startSQLite(t)
			for _, statement := range []string{
				"CREATE TABLE parent (id INTEGER PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
				"CREATE TABLE r (k TEXT PRIMARY KEY, n INTEGER CHECK (n > 0), p INTEGER REFERENCES parent (id))", "INSERT INTO r VALUES ('a', 1, 1)",
			} {
				d.exec(t, statement)
			}
			d.dsn = "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", " ", "%20").Replace(d.dsn) + "?" + parameters
			db, ds := d.open(t), origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}}
			o, err := db.Dataset(ds)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Check(soon(t), ds), db.CheckWritable(soon(t), ds)); err != nil {
				t.Error(err)
			}
			d.wantValue(t, o, "a", `{"k":"a","n":1,"p":1}`)
			w, err := db.Writer(ds)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(soon(t), origin.Change{Key: "b", Data: []byte(`{"n":2,"p":1}`)}); err != nil {
				t.Error(err)
			}
			d.wantValue(t, o, "b", `{"k":"b","n":2,"p":1}`)
			for _, wrong := range []string{`{"n":0,"p":1}`, `{"n":1,"p":2}`} {
				if _, err := w.Write(soon(t), origin.Change{Key: "b", Data: []byte(wrong)}); !errors.Is(err, origin.ErrInvalidValue) {
					t.Errorf("%s: got %v", wrong, err)
				}
			}
			insert := d.dataset(t, origin.Dataset{Query: "INSERT INTO r (k, n, p) VALUES (?, 1, 1) RETURNING n"})
			if results, err := insert.Load(soon(t), []string{"written"}); err == nil && results[0].Err == nil {
				t.Errorf("a read has written, and returned %s", results[0].Value.Data)
			}
			var n int
			if d.scan(t, &n, "SELECT count(*) FROM r WHERE k = 'written'"); n != 0 {
				t.Error("a read has written a row")
			}
		})
	}
	for _, dsn := range []string{":memory:", "file::memory:", "file:x?mode=memory", "file:x?mode=ro&mode=memory"} {
		if _, err := openDB("sqlite", origin.SourceConfig{Name: "db", DSN: dsn}); err == nil || !strings.Contains(err.Error(), "use a file") {
			t.Errorf("%s: got %v", dsn, err)
		}
	}
}
