package sqldb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// testListKeys lists the keys as the database prints them, those that Load then finds.
func testListKeys(t *testing.T, d database) {
	types := map[string]string{"BIGINT": "%d", "VARCHAR(20)": "'key %d'", "CHAR(20)": "'char %d'"}
	if d.is("postgres") {
		types["UUID"], types["NUMERIC(20,2)"] = "'00000000-0000-4000-8000-%012d'", "%d.50"
	}
	n := 0
	for columnType, value := range types {
		n++
		table := fmt.Sprint("keys_", n)
		d.exec(t, fmt.Sprintf("CREATE TABLE %s (k %s, v VARCHAR(9))", table, columnType))
		for i := range 50 {
			d.exec(t, fmt.Sprintf("INSERT INTO %s VALUES (%s, 'v')", table, fmt.Sprintf(value, i)))
		}
		d.exec(t, fmt.Sprintf("INSERT INTO %s VALUES (NULL, 'v')", table))
		ds := origin.Dataset{Table: table, Key: []string{"k"}, Value: "v"}
		o := d.dataset(t, ds)
		for query, want := range map[string]int{"": 50, "SELECT k FROM " + table + " WHERE v = 'v'": 50, "SELECT k FROM " + table + " WHERE 1 = 0": 0} {
			keys := listKeys(t, d, ds, query, 1000)
			results, err := o.Load(soon(t), keys)
			if err != nil && want > 0 {
				t.Fatal(err)
			}
			for i, r := range results {
				if r.Err != nil {
					t.Errorf("%s, %q: key %q: %v", columnType, query, keys[i], r.Err)
				}
			}
			slices.Sort(keys)
			if len(slices.Compact(keys)) != want {
				t.Errorf("%s, %q: %d different keys; want %d", columnType, query, len(keys), want)
			}
		}
		if keys := listKeys(t, d, ds, "", 3); len(keys) != 3 {
			t.Errorf("%s: %d keys; want the 3 that were taken", columnType, len(keys))
		}
		if keys := listKeys(t, d, ds, "", 1000); len(keys) != 50 {
			t.Errorf("%s: %d keys after a list that was cut off", columnType, len(keys))
		}
	}
}

// testListKeysOfSeveralColumns lists each of several rows of a key, texts that the collation of a column takes for the same, and
// all columns of a key.
func testListKeysOfSeveralColumns(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE keys_of_two (realm VARCHAR(20), n BIGINT, v VARCHAR(9))")
	for _, values := range []string{"'a', 1, 'x'", "'a', 1, 'y'", "'A', 1, 'x'", "'b/c%', 2, 'x'", "NULL, 2, 'x'", "'d', NULL, 'x'"} {
		d.exec(t, "INSERT INTO keys_of_two VALUES ("+values+")")
	}
	ds := origin.Dataset{Table: "keys_of_two", Key: []string{"realm", "n"}, Columns: []string{"v"}, Many: true}
	o := d.dataset(t, ds)
	for _, query := range []string{"", "SELECT realm, n FROM keys_of_two"} {
		keys := listKeys(t, d, ds, query, 1000)
		slices.Sort(keys)
		keys = slices.Compact(keys)
		if want := []string{"A/1", "a/1", "b%2Fc%25/2"}; !slices.Equal(keys, want) {
			t.Fatalf("%q: got %q; want %q", query, keys, want)
		}
		results, err := o.Load(soon(t), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{`[{"v":"x"}]`, `[{"v":"x"},{"v":"y"}]`, `[{"v":"x"}]`} {
			if got := string(results[i].Value.Data); results[i].Err != nil || got != want {
				t.Errorf("%q: row %d is %s, %v; want %s", query, i, got, results[i].Err, want)
			}
		}
	}
}

func listKeys(t *testing.T, d database, ds origin.Dataset, query string, most int) (keys []string) {
	t.Helper()
	lister, err := d.open(t).KeyLister(ds, query)
	if err != nil {
		t.Fatal(err)
	}
	err = lister.ListKeys(soon(t), func(key string) bool {
		keys = append(keys, key)
		return len(keys) < most
	})
	if err != nil {
		t.Errorf("%q: %v", query, err)
	}
	return keys
}

func testListKeysCannotWrite(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE keys_0 (k BIGINT, v VARCHAR(9))")
	d.exec(t, "CREATE TABLE filled (k BIGINT)")
	d.exec(t, "INSERT INTO filled VALUES (1)")
	db := d.open(t)
	ds := origin.Dataset{Table: "keys_0", Key: []string{"k"}}
	for query, want := range map[string]string{
		"SELECT k, 5 FROM filled":            "2 columns",
		"SELECT nothing FROM keys_0":         "list keys",
		"DELETE FROM keys_0":                 "list keys",
		"INSERT INTO keys_0 VALUES (1, 'v')": "list keys",
	} {
		lister, err := db.KeyLister(ds, query)
		if err != nil {
			t.Fatal(err)
		}
		if err := lister.ListKeys(soon(t), func(string) bool { return true }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", query, err, want)
		}
	}
	_, err := db.KeyLister(origin.Dataset{Query: "SELECT v FROM keys_0 WHERE k = " + d.placeholders("?")}, "")
	if err == nil || !strings.Contains(err.Error(), "query") {
		t.Errorf("keys of a query without a list: %v", err)
	}
}
