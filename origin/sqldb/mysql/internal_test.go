package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

func TestTimeLimitOfMySQL(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT v FROM r WHERE k = ?":           "SELECT /*+ MAX_EXECUTION_TIME(896) */ v FROM r WHERE k = ?",
		"\n select\tv FROM r WHERE k = ?":       "SELECT /*+ MAX_EXECUTION_TIME(896) */\tv FROM r WHERE k = ?",
		"WITH x AS (SELECT 1) SELECT * FROM x ": "WITH x AS (SELECT 1) SELECT * FROM x ",
		"SELECTED":                              "SELECTED",
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m, no := &server{}, false
			m.mariadb.Store(&no)
			got, err := m.withTimeLimit(ctx, nil, query)
			if err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

// Whatever the server sends for a type, the row is JSON.
func FuzzCellIsJSON(f *testing.F) {
	types := []string{"DECIMAL", "UNSIGNED BIGINT", "CHAR", "DATETIME", "TIMESTAMP", "TIME", "JSON", "BIT", "BLOB", "DATE", "YEAR", "ENUM"}
	for i := range types {
		for _, text := range []string{"00042.50", "+1", ".5", "1.", "-0", "NaN", "2024-00-00", "0000-00-00 00:00:00", "-838:59:59", "\xff\x00", `{"a`, ""} {
			f.Add(uint8(i), []byte(text), false)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte, boolean bool) {
		columns := &tableTypes{bool: map[string]bool{"v": boolean}, json: map[string]bool{"v": kind > 128}}
		row := rowjson.EncodeRow([]string{"v"}, []rowjson.Cell{columns.cell("v", types[int(kind)%len(types)], text)})
		if _, err := rowjson.ParseRow(row); err != nil {
			t.Fatalf("%s: %q: %v", types[int(kind)%len(types)], row, err)
		}
	})
}

func ranges(gaps []gap) (list []string) {
	for _, g := range gaps {
		list = append(list, fmt.Sprintf("%d-%d", g.from, g.to))
	}
	return list
}

func TestGaps(t *testing.T) {
	gaps := []gap{{from: 2, to: 4}, {from: 7, to: 7}, {from: 10, to: 20}}
	for _, c := range []struct {
		found []int64
		want  string
	}{
		{nil, "2-4 7-7 10-20"},
		{[]int64{2}, "3-4 7-7 10-20"},
		{[]int64{3}, "2-2 4-4 7-7 10-20"},
		{[]int64{4, 7, 10, 11, 15, 20}, "2-3 12-14 16-19"},
		{[]int64{2, 3, 4, 7}, "10-20"},
	} {
		var rows []changefeed.Recorded
		for _, seq := range c.found {
			rows = append(rows, changefeed.Recorded{Seq: seq})
		}
		if got := strings.Join(ranges(without(slices.Clone(gaps), rows)), " "); got != c.want {
			t.Errorf("without %v: %s, want %s", c.found, got, c.want)
		}
	}
	for limit, want := range map[int]string{3: "2-4 7-7 10-20", 2: "2-7 10-20", 1: "2-20"} {
		if got := strings.Join(ranges(joinGaps(slices.Clone(gaps), limit)), " "); got != want {
			t.Errorf("joined to %d: %s, want %s", limit, got, want)
		}
	}
}

// TestGapsOfTransactions has numbers of open, rolled back and committed transactions, without grace.
func TestGapsOfTransactions(t *testing.T) {
	for name, start := range map[string]func(testing.TB) string{"mysql8": rig.MySQL, "mariadb": rig.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testGapsOfTransactions(t, start(t))
		})
	}
}

