package sqldb_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// TestMain runs more tests at a time than there are processors, unless -parallel says otherwise: they wait for servers most of
// the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// database is a real database, with a connection that may write.
type database struct {
	*sql.DB
	engine      string // the kind of server: MySQL and MariaDB have the same driver
	driver, dsn string
	behind      string // the host:port of the server, if dsn names a pooler before it
}

// TestDatabases runs each test in an empty database of its own on one server of each kind.
func TestDatabases(t *testing.T) {
	tests := []struct {
		name string
		test func(t *testing.T, d database)
	}{
		{"Conformance", testConformance},
		{"ConformanceWriter", testConformanceWriter},
		{"KeysThatTheDatabaseConverts", testKeysThatTheDatabaseConverts},
		{"KeysThatABatchQueryConverts", testKeysThatABatchQueryConverts},
		{"KeysOfOtherTypes", testKeysOfOtherTypes},
		{"Versions", testVersions},
		{"InvalidRowFailsOnlyItsKey", testInvalidRowFailsOnlyItsKey},
		{"QueryWithoutBatchRunsOncePerKey", testQueryWithoutBatchRunsOncePerKey},
		{"NamesThatNeedQuotes", testNamesThatNeedQuotes},
		{"AbandonedQueryEndsInTheDatabase", testAbandonedQueryEndsInTheDatabase},
		{"PlanOfAnAlteredTable", testPlanOfAnAlteredTable},
		{"LoadsCannotWrite", testLoadsCannotWrite},
		{"Check", testCheck},
		{"ValuesOfEachType", testValuesOfEachType},
		{"ContentOfEachColumn", testContentOfEachColumn},
		{"ContentOfAQuery", testContentOfAQuery},
		{"ManyRows", testManyRows},
		{"ManyRowsAreLimited", testManyRowsAreLimited},
		{"CheckOfManyRows", testCheckOfManyRows},
		{"WritesOfEachType", testWritesOfEachType},
		{"WritesInOtherForms", testWritesInOtherForms},
		{"WritesOfSomeColumns", testWritesOfSomeColumns},
		{"VersionsOfARecreatedRow", testVersionsOfARecreatedRow},
		{"VersionOfARowCreatedAfterAWait", testVersionOfARowCreatedAfterAWait},
		{"InvalidValues", testInvalidValues},
		{"List", testList},
		{"ListOfLargeRows", testListOfLargeRows},
		{"ListWithoutTheEmptyKey", testListWithoutTheEmptyKey},
		{"ListKeys", testListKeys},
		{"ListKeysOfSeveralColumns", testListKeysOfSeveralColumns},
		{"Expires", testExpires},
		{"ListKeysOfPrefix", testListKeysOfPrefix},
		{"ListKeysCannotWrite", testListKeysCannotWrite},
		{"CheckUnique", testCheckUnique},
		{"CheckUniqueOfAView", testCheckUniqueOfAView},
		{"CheckWritable", testCheckWritable},
		{"CheckWritableOfAReadOnlyAccount", testCheckWritableOfAReadOnlyAccount},
		{"CheckRejectsAQueryThatWrites", testCheckRejectsAQueryThatWrites},
		{"WritesThatCouldNotBeReadBack", testWritesThatCouldNotBeReadBack},
		{"ConditionsOnANullValue", testConditionsOnANullValue},
		{"KeyThatIsNotUnique", testKeyThatIsNotUnique},
		{"WritesToAnAlteredTable", testWritesToAnAlteredTable},
		{"WritesToAMissingTable", testWritesToAMissingTable},
		{"WritesToATableWithTriggers", testWritesToATableWithTriggers},
		{"BatchWithRefusedRows", testBatchWithRefusedRows},
		{"BatchRefusedAsAWhole", testBatchRefusedAsAWhole},
		{"WritesThatATriggerSuppresses", testWritesThatATriggerSuppresses},
		{"RotatedPassword", testRotatedPassword},
		{"RejectedKeys", testRejectedKeys},
		{"RejectedKeyAmongMany", testRejectedKeyAmongMany},
		{"QueryThatFailsForEveryKey", testQueryThatFailsForEveryKey},
		{"RowThatMakesTheQueryFail", testRowThatMakesTheQueryFail},
		{"RejectedWrites", testRejectedWrites},
		{"TypeOfTheKeyChanges", testTypeOfTheKeyChanges},
		{"CaseOfKeys", testCaseOfKeys},
		{"CompositeKeys", testCompositeKeys},
		{"CompositeKeysIgnoreCollations", testCompositeKeysIgnoreCollations},
		{"CompositeKeysOfOtherTypes", testCompositeKeysOfOtherTypes},
		{"CompositeKeysUseTheIndex", testCompositeKeysUseTheIndex},
		{"CompositeWrites", testCompositeWrites},
		{"CompositeKeyThatIsNotUnique", testCompositeKeyThatIsNotUnique},
		{"Appends", testAppends},
		{"AppendsWithoutAGeneratedKey", testAppendsWithoutAGeneratedKey},
		{"AppendsToATableWithTriggers", testAppendsToATableWithTriggers},
	}
	// A pooler in session mode gives what the server itself does; the tests of sessions and feeds have it.
	some := allStarts()
	delete(some, "pgbouncer-session")
	eachOf(t, some, func(t *testing.T, server database) {
		for i, c := range tests {
			t.Run(c.name, func(t *testing.T) { c.test(t, server.empty(t, fmt.Sprint("test", i))) })
		}
	})
}

