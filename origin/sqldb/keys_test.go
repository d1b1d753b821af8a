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

// testListKeysOfPrefix lists the keys that begin with the bytes of a prefix, whatever LIKE, the collation and the type of the column
// make of it.
func testListKeysOfPrefix(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE keys_of_prefix (k VARCHAR(40), v VARCHAR(9))")
	all := []string{"a", "ab", "a%c", "a_c", "a|c", "aXc", "a'c", `a\c`, "Äb", "äb", "ab/c", "ab%2Fc"}
	for _, key := range all {
		d.exec(t, "INSERT INTO keys_of_prefix VALUES ("+d.placeholders("?")+", 'v')", key)
	}
	d.exec(t, "CREATE TABLE numbers_of_prefix (k BIGINT, v VARCHAR(9))")
	d.exec(t, "CREATE TABLE two_of_prefix (realm VARCHAR(20), n BIGINT, v VARCHAR(9))")
	for i := range 30 {
		d.exec(t, fmt.Sprintf("INSERT INTO numbers_of_prefix VALUES (%d, 'v')", i))
		d.exec(t, fmt.Sprintf("INSERT INTO two_of_prefix VALUES ('%s', %d, 'v')", []string{"a", "A", "a/b%"}[i%3], i))
	}
	one := origin.Dataset{Table: "keys_of_prefix", Key: []string{"k"}}
	for _, prefix := range append(all, "a", "A", "", "%", "_", "|", "ä", "Ä", "\U0001f600", "'; --") {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		sameKeys(t, d, one, prefix, want)
	}
	numbers := origin.Dataset{Table: "numbers_of_prefix", Key: []string{"k"}}
	sameKeys(t, d, numbers, "2", []string{"2", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29"})
	sameKeys(t, d, numbers, "x", nil)
	two := origin.Dataset{Table: "two_of_prefix", Key: []string{"realm", "n"}}
	sameKeys(t, d, two, "a/1", []string{"a/12", "a/15", "a/18"})
	sameKeys(t, d, two, "A/4", []string{"A/4"})
	for _, prefix := range []string{"a%", "a%2", "a%2F", "a%2Fb", "a%2Fb%", "a%2Fb%2", "a%2Fb%25", "a%2Fb%25/"} {
		sameKeys(t, d, two, prefix, []string{"a%2Fb%25/2", "a%2Fb%25/5", "a%2Fb%25/8", "a%2Fb%25/11", "a%2Fb%25/14", "a%2Fb%25/17",
			"a%2Fb%25/20", "a%2Fb%25/23", "a%2Fb%25/26", "a%2Fb%25/29"})
	}
	for _, prefix := range []string{"a/1/", "a%3", "a//", "b"} {
		sameKeys(t, d, two, prefix, nil)
	}
}

func sameKeys(t *testing.T, d database, ds origin.Dataset, prefix string, want []string) {
	t.Helper()
	lister, err := d.open(t).KeyLister(ds, "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := lister.ListKeys(soon(t), prefix, func(key string) bool { got = append(got, key); return true }); err != nil {
		t.Errorf("%q: %v", prefix, err)
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s, prefix %q: got %q, want %q", ds.Table, prefix, got, want)
	}
}

func listKeys(t *testing.T, d database, ds origin.Dataset, query string, most int) (keys []string) {
	t.Helper()
	lister, err := d.open(t).KeyLister(ds, query)
	if err != nil {
		t.Fatal(err)
	}
	err = lister.ListKeys(soon(t), "", func(key string) bool {
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
		if err := lister.ListKeys(soon(t), "", func(string) bool { return true }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want an error with %q", query, err, want)
		}
	}
	_, err := db.KeyLister(origin.Dataset{Query: "SELECT v FROM keys_0 WHERE k = " + d.placeholders("?")}, "")
	if err == nil || !strings.Contains(err.Error(), "query") {
		t.Errorf("keys of a query without a list: %v", err)
	}
}
