package sqldb_test

import (
	"errors"
	"fmt"
	"math/rand"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
)

// rejectedKeys are key columns, the key of a row in them, and keys that no row can have.
var rejectedKeys = []struct {
	driver, sqlType, row string
	bad                  []string
}{
	{"postgres", "ltree", "x.y", []string{"a..b", ".", strings.Repeat("a", 2000)}},
	{"postgres", "timestamptz", "2024-01-01 00:00:00+00", []string{"2024-01-01 00:00 Nowhere/Land", "yesterday noon?", "99999999-01-01"}},
	{"postgres", "timestamp", "2024-01-01 00:00:00", []string{"2024-13-01", "x"}},
	{"postgres", "date", "2024-01-01", []string{"2024-02-30", "99999999-01-01"}},
	{"postgres", "time", "01:02:03", []string{"25:00", "x"}},
	{"postgres", "interval", "1 day", []string{"1 fortnite", "99999999999 years"}},
	{"postgres", "inet", "10.0.0.1", []string{"10.0.0.256", "x"}},
	{"postgres", "cidr", "10.0.0.0/8", []string{"10.0.0.1/8"}},
	{"postgres", "macaddr", "08:00:2b:01:02:03", []string{"08:00"}},
	{"postgres", "int4range", "[1,3)", []string{"[3,1)", "[1", "[1,99999999999)"}},
	{"postgres", "mood", "ok", []string{"angry"}},
	{"postgres", "positive", "5", []string{"-5", "x", "99999999999"}},
	{"postgres", "short", "ab", []string{"abcdef"}},
	{"postgres", "numeric(5,1)", "5.0", []string{"five", "1e999999"}},
	{"postgres", "double precision", "0.5", []string{"x", "1e999"}},
	{"postgres", "boolean", "t", []string{"perhaps"}},
	{"postgres", "bit(4)", "1010", []string{"1012"}},
	{"postgres", "bytea", `\x00`, []string{`\x0`, `\q`}},
	{"postgres", "jsonb", `{"a": 1}`, []string{`{"a"`, `"\u0000"`}},
	{"postgres", "tsvector", "'a'", []string{"'a"}},
	{"postgres", "tsquery", "'a'", []string{"a &"}},
	{"postgres", "money", "$1.00", []string{"x"}},
	{"postgres", "pg_lsn", "0/1", []string{"x"}},
	{"postgres", "oid", "7", []string{"x", "99999999999"}},
	{"mysql", "VARCHAR(9) CHARACTER SET utf8mb3", "a", []string{"😀", "a😀"}},
	{"mysql", "VARCHAR(9) CHARACTER SET latin1", "é", []string{"😀", "ж"}},
	{"mysql", "VARCHAR(9) CHARACTER SET ascii", "a", []string{"😀", "é"}},
	{"mysql", "VARCHAR(9) CHARACTER SET sjis", "a", []string{"😀"}},
	{"mysql", "VARCHAR(9) CHARACTER SET ucs2", "a", []string{"😀"}},
	{"mysql", "VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "😀", []string{"😁"}},
	{"mysql", "VARBINARY(9)", "a", []string{"😀"}},
	{"mysql", "ENUM('a','b')", "a", []string{"c", "😀"}},
	{"mysql", "DATE", "2024-01-01", []string{"2024-02-30", "x", "😀"}},
	{"mysql", "DATETIME", "2024-01-01 00:00:00", []string{"2024-13-01", "x", "😀"}},
	{"mysql", "TIMESTAMP", "2024-01-01 00:00:00", []string{"2024-13-01", "x"}},
	{"mysql", "TIME", "01:02:03", []string{"x", "01:99:00"}},
	{"mysql", "YEAR", "2024", []string{"x", "99999"}},
	{"mysql", "DECIMAL(5,1)", "5.0", []string{"x", "1e999"}},
	{"mysql", "DOUBLE", "0.5", []string{"x", "1e999"}},
	{"sqlite", "TEXT", "a", []string{"😀"}},
	{"sqlite", "INTEGER", "5", []string{"x", "99999999999999999999"}},
}

// A key that no row can have is absent or invalid. It fails alone, and the breaker stays closed.
func testRejectedKeys(t *testing.T, d database) {
	if d.driver == "postgres" {
		for _, statement := range []string{
			"CREATE EXTENSION IF NOT EXISTS ltree SCHEMA pg_catalog", "CREATE TYPE mood AS ENUM ('sad', 'ok')",
			"CREATE DOMAIN positive AS int CHECK (VALUE > 0)", "CREATE DOMAIN short AS varchar(3)",
		} {
			d.exec(t, statement)
		}
	}
	db := d.open(t)
	for i, c := range rejectedKeys {
		if c.driver != d.driver {
			continue
		}
		t.Run(c.sqlType, func(t *testing.T) {
			table := fmt.Sprint("rejected", i)
			d.exec(t, "CREATE TABLE "+table+" (k "+c.sqlType+", v VARCHAR(9))") // some of the types have no index
			d.exec(t, "INSERT INTO "+table+" VALUES ("+sqlString(c.row)+", 'v')")
			o, err := db.Dataset(origin.Dataset{Name: "rows", Table: table, Key: []string{"k"}, Value: "v"})
			if err != nil {
				t.Fatal(err)
			}
			d.checkRejected(t, guard.NewBreaker(o, guard.BreakerConfig{Failures: 1}), c.row, c.bad)
		})
	}
}

func sqlString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (d database) checkRejected(t *testing.T, o origin.Origin, row string, bad []string) {
	t.Helper()
	keys := append(slices.Clone(bad), row)
	for range 2 {
		results := loadAll(t, o, keys...)
		for i, key := range keys {
			got := outcome(results[i])
			alone := outcome(loadAll(t, o, key)[0])
			if got != alone {
				t.Errorf("%q: got %q in a batch, %q alone", key, got, alone)
			}
			if key == row && got != "v" || key != row && got != "invalid" && got != "absent" {
				t.Errorf("%q: got %q", key, got)
			}
		}
		slices.Reverse(keys)
	}
}

// PostgreSQL converts keys to the encoding of the database.
func TestKeysOutsideOfTheEncodingOfTheDatabase(t *testing.T) {
	d := startPostgres(t)
	for encoding, c := range map[string]struct{ row, bad string }{
		"LATIN1": {"é", "😀"}, "EUC_JP": {"日本", "😀"}, "WIN1251": {"ж", "é"}, "SQL_ASCII": {"é", ""},
	} {
		t.Run(encoding, func(t *testing.T) {
			d.exec(t, "CREATE DATABASE "+encoding+" ENCODING '"+encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
			dsn, err := url.Parse(d.dsn)
			if err != nil {
				t.Fatal(err)
			}
			dsn.Path, dsn.RawQuery = "/"+strings.ToLower(encoding), dsn.RawQuery+"&client_encoding=UTF8"
			e := database{DB: connect(t, "pgx", dsn.String()), driver: d.driver, dsn: dsn.String()}
			e.exec(t, "CREATE TABLE r (k text PRIMARY KEY, v text)")
			e.exec(t, "INSERT INTO r VALUES ($1, 'v')", c.row)
			bad := []string{c.bad, "a" + c.bad}
			if c.bad == "" { // a database without encoding holds everything
				bad = nil
			}
			rows := e.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
			e.checkRejected(t, guard.NewBreaker(rows, guard.BreakerConfig{Failures: 1}), c.row, bad)
			for _, key := range bad {
				if _, err := rows.Write(soon(t), origin.Change{Key: key, Data: []byte("x")}); !isCallers(err) {
					t.Errorf("write of %q: %v", key, err)
				}
			}
		})
	}
}

// isCallers reports whether an error is about the key or the value of a write.
func isCallers(err error) bool {
	return errors.Is(err, origin.ErrInvalidKey) || errors.Is(err, origin.ErrInvalidValue)
}

// One key among many that the database rejects leaves the others their values.
func testRejectedKeyAmongMany(t *testing.T, d database) {
	key := map[string]string{"postgres": "date", "mysql": "VARCHAR(20) CHARACTER SET latin1", "sqlite": "TEXT"}[d.driver]
	d.exec(t, "CREATE TABLE r (k "+key+" PRIMARY KEY, v VARCHAR(20))")
	bad := map[string]string{"postgres": "2024-02-30", "mysql": "😀", "sqlite": "2024-02-30"}[d.driver]
	keys := []string{bad}
	for i := range 100 {
		key := fmt.Sprintf("2%03d-01-01", i)
		d.exec(t, "INSERT INTO r VALUES ('"+key+"', '"+key+"')")
		keys = append(keys, key)
	}
	o := guard.NewBreaker(d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"}), guard.BreakerConfig{Failures: 1})
	for _, at := range []int{0, 50, 100} {
		others := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == bad })
		batch := slices.Insert(others, at, bad)
		for i, r := range loadAll(t, o, batch...) {
			got, want := outcome(r), batch[i]
			if want == bad {
				want = map[string]string{"postgres": "invalid", "mysql": "invalid", "sqlite": "absent"}[d.driver]
			}
			if got != want && (batch[i] != bad || got != "absent") {
				t.Errorf("%q: got %q, want %q", batch[i], got, want)
			}
		}
	}
	if o.Stats().Open {
		t.Error("the breaker is open")
	}
}

// A query that does not fit the schema is not a fault of the keys, whichever code the database reports.
func testQueryThatFailsForEveryKey(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(20) PRIMARY KEY, v VARCHAR(20), n INT)")
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	mark, list := "?", "IN (?)"
	if d.driver == "postgres" {
		mark, list = "$1", "= ANY($1)"
	}
	for name, query := range map[string]string{
		"column":    "SELECT w FROM r WHERE k = " + mark,
		"table":     "SELECT v FROM nowhere WHERE k = " + mark,
		"function":  "SELECT no_such_function(v) FROM r WHERE k = " + mark,
		"syntax":    "SELECT v FROM r WHERE k == = " + mark,
		"arguments": "SELECT upper(v, v, v, v) FROM r WHERE k = " + mark,
	} {
		batch := strings.Replace(strings.Replace(query, "SELECT ", "SELECT k, ", 1), "= "+mark, list, 1)
		for kind, ds := range map[string]origin.Dataset{"query": {Query: query}, "batch": {Query: query, Batch: batch}} {
			for _, keys := range [][]string{{"a"}, {"a", "b", "c"}} {
				_, err := d.dataset(t, ds).Load(soon(t), keys)
				if err == nil || isCallers(err) {
					t.Errorf("%s of a missing %s: got %v, want an error of the origin", kind, name, err)
				}
			}
		}
	}
	o := d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}, Columns: []string{"v"}})
	loadOne(t, o, "a")
	d.exec(t, "ALTER TABLE r DROP COLUMN v")
	if _, err := o.Load(soon(t), []string{"a"}); err == nil || isCallers(err) || strings.Contains(err.Error(), "bad connection") {
		t.Errorf("a dropped column: got %v, want an error of the origin that names the cause", err)
	}
	d.exec(t, "DROP TABLE r")
	if _, err := o.Load(soon(t), []string{"a"}); err == nil || isCallers(err) {
		t.Errorf("a dropped table: got %v, want an error of the origin", err)
	}
}

