package sqldb_test

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// randomColumn is a column and how to make a random value of it.
type randomColumn struct {
	sqlType string
	literal func(r *rand.Rand) string // an SQL literal
	dump    string                    // an SQL expression for what is stored; %s is the column; empty means that of the database
}

// fromEnv returns a number that the environment overrides, to run more cases or other ones.
func fromEnv(name string, otherwise int) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		panic(name + " must be an integer")
	}
	return n
}

// A value that was read can be written back, and the stored row remains as it is, whatever the types of its columns and
// whatever SQLite stores in them. A write that changes another column leaves the stored values as they are too.
func TestReadThenWriteIsTheIdentity(t *testing.T) {
	seed, n := fromEnv("RINGSIDE_SEED", 12), fromEnv("RINGSIDE_ROWS", 60)
	eachKind(t, func(t *testing.T, d database) {
		r := rand.New(rand.NewPCG(uint64(seed), 5))
		for _, statement := range randomSetup[d.driver] {
			d.exec(t, statement)
		}
		if d.driver == "mysql" {
			d.DB = connect(t, "mysql", d.dsn) // with the new mode
		}
		columns := randomColumns[d.driver]
		declared, names := make([]string, len(columns)), make([]string, len(columns))
		for i, c := range columns {
			names[i] = fmt.Sprintf("c%d", i)
			declared[i] = names[i] + " " + c.sqlType
		}
		d.exec(t, "CREATE TABLE random (k VARCHAR(9) PRIMARY KEY, ver BIGINT, other INT, "+strings.Join(declared, ", ")+")")
		t.Logf("%d rows of %d columns, seed %d", n, len(columns), seed)
		plain := d.rows(t, origin.Dataset{Table: "random", Key: []string{"k"}, Columns: append([]string{"k", "other"}, names...)})
		versioned := d.rows(t, origin.Dataset{Table: "random", Key: []string{"k"}, Version: "ver"})
		for i := range n {
			key := fmt.Sprintf("r%05d", i)
			insertRandom(t, d, r, key, columns, names)
			before := dumpRow(t, d, key, columns, names)
			for name, o := range map[string]rows{"plain": plain, "versioned": versioned} {
				v := loadOne(t, o, key)
				if !json.Valid(v.Data) || !utf8.Valid(v.Data) {
					t.Fatalf("row %s is not JSON: %s", key, v.Data)
				}
				for _, c := range []origin.Change{{}, {If: origin.Condition{Present: true}}} {
					c.Key, c.Data = key, v.Data
					got, err := o.Write(soon(t), c)
					if err != nil || withoutVersion(got.Data) != withoutVersion(v.Data) {
						t.Fatalf("%s: wrote %s, got %s, %v", name, v.Data, got.Data, err)
					}
				}
				writeSomeColumns(t, o, r, key, v)
				c := origin.Change{Key: key, Data: []byte(strings.Replace(string(v.Data), `"other":0`, `"other":1`, 1))}
				if _, err := o.Write(soon(t), c); err != nil {
					t.Fatalf("%s: wrote %s: %v", name, c.Data, err)
				}
				d.exec(t, "UPDATE random SET other = 0"+keepTimes(d, names, columns)+" WHERE k = '"+key+"'")
				compareDumps(t, columns, before, dumpRow(t, d, key, columns, names))
			}
		}
		checkListed(t, plain)
	})
}

// checkListed expects that a page has the same bytes as loads, also the first page, whose statement has no parameters.
func checkListed(t *testing.T, o rows) {
	t.Helper()
	for _, after := range []string{"", "r"} {
		page, err := o.List(soon(t), origin.ListQuery{Limit: 50, After: after})
		if err != nil || len(page) != 50 {
			t.Fatalf("%d rows, %v", len(page), err)
		}
		for _, row := range page {
			if v := loadOne(t, o, row.Key); string(v.Data) != string(row.Value.Data) {
				t.Errorf("listed %s\nloaded %s", row.Value.Data, v.Data)
			}
		}
	}
}

