package sqldb_test

import (
	"fmt"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func testFeedTruncate(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 1})
	d.exec(t, "TRUNCATE r")
	f.wantMissed()
}

// numbers returns a table expression of n rows.
func (d database) numbers(n int) string {
	switch d.driver {
	case "postgres":
		return fmt.Sprintf("generate_series(1, %d) AS n (i)", n)
	case "mysql":
		const digits = "(SELECT 0 AS i UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5" +
			" UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)"
		return fmt.Sprintf("(SELECT 1 + a.i + 10*b.i + 100*c.i + 1000*d.i + 10000*e.i AS i FROM "+
			"%[1]s a, %[1]s b, %[1]s c, %[1]s d, %[1]s e HAVING i <= %[2]d) AS n", digits, n)
	}
	return fmt.Sprintf("(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) "+
		"SELECT i FROM n) AS n", n)
}

// A mass change is one Missed, and later changes are reported again.
func testFeedOfAHundredThousandRows(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, "CREATE TABLE r (k INTEGER PRIMARY KEY, v VARCHAR(100), ver BIGINT)")
	f := d.record(t, rowsDataset, c).started(t)
	d.exec(t, "INSERT INTO r SELECT i, 'x', 1 FROM "+d.numbers(100_000))
	f.wantMissed()
	d.exec(t, "UPDATE r SET ver = 2 WHERE k = 77777")
	for {
		c := f.next()
		if len(c.Rows) > 1000 {
			t.Fatalf("got %d rows in one Changes, want at most 1000", len(c.Rows))
		}
		if len(c.Rows) == 1 && c.Rows[0].Key == "77777" {
			break
		}
	}
	if n := len(f.received); n > 0 {
		t.Errorf("got %d more changes, want none", n)
	}
}

// Below the limit each key is reported once.
func testFeedOfManyStatements(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	tx, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	for i := range 2500 {
		key := fmt.Sprint("key-", i/2)
		statement := fmt.Sprintf("INSERT INTO r VALUES ('%s', 'x', 1)", key)
		if i%2 == 1 {
			statement = fmt.Sprintf("UPDATE r SET ver = 2 WHERE k = '%s'", key)
		}
		if _, err := tx.Exec(statement); err != nil {
			t.Fatal(err)
		}
		want[key] = d.inserted(2)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(want)
}
