package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// keyType is a type of key columns, and how to write a random value of it as a literal.
type keyType struct {
	sql     string
	literal func(r *rand.Rand) string
}

// rejectedKeyTypes are types that a trigger cannot print as a read does.
var rejectedKeyTypes = map[string][]string{
	"postgres": {"money", "regclass", "regtype", "money_domain", "pair"},
	"mysql":    {"FLOAT", "DOUBLE", "BIT(9)", "DECIMAL(9,2) ZEROFILL"},
	"sqlite":   {"REAL", "DOUBLE PRECISION", "float"},
}

// keySessions are the settings of the sessions that write.
var keySessions = map[string][][]string{
	"postgres": {
		{"SET timezone = 'Asia/Kolkata'", "SET datestyle = 'German'", "SET intervalstyle = 'iso_8601'"},
		{"SET timezone = 'America/St_Johns'", "SET datestyle = 'SQL, DMY'", "SET intervalstyle = 'sql_standard'",
			"SET bytea_output = 'escape'", "SET extra_float_digits = -15", "SET quote_all_identifiers = on"},
		{"SET datestyle = 'Postgres, MDY'", "SET intervalstyle = 'postgres_verbose'", "SET extra_float_digits = 3",
			"SET search_path = pg_catalog", "SET client_encoding = 'UTF8'", "SET standard_conforming_strings = on"},
	},
	"mysql": {
		{"SET time_zone = '+05:30'", "SET sql_mode = ''"},
		{"SET time_zone = '-11:00'", "SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,ANSI,ALLOW_INVALID_DATES'", "SET NAMES utf8mb4 COLLATE utf8mb4_bin"},
		{"SET time_zone = 'Test/Fold'", "SET collation_connection = 'utf8mb4_unicode_ci'", "SET character_set_results = latin1"},
	},
	"sqlite": {{"PRAGMA recursive_triggers = ON"}, {"PRAGMA recursive_triggers = OFF", "PRAGMA case_sensitive_like = ON"}},
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func integers(lowest, highest int64) func(r *rand.Rand) string {
	return func(r *rand.Rand) string {
		switch r.IntN(8) {
		case 0:
			return fmt.Sprint(lowest)
		case 1:
			return fmt.Sprint(highest)
		}
		return fmt.Sprint(lowest + int64(r.Uint64N(uint64(highest)-uint64(lowest))))
	}
}

// texts returns random texts without a blank at the end, which some collations and char(n) ignore.
func texts(alphabet string, length int) func(r *rand.Rand) string {
	letters := []rune(alphabet)
	return func(r *rand.Rand) string {
		text := make([]rune, 1+r.IntN(length))
		for i := range text {
			text[i] = letters[r.IntN(len(letters))]
		}
		return quoted(strings.TrimRight(string(text), " ") + "z")
	}
}

const asciiLetters = `abXY019 "'_-%{}[]()<>:,;/`

func decimals(digits, scale int) func(r *rand.Rand) string {
	return func(r *rand.Rand) string {
		text := fmt.Sprint(1 + r.IntN(9))
		for range r.IntN(digits - scale) {
			text += fmt.Sprint(r.IntN(10))
		}
		if text += "."; scale > 0 {
			for range scale {
				text += fmt.Sprint(r.IntN(10))
			}
		}
		return []string{"", "-"}[r.IntN(2)] + strings.TrimSuffix(text, ".")
	}
}

// times returns random times between two years.
func times(layout string, from, to int) func(r *rand.Rand) string {
	first, last := time.Date(from, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(to, 12, 30, 0, 0, 0, 0, time.UTC)
	return func(r *rand.Rand) string {
		at := first.Add(time.Duration(r.Int64N(int64(last.Sub(first)/time.Microsecond))) * time.Microsecond)
		if r.IntN(4) == 0 {
			at = at.Truncate(time.Hour)
		}
		return quoted(at.UTC().Format(layout))
	}
}

func oneOf(literals ...string) func(r *rand.Rand) string {
	return func(r *rand.Rand) string { return literals[r.IntN(len(literals))] }
}

func hexes(prefix, suffix string, bytes int) func(r *rand.Rand) string {
	return func(r *rand.Rand) string {
		text := ""
		for range bytes {
			text += fmt.Sprintf("%02x", r.IntN(256))
		}
		return prefix + text + suffix
	}
}

func uuids(r *rand.Rand) string {
	h := hexes("", "", 16)(r)
	return quoted(strings.ToUpper(h[:8]) + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:])
}

func doubles(r *rand.Rand) string {
	return fmt.Sprintf("'%v'", (r.Float64()-0.5)*[]float64{1, 1e-9, 1e15, 1e22, 1e300}[r.IntN(5)])
}

func intervals(r *rand.Rand) string {
	return fmt.Sprintf("'%d years %d mons %d days %d seconds'", r.IntN(9)-4, r.IntN(12), r.IntN(99)-50, r.IntN(1e6)-5e5)
}

func addresses(mask bool) func(r *rand.Rand) string {
	return func(r *rand.Rand) string {
		text := fmt.Sprintf("%d.%d.%d.0", r.IntN(256), r.IntN(256), r.IntN(256))
		if mask {
			text += fmt.Sprintf("/%d", 24+r.IntN(9))
		}
		return quoted(text)
	}
}

var (
	int32s = integers(-1<<31, 1<<31-1)
	int64s = integers(-1<<63, 1<<63-1)
	stamps = times("2006-01-02 15:04:05.000000", 1000, 9999)
)

var keyTypes = map[string][]keyType{
	"postgres": {
		{"smallint", integers(-1<<15, 1<<15-1)}, {"integer", int32s}, {"bigint", int64s}, {"oid", integers(0, 1<<32-1)},
		{"numeric", decimals(40, 3)}, {"numeric(9,0)", decimals(9, 0)}, {"real", doublesOf(1e30)}, {"double precision", doubles},
		{"text", texts(asciiLetters+"Ключ😀é\\", 20)}, {"varchar(30)", texts(asciiLetters, 20)}, {"char(30)", texts(asciiLetters, 20)},
		{`"char"`, oneOf("'a'", "'Z'", "'0'")}, {"name", texts(asciiLetters, 20)}, {"uuid", uuids}, {"boolean", oneOf("true", "false")},
		{"date", times("2006-01-02", 1, 9999)}, {"date", oneOf("'infinity'", "'0044-03-15 BC'", "'20240-01-01'")},
		{"time(3)", times("15:04:05.000", 2000, 2001)}, {"timetz", times("15:04:05.000000-07", 2000, 2001)},
		{"timestamp", stamps}, {"timestamptz", times("2006-01-02 15:04:05.000000-07", 1000, 9999)}, {"timestamptz(0)", stamps},
		{"interval", intervals}, {"bytea", hexes(`'\x`, "'", 9)}, {"inet", addresses(true)}, {"cidr", addresses(false)},
		{"macaddr", hexes("'", "'", 6)}, {"macaddr8", hexes("'", "'", 8)}, {"bit(5)", oneOf("B'10101'", "B'00000'", "B'11111'")},
		{"varbit", oneOf("B'1'", "B'10'", "B'0011'")}, {"mood", oneOf("'sad'", "'o k'", "'ГОД'")},
		{"char_domain", texts(asciiLetters, 20)}, {"stamp_domain", stamps}, {"int4range", oneOf("'[1,5)'", "'empty'", "'(,9]'")},
		{"tstzrange", oneOf("'[2024-01-01 00:00+02,2024-06-01 12:00+00)'", "'(,2024-10-27 00:30+00]'")},
		{"jsonb", oneOf(`'{"a": 1.50, "b": [true]}'`, `'"x"'`, "'7'")}, {"pg_lsn", oneOf("'16/B374D848'", "'0/1'")},
	},
	"mysql": {
		{"TINYINT", integers(-128, 127)}, {"BOOLEAN", oneOf("0", "1")}, {"SMALLINT UNSIGNED", integers(0, 1<<16-1)},
		{"MEDIUMINT", integers(-1<<23, 1<<23-1)}, {"INT", int32s}, {"INT(9) UNSIGNED ZEROFILL", integers(0, 1<<32-1)},
		{"BIGINT", int64s}, {"BIGINT UNSIGNED", oneOf("18446744073709551615", "0", "9223372036854775808")},
		{"BIGINT(20) ZEROFILL", integers(0, 1<<62)}, {"YEAR", integers(1901, 2155)},
		{"DECIMAL(20,4)", decimals(20, 4)}, {"DECIMAL(9,0)", decimals(9, 0)},
		{"CHAR(30)", texts(asciiLetters, 20)}, {"VARCHAR(30)", texts(asciiLetters+"Ключ😀é", 20)},
		{"VARCHAR(30) CHARACTER SET latin1", texts(asciiLetters+"éß£", 20)}, {"CHAR(30) CHARACTER SET utf16", texts(asciiLetters+"é", 20)},
		{"VARCHAR(30) CHARACTER SET sjis", texts(asciiLetters+"日本", 20)}, {"VARCHAR(30) CHARACTER SET ascii COLLATE ascii_bin", texts(asciiLetters, 20)},
		{"BINARY(3)", hexes("x'", "'", 3)}, {"VARBINARY(9)", texts(asciiLetters+"é", 7)},
		{"ENUM('a','b c','é')", oneOf("'a'", "'b c'", "'é'")}, {"SET('a','b','é')", oneOf("'a,b'", "'é'", "'b,é'")},
		{"DATE", times("2006-01-02", 1000, 9999)}, {"DATETIME", times("2006-01-02 15:04:05", 1000, 9999)}, {"DATETIME(6)", stamps},
		{"DATETIME(3)", times("2006-01-02 15:04:05.000", 1000, 9999)}, {"TIMESTAMP", times("2006-01-02 15:04:05", 1971, 2037)},
		{"TIMESTAMP(6)", times("2006-01-02 15:04:05.000000", 1971, 2037)}, {"TIMESTAMP(2)", times("2006-01-02 15:04:05.00", 1971, 2037)},
		{"TIMESTAMP(1)", oneOf("FROM_UNIXTIME(1729985400.5)", "FROM_UNIXTIME(1729989000.5)", "FROM_UNIXTIME(0.5)")},
		{"TIME(3)", oneOf("'12:34:56.789'", "'-838:59:59'", "'100:00:00.5'", "'-00:00:01'", "'00:00:00'")}, {"TIME", times("15:04:05", 2000, 2001)},
	},
	"sqlite": {
		{"INTEGER", int64s}, {"BIGINT", int32s}, {"TEXT", texts(asciiLetters+"Ключ😀é\\", 20)}, {"CHAR(30)", texts(asciiLetters, 20)},
		{"VARCHAR(30) COLLATE NOCASE", texts(asciiLetters, 20)}, {"NUMERIC", decimals(12, 3)}, {"NUMERIC", int32s},
		{"DECIMAL(9,2)", decimals(9, 2)}, {"DATE", times("2006-01-02", 1, 9999)}, {"DATETIME", stamps}, {"TIMESTAMP", int32s},
		{"BOOLEAN", oneOf("0", "1")}, {"UUID", uuids},
	},
}

// mariadbKeyTypes are types that MySQL does not have.
var mariadbKeyTypes = []keyType{{"UUID", uuids}, {"INET6", oneOf("'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.1'")},
	{"INET4", addresses(false)}}

// doublesOf returns numbers up to a magnitude.
func doublesOf(highest float64) func(r *rand.Rand) string {
	return func(r *rand.Rand) string { return fmt.Sprintf("'%v'", float32((r.Float64()-0.5)*highest)) }
}

// prepareKeyTypes creates the types and the time zone of the test.
func (d database) prepareKeyTypes(t *testing.T) {
	t.Helper()
	switch d.driver {
	case "postgres":
		for _, statement := range []string{
			"CREATE TYPE mood AS ENUM ('sad', 'o k', 'ГОД')", "CREATE DOMAIN inner_domain AS char(30)",
			"CREATE DOMAIN char_domain AS inner_domain", "CREATE DOMAIN stamp_domain AS timestamptz",
			"CREATE DOMAIN money_domain AS money", "CREATE TYPE pair AS (a int, b int)",
		} {
			d.exec(t, statement)
		}
	case "mysql": // a zone in which daylight saving time ended at 2024-10-27 01:00 UTC
		for _, statement := range []string{
			"INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (900, 'N')",
			"INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Test/Fold', 900)",
			"INSERT INTO mysql.time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation) VALUES " +
				"(900, 0, 3600, 0, 'CET'), (900, 1, 7200, 1, 'CEST')",
			"INSERT INTO mysql.time_zone_transition (Time_zone_id, Transition_time, Transition_type_id) VALUES " +
				"(900, 0, 0), (900, 1711846800, 1), (900, 1729990800, 0)",
		} {
			d.exec(t, statement)
		}
	}
}

// TestKeysOfFeedsAreThoseOfReads writes random keys of each type, in sessions with unusual settings. Each key that the feed
// reports must be one by which a read finds the row, and each row must be reported.
func TestKeysOfFeedsAreThoseOfReads(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	eachKind(t, func(t *testing.T, server database) {
		d := server.empty(t, "keytypes")
		d.prepareKeyTypes(t)
		types, n := keyTypes[d.driver], 0
		if d.driver == "mysql" && !d.isMySQL8(t) {
			types = append(types[:len(types):len(types)], mariadbKeyTypes...)
		}
		for i, kt := range types {
			for _, c := range d.feeds() {
				t.Run(kt.sql+"/"+c.Kind, func(t *testing.T) {
					p := &keyProperty{database: d, t: t, random: rand.New(rand.NewPCG(seed, uint64(i))), table: fmt.Sprint("keys", i, c.Kind), keyType: kt}
					n += p.test(c)
				})
			}
		}
		for i, name := range rejectedKeyTypes[d.driver] {
			t.Run(name+" is rejected", func(t *testing.T) { d.testRejectedKeyType(t, fmt.Sprint("rejected", i), name) })
		}
		t.Logf("%s: %d types, %d keys in %d kinds of sessions, seed %d", d.driver, len(types), n, len(keySessions[d.driver]), seed)
	})
}

func (d database) isMySQL8(t *testing.T) bool {
	t.Helper()
	var version string
	if err := d.QueryRow("SELECT VERSION()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	return !strings.Contains(version, "MariaDB")
}

func (d database) testRejectedKeyType(t *testing.T, table, keyType string) {
	d.exec(t, fmt.Sprintf("CREATE TABLE %s (k %s, v INT)", table, keyType))
	err := d.open(t).InstallChanges(soon(t), origin.Dataset{Name: "rows", Table: table, Key: []string{"k"}}, d.feeds()[0])
	if err == nil || !strings.Contains(err.Error(), "a trigger cannot print a key of type") {
		t.Errorf("got %v, want an error about the type", err)
	}
}

// keyProperty is the test of one type.
type keyProperty struct {
	database
	keyType
	t      *testing.T
	random *rand.Rand
	table  string

	columns, types []string // of a composite key; empty for the column k of keyType
	literals       func(r *rand.Rand) []string
	second         []string          // the columns of the key in a second table of the feed, which a view combines with the first; nil: none
	tables         map[string]string // :: content of the column v → table of its row

	rows   origin.Origin
	feed   *follower
	writer *sql.Conn
	names  map[string]string // :: content of the column v → key by which the feed reported the row
}

func (p *keyProperty) test(c origin.FeedConfig) (n int) {
	if p.columns == nil {
		p.columns, p.types = []string{"k"}, []string{p.sql}
		p.literals = func(r *rand.Rand) []string { return []string{p.literal(r)} }
	}
	p.create(p.table, p.columns)
	ds := origin.Dataset{Name: p.table, Table: p.table, Key: p.columns, Value: "v"}
	if p.second != nil { // the same key may be in both tables
		p.create(p.secondTable(), p.second)
		ds.Table, ds.Many = p.table+"view", true
		p.exec(p.t, fmt.Sprintf("CREATE VIEW %s AS SELECT %s, v FROM %s UNION ALL SELECT %s, v FROM %s", ds.Table,
			strings.Join(p.columns, ", "), p.table, strings.Join(p.second, ", "), p.secondTable()))
		c.Tables = map[string][]string{p.table: p.columns, p.secondTable(): p.second}
	}
	r := p.record(p.t, ds, c)
	p.feed, p.names, p.tables = r.started(p.t), map[string]string{}, map[string]string{}
	var err error
	if p.rows, err = r.db.Dataset(ds); err != nil {
		p.t.Fatal(err)
	}
	for _, session := range keySessions[p.driver] {
		p.write(session)
	}
	return len(p.names)
}

func (p *keyProperty) create(table string, columns []string) {
	p.t.Helper()
	declared := ""
	for i, column := range columns {
		declared += column + " " + p.types[i] + " NOT NULL, "
	}
	p.exec(p.t, fmt.Sprintf("CREATE TABLE %s (%s v INT, PRIMARY KEY (%s))", table, declared, strings.Join(columns, ", ")))
}

func (p *keyProperty) secondTable() string { return p.table + "second" }

// pick returns the table of the next row, and its columns of the key.
func (p *keyProperty) pick() (table string, columns []string) {
	if p.second != nil && p.random.IntN(2) == 0 {
		return p.secondTable(), p.second
	}
	return p.table, p.columns
}

// write inserts rows in a session, moves them to other keys, and deletes some of them.
func (p *keyProperty) write(session []string) {
	schema := ""
	var err error
	if p.writer, err = p.Conn(soon(p.t)); err != nil {
		p.t.Fatal(err)
	}
	defer p.writer.Close()
	if p.driver == "postgres" {
		schema = p.dsn[strings.LastIndex(p.dsn, "=")+1:] + "."
		defer p.writer.ExecContext(context.Background(), "DISCARD ALL")
	} else if p.driver == "mysql" { // the pool must not reuse the session
		defer p.writer.Raw(func(any) error { return errors.ErrUnsupported })
	}
	for _, statement := range session {
		if _, err := p.writer.ExecContext(soon(p.t), statement); err != nil {
			p.t.Fatalf("%s: %v", statement, err)
		}
	}
	first := len(p.names)
	for range 12 {
		v := fmt.Sprint(len(p.names))
		table, columns := p.pick()
		p.tables[v] = schema + table
		if p.changed(fmt.Sprintf("INSERT INTO %s (%s, v) VALUES (%s, %s)", p.tables[v], strings.Join(columns, ", "), strings.Join(p.literals(p.random), ", "), v)) {
			p.want(v, "")
		}
	}
	for v := first; v < len(p.names); v += 2 {
		old := p.names[fmt.Sprint(v)]
		if p.changed(p.move(fmt.Sprint(v))) {
			p.want(fmt.Sprint(v), old)
		}
	}
	for v := first + 1; v < len(p.names); v += 3 {
		if p.changed(fmt.Sprintf("DELETE FROM %s WHERE v = %d", p.tables[fmt.Sprint(v)], v)) {
			p.feed.want(map[string]int64{p.names[fmt.Sprint(v)]: 0})
		}
	}
}

// move returns a statement that gives a row another key.
func (p *keyProperty) move(v string) string {
	columns, literals := p.columns, p.literals(p.random)
	if strings.HasSuffix(p.tables[v], p.secondTable()) {
		columns = p.second
	}
	set := make([]string, len(columns))
	for i, column := range columns {
		set[i] = column + " = " + literals[i]
	}
	return fmt.Sprintf("UPDATE %s SET %s WHERE v = %s", p.tables[v], strings.Join(set, ", "), v)
}

// changed runs a statement, and reports whether it changed a row: a random key may exist.
func (p *keyProperty) changed(statement string) bool {
	p.t.Helper()
	_, err := p.writer.ExecContext(soon(p.t), statement)
	skipped := regexp.MustCompile("(?i)duplicate|UNIQUE|incorrect datetime") // a key that exists, or a time that does not
	if err != nil && !skipped.MatchString(err.Error()) {
		p.t.Fatalf("%s: %v", statement, err)
	}
	return err == nil
}

// want receives the key of the row with v, by which a read must find it, and the key that it had before, if any. A feed may
// report the two in two parts.
func (p *keyProperty) want(v, old string) {
	p.t.Helper()
	got := map[string]bool{}
	moved := func() bool { return old != "" && !unreadable(old) && !p.finds(old, v) }
	for len(got) == 0 || len(got) == 1 && moved() {
		for _, row := range p.feed.next().Rows {
			got[row.Key] = true
		}
	}
	if old != "" && !got[old] {
		p.t.Errorf("the feed reports %v, without the previous key %q", got, old)
	}
	for key := range got {
		if key != old || len(got) == 1 {
			p.names[v] = key
		}
	}
	if key := p.names[v]; !p.finds(key, v) && !unreadable(key) {
		p.t.Errorf("the feed reports %q; a read finds %q, want row %s", key, p.valueOf(key), v)
	}
	if want := map[bool]int{true: 1, false: 2}[old == "" || p.names[v] == old]; len(got) != want {
		p.t.Errorf("the feed reports %v, want %d keys", got, want)
	}
}

// unreadable reports whether no read can name a key: it must be text without NUL.
func unreadable(key string) bool {
	return strings.ToValidUTF8(key, "") != key || strings.Contains(key, "\x00")
}

// finds reports whether a read of key returns the row with v.
func (p *keyProperty) finds(key, v string) bool {
	value := p.valueOf(key)
	return value == v || p.second != nil && slices.Contains(strings.Split(strings.Trim(value, "[]"), ","), v)
}

func (p *keyProperty) valueOf(key string) string {
	results, err := p.rows.Load(soon(p.t), []string{key})
	if err != nil {
		return err.Error()
	}
	if results[0].Err != nil {
		return results[0].Err.Error()
	}
	return string(results[0].Value.Data)
}
