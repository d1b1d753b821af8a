package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
)

func loadAll(t *testing.T, o origin.Origin, keys ...string) []origin.Result {
	t.Helper()
	results, err := o.Load(soon(t), keys)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// outcome is a result in one word: a value, "absent" or "invalid".
func outcome(r origin.Result) string {
	switch {
	case r.Err == nil:
		return string(r.Value.Data)
	case errors.Is(r.Err, origin.ErrNotFound):
		return "absent"
	case errors.Is(r.Err, origin.ErrInvalidKey):
		return "invalid"
	}
	if cause := origin.CauseOf(r.Err); cause != 0 {
		return cause.String() + ": " + r.Err.Error()
	}
	return r.Err.Error()
}

func checkOutcomes(t *testing.T, o origin.Origin, want map[string]string) {
	t.Helper()
	var keys []string
	for key := range want {
		keys = append(keys, key)
	}
	for i, r := range loadAll(t, o, keys...) {
		if got := outcome(r); got != want[keys[i]] {
			t.Errorf("%q in a batch: got %s, want %s", keys[i], got, want[keys[i]])
		}
	}
	for _, key := range keys {
		if got := outcome(loadAll(t, o, key)[0]); got != want[key] {
			t.Errorf("%q alone: got %s, want %s", key, got, want[key])
		}
	}
}

// MySQL considers '12abc' equal to 12, and all databases ' 12': one row would get several cache entries.
func testKeysThatTheDatabaseConverts(t *testing.T, d database) {
	const big = "9007199254740993" // 2^53 + 1, equal to 2^53 as a float
	want := map[string]string{
		"12": "twelve", "-3": "minus", big: "big", "9007199254740992": "absent", "13": "absent",
		"12abc": "invalid", "012": "invalid", "+12": "invalid", " 12": "invalid", "12.0": "invalid", "1.2e1": "invalid",
		"-0": "invalid", "9223372036854775808": "invalid", "0x0c": "invalid", "abc": "invalid",
	}
	d.exec(t, "CREATE TABLE n (id BIGINT PRIMARY KEY, v VARCHAR(20))")
	d.exec(t, "INSERT INTO n VALUES (12, 'twelve'), (-3, 'minus'), ("+big+", 'big')")
	checkOutcomes(t, d.dataset(t, origin.Dataset{Table: "n", Key: []string{"id"}, Value: "v"}), want)
}

func testKeysThatABatchQueryConverts(t *testing.T, d database) {
	want := map[string]string{"12": "twelve", "13": "absent", "12abc": "absent", "012": "absent", "12.0": "absent"}
	ds := origin.Dataset{Query: "SELECT v FROM n WHERE id = ?", Batch: "SELECT id, v FROM n WHERE id IN (?)", Value: "v"}
	if d.driver == "postgres" {
		ds.Query, ds.Batch = "SELECT v FROM n WHERE id = $1", "SELECT id, v FROM n WHERE id = ANY($1)"
		for _, key := range []string{"12abc", "012", "12.0"} {
			want[key] = "invalid" // PostgreSQL reports the type of the parameter
		}
	}
	d.exec(t, "CREATE TABLE n (id BIGINT PRIMARY KEY, v VARCHAR(20))")
	d.exec(t, "INSERT INTO n VALUES (12, 'twelve')")
	checkOutcomes(t, d.dataset(t, ds), want)
}

const id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"

var keyCases = []struct {
	driver, sqlType, row string
	want                 map[string]string
}{
	{"postgres", "uuid", id,
		map[string]string{id: "v", strings.ToUpper(id): "invalid", "x": "invalid", "{" + id + "}": "invalid"}},
	{"postgres", "smallint", "5", map[string]string{"5": "v", "32768": "invalid"}},
	{"postgres", "int", "5", map[string]string{"5": "v", "2147483648": "invalid"}},
	{"postgres", "numeric(5,1)", "5", map[string]string{"5.0": "v", "5": "absent", "five": "invalid"}},
	{"postgres", "date", "2024-02-29", map[string]string{"2024-02-29": "v", "2023-02-29": "invalid", "today": "absent"}},
	{"postgres", "inet", "10.0.0.1", map[string]string{"10.0.0.1": "v", "10.0.0.1/32": "absent", "10.0.0.256": "invalid"}},
	{"postgres", "boolean", "true", map[string]string{"t": "v", "true": "absent", "perhaps": "invalid"}},
	{"postgres", "char(5)", "ab", map[string]string{"ab": "v", "ab ": "absent", "AB": "absent"}},
	{"mariadb", "UUID", id, map[string]string{id: "v", strings.ToUpper(id): "invalid", "x": "invalid"}},
	{"mysql", "BIGINT UNSIGNED", "18446744073709551615",
		map[string]string{"18446744073709551615": "v", "18446744073709551616": "invalid", "-1": "invalid"}},
	{"mysql", "TINYINT", "5", map[string]string{"5": "v", "128": "invalid"}},
	{"mysql", "MEDIUMINT", "5", map[string]string{"5": "v", "8388608": "invalid"}},
	{"mysql", "DECIMAL(5,1)", "5", map[string]string{"5.0": "v", "5": "absent", "5.0abc": "absent"}},
	{"mysql", "DATE", "2024-02-29", map[string]string{"2024-02-29": "v", "20240229": "absent"}},
	{"mysql", "CHAR(5)", "ab", map[string]string{"ab": "v", "ab ": "absent", "AB": "absent", "áb": "absent"}},
	{"mysql", "VARBINARY(5)", "ab", map[string]string{"ab": "v", "AB": "absent"}},
	{"sqlite", "INTEGER", "5", map[string]string{"5": "v", "5.0": "invalid"}},
	{"sqlite", "DATE", "2024-02-29", map[string]string{"2024-02-29": "v", "2024-2-29": "absent"}},
	{"sqlite", "TIMESTAMP", "2024-02-29 01:02:03", map[string]string{"2024-02-29 01:02:03": "v"}},
	{"sqlite", "TEXT COLLATE NOCASE", "ab", map[string]string{"ab": "v", "AB": "absent"}},
	{"sqlite", "REAL", "1.5", map[string]string{"1.5": "v", "1.50": "absent"}},
	{"sqlite", "NUMERIC", "7", map[string]string{"7": "v", "7.0": "absent", "07": "absent"}},
	{"sqlite", "CHAR(5)", "ab ", map[string]string{"ab ": "v", "ab": "absent"}},
	{"sqlite", "TEXT COLLATE RTRIM", "ab", map[string]string{"ab": "v", "ab ": "absent"}},
}

func testKeysOfOtherTypes(t *testing.T, d database) {
	db := d.open(t)
	for i, c := range keyCases {
		if !d.is(c.driver) {
			continue
		}
		table := fmt.Sprint("keys", i)
		d.exec(t, "CREATE TABLE "+table+" (k "+c.sqlType+" PRIMARY KEY, v VARCHAR(9))")
		d.exec(t, "INSERT INTO "+table+" VALUES ('"+c.row+"', 'v')")
		o, err := db.Dataset(origin.Dataset{Name: c.sqlType, Table: table, Key: []string{"k"}, Value: "v"})
		if err != nil {
			t.Fatal(err)
		}
		t.Run(c.sqlType, func(t *testing.T) { checkOutcomes(t, o, c.want) })
	}
}

// Without affinity, SQLite does not consider 7 and '7' equal: each key has its own type.
func TestSQLiteKeysWithoutAffinity(t *testing.T) {
	d := startSQLite(t)
	const rows = ` VALUES (7, 'integer'), (-9223372036854775808, 'low'), ('8', 'text'), ('abc', 'word'), (1.5, 'real'), (2.0, 'whole'),
		(x'616263ff', 'bytes'), (x'646566', 'blob'), ('007', 'zeros'), ('1e3', 'power'), ('', 'empty')`
	want := map[string]string{
		"7": "integer", "-9223372036854775808": "low", "8": "text", "abc": "word", "1.5": "real", "2.0": "whole", "def": "blob",
		"007": "zeros", "1e3": "power", "07": "absent", "7.0": "absent", "2": "absent", "1.50": "absent", "8.0": "absent", "ABC": "absent",
	}
	for _, statement := range []string{
		"CREATE TABLE bare (k PRIMARY KEY, v)", "CREATE TABLE blobs (k BLOB PRIMARY KEY, v)",
		"CREATE TABLE rowless (k PRIMARY KEY, v) WITHOUT ROWID", "CREATE TABLE strict (k ANY PRIMARY KEY, v TEXT) STRICT",
		"CREATE TABLE nocase (k COLLATE NOCASE PRIMARY KEY, v)",
	} {
		d.exec(t, statement)
		d.exec(t, "INSERT INTO "+strings.Fields(statement)[2]+rows)
	}
	d.exec(t, "CREATE VIEW viewed AS SELECT k, v FROM bare")
	d.exec(t, "CREATE VIEW computed AS SELECT CASE WHEN v = '' THEN 1 ELSE k END AS k, v FROM bare")
	d.exec(t, "CREATE VIEW merged AS SELECT k, v FROM bare WHERE v < 'm' UNION ALL SELECT k, v FROM bare WHERE v >= 'm'")
	for _, table := range []string{"bare", "blobs", "rowless", "strict", "nocase", "viewed", "computed", "merged"} {
		t.Run(table, func(t *testing.T) {
			checkOutcomes(t, d.dataset(t, origin.Dataset{Table: table, Key: []string{"k"}, Value: "v"}), want)
		})
	}
	t.Run("query", func(t *testing.T) {
		checkOutcomes(t, d.dataset(t, origin.Dataset{Query: "SELECT v FROM bare WHERE k = ? AND CAST(k AS TEXT) <> '2.0'", Value: "v"}),
			map[string]string{"7": "integer", "8": "text", "1.5": "real", "def": "blob", "9": "absent"})
		checkOutcomes(t, d.dataset(t, origin.Dataset{Query: "SELECT v FROM bare WHERE k = ?", Value: "v",
			Batch: "SELECT CAST(k AS TEXT), v FROM bare WHERE +k IN (?)"}), want)
	})
	t.Run("numbers", func(t *testing.T) {
		d.exec(t, "CREATE TABLE numbered (id INTEGER PRIMARY KEY, v)")
		d.exec(t, "INSERT INTO numbered VALUES (7, 'v')")
		d.exec(t, "CREATE VIEW shifted AS SELECT id + 1 AS k, v FROM numbered")
		d.exec(t, "CREATE VIEW named AS SELECT 'n' || id AS k, v FROM numbered")
		checkOutcomes(t, d.dataset(t, origin.Dataset{Table: "shifted", Key: []string{"k"}, Value: "v"}), map[string]string{"8": "v", "7": "absent", "08": "absent"})
		checkOutcomes(t, d.dataset(t, origin.Dataset{Table: "named", Key: []string{"k"}, Value: "v"}), map[string]string{"n7": "v", "7": "absent"})
	})
	t.Run("two keys of one text", func(t *testing.T) {
		d.exec(t, "CREATE TABLE twice (k PRIMARY KEY, v)")
		d.exec(t, "INSERT INTO twice VALUES (7, 'a'), ('7', 'b')")
		r := loadAll(t, d.dataset(t, origin.Dataset{Table: "twice", Key: []string{"k"}, Value: "v"}), "7")[0]
		if r.Err == nil || !strings.Contains(r.Err.Error(), "2 rows of one key") {
			t.Errorf("got %s, %v", r.Value.Data, r.Err)
		}
	})
	t.Run("writes", func(t *testing.T) {
		ds := origin.Dataset{Table: "bare", Key: []string{"k"}}
		w := d.rows(t, ds)
		_, err := w.Write(soon(t), origin.Change{Key: "7", Data: []byte(`{"v":"x"}`)})
		if !errors.Is(err, origin.ErrInvalidValue) || !strings.Contains(err.Error(), "declare it TEXT or INTEGER") {
			t.Errorf("write: %v", err)
		}
		if _, err := w.List(soon(t), origin.ListQuery{Limit: 5}); !errors.Is(err, origin.ErrInvalidValue) {
			t.Errorf("list: %v", err)
		}
		if err := d.open(t).CheckWritable(soon(t), ds); err == nil || !strings.Contains(err.Error(), "declare it TEXT or INTEGER") {
			t.Errorf("check: %v", err)
		}
		if n := d.count(t, "SELECT count(*) FROM bare WHERE typeof(k) || k = 'integer7' AND v = 'integer'"); n != 1 {
			t.Error("the row has changed")
		}
	})
}

func testVersions(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 9223372036854775807), ('null', 'x', NULL)")
	for name, c := range map[string]struct {
		ds   origin.Dataset
		want string
	}{
		"row":     {origin.Dataset{Version: "ver"}, `{"k":"a","v":"x","ver":9223372036854775807}`},
		"columns": {origin.Dataset{Version: "ver", Columns: []string{"v", "k"}}, `{"v":"x","k":"a"}`},
		"value":   {origin.Dataset{Version: "ver", Value: "v"}, `x`},
	} {
		c.ds.Table, c.ds.Key = "r", []string{"k"}
		o := d.dataset(t, c.ds)
		if v := loadOne(t, o, "a"); string(v.Data) != c.want || v.Version != 9223372036854775807 {
			t.Errorf("%s: %s at version %d", name, v.Data, v.Version)
		}
		if v := loadOne(t, o, "null"); v.Version != 0 {
			t.Errorf("%s: no version is %d", name, v.Version)
		}
	}
}

