package sqldb_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// caseInsensitive are the types of columns for which Alice equals alice.
var caseInsensitive = map[string][]string{
	"postgres": {"citext", "text COLLATE nocase"},
	"mysql":    {"VARCHAR(50) COLLATE utf8mb4_general_ci", "VARCHAR(50) COLLATE utf8mb4_unicode_ci"},
	"sqlite":   {"TEXT COLLATE NOCASE"},
}

// Whether a dataset has a table, a batch query or a query with the key in its result: keys are compared by their bytes. Without the
// key, the database compares.
func testCaseOfKeys(t *testing.T, d database) {
	if d.driver == "postgres" {
		d.exec(t, "CREATE EXTENSION citext")
		d.exec(t, "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
	}
	parameter := d.placeholders("?")
	for i, column := range caseInsensitive[d.driver] {
		t.Run(column, func(t *testing.T) {
			table := fmt.Sprint("users", i)
			d.exec(t, "DROP TABLE IF EXISTS "+table)
			d.exec(t, "CREATE TABLE "+table+" (name "+column+" PRIMARY KEY, v VARCHAR(9))")
			d.exec(t, "INSERT INTO "+table+" VALUES ('alice', 'x'), ('BOB', 'y')")
			query := "SELECT name, v FROM " + table + " WHERE name = " + parameter
			batch := "SELECT name, v FROM " + table + " WHERE name IN (?)"
			if d.driver == "postgres" {
				batch = "SELECT name, v FROM " + table + " WHERE name = ANY($1)"
			}
			exact := map[string]string{"alice": "x", "Alice": "absent", "ALICE": "absent", "BOB": "y", "bob": "absent", "carol": "absent"}
			for way, ds := range map[string]origin.Dataset{
				"table": {Table: table, Key: []string{"name"}, Value: "v"}, "query": {Query: query, Key: []string{"name"}, Value: "v"},
				"batch": {Query: query, Batch: batch, Value: "v"}, "both": {Query: query, Batch: batch, Key: []string{"name"}, Value: "v"},
			} {
				t.Run(way, func(t *testing.T) { checkOutcomes(t, d.dataset(t, ds), exact) })
			}
			checkOutcomes(t, d.dataset(t, origin.Dataset{Query: query, Value: "v"}), map[string]string{
				"alice": "x", "Alice": "x", "ALICE": "x", "BOB": "y", "bob": "y", "carol": "absent",
			})
			w := d.rows(t, origin.Dataset{Table: table, Key: []string{"name"}, Value: "v"})
			if _, err := w.Write(soon(t), origin.Change{Key: "Alice", Data: []byte("z")}); !errors.Is(err, origin.ErrInvalidKey) {
				t.Errorf("a write of another spelling: %v; want an invalid key", err)
			}
			if _, err := w.Write(soon(t), origin.Change{Key: "Alice", Delete: true}); err != nil || d.count(t, "SELECT count(*) FROM "+table) != 2 {
				t.Errorf("a deletion of another spelling: %v, or it has deleted the row", err)
			}
			missing := origin.Dataset{Name: "rows", Query: "SELECT v FROM " + table + " WHERE name = " + parameter, Key: []string{"name"}}
			if err := d.open(t).Check(soon(t), missing); err == nil || !strings.Contains(err.Error(), `key: there is no column "name"`) {
				t.Errorf("a query without the column of its key: %v", err)
			}
		})
	}
}
