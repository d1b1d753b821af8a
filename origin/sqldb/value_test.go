package sqldb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// shared is one row in the syntax of each database; its value has the same bytes in all.
var shared = map[string]struct{ columns, values string }{
	"postgres": {`k text PRIMARY KEY, ver bigint, small smallint, big bigint, flag boolean, off boolean,
		r real, d double precision,
		tiny double precision, price numeric(20,4), name text, raw bytea, day date, at timestamp, zoned timestamptz,
		clock time, id uuid, doc jsonb, nope text, "od""d <col>" text, empty text, yes char(3)`,
		`'k', 7, -5, 9223372036854775807, true, false, 1.1, 0.1, 1e-9, 12.5,
		E'é <b>&</b> "q" \\ 😀 \n', '\x00ff10', '2024-02-29',
		'2024-02-29 12:34:56.123456', '2024-02-29 13:34:56.5+01', '23:59:59.25', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
		'{"b": [1, 2.25, null], "a": "<&>"}', NULL, 'x', '', 'yes'`},
	"mysql": {"k VARCHAR(50) PRIMARY KEY, ver BIGINT, small SMALLINT, big BIGINT, " +
		"flag BOOL, off BOOL, r FLOAT, d DOUBLE, " +
		"tiny DOUBLE, price DECIMAL(20,4), name TEXT, raw BLOB, day DATE, at DATETIME(6), " +
		"zoned TIMESTAMP(6), clock TIME(2), " +
		"id CHAR(36), doc JSON, nope TEXT, `od\"d <col>` TEXT, `empty` TEXT, yes CHAR(3)",
		`'k', 7, -5, 9223372036854775807, true, false, 1.1, 0.1, 1e-9, 12.5,
		'é <b>&</b> "q" \\ 😀 \n', x'00ff10', '2024-02-29',
		'2024-02-29 12:34:56.123456', '2024-02-29 12:34:56.5', '23:59:59.25', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
		'{"a": "<&>", "b": [1, 2.25, null]}', NULL, 'x', '', 'yes'`},
	"sqlite": {`k TEXT PRIMARY KEY, ver INTEGER, small SMALLINT, big BIGINT, flag BOOLEAN, off BOOLEAN, r REAL, d DOUBLE,
		tiny DOUBLE, price DECIMAL(20,4), name TEXT, raw BLOB, day DATE, at DATETIME, zoned TIMESTAMP, clock TIME,
		id UUID, doc JSON, nope TEXT, "od""d <col>" TEXT, empty TEXT, yes CHAR(3)`,
		`'k', 7, -5, 9223372036854775807, true, false, 1.1, 0.1, 1e-9, 12.5,
		'é <b>&</b> "q" \ 😀 ' || char(10), x'00ff10',
		'2024-02-29', '2024-02-29 12:34:56.123456', '2024-02-29 13:34:56.5+01:00', '23:59:59.25',
		'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": "<&>", "b": [1, 2.25, null]}', NULL, 'x', '', 'yes'`},
}

const sharedValue = `{"k":"k","ver":7,"small":-5,"big":9223372036854775807,"flag":true,"off":false,"r":1.1,"d":0.1,` +
	`"tiny":1e-9,"price":12.5000,"name":"é <b>&</b> \"q\" \\ 😀 \n","raw":"AP8Q","day":"2024-02-29",` +
	`"at":"2024-02-29T12:34:56.123456Z","zoned":"2024-02-29T12:34:56.500000Z","clock":"23:59:59.250000",` +
	`"id":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","doc":{"a":"<&>","b":[1,2.25,null]},"nope":null,` +
	`"od\"d <col>":"x","empty":"","yes":"yes"}`

// otherDefaults change the output format of sessions without their own settings.
var otherDefaults = map[string][]string{
	"postgres": {"ALTER ROLE ringside SET TimeZone = 'Asia/Tokyo'", "ALTER ROLE ringside SET DateStyle = 'German'",
		"ALTER ROLE ringside SET bytea_output = 'escape'", "ALTER ROLE ringside SET extra_float_digits = -15",
		"ALTER ROLE ringside SET client_encoding = 'LATIN1'"},
	"mysql": {"SET GLOBAL time_zone = '+09:00'", "SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'"},
}