func testInvalidRowFailsOnlyItsKey(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9), v VARCHAR(2000), ver VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('twice', 'x', '1'), ('twice', 'y', '1'), ('good', 'x', '1'), ('null', NULL, '1'), "+
		"('bad', 'x', 'new'), ('large', '"+strings.Repeat("x", 101)+"', '1'), ('fits', '"+strings.Repeat("x", 100)+"', '1')")
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxValueBytes: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	o, err := db.Dataset(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}, Value: "v", Version: "ver"})
	if err != nil {
		t.Fatal(err)
	}
	checkOutcomes(t, o, map[string]string{
		"good": "x", "null": "absent", "fits": strings.Repeat("x", 100),
		"twice":                   `several-rows: the database has 2 rows of one key: make the key column unique`,
		"large":                   `too-large: the row makes a value of 101 bytes, and the limit is 100: leave out columns, or store less in the row`,
		"bad":                     `invalid-version: the version column "ver" must have integers of 64 bits: invalid syntax`,
		strings.Repeat("k", 3072): "absent", strings.Repeat("k", 3073): "invalid",
	})
}

func testQueryWithoutBatchRunsOncePerKey(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9), v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('a', '1'), ('b', '2'), ('twice', '3'), ('twice', '4')")
	mark := d.placeholders("?")
	o := d.dataset(t, origin.Dataset{Query: "SELECT v FROM r WHERE k = " + mark})
	checkOutcomes(t, o, map[string]string{"a": `{"v":"1"}`, "b": `{"v":"2"}`, "c": "absent",
		"twice": `several-rows: the database has 2 rows of one key: make the key column unique`})
}

