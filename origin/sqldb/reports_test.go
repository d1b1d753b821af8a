package sqldb_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// TestReports repeats on Ringside what public reports say of other programs. REPORTS.md lists the reports.
func TestReports(t *testing.T) {
	tests := []struct {
		name string
		test func(t *testing.T, d database)
	}{
		{"ServerEndsIdleSessions", testReportServerEndsIdleSessions},
		{"DatesThatDoNotExist", testReportDatesThatDoNotExist},
		{"CancelHitsAnotherQuery", testReportCancelHitsAnotherQuery},
		{"NoPreparedStatementsLeft", testReportNoPreparedStatementsLeft},
		{"NULInAKey", testReportNULInAKey},
		{"LargeIntegersInJSON", testReportLargeIntegersInJSON},
		{"ErrorsInAnotherLanguage", testReportErrorsInAnotherLanguage},
		{"LiteralsAsKeys", testReportLiteralsAsKeys},
		{"KeyTypeChanges", testReportKeyTypeChanges},
		{"KeyOutsideTheCharacterSet", testReportKeyOutsideTheCharacterSet},
	}
	eachDatabase(t, func(t *testing.T, server database) {
		for _, c := range tests {
			t.Run(c.name, func(t *testing.T) { c.test(t, server.empty(t, strings.ToLower(c.name))) })
		}
	})
}

// set changes a setting of the server, or of the account, until the end of the test.
func (d database) set(t *testing.T, name, value string) {
	t.Helper()
	set := "SET GLOBAL "
	if d.driver == "postgres" {
		set = "ALTER ROLE ringside SET "
	}
	d.exec(t, set+name+" = "+value)
	t.Cleanup(func() { connect(t, d.sqlDriver(), d.direct()).Exec(set + name + " = DEFAULT") })
}

func testReportServerEndsIdleSessions(t *testing.T, d database) {
	d.fill(t, map[string]string{"a": "1"})
	switch d.driver {
	case "postgres":
		d.set(t, "idle_session_timeout", "'300ms'")
	case "mysql":
		d.set(t, "wait_timeout", "1")
	default:
		return // SQLite has no sessions
	}
	db := d.open(t)
	o, err := db.Dataset(origin.Dataset{Name: "rows", Table: "conformance", Key: []string{"k"}, Value: "v"})
	if err != nil {
		t.Fatal(err)
	}
	loadTogether(t, o)
	sessions := map[string]string{
		"postgres": "FROM pg_stat_activity WHERE application_name = 'ringside'",
		"mysql":    "FROM information_schema.PROCESSLIST WHERE db = DATABASE() AND id <> CONNECTION_ID()",
	}[d.driver]
	for ctx := soon(t); ; time.Sleep(20 * time.Millisecond) {
		n := 1
		// The server also ends the session of this query.
		if err := d.QueryRowContext(ctx, "SELECT count(*) "+sessions).Scan(&n); err == nil && n == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the server does not end idle sessions")
		}
	}
	loadTogether(t, o)
}

func testReportDatesThatDoNotExist(t *testing.T, d database) {
	if d.driver != "mysql" {
		return
	}
	d.set(t, "sql_mode", "'ALLOW_INVALID_DATES'")
	lax := connect(t, "mysql", d.dsn)
	for _, statement := range []string{
		"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, d DATE, t DATETIME)",
		"INSERT INTO r VALUES ('zero', '0000-00-00', '0000-00-00 13:14:15'), ('month', '2024-00-15', '2024-00-15 00:00:00'), " +
			"('leap', '2023-02-29', '2023-02-29 01:02:03')",
	} {
		if _, err := lax.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	checkOutcomes(t, d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}, Columns: []string{"d", "t"}}), map[string]string{
		"zero":  `{"d":"0000-00-00","t":"0000-00-00 13:14:15"}`,
		"month": `{"d":"2024-00-15","t":"2024-00-15 00:00:00"}`,
		"leap":  `{"d":"2023-02-29","t":"2023-02-29 01:02:03"}`,
	})
}

func testReportCancelHitsAnotherQuery(t *testing.T, d database) {
	d.fill(t, map[string]string{"a": "1"})
	o := d.dataset(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v"})
	loadOne(t, o, "a")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2000))*time.Microsecond)
				_, _ = o.Load(ctx, []string{"a"}) // canceled at a random moment
				cancel()
			}
		})
		wg.Go(func() {
			for range 50 {
				if results, err := o.Load(soon(t), []string{"a"}); err != nil || outcome(results[0]) != "1" {
					t.Errorf("a load that nobody canceled: %v, %v", results, err)
				}
			}
		})
	}
	wg.Wait()
}

func testReportNoPreparedStatementsLeft(t *testing.T, d database) {
	if d.driver != "mysql" {
		return
	}
	d.fill(t, map[string]string{"a": "1"})
	db := d.open(t)
	value := mustDataset(t, db, origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v"})
	row := mustDataset(t, db, origin.Dataset{Table: "conformance", Key: []string{"k"}})
	loadOne(t, value, "a")
	d.set(t, "max_prepared_stmt_count", "1")
	for range 100 { // one that stays prepared uses up the one
		loadOne(t, value, "a")
		loadOne(t, row, "a")
	}
}

func testReportNULInAKey(t *testing.T, d database) {
	d.fill(t, map[string]string{"a": "1", "ab": "2"})
	o := d.dataset(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v"})
	results, err := o.Load(soon(t), []string{"a", "a\x00b", "ab", "\x00"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1", "", "2", ""} {
		if got := outcome(results[i]); want != "" && got != want || want == "" && got != "absent" && got != "invalid" {
			t.Errorf("key %d: %s", i, got)
		}
	}
}

func testReportLargeIntegersInJSON(t *testing.T, d database) {
	const doc = `{"id":750727362669608961,"far":-9007199254740993}`
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v "+
		map[string]string{"postgres": "jsonb", "mysql": "JSON", "sqlite": "JSON"}[d.driver]+")")
	d.exec(t, "INSERT INTO r VALUES ('a', '"+doc+"')")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Columns: []string{"v"}})
	checkOutcomes(t, w, map[string]string{"a": `{"v":` + doc + `}`})
	if _, err := w.Write(soon(t), origin.Change{Key: "b", Data: []byte(`{"v":` + doc + `}`)}); err != nil {
		t.Fatal(err)
	}
	checkOutcomes(t, w, map[string]string{"b": `{"v":` + doc + `}`})
}

func TestSQLiteLockedByAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	d := database{DB: connect(t, "sqlite", "file:"+path), engine: "sqlite", driver: "sqlite", dsn: path} // without WAL
	d.exec(t, "CREATE TABLE r (k TEXT PRIMARY KEY, v TEXT)")
	d.exec(t, "INSERT INTO r VALUES ('a', '1')")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
	conn, err := d.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lock := func(statement string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	lock("BEGIN EXCLUSIVE")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := w.Load(ctx, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a load while the file is locked: %v, want an exceeded deadline", err)
	}
	done := make(chan error, 2)
	go func() { _, err := w.Load(soon(t), []string{"a"}); done <- err }()
	go func() { _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte("2")}); done <- err }()
	time.Sleep(50 * time.Millisecond)
	lock("COMMIT")
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("after the lock: %v", err)
		}
	}
}

func testReportLiteralsAsKeys(t *testing.T, d database) {
	d.exec(t, "CREATE VIEW w AS SELECT 'a' AS k, 1 AS v UNION ALL SELECT 'b', 2")
	o := d.dataset(t, origin.Dataset{Table: "w", Key: []string{"k"}, Columns: []string{"v"}})
	checkOutcomes(t, o, map[string]string{"a": `{"v":1}`, "b": `{"v":2}`, "c": "absent"})
}

func testReportErrorsInAnotherLanguage(t *testing.T, d database) {
	if d.driver != "mysql" {
		return
	}
	d.exec(t, "CREATE TABLE other (id INT PRIMARY KEY)")
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, small TINYINT, ref INT, short VARCHAR(3), must INT NOT NULL DEFAULT 1, "+
		"one INT UNIQUE, day DATE, FOREIGN KEY (ref) REFERENCES other (id))")
	d.exec(t, "INSERT INTO r (k, one) VALUES ('taken', 1)")
	if d.is("mariadb") { // this MySQL has English messages only
		d.set(t, "lc_messages", "'de_DE'")
	}
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	for value, column := range map[string]string{
		`{"ref":5}`: "ref", `{"short":"abcd"}`: "short", `{"day":"2023-02-29"}`: "day", `{"one":1}`: "",
	} {
		_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(value)})
		refused, ok := errors.AsType[*origin.ValueError](err)
		if !ok || refused.Column != column {
			t.Errorf("%s: %v; want column %q", value, err, column)
		}
	}
}

// The type of the key column changes while the program runs. Its connections know the old one.
func testReportKeyTypeChanges(t *testing.T, d database) {
	const old = "0190a6c5-0000-7000-8000-000000000001"
	uuid := map[string]string{"postgres": "uuid", "mariadb": "UUID", "mysql8": "CHAR(36)", "sqlite": "TEXT"}
	d.exec(t, "CREATE TABLE r (k "+cmp.Or(uuid[d.engine], uuid[d.driver])+" PRIMARY KEY, v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('"+old+"', 'old')")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
	checkOutcomes(t, w, map[string]string{old: "old"})
	if _, err := w.Write(soon(t), origin.Change{Key: old, Data: []byte("older")}); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "DROP TABLE r")
	d.exec(t, "CREATE TABLE r (k BIGINT PRIMARY KEY, v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES (7, 'new')")
	for ctx := soon(t); ; time.Sleep(50 * time.Millisecond) { // a rejected key makes the types be read again, once a second
		results, err := w.Load(ctx, []string{"7"})
		if err == nil && outcome(results[0]) == "new" {
			break
		}
		if err == nil && errors.Is(results[0].Err, origin.ErrNotFound) || ctx.Err() != nil {
			t.Fatalf("%v, %v, want the new row", results, err)
		}
	}
	checkOutcomes(t, w, map[string]string{"7": "new", "8": "absent", old: "invalid"})
	for ctx := soon(t); ; time.Sleep(50 * time.Millisecond) {
		_, err := w.Write(ctx, origin.Change{Key: "8", Data: []byte("8")})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("write: %v", err)
		}
	}
	checkOutcomes(t, w, map[string]string{"7": "new", "8": "8"})
}

func testReportKeyOutsideTheCharacterSet(t *testing.T, d database) {
	if d.driver != "mysql" {
		return
	}
	d.exec(t, "CREATE TABLE r (k VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('a', '1'), ('é', '2'), ('plain', '3')")
	o := d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
	want := map[string]string{"a": "1", "é": "2", "plain": "3", "none": "absent", "😀": "invalid", "ж": "invalid"}
	checkOutcomes(t, o, want)
	for i := range 30 { // so many keys in one statement, of which one is not latin1
		want[fmt.Sprint("none", i)] = "absent"
	}
	checkOutcomes(t, o, want)
}