// starts start an empty database of each kind.
var starts = map[string]func(testing.TB) database{
	"postgres": startPostgres, "mysql8": startMySQL, "mariadb": startMariaDB, "sqlite": startSQLite,
}

// stuck are queries that take minutes.
var stuck = map[string]string{
	"postgres": "SELECT pg_sleep(120)::text AS v, 1 AS ver WHERE $1 <> ''",
	"mysql":    "SELECT 1 AS v, 1 AS ver FROM DUAL WHERE ? <> '' AND SLEEP(120) = 0",
	"sqlite": `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000000000)
		SELECT count(*) AS v, 1 AS ver FROM n WHERE ? <> ''`,
}

// is reports whether the database is of a kind or has a driver.
func (d database) is(kind string) bool { return kind == d.engine || kind == d.driver }

// poolers start an empty PostgreSQL behind a PgBouncer. In session mode each idle connection of a client keeps one of the server.
var poolers = map[string]func(testing.TB) database{
	"pgbouncer-session":     func(t testing.TB) database { return startPgBouncer(t, rig.SessionPool, "default_pool_size = 150") },
	"pgbouncer-transaction": func(t testing.TB) database { return startPgBouncer(t, rig.TransactionPool) },
}

// eachDatabase runs test against a new server of each kind, and through each pooler.
func eachDatabase(t *testing.T, test func(t *testing.T, d database)) { eachOf(t, allStarts(), test) }

// eachKind runs test, which is about values, against a new server of each kind: a pooler changes none.
func eachKind(t *testing.T, test func(t *testing.T, d database)) { eachOf(t, starts, test) }

func eachOf(t *testing.T, starts map[string]func(testing.TB) database, test func(t *testing.T, d database)) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

func allStarts() map[string]func(testing.TB) database {
	all := maps.Clone(starts)
	maps.Copy(all, poolers)
	return all
}

// empty returns an empty database of the server d.
func (d database) empty(t *testing.T, name string) database {
	switch d.driver {
	case "postgres":
		d.exec(t, "CREATE SCHEMA "+name)
		d.dsn += "&search_path=" + name
		d.DB = connect(t, "pgx", d.direct())
	case "mysql":
		d.exec(t, "CREATE DATABASE "+name)
		d.dsn = strings.TrimSuffix(d.dsn, "ringside") + name
		d.DB = connect(t, "mysql", d.dsn)
	case "sqlite":
		return startSQLite(t)
	}
	return d
}

func startPostgres(t testing.TB) database {
	dsn := rig.Postgres(t)
	return database{DB: connect(t, "pgx", dsn), engine: "postgres", driver: "postgres", dsn: dsn}
}

func startPgBouncer(t testing.TB, mode rig.PoolMode, settings ...string) database {
	server := rig.NewPostgres(t)
	return database{
		DB: connect(t, "pgx", server.DSN), engine: "pgbouncer-" + string(mode), driver: "postgres",
		dsn: rig.PgBouncer(t, server, mode, settings...).DSN, behind: hostPort.FindString(server.DSN),
	}
}