// writeSomeColumns writes columns one by one, so that the others do not make the write compare the row first.
func writeSomeColumns(t *testing.T, o rows, r *rand.Rand, key string, v origin.Value) {
	t.Helper()
	members, err := rowjson.ParseRow(v.Data)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		m := members[r.IntN(len(members))]
		data := fmt.Sprintf("{%q:%s}", m.Name, m.Input.Raw)
		if _, err := o.Write(soon(t), origin.Change{Key: key, Data: []byte(data)}); err != nil {
			t.Fatalf("wrote %s: %v", data, err)
		}
	}
}

// keepTimes prevents the test's own UPDATE from changing a column ON UPDATE.
func keepTimes(d database, names []string, columns []randomColumn) (set string) {
	for i, c := range columns {
		if strings.Contains(c.sqlType, "ON UPDATE") {
			set += ", " + names[i] + " = " + names[i]
		}
	}
	return set
}

func insertRandom(t *testing.T, d database, r *rand.Rand, key string, columns []randomColumn, names []string) {
	t.Helper()
	set, values := []string{"k", "ver", "other"}, []string{"'" + key + "'", "1", "0"}
	for i, c := range columns {
		if c.literal == nil { // generated
			continue
		}
		literal := c.literal(r)
		if r.IntN(12) == 0 && !strings.Contains(c.sqlType, "NOT NULL") {
			literal = "NULL"
		}
		set, values = append(set, names[i]), append(values, literal)
	}
	d.exec(t, "INSERT INTO random ("+strings.Join(set, ", ")+") VALUES ("+strings.Join(values, ", ")+")")
}

func dumpRow(t *testing.T, d database, key string, columns []randomColumn, names []string) []string {
	t.Helper()
	fallback := map[string]string{
		"postgres": "%s::text", "mysql": "HEX(CAST(%s AS CHAR CHARACTER SET utf8mb4))", "sqlite": "typeof(%[1]s) || quote(%[1]s)",
	}[d.driver]
	expressions, values, targets := make([]string, len(columns)), make([]string, len(columns)), make([]any, len(columns))
	for i, c := range columns {
		expressions[i] = "COALESCE(" + fmt.Sprintf(cmp.Or(c.dump, fallback), names[i]) + ", 'NULL')"
		targets[i] = &values[i]
	}
	err := d.QueryRow("SELECT " + strings.Join(expressions, ", ") + " FROM random WHERE k = '" + key + "'").Scan(targets...)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func compareDumps(t *testing.T, columns []randomColumn, before, after []string) {
	t.Helper()
	for i, c := range columns {
		if before[i] != after[i] {
			t.Errorf("%s: %s was stored, now %s", c.sqlType, before[i], after[i])
		}
	}
}

func integer(low, high int64) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		switch r.IntN(4) {
		case 0:
			return strconv.FormatInt(low, 10)
		case 1:
			return strconv.FormatInt(high, 10)
		}
		return strconv.FormatInt(low+int64(r.Uint64N(uint64(high-low)|1)), 10)
	}
}

// decimalDigits returns a decimal with up to these numbers of digits, perhaps with zeros at both ends.
func decimalDigits(whole, fraction int, signed bool) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		text := randomDigits(r, 1+r.IntN(whole)) + "." + randomDigits(r, 1+r.IntN(fraction))
		if signed && r.IntN(2) == 0 {
			text = "-" + text
		}
		return text
	}
}

func randomDigits(r *rand.Rand, n int) string {
	digits := make([]byte, n)
	for i := range digits {
		digits[i] = '0' + byte(r.IntN(10))*byte(r.IntN(2))
	}
	return string(digits)
}

