package sqldb

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// MySQL itself is not among the databases of the tests: what is said to it is checked here, against its manual (8.9.3,
// MAX_EXECUTION_TIME).
func TestTimeLimitOfMySQL(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT v FROM r WHERE k = ?":           "SELECT /*+ MAX_EXECUTION_TIME(900) */ v FROM r WHERE k = ?",
		"\n select\tv FROM r WHERE k = ?":       "SELECT /*+ MAX_EXECUTION_TIME(900) */\tv FROM r WHERE k = ?",
		"WITH x AS (SELECT 1) SELECT * FROM x ": "WITH x AS (SELECT 1) SELECT * FROM x ",
		"SELECTED":                              "SELECTED",
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m, no := &mysql{}, false
			m.mariadb.Store(&no)
			got, err := m.withTimeLimit(ctx, nil, query)
			if err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestServerTimeoutIsBelowTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for left, want := range map[time.Duration]time.Duration{
			time.Second: 900 * time.Millisecond, 5 * time.Millisecond: 4 * time.Millisecond,
			time.Microsecond: time.Millisecond, -time.Second: time.Millisecond,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			if got := serverTimeout(ctx); got != want {
				t.Errorf("%v left: %v, want %v", left, got, want)
			}
		}
		if got := serverTimeout(t.Context()); got != 0 {
			t.Errorf("no deadline: %v", got)
		}
	})
}

func TestExpandWritesOneParameterPerKey(t *testing.T) {
	st := &statement{sql: "SELECT k FROM r WHERE k IN (?)", list: true}
	for keys, want := range map[int]string{1: "SELECT k FROM r WHERE k IN (?)", 3: "SELECT k FROM r WHERE k IN (?,?,?)"} {
		if got := expand(st, keys); got != want {
			t.Errorf("%d keys: %s", keys, got)
		}
	}
}

func FuzzEncodeRowIsJSON(f *testing.F) {
	f.Add("name", []byte("text"), uint8(quoted))
	f.Add("a\"b", []byte("\x00\xff\u2028<>&"), uint8(quoted))
	f.Add("", []byte(`{"a": [1, "\u00e9"]}`), uint8(document))
	f.Add("x", []byte(`{"a": `), uint8(document))
	f.Add("x", []byte("\x00\xff"), uint8(binary))
	f.Add("x", []byte(nil), uint8(null))
	f.Fuzz(func(t *testing.T, name string, text []byte, k uint8) {
		c := cell{kind(k % 5), text}
		if c.kind == bare {
			c = cell{quoted, text} // what is bare was a number before
		}
		got := encodeRow([]string{name, "other " + name}, []cell{c, c})
		var back map[string]any
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		text8 := c.kind == quoted && utf8.ValidString(name) && utf8.Valid(text)
		if s, ok := back[name].(string); text8 && (!ok || s != string(text)) {
			t.Fatalf("%q came back as %q", text, s)
		}
	})
}

func FuzzAKeyHasOneForm(f *testing.F) {
	for _, seed := range []string{
		"0", "-0", "+1", "01", " 1", "9223372036854775807", "-9223372036854775808", "1e3", "1_000", "٣",
	} {
		f.Add(seed, uint8(64), false)
		f.Add(seed, uint8(16), true)
	}
	f.Fuzz(func(t *testing.T, key string, bits uint8, unsigned bool) {
		parsed, err := keyType{bits: 1 + int(bits%64), unsigned: unsigned}.parse(key)
		if err != nil {
			return
		}
		if v, ok := parsed.(int64); ok && strconv.FormatInt(v, 10) != key {
			t.Fatalf("%q is taken for %d", key, v)
		}
		if v, ok := parsed.(uint64); ok && strconv.FormatUint(v, 10) != key {
			t.Fatalf("%q is taken for %d", key, v)
		}
	})
}