func testNamesThatNeedQuotes(t *testing.T, d database) {
	quote := map[bool]string{true: "`", false: `"`}[d.driver == "mysql"]
	key, odd := "Key"+quote+"one", quote+"; --"
	quoted := func(name string) string { return quote + strings.ReplaceAll(name, quote, quote+quote) + quote }
	d.exec(t, fmt.Sprintf("CREATE TABLE %s (%s VARCHAR(9) PRIMARY KEY, %s INT)", quoted("select me"), quoted(key),
		quoted(odd)))
	d.exec(t, fmt.Sprintf("INSERT INTO %s VALUES ('a', 5)", quoted("select me")))
	o := d.dataset(t, origin.Dataset{Table: "select me", Key: []string{key}, Value: odd})
	checkOutcomes(t, o, map[string]string{"a": "5"})
}

// running counts the stuck queries of a database.
var running = map[string]string{
	"postgres": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND " +
		"query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
	"mysql": "SELECT count(*) FROM information_schema.PROCESSLIST WHERE " +
		"info LIKE '%SLEEP(120)%' AND id <> CONNECTION_ID()",
}

// An abandoned query must also end in the database; otherwise a slow database gets ever more queries.
func testAbandonedQueryEndsInTheDatabase(t *testing.T, d database) {
	if d.driver == "sqlite" {
		return // a query ends with its call, as the conformance test verifies
	}
	o := d.dataset(t, origin.Dataset{Query: stuck[d.driver]})
	var errs []error
	for range 2 { // the limit belongs to each statement, not to the connection
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		_, err := o.Load(ctx, []string{"a"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a deadline exceeded", err)
		}
		errs = append(errs, err)
		for limit := soon(t); d.count(t, running[d.driver]) > 0 && limit.Err() == nil; {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if n := d.count(t, running[d.driver]); n != 0 {
		t.Errorf("%d queries still run", n)
	}
	// The database ends the query first, unless this machine is so busy that the context ends before the answer arrives.
	if err := errors.Join(errs...); !strings.Contains(err.Error(), "ended by the database at its time limit") {
		t.Errorf("the database had no time limit: %v", err)
	}
}

func (d database) count(t *testing.T, query string) (n int) {
	t.Helper()
	if err := d.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// await repeats a query until its number is not 0, and returns that.
func (d database) await(t *testing.T, query string) int {
	t.Helper()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if n := d.count(t, query); n != 0 {
			return n
		}
	}
	t.Fatalf("%s is 0 after a minute", query)
	return 0
}

// eachServer runs test with servers that it may stop; o reads a table in which the key a has the value 1.
func eachServer(t *testing.T, test func(t *testing.T, server *rig.Database, o origin.Origin)) {
	for _, engine := range rig.Engines {
		t.Run(engine.Name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, engine)
			s.fill(t, map[string]string{"a": "1"})
			test(t, s.Database, s.dataset(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Value: "v"}))
		})
	}
}