// double returns a literal of a finite number, of any magnitude.
func double(bits int) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		for {
			v := math.Float64frombits(r.Uint64())
			if bits == 32 {
				v = float64(math.Float32frombits(r.Uint32()))
			}
			switch r.IntN(4) {
			case 0:
				v = math.Copysign(0, -1)
			case 1:
				v = float64(r.IntN(1000)) / 8
			}
			if tiny := map[int]float64{32: 1e-37, 64: 1e-300}[bits]; !math.IsNaN(v) && !math.IsInf(v, 0) && (v == 0 || math.Abs(v) > tiny) {
				return strconv.FormatFloat(v, 'e', -1, bits)
			}
		}
	}
}

// characters are hard for JSON, for SQL, and for trimming.
var characters = []rune{'a', 'Z', ' ', ' ', '\'', '"', '\\', '\n', '\t', '\x01', '\x7f', 'é', '😀', '\u2028', '\ufffd', '<', '&', '0'}

func text(limit int, quote func(string) string) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		s := make([]rune, r.IntN(limit+1))
		for i := range s {
			s[i] = characters[r.IntN(len(characters))]
		}
		return quote(string(s))
	}
}

func quoteStandard(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func quoteMySQL(s string) string {
	return "CONVERT(x'" + hex.EncodeToString([]byte(s)) + "' USING utf8mb4)"
}

func randomBytes(limit int, format string) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		b := make([]byte, r.IntN(limit+1))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return fmt.Sprintf(format, hex.EncodeToString(b))
	}
}

func moment(format string, years, yearFrom int) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		return fmt.Sprintf(format, yearFrom+r.IntN(years), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000000))
	}
}

func either(generators ...func(*rand.Rand) string) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return generators[r.IntN(len(generators))](r) }
}

const hardJSON = `{"b": 1,  "a": [1.50, 1e400, -0, 123456789012345678901234567890], "é": "\u00e9\u2028", "a ": null}`

var randomSetup = map[string][]string{
	"postgres": {
		"CREATE TYPE mood AS ENUM ('sad', 'ok', 'with space')", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
		"CREATE TYPE pair AS (a int, b text)",
	},
	"mysql": {"SET GLOBAL sql_mode = 'ALLOW_INVALID_DATES'"},
}