// The row of one key makes the query fail; the others are read.
func testRowThatMakesTheQueryFail(t *testing.T, d database) {
	expression := map[string]string{"postgres": "1 / n", "mysql": "n + 9223372036854775800", "sqlite": "abs(n)"}[d.driver]
	bad := map[string]string{"postgres": "0", "mysql": "9", "sqlite": "-9223372036854775808"}[d.driver]
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('good', 1), ('bad', "+bad+")")
	d.exec(t, "CREATE VIEW broken AS SELECT k, "+expression+" AS v FROM r")
	rows := guard.NewBreaker(d.dataset(t, origin.Dataset{Table: "broken", Key: []string{"k"}, Value: "v"}), guard.BreakerConfig{Failures: 1})
	for range 3 {
		results := loadAll(t, rows, "bad", "good", "none")
		if outcome(results[0]) != "invalid" || results[1].Err != nil || outcome(results[2]) != "absent" {
			t.Errorf("got %q, %q, %q", outcome(results[0]), outcome(results[1]), outcome(results[2]))
		}
	}
}

// rejectedWrites are writes that the database rejects, each with the statements that prepare its table r, of which k is the
// key.
var rejectedWrites = []struct {
	driver, name string
	prepare      []string
	key, value   string
	reason       string // in the error
}{
	{"postgres", "ltree", []string{"CREATE TABLE r (k text PRIMARY KEY, p ltree)"}, "a", `{"p":"a..b"}`, "column p: it is not of the column's type"},
	{"postgres", "zone", []string{"CREATE TABLE r (k text PRIMARY KEY, p timestamptz)"}, "a", `{"p":"2024-01-01 00:00 Nowhere/Land"}`, "p"},
	{"postgres", "range", []string{"CREATE TABLE r (k text PRIMARY KEY, p int4range)"}, "a", `{"p":"[3,1)"}`, "p"},
	{"postgres", "xml", []string{"CREATE TABLE r (k text PRIMARY KEY, p xml)"}, "a", `{"p":"<a"}`, "p"},
	{"postgres", "array", []string{"CREATE TABLE r (k text PRIMARY KEY, p int[])"}, "a", `{"p":"{1"}`, "p"},
	{"postgres", "bit", []string{"CREATE TABLE r (k text PRIMARY KEY, p bit(3))"}, "a", `{"p":"10"}`, "SQLSTATE 22026"},
	{"postgres", "domain", []string{"CREATE DOMAIN d AS int CONSTRAINT above CHECK (VALUE > 0)", "CREATE TABLE r (k text PRIMARY KEY, p d)"},
		"a", `{"p":0}`, "constraint above"},
	{"postgres", "index size", []string{"CREATE TABLE r (k text PRIMARY KEY, p text)", "CREATE INDEX ON r (p)"}, "a", `{"p":"RANDOM"}`,
		"too large for the table or an index"},
	{"postgres", "exclusion", []string{"CREATE TABLE r (k text PRIMARY KEY, p int4range, CONSTRAINT apart EXCLUDE USING gist (p WITH &&))",
		"INSERT INTO r VALUES ('b', '[1,9)')"}, "a", `{"p":"[2,3)"}`, "constraint apart"},
	{"postgres", "partition", []string{"CREATE TABLE r (k text PRIMARY KEY, p int) PARTITION BY LIST (k)",
		"CREATE TABLE r1 PARTITION OF r FOR VALUES IN ('b')"}, "a", `{"p":1}`, "no partition"},
	{"postgres", "policy", []string{"CREATE TABLE r (k text PRIMARY KEY, p int)", "ALTER TABLE r ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY mine ON r USING (true) WITH CHECK (p > 0)", "CREATE ROLE tenant LOGIN", "GRANT ALL ON r TO tenant", "ALTER TABLE r FORCE ROW LEVEL SECURITY",
		"ALTER TABLE r OWNER TO tenant"}, "a", `{"p":0}`, "row-level security policy"},
	{"postgres", "view", []string{"CREATE TABLE t (k text PRIMARY KEY, p int)",
		"CREATE VIEW r AS SELECT * FROM t WHERE p > 0 WITH CHECK OPTION"}, "a", `{"p":0}`, "check option"},
	{"postgres", "deferred", []string{"CREATE TABLE o (id int PRIMARY KEY)",
		"CREATE TABLE r (k text PRIMARY KEY, p int CONSTRAINT later REFERENCES o DEFERRABLE INITIALLY DEFERRED)"}, "a", `{"p":1}`, "foreign key later"},
	{"postgres", "key type", []string{"CREATE TABLE r (k date PRIMARY KEY, p int)"}, "2024-02-30", `{"p":1}`, "invalid key"},
	{"postgres", "key domain", []string{"CREATE DOMAIN d AS int CONSTRAINT above CHECK (VALUE > 0)", "CREATE TABLE r (k d PRIMARY KEY, p int)"},
		"-1", `{"p":1}`, "constraint above"},
	{"mysql", "partition", []string{"CREATE TABLE r (k INT PRIMARY KEY, p INT) PARTITION BY RANGE (k) (PARTITION p0 VALUES LESS THAN (100))"},
		"500", `{"p":1}`, "no partition"},
	{"mysql", "geometry", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, g GEOMETRY)"}, "a", `{"g":"AAAA"}`, "it is not a geometry"},
	{"mysql", "geometry of another kind", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, g POINT)"}, "a",
		`{"g":"AAAAAAECAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA8D8="}`, "g"},
	{"mysql", "date", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, p DATE)"}, "a", `{"p":"2023-02-29"}`, "column p"},
	{"mysql", "key date", []string{"CREATE TABLE r (k DATE PRIMARY KEY, p INT)"}, "2023-02-30", `{"p":1}`, "invalid key"},
	{"mysql", "key charset", []string{"CREATE TABLE r (k VARCHAR(9) CHARACTER SET latin1 PRIMARY KEY, p INT)"}, "😀", `{"p":1}`, "not of the column's type"},
	{"mysql", "charset", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, p VARCHAR(9) CHARACTER SET utf8mb3)"}, "a", `{"p":"😀"}`, "column"},
	{"mysql", "json depth", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, p JSON)"}, "a",
		`{"p":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, ""},
	{"mysql", "packet", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, p LONGTEXT)", "SET GLOBAL max_allowed_packet = 65536"},
		"a", `{"p":"LARGE"}`, ""},
	{"mysql", "generated", []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, p INT, g TINYINT AS (p * 1000) STORED)"}, "a", `{"p":1}`, ""},
	{"mysql", "view", []string{"CREATE TABLE t (k VARCHAR(9) PRIMARY KEY, p INT)",
		"CREATE VIEW r AS SELECT * FROM t WHERE p > 0 WITH CHECK OPTION"}, "a", `{"p":0}`, "error 1369"},
	{"sqlite", "raise", []string{"CREATE TABLE r (k TEXT PRIMARY KEY, p INT)",
		"CREATE TRIGGER t BEFORE INSERT ON r BEGIN SELECT RAISE(ABORT, 'not today'); END"}, "a", `{"p":0}`, "not today"},
	{"sqlite", "strict", []string{"CREATE TABLE r (k TEXT PRIMARY KEY, p ANY, q INT) STRICT",
		"CREATE TRIGGER t AFTER INSERT ON r BEGIN UPDATE r SET q = 'x' WHERE k = NEW.k; END"}, "a", `{"p":0}`, ""},
	{"sqlite", "json", []string{"CREATE TABLE r (k TEXT PRIMARY KEY, p TEXT)", "CREATE INDEX i ON r (json_extract(p, '$.a'))"}, "a", `{"p":"{"}`, "SQLite error"},
}

// sqlStates are codes that triggers may raise: their own, and those of the classes that otherwise concern the server.
var sqlStates = []string{"RS001", "99999", "22012", "42501", "42P01", "42883", "53100", "57014", "57P01", "08006", "0A000", "25006",
	"28000", "XX000", "58030", "P0001", "45000", "23505"}

func testRejectedWrites(t *testing.T, d database) {
	cases := slices.Clone(rejectedWrites)
	for _, state := range sqlStates {
		c := rejectedWrites[0]
		c.driver, c.name, c.key, c.value, c.reason = d.driver, "raise "+state, "a", `{"p":1}`, "not today"
		switch d.driver {
		case "postgres":
			c.prepare = []string{"CREATE TABLE r (k text PRIMARY KEY, p int)",
				"CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = '" + state + "'; END $f$",
				"CREATE TRIGGER t BEFORE INSERT ON r FOR EACH ROW EXECUTE FUNCTION f()"}
		case "mysql":
			c.prepare = []string{"CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, p INT)",
				"CREATE TRIGGER t BEFORE INSERT ON r FOR EACH ROW SIGNAL SQLSTATE '" + state + "' SET MESSAGE_TEXT = 'not today'"}
		default:
			continue
		}
		cases = append(cases, c)
	}
	if d.driver == "mysql" {
		for _, number := range []int{1205, 1213, 1290, 1053, 1146, 1040} {
			c := cases[len(cases)-1]
			c.name = fmt.Sprint("raise ", number)
			c.prepare = []string{c.prepare[0], fmt.Sprintf("CREATE TRIGGER t BEFORE INSERT ON r FOR EACH ROW "+
				"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not today', MYSQL_ERRNO = %d", number)}
			cases = append(cases, c)
		}
	}
	random := rand.New(rand.NewSource(1))
	for i, c := range cases {
		if c.driver != d.driver {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			d := d.beside(t, fmt.Sprint("rejected", i))
			if c.name == "ltree" {
				d.exec(t, "CREATE EXTENSION IF NOT EXISTS ltree SCHEMA pg_catalog")
			}
			for _, statement := range c.prepare {
				d.exec(t, statement)
			}
			d.checkRejectedWrite(t, c.key, filled(random, c.value), c.reason)
		})
	}
}

// beside returns another empty database on the same server.
func (d database) beside(t *testing.T, name string) database {
	if d.driver == "mysql" {
		d.dsn = d.dsn[:strings.LastIndex(d.dsn, "/")+1] + "ringside"
	}
	return d.empty(t, name)
}

// filled replaces the words that stand for long texts.
func filled(random *rand.Rand, value string) string {
	long := make([]byte, 9000)
	for i := range long {
		long[i] = byte('a' + random.Intn(26))
	}
	return strings.NewReplacer("RANDOM", string(long), "LARGE", strings.Repeat("z", 300_000)).Replace(value)
}

func (d database) checkRejectedWrite(t *testing.T, key, value, reason string) {
	t.Helper()
	if strings.Contains(reason, "policy") {
		d.dsn = strings.Replace(d.dsn, "ringside:ringside@", "tenant@", 1)
		d.exec(t, "GRANT USAGE ON SCHEMA "+d.dsn[strings.LastIndex(d.dsn, "=")+1:]+" TO tenant")
	}
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	for _, c := range []origin.Change{{}, {If: origin.Condition{Absent: true}}} {
		c.Key, c.Data = key, []byte(value)
		_, err := w.Write(soon(t), c)
		if !isCallers(err) || !strings.Contains(err.Error(), reason) {
			t.Errorf("got %v, want %q of the key or the value", err, reason)
		}
		if errors.Is(err, origin.ErrUnknown) {
			t.Errorf("got %v, want an outcome", err)
		}
		if len(value) > 100 && strings.Contains(fmt.Sprint(err), value[10:90]) {
			t.Error("the error contains the value")
		}
	}
	if n := d.count(t, "SELECT count(*) FROM r"); n > 1 {
		t.Errorf("%d rows", n)
	}
	if _, err := w.Load(soon(t), []string{key, "b", "5"}); err != nil {
		t.Errorf("a read after it: %v", err)
	}
}