// A row that parses has the members that encoding/json sees, which takes the last of those that have one name, and
// replaces what is no character.
func FuzzParseRow(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":"x","c":null,"d":{"a":[]},"e":true}`, `{"a":1,"a":2}`, `{"a":1} `, `{"a":1}{}`, `{}`, `[]`, ``, `{"a":}`,
		`{"\ud83d\ude00":"\\ud800"}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00\ud800"}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := parseRow(data)
		if err != nil {
			if _, ok := errors.AsType[*origin.ValueError](err); !ok {
				t.Fatalf("%q: %v is no ValueError", data, err)
			}
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(want) != len(members) {
			t.Fatalf("%q: %d members, want %d, %v", data, len(members), len(want), err)
		}
		for _, m := range members {
			if string(want[m.name]) != m.given.raw {
				t.Fatalf("%q: %q is %q, want %q", data, m.name, m.given.raw, want[m.name])
			}
			if m.given.kind == quoted && strings.Count(m.given.text, "\uFFFD") >
				strings.Count(m.given.raw, "\uFFFD")+strings.Count(strings.ToLower(m.given.raw), `\ufffd`) {
				t.Fatalf("%q: %q has half a character", data, m.given.raw)
			}
		}
	})
}

func FuzzDigitsBefore(f *testing.F) {
	for _, seed := range []string{"0", "-0.001", "123.45", "1e3", "12.5e-3", "0.00e99999999999999999999", "1E+400"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, number string) {
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !json.Valid([]byte(number)) || number[0] != '-' && (number[0] < '0' || number[0] > '9') {
			return
		}
		digits := digitsBefore(number)
		if v != 0 && math.Abs(v) > 1e-300 && (math.Abs(v) < math.Pow10(digits-1)*0.999999 ||
			math.Abs(v) > math.Pow10(digits)*1.000001) {
			t.Fatalf("%s has %d digits before the point", number, digits)
		}
	})
}

func FuzzFloatCellReadsBack(f *testing.F) {
	for _, seed := range []float64{0, 1.1, -5, 1e-7, 1e21, 5e-324, 1.7976931348623157e308} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		c := floatCell(v, 64)
		if c.kind != bare {
			return
		}
		var back float64
		if err := json.Unmarshal(c.text, &back); err != nil || back != v {
			t.Fatalf("%v is written %s, which reads as %v, %v", v, c.text, back, err)
		}
		if same, err := json.Marshal(v); err != nil || string(same) != string(c.text) {
			t.Fatalf("%s, but encoding/json writes %s", c.text, same)
		}
	})
}

func FuzzSQLiteURI(f *testing.F) {
	for _, seed := range []string{
		"rows.db", "/a b/rows?.db", "file:x.db?mode=rw&_pragma=a", "file::memory:?cache=shared", "file:%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		read, write, err := sqliteURIs(dsn)
		if err != nil {
			return
		}
		for uri, pragma := range map[string]string{read: "query_only(1)", write: "foreign_keys(1)"} {
			path, query, _ := strings.Cut(strings.TrimPrefix(uri, "file:"), "?")
			values, err := url.ParseQuery(query)
			if err != nil || !values.Has("mode") || !slices.Contains(values["_pragma"], pragma) {
				t.Fatalf("%q: %v", uri, err)
			}
			if plain, err := url.PathUnescape(path); !strings.HasPrefix(dsn, "file:") && (err != nil || plain != dsn) {
				t.Fatalf("%q became %q, %v", dsn, plain, err)
			}
		}
	})
}

func BenchmarkEncodeRow(b *testing.B) {
	names := []string{"cnf_id", "ts", "metric_type", "value", "unit", "status", "ver"}
	cells := []cell{textCell("CNF-001"), textCell("2024-02-29T12:34:56.123456Z"), textCell("cpu"), floatCell(0.42, 64),
		textCell("ratio"), textCell("ok"), intCell(7)}
	b.ReportAllocs()
	for b.Loop() {
		encodeRow(names, cells)
	}
}