func testGapsOfTransactions(t *testing.T, dsn string) {
	database, err := connect(origin.SourceConfig{Name: "db", DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(database.Reads)
	defer pool.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	writes := make([]*sql.Conn, 3)
	for i := range writes {
		if writes[i], err = pool.Conn(ctx); err != nil {
			t.Fatal(err)
		}
		defer writes[i].Close()
	}
	exec := func(i int, statement string) {
		t.Helper()
		if _, err := writes[i].ExecContext(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	const insert = "INSERT INTO changes (dataset, row_key) VALUES ('d', 'k')"
	exec(0, "SET SESSION TRANSACTION READ WRITE")
	exec(1, "SET SESSION TRANSACTION READ WRITE")
	exec(0, "CREATE TABLE changes (seq BIGINT AUTO_INCREMENT PRIMARY KEY, dataset VARCHAR(9), row_key LONGBLOB, "+
		"row_version BIGINT DEFAULT 0) ENGINE = InnoDB")
	exec(0, insert) // 1
	log := &changeLog{mysql: &server{}, table: "changes"}
	if err := log.Begin(ctx, writes[2]); err != nil {
		t.Fatal(err)
	}
	next := func(want string, gaps string) {
		t.Helper()
		rows, lost, err := log.Next(ctx, writes[2], changefeed.MaxPending)
		if err != nil || lost {
			t.Fatalf("lost %v, %v", lost, err)
		}
		var seqs []int64
		for _, row := range rows {
			seqs = append(seqs, row.Seq)
		}
		if got := fmt.Sprint(seqs); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := fmt.Sprint(ranges(log.gaps)); got != gaps {
			t.Errorf("gaps %s, want %s", got, gaps)
		}
	}
	exec(1, "BEGIN")
	exec(1, insert) // 2
	exec(0, insert) // 3
	exec(0, "BEGIN")
	exec(0, insert) // 4
	exec(0, "ROLLBACK")
	exec(0, insert) // 5
	next("[3 5]", "[2-2 4-4]")
	next("[]", "[2-2]") // 4 was rolled back, 2 is locked
	next("[]", "[2-2]")
	exec(1, "COMMIT")
	next("[2]", "[]")
}

// TestPruneKeepsWhatWasHidden prunes beside a transaction that holds locks on the numbers between the deleted ones.
func TestPruneKeepsWhatWasHidden(t *testing.T) {
	for name, start := range map[string]func(testing.TB) string{"mysql8": rig.MySQL, "mariadb": rig.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testPruneKeepsWhatWasHidden(t, start(t))
		})
	}
}

func testPruneKeepsWhatWasHidden(t *testing.T, dsn string) {
	database, err := connect(origin.SourceConfig{Name: "db", DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(database.Reads)
	defer pool.Close()
	conn, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, statement := range []string{
		"SET SESSION TRANSACTION READ WRITE", "SET innodb_lock_wait_timeout = 1",
		"CREATE TABLE changes (seq BIGINT AUTO_INCREMENT PRIMARY KEY, changed_at TIMESTAMP NOT NULL DEFAULT '2001-01-01') ENGINE = InnoDB",
		"INSERT INTO changes VALUES (1, DEFAULT), (2, DEFAULT), (3, DEFAULT), (4, DEFAULT), (6, DEFAULT), (7, DEFAULT), (9, DEFAULT)",
	} {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	open, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, statement := range []string{
		"START TRANSACTION READ WRITE", "SELECT seq FROM changes WHERE seq = 3 FOR UPDATE", "SELECT seq FROM changes WHERE seq = 9 FOR UPDATE",
	} {
		if _, err := open.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	log := &changeLog{mysql: &server{}, table: "changes"}
	// 3 was not visible at the mark; 8 is of a transaction that was rolled back before, 5 of one that was open.
	n, err := log.Prune(t.Context(), conn, mark{high: 7, gaps: []gap{{from: 3, to: 3}, {from: 5, to: 5}}},
		changefeed.Retention{Age: time.Hour, Rows: 100}, 100)
	if err != nil || n != 5 {
		t.Errorf("deleted %d rows, %v, want 5", n, err)
	}
	var left string
	if err := conn.QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(seq ORDER BY seq) FROM changes").Scan(&left); err != nil || left != "3,9" {
		t.Errorf("left %s, %v, want 3,9", left, err)
	}
}