// randomColumns are all types of each database.
var randomColumns = map[string][]randomColumn{
	"postgres": {
		{"smallint", integer(-32768, 32767), ""}, {"int", integer(-2147483648, 2147483647), ""},
		{"bigint", integer(math.MinInt64, math.MaxInt64), ""}, {"oid", integer(0, 4294967295), ""},
		{"int GENERATED ALWAYS AS (other + 1) STORED", nil, ""}, {"int GENERATED ALWAYS AS IDENTITY", nil, ""},
		{"int GENERATED BY DEFAULT AS IDENTITY", nil, ""}, {"serial", nil, ""},
		{"boolean", oneOf("true", "false"), ""},
		{"real", func(r *rand.Rand) string { return "'" + double(32)(r) + "'" }, ""},
		{"double precision", func(r *rand.Rand) string { return "'" + double(64)(r) + "'" }, ""},
		{"real", oneOf("'NaN'", "'Infinity'", "'-Infinity'", "'-0'"), ""},
		{"float8", oneOf("'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'5e-324'"), ""},
		{"numeric", either(decimalDigits(60, 40, true), oneOf("'NaN'", "'Infinity'", "'-Infinity'", "1e1000", "1.000", "0.00")), ""},
		{"numeric(20,4)", decimalDigits(16, 4, true), ""}, {"numeric(5,-2)", oneOf("12345", "-100"), ""},
		{"money", decimalDigits(9, 2, true), ""},
		{"text", text(9, quoteStandard), ""}, {"varchar(9)", text(9, quoteStandard), ""}, {"char(9)", text(9, quoteStandard), ""},
		{"bpchar", text(9, quoteStandard), ""}, {`"char"`, oneOf("'a'", "''", "'\"'"), ""}, {"name", text(9, quoteStandard), ""},
		{"bytea", randomBytes(9, `'\x%s'`), ""},
		{"date", either(moment("'%04d-%02d-%02d'::varchar(10)::date --%d%d%d%d\n", 9999, 1),
			oneOf("'infinity'", "'-infinity'", "'0044-03-15 BC'", "'20240-03-15'")), ""},
		{"timestamp", either(moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 9999, 1),
			oneOf("'infinity'", "'-infinity'", "'0044-03-15 BC'", "'20240-03-15 01:02:03.4'")), ""},
		{"timestamptz", either(moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d+05:30'", 9998, 1),
			oneOf("'infinity'", "'-infinity'", "'0044-03-15 BC'", "'20240-03-15 01:02:03.4'", "'0001-01-01 00:00+05'")), ""},
		{"timestamp(0)", moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 9000, 1), ""},
		{"time", either(oneOf("'24:00:00'", "'00:00:00'", "'23:59:59.999999'", "'01:02:03.4'")), ""},
		{"timetz", oneOf("'24:00:00+15:59'", "'01:02:03.4-05:30'"), ""},
		{"interval", oneOf("'1 year -3 days 04:05:06.7'", "'-1 month 2 days -00:00:00.000001'", "'0'", "'838:59:59'"), ""},
		{"uuid", oneOf("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"), ""},
		{"json", oneOf("'"+hardJSON+"'", "'null'", `'{"a": 1, "a" : 2}'`, `' "x" '`, `'[ 1 ]'`, `'"\u0000"'`, "'1.0'", "'true '"), ""},
		{"jsonb", oneOf("'"+hardJSON+"'", "'null'", `'{"a": 1, "a" : 2}'`, `'"x"'`, "'1.0'", `'{}'`), ""},
		{"jsonb NOT NULL", oneOf("'null'", "'[null]'"), ""},
		{"xml", oneOf("'<a b=\"c\"> &amp; </a>'", "'x'"), ""},
		{"int[]", oneOf("'{1,NULL,3}'", "'{}'", "'[2:3]={1,2}'", "'{{1,2},{3,4}}'"), ""},
		{"text[]", oneOf(`'{"a b","c\"d","NULL",NULL,"{}"," x "}'`, "'{}'", `'{""}'`), ""},
		{"float8[]", oneOf("'{0.1,NaN,-0,5e-324,Infinity}'"), ""}, {"timestamptz[]", oneOf(`'{"2024-01-01 00:00+05",infinity}'`), ""},
		{"bytea[]", oneOf(`'{"\\x00ff"}'`), ""}, {"char(3)[]", oneOf(`'{"a"," b"}'`), ""}, {"json[]", oneOf(`'{"{\"a\" : 1}"}'`), ""},
		{"mood", oneOf("'sad'", "'with space'"), ""}, {"positive", integer(1, 9), ""}, {"pair", oneOf(`ROW(1,'a "b", c')`, "ROW(NULL,'')"), ""},
		{"inet", oneOf("'10.0.0.1/8'", "'::1'", "'10.0.0.1'"), ""}, {"cidr", oneOf("'10.0.0.0/8'"), ""},
		{"macaddr", oneOf("'08:00:2b:01:02:03'"), ""}, {"macaddr8", oneOf("'08:00:2b:01:02:03:04:05'"), ""},
		{"bit(5)", oneOf("B'10101'"), ""}, {"varbit", oneOf("B'101'", "B''"), ""},
		{"int4range", oneOf("'[1,5)'", "'empty'", "'(,)'"), ""}, {"numrange", oneOf("'[1.50,2.0]'"), ""},
		{"tstzrange", oneOf("'[2024-01-01 00:00+05,infinity)'"), ""}, {"daterange", oneOf("'[2024-01-01,2024-01-05]'"), ""},
		{"point", oneOf("'(0.1,-0)'", "'(1e300,NaN)'"), ""}, {"line", oneOf("'{1,2,0.1}'"), ""}, {"box", oneOf("'((1,2),(3,4.1))'"), ""},
		{"path", oneOf("'[(0,0),(1,1.1)]'"), ""}, {"polygon", oneOf("'((0,0),(1,1),(1,0))'"), ""}, {"circle", oneOf("'<(1,2),0.1>'"), ""},
		{"tsvector", oneOf("'a:1A b'"), ""}, {"tsquery", oneOf("'a & !b'"), ""}, {"pg_lsn", oneOf("'16/B374D848'"), ""},
		{"regclass", oneOf("'pg_class'"), ""}, {"jsonpath", oneOf("'$.a[*] ? (@ > 1)'"), ""}, {"xid", oneOf("'7'"), ""},
	},
	"mysql": {
		{"TINYINT", integer(-128, 127), ""}, {"TINYINT(1)", integer(-128, 127), ""}, {"BOOL", oneOf("0", "1"), ""},
		{"SMALLINT UNSIGNED", integer(0, 65535), ""}, {"MEDIUMINT", integer(-8388608, 8388607), ""},
		{"INT(9) ZEROFILL", integer(0, 4294967295), ""}, {"BIGINT", integer(math.MinInt64, math.MaxInt64), ""},
		{"BIGINT UNSIGNED ZEROFILL", oneOf("0", "7", "18446744073709551615", "9223372036854775808"), ""},
		{"INT GENERATED ALWAYS AS (other + 1) STORED", nil, ""}, {"INT GENERATED ALWAYS AS (other + 2) VIRTUAL", nil, ""},
		{"FLOAT", double(32), "CAST(%s + 0E0 AS CHAR)"}, {"DOUBLE", double(64), "CAST(%s AS CHAR)"},
		{"FLOAT(9,3) ZEROFILL", decimalDigits(4, 3, false), "CAST(%s + 0E0 AS CHAR)"},
		{"DOUBLE(12,4)", decimalDigits(7, 4, true), "CAST(%s + 0E0 AS CHAR)"},
		{"DECIMAL(65,30)", decimalDigits(35, 30, true), ""}, {"DECIMAL(7,2) ZEROFILL", decimalDigits(5, 2, false), ""},
		{"DECIMAL(5,0)", integer(-99999, 99999), ""},
		{"BIT(1)", oneOf("b'0'", "b'1'"), "HEX(%s + 0)"}, {"BIT(64)", oneOf("x'FFFFFFFFFFFFFFFF'", "x'8000000000000000'", "b'0'"), "HEX(%s + 0)"},
		{"BIT(10)", integer(0, 1023), "HEX(%s + 0)"}, {"YEAR", oneOf("0", "1901", "2155", "2024"), ""},
		{"VARCHAR(9)", text(9, quoteMySQL), ""}, {"CHAR(9)", text(9, quoteMySQL), ""}, {"TEXT", text(9, quoteMySQL), ""},
		{"VARCHAR(9) CHARACTER SET latin1", oneOf("'é '", "''", "'a\\\\'"), ""}, {"LONGTEXT", text(9, quoteMySQL), ""},
		{"VARBINARY(9)", randomBytes(9, "x'%s'"), "HEX(%s)"}, {"BINARY(9)", randomBytes(9, "x'%s'"), "HEX(%s)"},
		{"BLOB", randomBytes(9, "x'%s'"), "HEX(%s)"}, {"TINYBLOB", randomBytes(9, "x'%s'"), "HEX(%s)"},
		{"DATE", either(moment("'%04d-%02d-%02d' -- %d%d%d%d\n", 9000, 1000),
			oneOf("'0000-00-00'", "'2024-00-00'", "'2024-02-31'", "'0001-01-01'", "'0000-01-01'", "'9999-12-31'")), ""},
		{"DATETIME(6)", either(moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 9000, 1000),
			oneOf("'0000-00-00'", "'2024-00-00 01:02:03'", "'2024-02-31 01:02:03.5'", "'0001-01-01'", "'0000-01-01'")), ""},
		{"DATETIME", moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 8000, 1000), ""},
		{"TIMESTAMP(3) NULL", either(moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 60, 1975), oneOf("'0000-00-00'")), ""},
		{"TIMESTAMP(6) NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP(6)", moment("'%04d-%02d-%02d %02d:%02d:%02d.%06d'", 60, 1975), ""},
		{"TIME(6)", oneOf("'838:59:59'", "'-838:59:59'", "'-00:00:00.000001'", "'24:00:00'", "'01:02:03.4'", "'00:00:00'"), ""},
		{"TIME", oneOf("'838:59:59'", "'-01:00:00'", "'23:59:59'"), ""},
		{"ENUM('a','b','2','')", oneOf("'a'", "'2'", "''", "2"), "CONCAT(HEX(%[1]s), %[1]s + 0)"},
		{"ENUM('a','b')", oneOf("'a'", "'b'", "0"), "CONCAT(HEX(%[1]s), %[1]s + 0)"},
		{"SET('a','b','c')", oneOf("''", "'a'", "'c,a'", "7"), "CONCAT(HEX(%[1]s), %[1]s + 0)"},
		{"JSON", oneOf(`'{"b": 1,  "a": [1.50, -0, 123456789012345678901234567890], "x": null}'`, "'null'", `'{"a": 1, "a" : 2}'`, "'1.0'", `'"x"'`, "'[ 1 ]'",
			"JSON_OBJECT('d', CAST(1.50 AS DECIMAL(5,2)))", "JSON_ARRAY(CAST('2024-01-01' AS DATE))"), ""},
		{"GEOMETRY", oneOf("ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0, 1 1)', 4326)"), "HEX(%s)"},
	},
	"sqlite": sqliteColumns(),
}

