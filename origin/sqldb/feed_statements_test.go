package sqldb_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
)

// statement changes rows; keys are those that the feed must report, separated by blanks.
type statement struct{ sql, keys string }

// testFeedOfEachStatement runs the statements of each database that change rows in a way of their own.
func testFeedOfEachStatement(t *testing.T, d database, c origin.FeedConfig) {
	for name, tables := range feedStatements[d.driver] {
		t.Run(name, func(t *testing.T) {
			d.exec(t, "DROP TABLE IF EXISTS r")
			for _, create := range tables.create {
				d.exec(t, create)
			}
			r := d.record(t, origin.Dataset{Table: tables.dataset, Key: []string{"k"}}, c)
			for range 2 { // it can be installed again
				if err := r.db.InstallChanges(soon(t), r.ds, r.config); err != nil {
					t.Fatal(err)
				}
			}
			f := r.started(t)
			for _, s := range tables.changes {
				d.exec(t, s.sql)
				f.wantKeys(strings.Fields(s.keys)...)
			}
		})
	}
}

// wantKeys receives Changes until all of keys are reported, with any version.
func (f *follower) wantKeys(keys ...string) {
	f.t.Helper()
	missing := map[string]bool{}
	for _, key := range keys {
		missing[key] = true
	}
	for len(missing) > 0 {
		c := f.next()
		if c.Missed {
			f.t.Fatalf("missed; want %v", missing)
		}
		for _, row := range c.Rows {
			delete(missing, row.Key)
		}
	}
}

