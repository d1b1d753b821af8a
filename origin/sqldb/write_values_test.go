package sqldb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func TestWritesAcceptWhatLoadsReturn(t *testing.T) {
	eachKind(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE shared ("+shared[d.driver].columns+")")
		d.exec(t, "INSERT INTO shared VALUES ("+shared[d.driver].values+")")
		for _, statement := range otherDefaults[d.driver] {
			d.exec(t, statement)
		}
		w := d.rows(t, origin.Dataset{Table: "shared", Key: []string{"k"}, Version: "ver"})
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

// testWritesOfEachType writes a loaded value of each type, also into a new row, and expects the same bytes.
func testWritesOfEachType(t *testing.T, d database) {
	if d.driver == "postgres" {
		d.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'ok')")
		d.exec(t, "CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
	}
	for i, c := range d.typeCases() {
		keys := []string{"k", "new", "null"}
		if d.driver == "sqlite" && slices.Contains(unwritable, c.sqlType+" "+c.literal) {
			keys = keys[:1]
		}
		table := fmt.Sprint("one", i)
		d.exec(t, "CREATE TABLE "+table+" (k VARCHAR(5) PRIMARY KEY, v "+c.sqlType+")")
		d.exec(t, "INSERT INTO "+table+" VALUES ('k', "+c.literal+"), ('null', NULL)")
		for _, ds := range []origin.Dataset{
			{Table: table, Key: []string{"k"}, Columns: []string{"v"}}, {Table: table, Key: []string{"k"}, Value: "v"},
		} {
			w := d.rows(t, ds)
			v := loadOne(t, w, "k")
			for _, key := range keys {
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

// Callers may write some values in more than one form.
func testWritesInOtherForms(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, n "+map[string]string{
		"postgres": "TEXT, i BIGINT, f DOUBLE PRECISION, at TIMESTAMP, zoned TIMESTAMPTZ, b BOOLEAN, doc JSONB)",
		"mysql":    "LONGTEXT, i BIGINT, f DOUBLE, at DATETIME(6), zoned TIMESTAMP(6) NULL, b BOOL, doc JSON)",
		"sqlite":   "TEXT, i BIGINT, f DOUBLE, at DATETIME, zoned TIMESTAMPTZ, b BOOLEAN, doc JSON)",
	}[d.driver])
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
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

// Columns that a value omits keep their content, even if a new row would require them.
func testWritesOfSomeColumns(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, must VARCHAR(9) NOT NULL, may VARCHAR(9) DEFAULT 'x', "+
		"hidden VARCHAR(9), ver BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('a', 'm', 'n', 'h', NULL)")
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver", Columns: []string{"must", "may"}})
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
		t.Error("a column that was omitted has changed")
	}
}

// invalidValues are written to a table of k and the columns of the case.
var invalidValues = []struct {
	driver, columns string // an empty driver means all
	value           string
	column, reason  string
}{
	{"", "v INT", `{"v":1} x`, "", "after the JSON object"},
	{"", "v INT", `{"v":1`, "", "it ends too early"},
	{"", "v INT", `{v:1}`, "", "not JSON, at byte 2: invalid character 'v'"},
	{"", "v INT", "{\"v\":\"\xff\"}", "", "not UTF-8"},
	{"", "v INT", `[1]`, "", "not an object"},
	{"", "v INT", `null`, "", "not an object"},
	{"", "v INT", ``, "", "the value is empty"},
	{"", "v INT", `{"v":1,"v":2}`, "v", "twice"},
	{"", "v INT", `{"v":1,"\u0076":2}`, "v", "twice"},
	{"", "v INT", `{"w":1}`, "w", "no such column; the columns are v"},
	{"", "v INT", `{"V":1}`, "V", "no such column"},
	{"", "v INT", `{"k":"b","v":1}`, "k", "differs from the key"},
	{"", "v INT", `{"k":1,"v":1}`, "k", "differs from the key"},
	{"", "v INT", `{"v":"1"}`, "v", "want an integer"},
	{"", "v INT", `{"v":1.0}`, "v", "without a decimal point"},
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
	{"mysql", "v DOUBLE", `{"v":"NaN"}`, "v", "cannot store NaN"},
	{"sqlite", "v DOUBLE", `{"v":"NaN"}`, "v", "cannot store NaN"},
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
	{"mysql8", "v VARCHAR(9) CHARACTER SET latin1", `{"v":"😀"}`, "", "not of the column's type"},
	{"mariadb", "v VARCHAR(9) CHARACTER SET latin1", `{"v":"😀"}`, "v", "not of the column's type"},
	{"", "v INT, CONSTRAINT positive CHECK (v > 0)", `{"v":0}`, "", "constraint positive"},
	{"postgres", "v INT UNIQUE", `{"v":7}`, "v", "another row has this value"},
	{"sqlite", "v INT UNIQUE", `{"v":7}`, "v", "another row has this value"},
	{"mysql", "v INT UNIQUE", `{"v":7}`, "", "unique index v allows once"},
	{"postgres", "v INT REFERENCES other (id)", `{"v":1}`, "v", "foreign key"},
	{"mysql", "v INT, FOREIGN KEY (v) REFERENCES other (id)", `{"v":1}`, "v", "foreign key"},
	{"sqlite", "v INT REFERENCES other (id)", `{"v":1}`, "", "foreign key"},
	{"", "w INT, v INT GENERATED ALWAYS AS (w + 1) STORED", `{"w":1,"v":3}`, "v", "generates it"},
}

func testInvalidValues(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE other (id INT PRIMARY KEY)")
	if d.driver == "mysql" {
		d.exec(t, "SET GLOBAL sql_mode = ''") // truncates long values in sessions without their own mode
	}
	for i, c := range invalidValues {
		if c.driver != "" && !d.is(c.driver) {
			continue
		}
		table := fmt.Sprint("r", i)
		d.exec(t, "CREATE TABLE "+table+" (k VARCHAR(9) PRIMARY KEY, "+c.columns+")")
		if strings.Contains(c.columns, "UNIQUE") {
			d.exec(t, "INSERT INTO "+table+" VALUES ('other', 7)")
		}
		w := d.rows(t, origin.Dataset{Table: table, Key: []string{"k"}})
		_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(c.value)})
		refused, ok := errors.AsType[*origin.ValueError](err)
		if !ok || refused.Column != c.column || !strings.Contains(refused.Reason, c.reason) {
			t.Errorf("%s to %s: %v; want column %q, %q", c.value, c.columns, err, c.column, c.reason)
		}
		if errors.Is(err, origin.ErrUnknown) || d.count(t, "SELECT count(*) FROM "+table+" WHERE k = 'a'") != 0 {
			t.Errorf("%s to %s: the row was written", c.value, c.columns)
		}
	}
}

// A row whose key the database generates can be written back, and changed, but not created.
func TestWriteOfAGeneratedKey(t *testing.T) {
	d := startPostgres(t)
	d.exec(t, "CREATE TABLE numbered (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v TEXT, w TEXT GENERATED ALWAYS AS (v || '!') STORED)")
	d.exec(t, "INSERT INTO numbered (v) VALUES ('a')")
	w := d.rows(t, origin.Dataset{Table: "numbered", Key: []string{"id"}})
	for _, c := range []struct{ key, written, want string }{
		{"1", `{"id":1,"v":"a","w":"a!"}`, `{"id":1,"v":"a","w":"a!"}`},
		{"1", `{"id":1,"v":"b","w":"a!"}`, `{"id":1,"v":"b","w":"b!"}`}, // read, changed and written back
		{"1", `{"id":1,"v":"c","w":"c!"}`, `{"id":1,"v":"c","w":"c!"}`},
		{"1", `{"v":"d"}`, `{"id":1,"v":"d","w":"d!"}`},
		{"1", `{"v":"e","w":"x"}`, "column w: the database generates it"},
		{"2", `{"v":"a"}`, "column id: the database generates the key"},
	} {
		v, err := w.Write(soon(t), origin.Change{Key: c.key, Data: []byte(c.written)})
		if got := fmt.Sprint(string(v.Data), err); !strings.Contains(got, c.want) {
			t.Errorf("%s to %s: got %s, want %s", c.written, c.key, got, c.want)
		}
	}
	if n := d.count(t, "SELECT count(*) FROM numbered"); n != 1 {
		t.Errorf("%d rows", n)
	}
}
