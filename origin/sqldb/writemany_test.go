package sqldb_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// wantBatch fails the test unless the rows of a batch at bad are refused, and all others are written and read.
func wantBatch(t *testing.T, w rows, cs []origin.Change, bad map[int]error) {
	t.Helper()
	results := w.WriteMany(soon(t), cs)
	for i, r := range results {
		switch {
		case !errors.Is(r.Err, bad[i]):
			t.Errorf("row %d: got %v, want %v", i, r.Err, bad[i])
		case r.Err == nil && !cs[i].Delete:
			if read := loadOne(t, w, cs[i].Key); string(read.Data) != string(r.Value.Data) || read.Version != r.Value.Version {
				t.Errorf("row %d: wrote %s at version %d, read %s at version %d", i, r.Value.Data, r.Value.Version, read.Data, read.Version)
			}
		}
	}
}

// Rows that the database refuses are undone, and the others are one transaction.
func testBatchWithRefusedRows(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT UNIQUE, m INT CHECK (m < 10), ver BIGINT NOT NULL DEFAULT 1)")
	d.exec(t, "INSERT INTO r (k, n, m) VALUES ('a', 1, 1), ('b', 2, 2), ('c', 3, 3)")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver"})
	cs := []origin.Change{
		{Key: "a", Data: []byte(`{"m":5}`)}, {Key: "b", Data: []byte(`{"m":50}`)}, {Key: "c", Data: []byte(`{"m":6}`), If: origin.Condition{Version: 7}},
		{Key: "d", Data: []byte(`{"n":1}`)}, {Key: "e", Data: []byte(`{"nope":1}`)}, {Key: "f", Data: []byte(`{"n":8,"m":8}`)},
		{Key: "g", Data: []byte(`{"n":"x"}`)}, {Key: "z", Data: []byte(`{"n":9,"m":9}`)},
	}
	invalid := origin.ErrInvalidValue
	wantBatch(t, w, cs, map[int]error{1: invalid, 2: origin.ErrConflict, 3: invalid, 4: invalid, 6: invalid})
	if n := d.count(t, "SELECT COUNT(*) FROM r WHERE k = 'a' AND m = 5 OR k = 'b' AND m = 2 OR k = 'c' AND m = 3 OR k IN ('f', 'z')"); n != 5 {
		t.Errorf("got %d rows as they must be, want 5", n)
	}
	if n := d.count(t, "SELECT COUNT(*) FROM r"); n != 5 {
		t.Errorf("got %d rows, want 5: what was refused is there", n)
	}
	var many []origin.Change
	for i := range 1000 {
		many = append(many, origin.Change{Key: fmt.Sprint("m", i), Data: []byte(fmt.Sprintf(`{"n":%d,"m":1}`, 100+i))})
	}
	wantBatch(t, w, many[:50], nil)
	results := w.WriteMany(soon(t), many)
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("row %d of %d: %v", i, len(many), r.Err)
		}
	}
}

// Where the database refuses the transaction and does not tell because of which row, each row is written alone.
func testBatchRefusedAsAWhole(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE parent (id INT PRIMARY KEY)")
	d.exec(t, "INSERT INTO parent VALUES (1)")
	switch d.driver {
	case "postgres":
		d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
	case "sqlite":
		d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT)")
		d.exec(t, "CREATE TRIGGER t BEFORE INSERT ON r WHEN NEW.n > 1 BEGIN SELECT RAISE(ROLLBACK, 'too large'); END")
	default:
		d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT, FOREIGN KEY (n) REFERENCES parent (id))")
	}
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	wantBatch(t, w, []origin.Change{
		{Key: "a", Data: []byte(`{"n":1}`)}, {Key: "b", Data: []byte(`{"n":2}`)}, {Key: "c", Data: []byte(`{"n":1}`)}, {Key: "d", Delete: true},
	}, map[int]error{1: origin.ErrInvalidValue})
	if n := d.count(t, "SELECT COUNT(*) FROM r"); n != 2 {
		t.Errorf("got %d rows, want 2", n)
	}
}

// TestRoundTripsOfABatch: the statements of many rows travel together, those that update as well as those that create.
func TestRoundTripsOfABatch(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT, s VARCHAR(9), ver BIGINT NOT NULL DEFAULT 1)")
	d, wire := d.through(t)
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver"})
	for name, value := range map[string]string{"whole": `{"n":%d,"s":"x"}`, "part": `{"n":%d}`} {
		for _, rows := range []int{2, 100, 1000} {
			batch := 0
			write := func() {
				batch++
				cs := make([]origin.Change, rows)
				for i := range cs {
					cs[i] = origin.Change{Key: fmt.Sprintf("%s%d", name[:1], i), Data: fmt.Appendf(nil, value, batch)}
					if i%2 == 0 {
						cs[i].Key = fmt.Sprintf("%d%s%d", batch, name[:1], rows+i) // a new one
					}
				}
				for i, r := range w.WriteMany(soon(t), cs) {
					if want := fmt.Sprintf(`"n":%d,`, batch); r.Err != nil || !strings.Contains(string(r.Value.Data), want) {
						t.Fatalf("row %d of %d: %s, %v; want %s", i, rows, r.Value.Data, r.Err, want)
					}
				}
			}
			write() // connects, and reads the catalog
			// Of a part, the UPDATE and the INSERT for those that are new. PostgreSQL may answer in pieces, but not for each row.
			if got, most := wire.during(write), 3+rows/25; got > most {
				t.Errorf("%s: a batch of %d rows takes %d round trips, want at most %d", name, rows, got, most)
			}
		}
	}
	if n := d.count(t, "SELECT COUNT(*) FROM r WHERE ver > 1 AND ver < 1000"); n != 0 {
		t.Errorf("%d rows have versions that are too small", n)
	}
}

// Rows whose columns differ, through poolers, which know no prepared statements, too: some update, some create, and some do neither.
func TestBatchOfDifferentRows(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n INT, m INT, ver BIGINT NOT NULL DEFAULT 1)")
		d.exec(t, "INSERT INTO r (k, n, m) SELECT 'a' || i, 0, 0 FROM generate_series(0, 149) AS i")
		w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver"})
		var cs []origin.Change
		for i := range 200 {
			cs = append(cs, origin.Change{Key: fmt.Sprint("a", i), Data: fmt.Appendf(nil, `{"%c":7}`, "nm"[i/2%2])})
		}
		cs[7] = origin.Change{Key: "a7", Delete: true}
		cs[8].If.Version = 9
		cs[9].Data = []byte(`{"n":7,"m":7}`)
		wantBatch(t, w, cs, map[int]error{8: origin.ErrConflict})
		for column, want := range map[string]int{"n": 99, "m": 100} {
			if n := d.count(t, "SELECT COUNT(*) FROM r WHERE "+column+" = 7"); n != want {
				t.Errorf("%s was written to %d rows, want %d", column, n, want)
			}
		}
	})
}
