package sqldb

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

func TestGatheredIsBoundedAndTellsEachKeyOnce(t *testing.T) {
	var g gathered
	for i := range maxGathered {
		g.add(fmt.Sprint(i), 1)
		g.add(fmt.Sprint(i), 3)
		g.add(fmt.Sprint(i), 2)
	}
	rows := 0
	for _, piece := range g.take() {
		if piece.Missed || len(piece.Rows) > maxTold {
			t.Fatalf("missed %v, %d rows", piece.Missed, len(piece.Rows))
		}
		for _, row := range piece.Rows {
			if rows++; row.Version != 3 {
				t.Fatalf("%+v, want version 3", row)
			}
		}
	}
	if rows != maxGathered || !g.empty() {
		t.Errorf("%d rows, want %d; empty %v", rows, maxGathered, g.empty())
	}
	for i := range maxGathered + 1 {
		g.add(fmt.Sprint(i), 1)
	}
	g.add("more", 1)
	if got, want := g.take(), []origin.Changes{{Missed: true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("one too many: %d pieces", len(got))
	}
}

// A row that was deleted and made anew may have a lower version than before.
func TestRegressionAVersionFromBeforeADeletion(t *testing.T) {
	for _, versions := range [][]int64{{7, 0, 1}, {0, 1}, {7, 0}} {
		var g gathered
		for _, v := range versions {
			g.add("a", v)
		}
		if got := g.take()[0].Rows[0].Version; got != 0 {
			t.Errorf("%v: version %d", versions, got)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		`{"d":"rows","k":"a","v":1}`, `{"all":true}`, `{"beat":"X"}`, `{"k":null}`, `{"k":"\ud800"}`, `{"k":"cut`,
		"", "[]", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		l := &listener{dataset: "rows", name: "me", awaited: true}
		l.take(payload)
		m, ok := parseMessage(payload)
		if ok != json.Valid([]byte(payload)) && ok {
			t.Fatalf("%q was taken", payload)
		}
		if !ok && !l.heard.missed {
			t.Fatalf("%q was passed over", payload)
		}
		if !l.awaited && m.Beat != "me" {
			t.Fatalf("%q was taken for a beat", payload)
		}
		for key := range l.heard.versions {
			if m.Key == nil || key != *m.Key {
				t.Fatalf("%q told of %q", payload, key)
			}
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
		var rows []recorded
		for _, seq := range c.found {
			rows = append(rows, recorded{seq: seq})
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

// TestGapsInMariaDB has numbers of transactions under way, rolled back, and committed, without any grace.
func TestGapsInMariaDB(t *testing.T) {
	t.Parallel()
	db, err := open(MySQL().(database), origin.SourceConfig{Name: "db", DSN: rig.MariaDB(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	writes := make([]*sql.Conn, 3)
	for i := range writes {
		if writes[i], err = db.pool.Conn(ctx); err != nil {
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
	log := &mysqlLog{mysql: db.dialect.(*mysql), table: "changes"}
	if err := log.begin(ctx, writes[2]); err != nil {
		t.Fatal(err)
	}
	next := func(want string, gaps string) {
		t.Helper()
		rows, lost, err := log.next(ctx, writes[2], maxGathered)
		if err != nil || lost {
			t.Fatalf("lost %v, %v", lost, err)
		}
		var seqs []int64
		for _, row := range rows {
			seqs = append(seqs, row.seq)
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
	next("[]", "[2-2]") // 4 is nobody's, 2 is somebody's
	next("[]", "[2-2]")
	exec(1, "COMMIT")
	next("[2]", "[]")
}

func TestNamesOfWhatIsMade(t *testing.T) {
	long := strings.Repeat("x", 63)
	a, b := short("ringside_poll_"+long, "_insert"), short("ringside_poll_"+long+"y", "_insert")
	if len(a) > maxIdentifier || len(b) > maxIdentifier || a == b || !strings.HasSuffix(a, "_insert") {
		t.Errorf("%s, %s", a, b)
	}
	if got := short("ringside_poll_rows", "_insert"); got != "ringside_poll_rows_insert" {
		t.Error(got)
	}
}

// logOf returns a reader of a table of changes that has begun, a connection to read with, and what adds a row.
func logOf(t *testing.T, driver origin.Driver, dsn string) (log changeLog, conn *sql.Conn, add func()) {
	t.Helper()
	db, err := open(driver.(database), origin.SourceConfig{Name: "db", DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	ctx := t.Context()
	if conn, err = db.pool.Conn(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	write := func(statement string) {
		t.Helper()
		if err := db.dialect.apply(ctx, conn, statement); err != nil {
			t.Fatal(err)
		}
	}
	write("BEGIN READ WRITE; CREATE TABLE t (k int primary key); COMMIT")
	ds, c := origin.Dataset{Name: "rows", Table: "t", Key: "k"}, origin.FeedConfig{Kind: origin.FeedPoll}.WithDefaults()
	if err := db.InstallChanges(ctx, ds, c); err != nil {
		t.Fatal(err)
	}
	log = db.dialect.log(c.Table)
	if err := log.begin(ctx, conn); err != nil {
		t.Fatal(err)
	}
	i := 0
	return log, conn, func() {
		i++
		write(fmt.Sprintf("BEGIN READ WRITE; INSERT INTO t VALUES (%d); COMMIT", i))
	}
}

// A standby that was promoted, or a cluster that was restored, may lack what was read, and gives its xids anew.
func TestRegressionAnotherHistoryIsNotGoneOnWith(t *testing.T) {
	t.Parallel()
	l, conn, add := logOf(t, Postgres(), rig.Postgres(t))
	log := l.(*postgresLog)
	for name, change := range map[string]func(){
		"timeline": func() { log.timeline = "0000002A" }, "xids": func() { log.snapshot = "900000000:900000000:" },
	} {
		add()
		change()
		if _, lost, err := log.next(t.Context(), conn, 10); err != nil || !lost {
			t.Errorf("%s: lost %v, %v", name, lost, err)
		}
		if err := log.begin(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		if rows, lost, err := log.next(t.Context(), conn, 10); err != nil || lost || len(rows) > 0 {
			t.Errorf("%s: %d rows after it, lost %v, %v", name, len(rows), lost, err)
		}
	}
}

// After a crash a transaction may have the xid of one that had been rolled back, which the snapshot holds for ended.
func TestRegressionAnXidThatWasAnotherTransactions(t *testing.T) {
	t.Parallel()
	l, conn, add := logOf(t, Postgres(), rig.Postgres(t))
	log := l.(*postgresLog)
	add()
	high := log.high
	if err := log.begin(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	log.high = high // as if the row had not been there when the snapshot was taken
	if rows, lost, err := log.next(t.Context(), conn, 10); err != nil || lost || len(rows) != 1 {
		t.Errorf("%d rows, lost %v, %v", len(rows), lost, err)
	}
}