var feedStatements = map[string]map[string]struct {
	dataset string
	create  []string
	changes []statement
}{
	"postgres": {
		"partitions": {"parts", []string{
			"CREATE TABLE parts (k int PRIMARY KEY, v int) PARTITION BY RANGE (k)",
			"CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (k)",
			"CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (10)",
			"CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20)",
			// Earlier versions installed triggers for each statement on the whole table.
			"CREATE FUNCTION old() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
			"CREATE TRIGGER ringside_poll_rows_insert AFTER INSERT ON parts REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION old()",
			"CREATE TRIGGER ringside_notify_rows_insert AFTER INSERT ON parts REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION old()",
		}, []statement{
			{"INSERT INTO parts VALUES (1, 1), (11, 1)", "1 11"}, {"INSERT INTO lowest VALUES (2, 1)", "2"},
			{"UPDATE high SET v = 2", "11"}, {"UPDATE parts SET k = k + 12 WHERE k = 1", "1 13"}, {"DELETE FROM low", "2"},
			{"CREATE TABLE later PARTITION OF parts FOR VALUES FROM (20) TO (30)", ""}, {"INSERT INTO later VALUES (21, 1)", "21"},
			{"INSERT INTO parts VALUES (21, 2) ON CONFLICT (k) DO UPDATE SET v = 3", "21"},
		}},
		"one partition": {"leaf", []string{
			"CREATE TABLE root (k int PRIMARY KEY, v int) PARTITION BY RANGE (k)",
			"CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10)",
			"CREATE TABLE other_leaf PARTITION OF root DEFAULT",
		}, []statement{
			{"INSERT INTO root VALUES (1, 1), (11, 1)", "1"}, {"INSERT INTO leaf VALUES (2, 1)", "2"},
			{"UPDATE root SET k = 12 WHERE k = 1", "1"}, {"DELETE FROM root", "2"},
		}},
		"inheritance": {"parent", []string{
			"CREATE TABLE parent (k int PRIMARY KEY, v int)", "CREATE TABLE child (w int) INHERITS (parent)",
		}, []statement{
			{"INSERT INTO parent VALUES (1, 1)", "1"}, {"INSERT INTO child VALUES (2, 1, 1)", "2"},
			{"UPDATE parent SET v = 2", "1 2"}, {"DELETE FROM child", "2"},
		}},
		"others": {"r", []string{
			rowsTable,
		}, []statement{
			{"INSERT INTO r VALUES ('a', 'x', 1)", "a"},
			{"INSERT INTO r VALUES ('a', 'y', 1), ('b', 'y', 1) ON CONFLICT (k) DO UPDATE SET v = 'z'", "a b"},
			{"MERGE INTO r USING (VALUES ('a'), ('c')) AS s (k) ON r.k = s.k WHEN MATCHED THEN DELETE " +
				"WHEN NOT MATCHED THEN INSERT VALUES (s.k, 'm', 1)", "a c"},
			{"WITH moved AS (DELETE FROM r WHERE k = 'b' RETURNING *) INSERT INTO r SELECT 'd', v, ver FROM moved", "b d"},
		}},
		"cascade": {"owned", []string{
			"CREATE TABLE owner (id VARCHAR(9) PRIMARY KEY)", "INSERT INTO owner VALUES ('a'), ('b')",
			"CREATE TABLE owned (k VARCHAR(9) PRIMARY KEY REFERENCES owner ON UPDATE CASCADE ON DELETE CASCADE)",
		}, []statement{
			{"INSERT INTO owned VALUES ('a'), ('b')", "a b"}, {"UPDATE owner SET id = 'c' WHERE id = 'a'", "a c"},
			{"DELETE FROM owner", "b c"},
		}},
	},
	"mysql": {
		"others": {"r", []string{rowsTable, "ALTER TABLE r ADD UNIQUE (v)"}, []statement{
			{"INSERT INTO r VALUES ('a', 'x', 1), ('b', 'y', 1)", "a b"}, {"REPLACE INTO r VALUES ('a', 'y', 1)", "a b"},
			{"INSERT INTO r VALUES ('a', 'q', 1) ON DUPLICATE KEY UPDATE v = 'z'", "a"},
			{"INSERT IGNORE INTO r VALUES ('a', 'i', 1), ('c', 'i', 1)", "c"}, {"UPDATE r SET k = 'd', v = NULL WHERE k = 'c'", "c d"},
			{"INSERT INTO r SELECT 'e', NULL, 1 FROM r LIMIT 1", "e"}, {"DELETE r FROM r JOIN r AS s ON r.k = s.k WHERE s.k = 'e'", "e"},
		}},
		"partitions": {"parts", []string{
			"CREATE TABLE parts (k INT PRIMARY KEY, v INT) PARTITION BY HASH (k) PARTITIONS 3",
		}, []statement{
			{"INSERT INTO parts VALUES (1, 1), (2, 1)", "1 2"}, {"UPDATE parts SET k = 3 WHERE k = 1", "1 3"},
			{"DELETE FROM parts PARTITION (p2)", "2"},
		}},
	},
	"sqlite": {
		"others": {"r", []string{rowsTable, "CREATE UNIQUE INDEX u ON r (v COLLATE NOCASE, ver)"}, []statement{
			{"INSERT INTO r VALUES ('a', 'x', 1), ('b', 'y', 1)", "a b"}, {"INSERT OR REPLACE INTO r VALUES ('a', 'Y', 1)", "a b"},
			{"REPLACE INTO r VALUES ('c', 'z', 1)", "c"}, {"UPDATE OR REPLACE r SET v = 'Z' WHERE k = 'a'", "a c"},
			{"INSERT INTO r VALUES ('a', 'q', 1) ON CONFLICT (k) DO UPDATE SET v = 'w'", "a"},
		}},
		"rowid": {"ids", []string{"CREATE TABLE ids (id INTEGER PRIMARY KEY, k TEXT UNIQUE)"}, []statement{
			{"INSERT INTO ids VALUES (1, 'a'), (2, 'b')", "a b"}, {"REPLACE INTO ids VALUES (1, 'c')", "a c"},
			{"UPDATE OR REPLACE ids SET id = 1 WHERE k = 'b'", "b c"}, {"INSERT INTO ids (k) VALUES ('d')", "d"},
		}},
	},
}

// LOAD DATA and COPY write many rows in a way of their own.
func testFeedOfAFile(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	path := filepath.Join(t.TempDir(), "rows")
	if err := os.WriteFile(path, []byte("a\tx\t1\nb\ty\t2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d.driver == "postgres" {
		d.exec(t, `COPY r FROM PROGRAM 'printf "a\tx\t1\nb\ty\t2\n"'`)
	} else {
		d.exec(t, "SET GLOBAL local_infile = ON")
		mysqldriver.RegisterLocalFile(path)
		defer mysqldriver.DeregisterLocalFile(path)
		d.exec(t, "LOAD DATA LOCAL INFILE '"+path+"' INTO TABLE r")
	}
	f.want(map[string]int64{"a": 1, "b": 2})
}