// sqliteColumns stores each class of values in each declared type, as SQLite does.
func sqliteColumns() (columns []randomColumn) {
	any := either(integer(math.MinInt64, math.MaxInt64), integer(-3, 3), oneOf("9e999", "-9e999", "'1687366926347'"),
		double(64), decimalDigits(9, 4, true), text(9, quoteStandard), randomBytes(9, "x'%s'"),
		oneOf("1687366926347", "1709210096", "2460370.0242592592", "'2024-02-29'", "'2024-02-29 12:34:56'",
			"'2024-02-29 23:34:56.123456789-05:00'", "'2024-02-29 00:00:00 +0000 UTC'", "'24:00'", "'12:30'", "CAST(x'61ff62' AS TEXT)"),
		oneOf("'"+hardJSON+"'", "'null'", "'not json'", `'{"a" : 1}'`, "CAST(x'22ff22' AS TEXT)", "'007'", "'+1'", "'.5'", "'abc'", "''"))
	for _, declared := range []string{
		"INTEGER", "BIGINT", "BOOLEAN", "REAL", "DOUBLE", "NUMERIC", "DECIMAL(10,2)", "TEXT", "VARCHAR(9)", "CHAR(3)", "BLOB",
		"DATE", "DATETIME", "TIMESTAMP", "TIMESTAMP(3)", "TIMESTAMPTZ", "TIMESTAMP WITHOUT TIME ZONE", "TIME", "JSON", "JSONB",
		"UUID", "", "ANY", "POINT",
	} {
		columns = append(columns, randomColumn{declared, any, ""})
	}
	return append(columns, randomColumn{"INT GENERATED ALWAYS AS (other + 1) STORED", nil, ""},
		randomColumn{"TEXT GENERATED ALWAYS AS (other || 'x') VIRTUAL", nil, ""},
		randomColumn{"INTEGER NOT NULL DEFAULT 5", nil, ""})
}