// direct is the DSN of the server itself.
func (d database) direct() string {
	if d.behind == "" {
		return d.dsn
	}
	return hostPort.ReplaceAllString(d.dsn, d.behind)
}

func startMySQL(t testing.TB) database {
	dsn := rig.MySQL(t)
	return database{DB: connect(t, "mysql", dsn), engine: "mysql8", driver: "mysql", dsn: dsn}
}

func startMariaDB(t testing.TB) database {
	dsn := rig.MariaDB(t)
	return database{DB: connect(t, "mysql", dsn), engine: "mariadb", driver: "mysql", dsn: dsn}
}

func startSQLite(t testing.TB) database {
	path := filepath.Join(t.TempDir(), "rows ?#%.db")
	d := database{DB: connect(t, "sqlite", "file:"+(filepath.Dir(path)+"/rows%20%3F%23%25.db")), engine: "sqlite", driver: "sqlite", dsn: path}
	d.exec(t, "PRAGMA journal_mode = WAL")
	return d
}

func connect(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (d database) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := d.Exec(statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// openDB opens the database under test.
func openDB(driver string, c origin.SourceConfig) (*sqldb.DB, error) {
	source, err := drivers.All().Open(driver, c)
	if err != nil {
		return nil, err
	}
	return source.(*sqldb.DB), nil
}

// open returns the database under test.
func (d database) open(t testing.TB) *sqldb.DB {
	t.Helper()
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (d database) dataset(t testing.TB, ds origin.Dataset) origin.Origin {
	t.Helper()
	ds.Name = "rows"
	o, err := d.open(t).Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// loadOne fails the test unless key has a value.
func loadOne(t *testing.T, o origin.Origin, key string) origin.Value {
	t.Helper()
	results, err := o.Load(soon(t), []string{key})
	if err != nil {
		t.Fatalf("%q: %v", key, err)
	}
	if results[0].Err != nil {
		t.Fatalf("%q: %v", key, results[0].Err)
	}
	return results[0].Value
}

func testConformance(t *testing.T, d database) {
	modes := map[string]origin.Dataset{
		"table": {Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"},
		"query": {Query: "SELECT v, ver FROM conformance WHERE k = ?", Version: "ver", Value: "v",
			Batch: "SELECT k, v, ver FROM conformance WHERE k IN (?)"},
	}
	if d.driver == "postgres" {
		modes["query"] = origin.Dataset{Query: "SELECT v, ver FROM conformance WHERE k = $1", Version: "ver", Value: "v",
			Batch: "SELECT k, v, ver FROM conformance WHERE k = ANY($1)"}
	}
	for name, ds := range modes {
		t.Run(name, func(t *testing.T) { origintest.Conformance(t, d.subject(ds)) })
	}
}

func (d database) subject(ds origin.Dataset) origintest.Subject {
	return origintest.Subject{
		New: func(t *testing.T, rows map[string]string) origin.Origin {
			d.fill(t, rows)
			return d.dataset(t, ds)
		},
		Stuck: func(t *testing.T) origin.Origin { return d.dataset(t, origin.Dataset{Query: stuck[d.driver]}) },
	}
}

// fill creates the table conformance. The index of its key is not unique, as MariaDB's usual collation considers many of
// origintest.HardKeys equal.
func (d database) fill(t *testing.T, rows map[string]string) {
	t.Helper()
	d.exec(t, "DROP TABLE IF EXISTS conformance")
	d.exec(t, "CREATE TABLE conformance (k VARCHAR(255) NOT NULL, v TEXT NOT NULL, ver INT NOT NULL)")
	d.exec(t, "CREATE INDEX k ON conformance (k)")
	tx, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	insert := map[bool]string{true: "($1, $2, 1)", false: "(?, ?, 1)"}[d.driver == "postgres"]
	for key, value := range rows {
		if _, err := tx.Exec("INSERT INTO conformance VALUES "+insert, key, value); err != nil {
			t.Fatalf("insert %q: %v", key, err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(fmt.Errorf("commit: %w", err))
	}
}