func TestRowHasTheSameBytesInEachDatabase(t *testing.T) {
	eachKind(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE shared ("+shared[d.driver].columns+")")
		d.exec(t, "INSERT INTO shared VALUES ("+shared[d.driver].values+")")
		for _, statement := range otherDefaults[d.driver] {
			d.exec(t, statement)
		}
		o := d.dataset(t, origin.Dataset{Table: "shared", Key: []string{"k"}, Version: "ver"})
		for range 2 { // with and without a new prepared statement
			got := loadOne(t, o, "k")
			if string(got.Data) != sharedValue {
				t.Errorf("got  %s\nwant %s", got.Data, sharedValue)
			}
			if got.Version != 7 {
				t.Errorf("version %d", got.Version)
			}
		}
	})
}

// typeCase is a column of its own table: type, SQL literal, JSON, and the value as text.
type typeCase struct{ sqlType, literal, json, plain string }

var typeCases = map[string][]typeCase{
	"postgres": {
		{"numeric", "123456789012345678901234567890.10", "123456789012345678901234567890.10", ""},
		{"numeric", "'NaN'", `"NaN"`, "NaN"},
		{"float8", "'NaN'", `"NaN"`, "NaN"},
		{"float8", "'-Infinity'", `"-Infinity"`, "-Infinity"},
		{"float8", "5", "5", ""},
		{"float8", "1e21", "1e+21", ""},
		{"float8", "123456789012345680000", "123456789012345680000", ""},
		{"float4", "3.4028235e38", "3.4028235e+38", ""},
		{"timestamptz", "'infinity'", `"infinity"`, "infinity"},
		{"timestamptz", "'2024-01-01 00:00:00+05:30'", `"2023-12-31T18:30:00.000000Z"`, "2023-12-31T18:30:00.000000Z"},
		{"timestamp", "'0044-03-15 BC'", `"0044-03-15 00:00:00 BC"`, "0044-03-15 00:00:00 BC"},
		{"timestamp", "'20240-03-15'", `"20240-03-15 00:00:00"`, "20240-03-15 00:00:00"},
		{"timetz", "'10:00:00+02'", `"10:00:00+02"`, "10:00:00+02"},
		{"interval", "'1 day 2 hours'", `"1 day 02:00:00"`, "1 day 02:00:00"},
		{"int[]", "'{1,2,NULL}'", `"{1,2,NULL}"`, "{1,2,NULL}"},
		{"text[]", `'{"a b","c"}'`, `"{\"a b\",c}"`, `{"a b",c}`},
		{"inet", "'10.0.0.1/8'", `"10.0.0.1/8"`, "10.0.0.1/8"},
		{"oid", "4294967295", "4294967295", ""},
		{"char(4)", "'ab'", `"ab"`, "ab"},
		{"char(4)", "'    '", `""`, ""},
		{"bpchar", "'ab '", `"ab"`, "ab"},
		{"json", `'{"b" : 1, "a":[ 1 ]}'`, `{"b":1,"a":[1]}`, `{"b" : 1, "a":[ 1 ]}`},
		{"bytea", `'\x'`, `""`, ""},
		{"bytea", `'\x00ff'`, `"AP8="`, "\x00\xff"},
		{"bool", "false", "false", ""},
		{"xml", "'<a/>'", `"<a/>"`, "<a/>"},
		{"money", "'12.34'", `"$12.34"`, "$12.34"},
		{"mood", "'sad'", `"sad"`, "sad"},
		{"positive", "5", "5", ""},
		{"text", "E'\\x01\\u2028'", `"\u0001\u2028"`, "\x01\u2028"},
	},
	"mysql": {
		{"BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615", ""},
		{"TINYINT(1)", "2", "2", ""},
		{"TINYINT(4)", "1", "1", ""},
		{"INT(5) ZEROFILL", "42", "42", ""},
		{"DECIMAL(7,2) ZEROFILL", "7.5", "7.50", ""},
		{"DECIMAL(7,2) ZEROFILL", "0.5", "0.50", ""},
		{"FLOAT(9,2) ZEROFILL", "7.5", "7.5", ""},
		{"BIGINT UNSIGNED ZEROFILL", "18446744073709551615", "18446744073709551615", ""},
		{"BIGINT(20) ZEROFILL", "7", "7", ""},
		{"CHAR(4)", "'ab'", `"ab"`, "ab"},
		{"CHAR(4)", "'ab '", `"ab"`, "ab"},
		{"DECIMAL(30,2)", "1234567890123456789012345678.1", "1234567890123456789012345678.10", ""},
		{"BIT(1)", "b'1'", "1", ""},
		{"BIT(64)", "x'FFFFFFFFFFFFFFFF'", "18446744073709551615", ""},
		{"YEAR", "2024", "2024", ""},
		{"YEAR", "0", "0", ""},
		{"TIME", "'-12:30:00'", `"-12:30:00"`, "-12:30:00"},
		{"TIME", "'800:00:00'", `"800:00:00"`, "800:00:00"},
		{"DATETIME", "'2024-01-01'", `"2024-01-01T00:00:00.000000Z"`, "2024-01-01T00:00:00.000000Z"},
		{"ENUM('a','b')", "'b'", `"b"`, "b"},
		{"SET('a','b')", "'a,b'", `"a,b"`, "a,b"},
		{"VARBINARY(3)", "x'00ff'", `"AP8="`, "\x00\xff"},
		{"BINARY(3)", "x'00ff'", `"AP8A"`, "\x00\xff\x00"},
		{"VARCHAR(9) CHARACTER SET latin1", "'é'", `"é"`, "é"},
		{"LONGTEXT", `'{"b" : 1}'`, `"{\"b\" : 1}"`, `{"b" : 1}`},
		{"FLOAT", "16777216", "16777216", ""},
		{"DOUBLE", "1e300", "1e+300", ""},
	},
	"mysql8": {
		{"JSON", `'{"b" : 1, "a":[ 1 ]}'`, `{"a":[1],"b":1}`, `{"a": [1], "b": 1}`},
	},
	"mariadb": {
		{"JSON", `'{"b" : 1, "a":[ 1 ]}'`, `{"b":1,"a":[1]}`, `{"b" : 1, "a":[ 1 ]}`},
		{"UUID", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`,
			"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"INET6", "'::1'", `"::1"`, "::1"},
	},
	"sqlite": {
		{"DATETIME", "1709210096", "1709210096", ""},
		{"TIMESTAMP", "1687366926347", "1687366926347", ""},
		{"DATETIME", "2460370.0242592592", `"2024-02-29T12:34:56.000000Z"`, "2024-02-29T12:34:56.000000Z"},
		{"DATETIME", "'2024-02-29T12:34:56+02:00'", `"2024-02-29T10:34:56.000000Z"`, "2024-02-29T10:34:56.000000Z"},
		{"TIMESTAMP(6)", "'2024-02-29 12:34:56.5'", `"2024-02-29T12:34:56.500000Z"`, "2024-02-29T12:34:56.500000Z"},
		{"TIMESTAMPTZ", "'2024-02-29 12:34:56+02:00'", `"2024-02-29T10:34:56.000000Z"`, "2024-02-29T10:34:56.000000Z"},
		{"DATETIME", "'yesterday'", `"yesterday"`, "yesterday"},
		{"DATE", "1709210096", "1709210096", ""},
		{"DATE", "'2024-02-29 23:30:00-05:00'", `"2024-02-29"`, "2024-02-29"},
		{"DATE", "'2024-02-29T23:30:00.5Z'", `"2024-02-29"`, "2024-02-29"},
		{"DATE", "'2024-02-30'", `"2024-02-30"`, "2024-02-30"},
		{"DATETIME", "'2024-02-29 12:34:56.123456789'", `"2024-02-29T12:34:56.123456789Z"`, "2024-02-29T12:34:56.123456789Z"},
		{"DATETIME", "'2024-02-29 12:34:56.5 +0200 CEST m=+1.5'", `"2024-02-29T10:34:56.500000Z"`, "2024-02-29T10:34:56.500000Z"},
		{"DATETIME", "'2024-02-29'", `"2024-02-29T00:00:00.000000Z"`, "2024-02-29T00:00:00.000000Z"},
		{"DATETIME", "'0000-01-01 00:00:00+05:00'", `"0000-01-01 00:00:00+05:00"`, "0000-01-01 00:00:00+05:00"},
		{"DATETIME", "1687366926.5", "1687366926.5", ""},
		{"DATETIME", "45000.5", "45000.5", ""},
		{"BOOLEAN", "2", "2", ""},
		{"BOOLEAN", "'maybe'", `"maybe"`, "maybe"},
		{"INTEGER", "'abc'", `"abc"`, "abc"},
		{"INTEGER", "1.5", "1.5", ""},
		{"REAL", "1e999", `"Infinity"`, "Infinity"},
		{"DECIMAL(10,2)", "3", "3.00", ""},
		{"DECIMAL(10,2)", "-0.5", "-0.50", ""},
		{"DECIMAL(10,2)", "1.005", "1.005", ""},
		{"DECIMAL(10,2)", "9e999", `"Infinity"`, "Infinity"},
		{"NUMERIC", "2.5", "2.5", ""},
		{"JSON", "'not json'", `"not json"`, "not json"},
		{"TEXT", "x'00ff'", `"AP8="`, "\x00\xff"},
		{"BLOB", "'ab'", `"YWI="`, "ab"},
		{"TEXT", "CAST(x'61ff62' AS TEXT)", "\"a\ufffdb\"", "a\xffb"},
		{"", "42", "42", ""},
		{"", "'42'", `"42"`, "42"},
	},
}

// typeCases returns the cases of the driver and of the kind of server.
func (d database) typeCases() []typeCase {
	if d.engine == d.driver {
		return typeCases[d.driver]
	}
	return slices.Concat(typeCases[d.driver], typeCases[d.engine])
}

func testValuesOfEachType(t *testing.T, d database) {
	if d.driver == "postgres" {
		d.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'ok')")
		d.exec(t, "CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
	}
	db := d.open(t)
	for i, c := range d.typeCases() {
		table := fmt.Sprint("one", i)
		d.exec(t, "CREATE TABLE "+table+" (k VARCHAR(5) PRIMARY KEY, v "+c.sqlType+")")
		d.exec(t, "INSERT INTO "+table+" VALUES ('k', "+c.literal+")")
		checkForm(t, db, c, origin.Dataset{Table: table, Key: []string{"k"}, Columns: []string{"v"}}, `{"v":`+c.json+`}`)
		plain := c.plain
		if plain == "" {
			plain = strings.Trim(c.json, `"`)
		}
		checkForm(t, db, c, origin.Dataset{Table: table, Key: []string{"k"}, Value: "v"}, plain)
	}
}

