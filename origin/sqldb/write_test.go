package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// withoutVersion is a value without what a write changes in it.
func withoutVersion(value []byte) string {
	return regexp.MustCompile(`"ver":\d+`).ReplaceAllString(string(value), `"ver":N`)
}

func TestWhatALoadGivesAWriteTakes(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE shared ("+shared[d.driver].columns+")")
		d.exec(t, "INSERT INTO shared VALUES ("+shared[d.driver].values+")")
		for _, statement := range otherDefaults[d.driver] {
			d.exec(t, statement)
		}
		w := d.rows(t, origin.Dataset{Table: "shared", Key: "k", Version: "ver"})
		for _, c := range []origin.Change{
			{}, {If: origin.Condition{Present: true}}, {If: origin.Condition{Version: 9}}, {Delete: true},
			{If: origin.Condition{Absent: true}}, {Delete: true}, {},
		} {
			c.Key = "k"
			if !c.Delete {
				c.Data = []byte(sharedValue)
			}
			v, err := w.Write(soon(t), c)
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			if c.Delete {
				continue
			}
			if withoutVersion(v.Data) != withoutVersion([]byte(sharedValue)) {
				t.Errorf("got  %s\nwant %s", v.Data, sharedValue)
			}
			if now := loadOne(t, w, "k"); string(now.Data) != string(v.Data) || now.Version != v.Version {
				t.Errorf("loaded %s\nwrote  %s", now.Data, v.Data)
			}
		}
	})
}

// unwritable are cells that SQLite holds although their column is declared as something else, or as more digits than a
// double has. They can be read, but no write makes one.
var unwritable = []string{
	"DATETIME 'yesterday'", "BOOLEAN 'maybe'", "INTEGER 'abc'", "INTEGER 1.5", // held as what the column is not
}

// testWritesOfEachType writes what was loaded of each type, into a new row as well, and expects the same bytes.
func testWritesOfEachType(t *testing.T, d database) {
	if d.driver == "postgres" {
		d.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'ok')")
		d.exec(t, "CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
	}
	for i, c := range typeCases[d.driver] {
		if slices.Contains(unwritable, c.sqlType+" "+c.literal) {
			continue
		}
		table := fmt.Sprint("one", i)
		d.exec(t, "CREATE TABLE "+table+" (k VARCHAR(5) PRIMARY KEY, v "+c.sqlType+")")
		d.exec(t, "INSERT INTO "+table+" VALUES ('k', "+c.literal+"), ('null', NULL)")
		for _, ds := range []origin.Dataset{
			{Table: table, Key: "k", Columns: []string{"v"}}, {Table: table, Key: "k", Value: "v"},
		} {
			w := d.rows(t, ds)
			v := loadOne(t, w, "k")
			for _, key := range []string{"k", "new", "null"} {
				got, err := w.Write(soon(t), origin.Change{Key: key, Data: v.Data})
				if err != nil || string(got.Data) != string(v.Data) {
					t.Errorf("%s %s: wrote %q to %s, got %q, %v", c.sqlType, c.literal, v.Data, key, got.Data, err)
					continue
				}
				if now := loadOne(t, w, key); string(now.Data) != string(v.Data) {
					t.Errorf("%s %s: wrote %q to %s, loaded %q", c.sqlType, c.literal, v.Data, key, now.Data)
				}
			}
			d.exec(t, "DELETE FROM "+table+" WHERE k = 'new'")
		}
	}
}

