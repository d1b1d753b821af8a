package sqldb_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// An index promises one row if it is unique, of every row, of whole columns, and of no other columns than those of the key.
func testCheckUnique(t *testing.T, d database) {
	type table struct {
		columns, index string // what follows the three columns, and an index that is created afterwards
		unique         bool
	}
	cases := []table{
		{"PRIMARY KEY (k)", "", true}, {"PRIMARY KEY (l, k)", "", true}, {"UNIQUE (l)", "", true}, {"UNIQUE (k, l)", "", true},
		{"UNIQUE (v)", "", false}, {"UNIQUE (k, v)", "", false}, {"PRIMARY KEY (k, l, v)", "", false},
		{"CHECK (v <> '')", "", false}, {"CHECK (v <> '')", "INDEX %s ON %s (k)", false}, {"CHECK (v <> '')", "UNIQUE INDEX %s ON %s (k)", true},
	}
	switch d.engine {
	case "mysql8":
		cases = append(cases, table{"UNIQUE (k(3))", "", false}, table{"CHECK (v <> '')", "UNIQUE INDEX %s ON %s ((LOWER(k)))", false})
	case "mariadb":
		cases = append(cases, table{"UNIQUE (k(3))", "", false}, table{"PRIMARY KEY (k)) WITH SYSTEM VERSIONING -- (", "", true})
	default: // PostgreSQL and SQLite
		cases = append(cases, table{"CHECK (v <> '')", "UNIQUE INDEX %s ON %s (k) WHERE v <> 'x'", false},
			table{"CHECK (v <> '')", "UNIQUE INDEX %s ON %s (lower(k))", false})
	}
	if d.driver == "postgres" {
		cases = append(cases, table{"UNIQUE (k) DEFERRABLE", "", false}, table{"PRIMARY KEY (k)) PARTITION BY HASH (k", "", true},
			table{"CHECK (v <> '')", "UNIQUE INDEX %s ON %s (k) INCLUDE (v)", true})
	}
	if d.driver == "sqlite" {
		cases = append(cases, table{"PRIMARY KEY (k)) WITHOUT ROWID -- (", "", true}, table{"n INTEGER PRIMARY KEY", "", false})
	}
	db := d.open(t)
	for i, c := range cases {
		ds := origin.Dataset{Name: "rows", Table: fmt.Sprint("unique", i), Key: []string{"k", "l"}}
		d.exec(t, fmt.Sprintf("CREATE TABLE %s (k VARCHAR(9) NOT NULL, l VARCHAR(9) NOT NULL, v VARCHAR(9) NOT NULL, %s)", ds.Table, c.columns))
		if c.index != "" {
			d.exec(t, "CREATE "+fmt.Sprintf(c.index, "of_"+ds.Table, ds.Table))
		}
		err := db.CheckUnique(soon(t), ds, time.Minute)
		wrong := origin.FieldErrors(err)
		if c.unique != (err == nil) || err != nil && (len(wrong) != 1 || wrong[0].Field != "key") {
			t.Errorf("%s %s: %v", c.columns, c.index, err)
		}
		ds.Many = true
		if err := db.CheckUnique(soon(t), ds, time.Minute); err != nil {
			t.Errorf("%s %s, rows: many: %v", c.columns, c.index, err)
		}
	}
	_, err := db.Dataset(origin.Dataset{Name: "rows", Table: "unique7", Key: []string{"k"}})
	if err != nil {
		t.Errorf("a start: %v", err)
	}
}

// Nothing promises that a view has one row of a key: only a second row that is found is an error.
func testCheckUniqueOfAView(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (id INTEGER PRIMARY KEY, k VARCHAR(9), l VARCHAR(9))")
	d.exec(t, "CREATE VIEW rows_of_r AS SELECT k, l FROM r")
	db, ds := d.open(t), origin.Dataset{Name: "rows", Table: "rows_of_r", Key: []string{"k"}}
	check := func(ds origin.Dataset, want string) {
		t.Helper()
		err := db.CheckUnique(soon(t), ds, time.Minute)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	check(ds, "")
	d.exec(t, "INSERT INTO r VALUES (1, 'a', 'x'), (2, 'A', 'x'), (3, NULL, 'x'), (4, NULL, 'x'), (5, 'b', 'x')")
	check(ds, "") // each of these keys has one row, whatever the collation
	d.exec(t, "INSERT INTO r VALUES (6, 'b', 'y')")
	check(ds, `key: column "k" of table rows_of_r has two rows of one key: create a unique index of it, or set rows: many if a key has several rows`)
	ds.Key = []string{"k", "l"}
	check(ds, "")
	d.exec(t, "INSERT INTO r VALUES (7, 'b', 'y')")
	check(ds, "key: the combination of columns k, l of table rows_of_r has two rows of one key")

	query := map[bool]string{true: "SELECT l FROM r WHERE k = $1", false: "SELECT l FROM r WHERE k = ?"}[d.driver == "postgres"]
	check(origin.Dataset{Name: "rows", Query: query}, "")
	if err := db.CheckUnique(soon(t), ds, time.Nanosecond); err != nil {
		t.Errorf("a search without an end: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.CheckUnique(gone, ds, time.Minute); err == nil || origin.FieldErrors(err) != nil {
		t.Errorf("a canceled search: %v", err)
	}
}