func checkForm(t *testing.T, db *sqldb.DB, c typeCase, ds origin.Dataset, want string) {
	t.Helper()
	o, err := db.Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	if got := loadOne(t, o, "k"); string(got.Data) != want {
		t.Errorf("%s %s: got %q, want %q", c.sqlType, c.literal, got.Data, want)
	}
}

// integer_times says what integers in columns of times count, also when they are written.
func TestSQLiteIntegerTimes(t *testing.T) {
	d := startSQLite(t)
	d.exec(t, "CREATE TABLE e (k TEXT PRIMARY KEY, at TIMESTAMP, day DATE, n INTEGER)")
	for _, c := range []struct{ times, at, day, want string }{
		{"", "1687366926347", "1687305600000", `{"at":1687366926347,"day":1687305600000,"n":1687366926}`},
		{"", "1687366926", "-1", `{"at":1687366926,"day":-1,"n":1687366926}`},
		{"seconds", "1687366926", "1687305600", `{"at":"2023-06-21T17:02:06.000000Z","day":"2023-06-21","n":1687366926}`},
		{"seconds", "-1", "-86400", `{"at":"1969-12-31T23:59:59.000000Z","day":"1969-12-31","n":1687366926}`},
		{"seconds", "1687366926347", "9223372036854775807", `{"at":1687366926347,"day":9223372036854775807,"n":1687366926}`},
		{"milliseconds", "1687366926347", "1687305600000", `{"at":"2023-06-21T17:02:06.347000Z","day":"2023-06-21","n":1687366926}`},
		{"milliseconds", "'2023-06-21 17:02:06.347'", "'2023-06-21'", `{"at":"2023-06-21T17:02:06.347000Z","day":"2023-06-21","n":1687366926}`},
		{"milliseconds", "-9223372036854775808", "253402300800000", `{"at":-9223372036854775808,"day":253402300800000,"n":1687366926}`},
	} {
		d.exec(t, "DELETE FROM e")
		d.exec(t, "INSERT INTO e VALUES ('a', "+c.at+", "+c.day+", 1687366926), ('b', NULL, NULL, NULL)")
		w := d.rows(t, origin.Dataset{Table: "e", Key: []string{"k"}, Columns: []string{"at", "day", "n"}, IntegerTimes: c.times})
		v := loadOne(t, w, "a")
		if string(v.Data) != c.want {
			t.Errorf("%s %s: got %s, want %s", c.times, c.at, v.Data, c.want)
		}
		for _, key := range []string{"b", "new"} { // stored as it was
			got, err := w.Write(soon(t), origin.Change{Key: key, Data: v.Data})
			if err != nil || string(got.Data) != c.want {
				t.Errorf("%s %s: wrote %s, got %s, %v", c.times, c.at, v.Data, got.Data, err)
			}
			same := d.count(t, "SELECT count(*) FROM e AS a, e AS b WHERE a.k = 'a' AND b.k = '"+key+"' AND quote(a.at) = quote(b.at) AND quote(a.day) = quote(b.day)")
			if text := strings.HasPrefix(c.at, "'"); !text && same != 1 {
				t.Errorf("%s %s: stored in another form", c.times, c.at)
			}
		}
	}
	for driver, ds := range map[string]origin.Dataset{
		"sqlite":   {Table: "e", Key: []string{"k"}, IntegerTimes: "nanoseconds"},
		"postgres": {Table: "e", Key: []string{"k"}, IntegerTimes: "seconds"},
	} {
		dsn := map[string]string{"sqlite": d.dsn, "postgres": "postgres://u:p@127.0.0.1:1/d"}[driver]
		db, err := openDB(driver, origin.SourceConfig{Name: "db", DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Dataset(ds); err == nil || !strings.Contains(err.Error(), "integer_times") {
			t.Errorf("%s: got %v", driver, err)
		}
		_ = db.Close()
	}
}

// A char(n) has no padding in any database, as a value and as a key, whatever the mode of the server.
func TestCharHasNoPadding(t *testing.T) {
	eachKind(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE padded (k CHAR(8) PRIMARY KEY, v CHAR(6), w VARCHAR(6))")
		d.exec(t, "INSERT INTO padded VALUES ('ab', 'cd', 'ef  '), ('a b', '', ''), ('é😀', 'é', ' ')")
		if d.driver == "mysql" {
			d.exec(t, "SET GLOBAL sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'")
		}
		o := d.rows(t, origin.Dataset{Table: "padded", Key: []string{"k"}})
		want := map[string]string{
			"ab": `{"k":"ab","v":"cd","w":"ef  "}`, "a b": `{"k":"a b","v":"","w":""}`, "é😀": `{"k":"é😀","v":"é","w":" "}`,
			"ab ": "absent", "ab      ": "absent", "AB": "absent",
		}
		checkOutcomes(t, o, want)
		page, err := o.List(soon(t), origin.ListQuery{Limit: 9})
		if err != nil || len(page) != 3 {
			t.Fatalf("%v, %v", page, err)
		}
		for _, row := range page {
			if string(row.Value.Data) != want[row.Key] {
				t.Errorf("listed %q: %s", row.Key, row.Value.Data)
			}
			v, err := o.Write(soon(t), origin.Change{Key: row.Key, Data: row.Value.Data})
			if err != nil || string(v.Data) != want[row.Key] {
				t.Errorf("wrote %s, got %s, %v", row.Value.Data, v.Data, err)
			}
		}
	})
}