func TestLoadsAfterARestartOfTheDatabase(t *testing.T) {
	eachServer(t, func(t *testing.T, server *rig.Database, o origin.Origin) {
		loadTogether(t, o)
		server.Stop()
		if _, err := o.Load(soon(t), []string{"a"}); err == nil {
			t.Error("got no error from a stopped database")
		}
		server.Start()
		for range 2 {
			loadTogether(t, o)
		}
		server.Kill()
		server.Start()
		loadTogether(t, o)
	})
}

// The connection then looks broken, but the error must be the exceeded deadline.
func TestFrozenDatabaseExceedsTheDeadline(t *testing.T) {
	eachServer(t, func(t *testing.T, server *rig.Database, o origin.Origin) {
		for range 2 { // pgx checks a connection that it reuses, unless it was used within the last second
			loadOne(t, o, "a")
		}
		server.Freeze()
		for range 2 { // on the existing connection, and on a new one
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := o.Load(ctx, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want a deadline exceeded", err)
			}
		}
		server.Thaw()
		loadOne(t, o, "a")
	})
}

// loadTogether uses all connections of the pool.
func loadTogether(t *testing.T, o origin.Origin) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 * origin.DefaultMaxConns {
		wg.Go(func() {
			if results, err := o.Load(soon(t), []string{"a"}); err != nil || outcome(results[0]) != "1" {
				t.Errorf("%v, %v", results, err)
			}
		})
	}
	wg.Wait()
}

