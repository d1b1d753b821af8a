package sqldb_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

var feedKeyCases = []struct {
	driver, sqlType string
	prepare         string // settings of the writer's session
	insert, key     string
}{
	{"", "INTEGER", "", "7", "7"},
	{"", "CHAR(5)", "", "'ab'", "ab"},
	{"", "VARCHAR(50)", "", "'Ключ \"😀\\'", `Ключ "😀\`},
	{"postgres", "uuid", "", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
	{"postgres", "boolean", "", "true", "t"},
	{"postgres", "inet", "", "'10.0.0.1'", "10.0.0.1"},
	{"postgres", "date", "SET datestyle = 'German'", "'2024-02-29'", "2024-02-29"},
	{"postgres", "timestamptz", "SET timezone = 'Asia/Tokyo'", "'2024-02-29T12:00:00Z'", "2024-02-29 12:00:00+00"},
	{"postgres", "bytea", "SET bytea_output = 'escape'", `'\x00ff'`, `\x00ff`},
	{"mysql", "BIGINT UNSIGNED", "", "18446744073709551615", "18446744073709551615"},
	{"mysql", "VARCHAR(9) CHARACTER SET latin1", "", "'é'", "é"},
	{"mysql", "VARBINARY(9)", "", "'é'", "é"},
	{"mariadb", "UUID", "", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
	{"mysql", "DATE", "", "'2024-02-29'", "2024-02-29"},
	{"sqlite", "DATE", "", "'2024-02-29'", "2024-02-29"},
}

func testFeedKeysAreThoseOfLoad(t *testing.T, d database, c origin.FeedConfig) {
	for i, kc := range feedKeyCases {
		if kc.driver != "" && !d.is(kc.driver) {
			continue
		}
		t.Run(kc.sqlType, func(t *testing.T) {
			table := fmt.Sprint("keys", i)
			d.exec(t, fmt.Sprintf("CREATE TABLE %s (k %s PRIMARY KEY, v VARCHAR(9))", table, kc.sqlType))
			r := d.record(t, origin.Dataset{Table: table, Key: []string{"k"}, Value: "v"}, c)
			f := r.started(t)
			insert := fmt.Sprintf("INSERT INTO %s VALUES (%s, 'v')", table, kc.insert)
			if d.driver == "mysql" {
				insert = strings.ReplaceAll(insert, `\`, `\\`)
			}
			writer, err := d.Conn(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			for _, statement := range []string{cmp.Or(kc.prepare, "SELECT 1"), insert} {
				if _, err := writer.ExecContext(soon(t), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			f.want(map[string]int64{kc.key: 0})
			o, err := r.db.Dataset(r.ds)
			if err != nil {
				t.Fatal(err)
			}
			loadOne(t, o, kc.key)
		})
	}
}

func testFeedOfNamesThatNeedQuotes(t *testing.T, d database, c origin.FeedConfig) {
	quote := map[bool]string{true: "`", false: `"`}[d.driver == "mysql"]
	quoted := func(name string) string { return quote + strings.ReplaceAll(name, quote, quote+quote) + quote }
	table, key, version := "Select 'Me'"+quote, "Key"+quote+"one", "{{Ver}} --"
	schema := "main"
	if d.driver != "sqlite" {
		schema = "Sche ma " + c.Kind
		d.exec(t, "CREATE SCHEMA "+quoted(schema))
	}
	full := quoted(schema) + "." + quoted(table)
	d.exec(t, fmt.Sprintf("CREATE TABLE %s (%s VARCHAR(9) PRIMARY KEY, v INT, %s INT)", full, quoted(key),
		quoted(version)))
	c.Table = "Chan'ges " + quote
	if c.Kind == origin.FeedNotify {
		c.Table, c.Channel = "", "Chan-nel.1"
	}
	f := d.record(t, origin.Dataset{Table: schema + "." + table, Key: []string{key}, Version: version}, c).started(t)
	d.exec(t, fmt.Sprintf("INSERT INTO %s VALUES ('a', 5, 1)", full))
	f.want(map[string]int64{"a": d.inserted(1)})
	d.exec(t, fmt.Sprintf("UPDATE %s SET %s = 2, v = 6", full, quoted(version)))
	f.want(map[string]int64{"a": 2})
}

// A key that is not text in any character set must not be reported as '?'.
func testFeedOfABinaryKey(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, "CREATE TABLE r (k VARBINARY(9) PRIMARY KEY, v INT)")
	f := d.record(t, origin.Dataset{Table: "r", Key: []string{"k"}}, c).started(t)
	d.exec(t, "INSERT INTO r VALUES (x'ff00', 1)")
	f.want(map[string]int64{"\xff\x00": 0})
}

// A trigger that names a missing column makes each write of the application fail.
func testFeedOfAMissingColumn(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	ds := rowsDataset
	ds.Name, ds.Version = "rows", "version"
	if err := d.open(t).InstallChanges(soon(t), ds, c); err == nil || !strings.Contains(err.Error(), `"version"`) {
		t.Errorf("got %v, want an error about the column", err)
	}
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
}

// Two datasets may share a channel or a table of changes, and one transaction changes both.
func testFeedsOfTwoDatasets(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	d.exec(t, strings.Replace(rowsTable, "TABLE r", "TABLE other", 1))
	f := d.record(t, rowsDataset, c).started(t)
	other := d.record(t, origin.Dataset{Name: "other", Table: "other", Key: []string{"k"}, Version: "ver"}, c)
	g := other.started(t)
	tx, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"INSERT INTO r VALUES ('a', 'x', 1)", "INSERT INTO other VALUES ('b', 'x', 2)"} {
		if _, err := tx.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(map[string]int64{"a": d.inserted(1)})
	g.want(map[string]int64{"b": d.inserted(2)})
}

func testFeedWithoutVersions(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, origin.Dataset{Table: "r", Key: []string{"k"}}, c).started(t)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 0})
	d.exec(t, "UPDATE r SET ver = 2")
	f.want(map[string]int64{"a": 0})
}