// What the databases hold in one way only, callers may write in others.
func testWritesInOtherForms(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n "+map[string]string{
		"postgres": "TEXT, i BIGINT, f DOUBLE PRECISION, at TIMESTAMP, zoned TIMESTAMPTZ, b BOOLEAN, doc JSONB)",
		"mysql":    "LONGTEXT, i BIGINT, f DOUBLE, at DATETIME(6), zoned TIMESTAMP(6) NULL, b BOOL, doc JSON)",
		"sqlite":   "TEXT, i BIGINT, f DOUBLE, at DATETIME, zoned TIMESTAMPTZ, b BOOLEAN, doc JSON)",
	}[d.driver])
	w := d.rows(t, origin.Dataset{Table: "r", Key: "k"})
	null := `{"k":"a","n":null,"i":null,"f":null,"at":null,"zoned":null,"b":null,"doc":null}`
	large := strings.Repeat("x", 1<<20-100)
	for _, c := range []struct{ column, written, loaded string }{
		{"n", `"\u00e9\ud83d\ude00\/"`, `"é😀/"`},
		{"n", `"` + large + `"`, `"` + large + `"`},
		{"i", "-9223372036854775808", "-9223372036854775808"},
		{"f", "1E-9", "1e-9"}, {"f", "0.1000", "0.1"}, {"f", "123456789012345678901", "123456789012345680000"},
		{"at", `"2024-02-29T13:34:56.123456789+01:00"`, `"2024-02-29T12:34:56.123456Z"`},
		{"zoned", `"2024-02-29T13:34:56.123456789+01:00"`, `"2024-02-29T12:34:56.123456Z"`},
		{"at", `"2024-02-29 12:34:56"`, `"2024-02-29T12:34:56.000000Z"`},
		{"b", "false", "false"},
		{"doc", ` {"b" : [ 1 , null ] } `, `{"b":[1,null]}`}, {"doc", "null", "null"}, {"doc", `"text"`, `"text"`},
		{"n", "null", "null"},
	} {
		d.exec(t, "DELETE FROM r")
		want := strings.Replace(null, `"`+c.column+`":null`, `"`+c.column+`":`+c.loaded, 1)
		for _, name := range []string{"a new row", "a row"} {
			v, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"` + c.column + `":` + c.written + `,"k":"a"}`)})
			if err != nil || string(v.Data) != want {
				t.Errorf("%s of %s: %.200s, %v", c.written, name, v.Data, err)
			}
		}
	}
}

// Columns that a value does not name keep what they hold, also where a new row could not go without them.
func testWritesOfAPart(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, must VARCHAR(9) NOT NULL, may VARCHAR(9) DEFAULT 'x', "+
		"hidden VARCHAR(9), ver BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('a', 'm', 'n', 'h', NULL)")
	w := d.rows(t, origin.Dataset{Table: "r", Key: "k", Version: "ver", Columns: []string{"must", "may"}})
	for _, c := range []struct{ key, written, want string }{
		{"a", `{"may":"new"}`, `{"must":"m","may":"new"}`}, {"a", `{}`, `{"must":"m","may":"new"}`},
		{"a", `{"may":null,"ver":77,"k":"a"}`, `{"must":"m","may":null}`},
		{"b", `{"must":"m"}`, `{"must":"m","may":"x"}`},
		{"c", `{"may":"new"}`, "column must: it must have a value"},
		{"c", `{}`, "column must: it must have a value"},
		{"a", `{"hidden":"h"}`, "column hidden: it is not among `columns`"},
	} {
		v, err := w.Write(soon(t), origin.Change{Key: c.key, Data: []byte(c.written)})
		if got := fmt.Sprint(string(v.Data), err); !strings.Contains(got, c.want) {
			t.Errorf("%s to %s: %s, want %s", c.written, c.key, got, c.want)
		}
	}
	if v := loadOne(t, w, "a"); v.Version != 3 {
		t.Errorf("three writes of a row without version: %d", v.Version)
	}
	if n := d.count(t, "SELECT count(*) FROM r WHERE hidden = 'h'"); n != 1 {
		t.Error("a column that no value names has changed")
	}
}

// refusals have the table r: k, and the columns that a case names.
var refusals = []struct {
	driver, columns string // an empty driver is all of them
	value           string
	column, reason  string
}{
	{"", "v INT", `{"v":1} x`, "", "behind the JSON object"},
	{"", "v INT", `{"v":1`, "", "it ends too early"},
	{"", "v INT", `{v:1}`, "", "not JSON, at byte 2: invalid character 'v'"},
	{"", "v INT", "{\"v\":\"\xff\"}", "", "not UTF-8"},
	{"", "v INT", `[1]`, "", "no object"},
	{"", "v INT", `null`, "", "no object"},
	{"", "v INT", ``, "", "the value is empty"},
	{"", "v INT", `{"v":1,"v":2}`, "v", "twice"},
	{"", "v INT", `{"v":1,"\u0076":2}`, "v", "twice"},
	{"", "v INT", `{"w":1}`, "w", "no such column; there is v"},
	{"", "v INT", `{"V":1}`, "V", "no such column"},
	{"", "v INT", `{"k":"b","v":1}`, "k", "not the key"},
	{"", "v INT", `{"k":1,"v":1}`, "k", "not the key"},
	{"", "v INT", `{"v":"1"}`, "v", "want an integer"},
	{"", "v INT", `{"v":1.0}`, "v", "without point"},
	{"", "v INT", `{"v":99999999999999999999}`, "v", "out of range"},
	{"", "v INT", `{"v":true}`, "v", "want an integer"},
	{"", "v INT NOT NULL", `{"v":null}`, "v", "must not be null"},
	{"", "v INT NOT NULL", `{}`, "v", "must have a value"},
	{"", "v VARCHAR(3)", `{"v":1}`, "v", "want a string"},
	{"", "v VARCHAR(3)", `{"v":["a"]}`, "v", "want a string"},
	{"", "v VARCHAR(3)", `{"v":"\u0000"}`, "v", "NUL"},
	{"", "v VARCHAR(3)", `{"v":"\ud800"}`, "v", "surrogate"},
	{"", "v VARCHAR(3)", `{"v":"\ud800\ud800"}`, "v", "surrogate"},
	{"postgres", "v VARCHAR(3)", `{"v":"abcd"}`, "v", "4 characters"},
	{"mysql", "v VARCHAR(3)", `{"v":"abcd"}`, "v", "too long"},
	{"", "v BOOLEAN", `{"v":"true"}`, "v", "true or false"},
	{"", "v REAL", `{"v":"1"}`, "v", "want a number"},
	{"", "v DOUBLE PRECISION", `{"v":1e999}`, "v", "out of range"},
	{"mysql", "v DOUBLE", `{"v":"NaN"}`, "v", "can not hold NaN"},
	{"sqlite", "v DOUBLE", `{"v":"NaN"}`, "v", "can not hold NaN"},
	{"", "v DECIMAL(5,2)", `{"v":"1"}`, "v", "want a number"},
	{"postgres", "v DECIMAL(5,2)", `{"v":1234}`, "v", "3 digits before the point"},
	{"postgres", "v DECIMAL(5,2)", `{"v":1e999999999}`, "v", "3 digits before the point"},
	{"mysql", "v DECIMAL(5,2)", `{"v":1234}`, "v", "out of range"},
	{"sqlite", "v DECIMAL(20,2)", `{"v":12345678901234.56}`, "v", "15 digits"},
	{"postgres", "v BYTEA", `{"v":"AP8"}`, "v", "base64"},
	{"mysql", "v BLOB", `{"v":"AP8"}`, "v", "base64"},
	{"sqlite", "v BLOB", `{"v":"*"}`, "v", "base64"},
	{"postgres", "v UUID", `{"v":"x"}`, "v", "not of the column's type"},
	{"postgres", "v DATE", `{"v":"2023-02-29"}`, "v", "not a date"},
	{"mysql", "v DATE", `{"v":"2023-02-29"}`, "v", "not of the column's type"},
	{"sqlite", "v DATE", `{"v":"2023-02-29"}`, "v", "a date"},
	{"sqlite", "v DATETIME", `{"v":"yesterday"}`, "v", "RFC 3339"},
	{"sqlite", "v TIME", `{"v":"25:00"}`, "v", "time of the day"},
	{"postgres", "v JSONB", `{"v":"\u0000"}`, "v", "a character that"},
	{"mysql", "v ENUM('a','b')", `{"v":"c"}`, "v", "not among the values"},
	{"mysql", "v VARCHAR(9) CHARACTER SET latin1", `{"v":"😀"}`, "v", "not of the column's type"},
	{"", "v INT, CONSTRAINT positive CHECK (v > 0)", `{"v":0}`, "", "constraint positive"},
	{"postgres", "v INT UNIQUE", `{"v":7}`, "v", "another row has this value"},
	{"sqlite", "v INT UNIQUE", `{"v":7}`, "v", "another row has this value"},
	{"mysql", "v INT UNIQUE", `{"v":7}`, "", "unique index v allows once"},
	{"postgres", "v INT REFERENCES other (id)", `{"v":1}`, "v", "foreign key"},
	{"mysql", "v INT, FOREIGN KEY (v) REFERENCES other (id)", `{"v":1}`, "v", "foreign key"},
	{"sqlite", "v INT REFERENCES other (id)", `{"v":1}`, "", "foreign key"},
	{"", "w INT, v INT GENERATED ALWAYS AS (w + 1) STORED", `{"w":1,"v":2}`, "v", "generates it"},
}

func testRefusals(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE other (id INT PRIMARY KEY)")
	if d.driver == "mysql" {
		d.exec(t, "SET GLOBAL sql_mode = ''") // cuts off what is too long, to a session that does not say otherwise
	}
	for i, c := range refusals {
		if c.driver != "" && c.driver != d.driver {
			continue
		}
		table := fmt.Sprint("r", i)
		d.exec(t, "CREATE TABLE "+table+" (k VARCHAR(9) PRIMARY KEY, "+c.columns+")")
		if strings.Contains(c.columns, "UNIQUE") {
			d.exec(t, "INSERT INTO "+table+" VALUES ('other', 7)")
		}
		w := d.rows(t, origin.Dataset{Table: table, Key: "k"})
		_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(c.value)})
		refused, ok := errors.AsType[*origin.ValueError](err)
		if !ok || refused.Column != c.column || !strings.Contains(refused.Reason, c.reason) {
			t.Errorf("%s to %s: %v; want column %q, %q", c.value, c.columns, err, c.column, c.reason)
		}
		if errors.Is(err, origin.ErrUnknown) || d.count(t, "SELECT count(*) FROM "+table+" WHERE k = 'a'") != 0 {
			t.Errorf("%s to %s: it was written all the same", c.value, c.columns)
		}
	}
}

// A row that grows too large to be read back is not written, nor is one that the database files under another key.
func testWritesThatCouldNotBeReadBack(t *testing.T, d database) {
	key := map[string]string{
		"postgres": "k NUMERIC(5,1)", "mysql": "k VARCHAR(9) COLLATE utf8mb4_general_ci", "sqlite": "k TEXT COLLATE NOCASE",
	}[d.driver]
	d.exec(t, "CREATE TABLE r ("+key+" PRIMARY KEY, v VARCHAR(200), w VARCHAR(200))")
	held, same := "Abc", "abc"
	if d.driver == "postgres" {
		held, same = "5.0", "5"
	}
	d.exec(t, "INSERT INTO r VALUES ('"+held+"', '', '"+strings.Repeat("w", 100)+"')")
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxValueBytes: 150})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w, err := db.Writer(origin.Dataset{Name: "rows", Table: "r", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change origin.Change
		want   error
	}{
		{origin.Change{Key: held, Data: []byte(`{"v":"` + strings.Repeat("v", 50) + `"}`)}, origin.ErrInvalidValue},
		{origin.Change{Key: held, Data: []byte(`{"v":"` + strings.Repeat("v", 150) + `"}`)}, origin.ErrInvalidValue},
		{origin.Change{Key: same, Data: []byte(`{"v":"x"}`)}, origin.ErrInvalidKey},
		{origin.Change{Key: same, Data: []byte(`{"v":"x","w":"y"}`)}, origin.ErrInvalidKey},
		{origin.Change{Key: same, Data: []byte(`{"v":"x"}`), If: origin.Condition{Present: true}}, origin.ErrConflict},
		{origin.Change{Key: same, Data: []byte(`{"v":"x"}`), If: origin.Condition{Absent: true}}, origin.ErrConflict},
		{origin.Change{Key: same, Delete: true}, nil},
		{origin.Change{Key: same, Delete: true, If: origin.Condition{Present: true}}, origin.ErrConflict},
	} {
		v, err := w.Write(soon(t), c.change)
		if !errors.Is(err, c.want) || v.Version != 0 {
			t.Errorf("%+v: %v, want %v", c.change, err, c.want)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM r WHERE v = ''"); n != 1 {
		t.Error("the row has changed")
	}
	if n := d.count(t, "SELECT count(*) FROM r"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// To readers of a dataset with value, a row whose value is NULL is absent; so it is to writers.
func testConditionsOnANullValue(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('a', NULL, 1), ('b', 'x', 1)")
	w := d.rows(t, origin.Dataset{Table: "r", Key: "k", Version: "ver", Value: "v"})
	if page, err := w.List(soon(t), origin.ListQuery{Limit: 2}); err != nil || len(page) != 1 || page[0].Key != "b" {
		t.Errorf("listed %v, %v", page, err)
	}
	for _, cond := range []origin.Condition{{Present: true}, {Version: 1}} {
		_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte("x"), If: cond})
		if !errors.Is(err, origin.ErrConflict) {
			t.Errorf("%+v: %v", cond, err)
		}
	}
	absent := origin.Change{Key: "a", Data: []byte("x"), If: origin.Condition{Absent: true}}
	if v, err := w.Write(soon(t), absent); err != nil || v.Version != 2 {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := w.Write(soon(t), absent); !errors.Is(err, origin.ErrConflict) {
		t.Errorf("%v", err)
	}
}

// A unique index of a key is what a write rests on; without it two rows of one key must not both be changed.
func testAKeyThatIsNotUnique(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9), v VARCHAR(9))")
	d.exec(t, "INSERT INTO r VALUES ('a', 'x'), ('a', 'y')")
	w := d.rows(t, origin.Dataset{Table: "r", Key: "k", Value: "v"})
	for _, c := range []origin.Change{
		{Data: []byte("new")}, {Data: []byte("new"), If: origin.Condition{Present: true}}, {Delete: true},
	} {
		c.Key = "a"
		if _, err := w.Write(soon(t), c); err == nil || !strings.Contains(err.Error(), "unique") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM r WHERE v IN ('x', 'y')"); n != 2 {
		t.Error("rows have changed")
	}
	if d.driver == "postgres" {
		return // to it 'b' is 'B' in no usual collation
	}
	nocase := map[string]string{"mysql": "utf8mb4_general_ci", "sqlite": "NOCASE"}[d.driver]
	d.exec(t, "CREATE TABLE two (k VARCHAR(9) COLLATE "+nocase+", v VARCHAR(9))")
	d.exec(t, "INSERT INTO two VALUES ('b', 'x'), ('B', 'y')")
	w = d.rows(t, origin.Dataset{Table: "two", Key: "k", Value: "v"})
	_, err := w.Write(soon(t), origin.Change{Key: "b", Data: []byte("new"), If: origin.Condition{Present: true}})
	if n := d.count(t, "SELECT count(*) FROM two WHERE v IN ('x', 'y')"); err == nil || n != 2 {
		t.Errorf("%v; %d rows are as they were", err, n)
	}
}

// The writer knows the columns for a while; what it knows wrongly must not last.
func testWritesToATableThatWasAltered(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	w := d.rows(t, origin.Dataset{Table: "r", Key: "k"})
	if _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "ALTER TABLE r DROP COLUMN v")
	d.exec(t, "ALTER TABLE r ADD COLUMN w INT")
	if _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"y"}`)}); err == nil {
		t.Error("wrote to a column that is gone")
	}
	if v, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"w":5}`)}); err != nil {
		t.Errorf("%s, %v", v.Data, err)
	}
}

func regressionAMissingTableIsTheClientsFault(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	w := d.rows(t, origin.Dataset{Table: "r", Key: "k"})
	d.exec(t, "DROP TABLE r")
	for _, c := range []origin.Change{{Key: "a", Data: []byte(`{"v":"x"}`)}, {Key: "a", Delete: true}} {
		_, err := w.Write(soon(t), c)
		if err == nil || errors.Is(err, origin.ErrInvalidValue) || errors.Is(err, origin.ErrUnknown) ||
			!strings.Contains(err.Error(), "read the columns of table r: ") {
			t.Errorf("got %v", err)
		}
	}
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
	if _, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}); err != nil {
		t.Error(err)
	}
}

func TestDatasetsThatCanNotBeWritten(t *testing.T) {
	db := database{driver: "postgres", dsn: "postgres://127.0.0.1:1/db"}.open(t)
	for want, ds := range map[string]origin.Dataset{
		"not one with query":     {Query: "SELECT $1"},
		"table needs key":        {Table: "r"},
		"must be another column": {Table: "r", Key: "k", Value: "k"},
	} {
		ds.Name = "rows"
		_, err := db.Writer(ds)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `dataset "rows"`) {
			t.Errorf("%+v: got %v, want %q", ds, err, want)
		}
	}
}

// Readers of an SQLite file hold up a writer, and another writer does; the context bounds both.
func TestAWriteWaitsForOthersNoLongerThanItsContext(t *testing.T) {
	d := startSQLite(t)
	d.exec(t, "PRAGMA journal_mode = DELETE")
	d.fillExact(t, map[string]string{"a": "old"})
	w := d.rows(t, origin.Dataset{Table: "conformance", Key: "k", Version: "ver", Value: "v"})
	conn, err := d.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, begin := range []string{"BEGIN IMMEDIATE", "BEGIN; SELECT * FROM conformance"} {
		if _, err := conn.ExecContext(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := w.Write(ctx, origin.Change{Key: "a", Data: []byte("new")})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, origin.ErrUnknown) {
			t.Errorf("behind %s: %v", begin, err)
		}
		if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	if v := write(t, w, "new"); v.Version != 2 {
		t.Errorf("version %d: a write that was given up was made", v.Version)
	}
}