func testPlanOfAnAlteredTable(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY)")
	d.exec(t, "INSERT INTO r VALUES ('a')")
	o := d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	checkOutcomes(t, o, map[string]string{"a": `{"k":"a"}`})
	d.exec(t, "ALTER TABLE r ADD COLUMN v INT DEFAULT 5")
	checkOutcomes(t, o, map[string]string{"a": `{"k":"a","v":5}`})
}

func testLoadsCannotWrite(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY)")
	statement := map[string]string{
		"postgres": "INSERT INTO r VALUES ($1) RETURNING k",
		"mysql":    "INSERT INTO r VALUES (?) RETURNING k",
		"sqlite":   "INSERT INTO r VALUES (?) RETURNING k",
	}[d.driver]
	o := d.dataset(t, origin.Dataset{Query: statement})
	if _, err := o.Load(soon(t), []string{"a"}); err == nil {
		t.Error("a load wrote a row")
	}
	if n := d.count(t, "SELECT count(*) FROM r"); n != 0 {
		t.Errorf("%d rows written", n)
	}
}

// The query counts the concurrent queries itself, so that no peak is missed between two samples.
func TestColdStartKeepsTheLimit(t *testing.T) {
	const inFlight, perBatch, keys = 3, 100, 1000
	d := startPostgres(t)
	d.exec(t, "CREATE TABLE r AS SELECT 'key-' || i AS k FROM generate_series(1, 1000) i")
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxConns: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const together = `(SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(0.02)%'
		AND usename = 'ringside' AND application_name = 'ringside') AS n`
	source, err := db.Dataset(origin.Dataset{Name: "rows", Value: "n", Query: "SELECT 1 AS n WHERE $1 = ''",
		Batch: "WITH slow AS MATERIALIZED (SELECT pg_sleep(0.02)), c AS MATERIALIZED (SELECT " + together +
			" FROM slow) SELECT k, n FROM r, c WHERE k = ANY($1)"})
	if err != nil {
		t.Fatal(err)
	}
	limiter := guard.NewLimiter(guard.LimitConfig{MaxInFlight: inFlight})
	counted := &countingOrigin{Origin: source}
	o := guard.NewBatch(counted, guard.BatchConfig{MaxKeys: perBatch, Limiter: limiter})
	peaks := make([]string, keys)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			results, err := o.Load(soon(t), []string{fmt.Sprintf("key-%d", i+1)})
			if err != nil {
				t.Error(err)
				return
			}
			peaks[i] = outcome(results[0])
		})
	}
	wg.Wait()
	peak := ""
	for _, p := range peaks {
		peak = max(peak, p)
	}
	if peak != "2" && peak != "3" {
		t.Errorf("got %s concurrent statements, want at most %d, and more than 1", peak, inFlight)
	}
	if n := counted.loads.Load(); n > keys/perBatch+5 {
		t.Errorf("%d queries for %d keys", n, keys)
	}
	t.Logf("%d cold keys: %d queries, at most %s together", keys, counted.loads.Load(), peak)
}

// countingOrigin counts the Loads of an origin.
type countingOrigin struct {
	origin.Origin
	loads atomic.Int64
}

func (o *countingOrigin) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	o.loads.Add(1)
	return o.Origin.Load(ctx, keys)
}
