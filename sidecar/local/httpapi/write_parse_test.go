package httpapi

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// FuzzWatchQuery: a query that is accepted means the same when it is encoded again.
func FuzzWatchQuery(f *testing.F) {
	for _, s := range []string{"key=a", "key=a&key=b+c&key=%2F", "", "key=a;b", "x=y", "key=%zz", "key=a&key=a",
		"key=\xff", "key=a#b", "prefix=a", "prefix=", "all=true", "all=1", "prefix=a&key=b", "prefix=a&prefix=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		of, err := parseWatchQuery(query)
		if err != nil {
			return
		}
		keys := of.keys
		if keys == nil {
			same := url.Values{"prefix": {of.prefix}}
			if of.prefix == "" {
				same = url.Values{"all": {"true"}}
			}
			if again, err := parseWatchQuery(same.Encode()); err != nil || again.keys != nil || again.prefix != of.prefix || strings.Contains(query, "key=") {
				t.Errorf("%q: %+v; again %+v, %v", query, of, again, err)
			}
			return
		}
		parsed, err := parseWatchQuery(url.Values{"key": keys}.Encode())
		again := parsed.keys
		if err != nil || !slices.Equal(again, keys) || len(keys) == 0 || len(keys) > watch.MaxKeys {
			t.Errorf("%q: %q; again %q, %v", query, keys, again, err)
		}
		for _, key := range keys {
			if kv.CheckKey(key) != nil {
				t.Errorf("%q: %q", query, key)
			}
		}
	})
}

func TestParseCondition(t *testing.T) {
	for _, tt := range []struct {
		match, noneMatch, version string
		want                      kv.Condition
		bad                       bool
	}{
		{}, {match: "*", want: kv.Condition{Present: true}}, {match: ` "a" `, want: kv.Condition{ETag: `"a"`}},
		{match: `""`, want: kv.Condition{ETag: `""`}}, {noneMatch: " * ", want: kv.Condition{Absent: true}},
		{version: "9223372036854775807", want: kv.Condition{Version: 1<<63 - 1}},
		{match: " ", bad: true}, {noneMatch: " ", bad: true}, {version: " ", bad: true}, {match: "a", bad: true},
		{match: `"a`, bad: true}, {match: `"`, bad: true}, {match: `"a", "b"`, bad: true}, {match: `*, "a"`, bad: true},
		{match: `W/"a"`, bad: true}, {match: `"a b"`, bad: true}, {noneMatch: `"a"`, bad: true}, {version: "+1", bad: true},
		{version: "1.0", bad: true}, {version: "-1", bad: true}, {version: "9223372036854775808", bad: true},
		{match: "*", noneMatch: "*", bad: true}, {match: " ", version: "1", bad: true}, {noneMatch: "*", version: "1",
			bad: true},
	} {
		got, err := parseCondition(tt.match, tt.noneMatch, tt.version)
		if (err != nil) != tt.bad || !tt.bad && got != tt.want {
			t.Errorf("%+v: %+v, %v", tt, got, err)
		}
	}
}

func TestParseIdempotencyKey(t *testing.T) {
	for field, want := range map[string]string{
		"": "", `"a"`: "a", ` "a" `: "a", `a`: "a", `"a\"b\\c"`: `a"b\c`,
		`8e03978e-40d5-43dd-bc93-6894a57f9324`: "8e03978e-40d5-43dd-bc93-6894a57f9324",
		`"a b, c"`:                             "a b, c", strings.Repeat("k", 128): strings.Repeat("k", 128),
	} {
		if got, err := parseIdempotencyKey(field); err != nil || got != want {
			t.Errorf("%q: %q, %v", field, got, err)
		}
	}
	for _, field := range []string{" ", `""`, `"a`, `a"`, `"a"b`, `"a";p=1`, `a, b`, `"a\x"`, `"a\`, `a b`, "é",
		"a\x01", "\"\x7f\"",
		strings.Repeat("k", 129), `"` + strings.Repeat("k", 129) + `"`} {
		if got, err := parseIdempotencyKey(field); err == nil {
			t.Errorf("%q is %q", field, got)
		}
	}
}

func TestParseScope(t *testing.T) {
	many := `{"keys":["a"` + strings.Repeat(`,"a"`, api.MaxBatchKeys) + `]}`
	for body, want := range map[string]kv.Scope{
		`{"keys":["a","b"]}`: {Keys: []string{"a", "b"}}, " { \"prefix\" : \"x/\" } ": {Prefix: "x/"}, `{"all":true}`: {},
	} {
		got, err := parseScope([]byte(body))
		if err != nil || got.Prefix != want.Prefix || !slices.Equal(got.Keys, want.Keys) {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
	for _, body := range []string{
		`{"keys":["\ud800"]}`, `{"prefix":"\udc00x"}`, "", "{}", "null", "[]", `{"all":false}`, `{"all":1}`,
		`{"all":"true"}`, `{"ALL":true}`,
		`{"keys":[]}`, `{"keys":[""]}`, `{"keys":"a"}`, `{"keys":null}`, `{"keys":[null]}`, many, `{"prefix":""}`,
		`{"prefix":1}`,
		`{"keys":["a"],"all":true}`, `{"all":true,"all":true}`, `{"all":true} x`, "{\"prefix\":\"\xff\"}",
		`{"keys":["` + strings.Repeat("k", 1025) + `"]}`, `{"prefix":"` + strings.Repeat("k", 1025) + `"}`} {
		if got, err := parseScope([]byte(body)); err == nil {
			t.Errorf("%.40s: %+v", body, got)
		}
	}
}

// FuzzCondition: whatever the headers are, a condition has at most one requirement, and one if there is a header.
func FuzzCondition(f *testing.F) {
	for _, s := range [][3]string{{"", "", ""}, {"*", "", ""}, {`"a"`, "", ""}, {"", "*", ""}, {"", "", "7"}, {`W/"a"`,
		"", ""}, {" ", "", ""}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, match, noneMatch, version string) {
		c, err := parseCondition(match, noneMatch, version)
		if err != nil {
			return
		}
		asked := 0
		for _, is := range []bool{c.Absent, c.Present, c.Version != 0, c.ETag != ""} {
			if is {
				asked++
			}
		}
		if (asked == 0) != (match+noneMatch+version == "") || asked > 1 || c.Version < 0 || c.ETag != "" &&
			api.CheckETag(c.ETag) != nil {
			t.Errorf("%q, %q, %q: %+v", match, noneMatch, version, c)
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"", `"a"`, "a", `"a\"\\"`, `"`, `"a`, " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		id, err := parseIdempotencyKey(field)
		if err != nil || field == "" {
			return
		}
		if api.CheckIdempotencyID(id) != nil {
			t.Errorf("%q is %q", field, id)
		}
		quoted := `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(id) + `"`
		if again, err := parseIdempotencyKey(quoted); err != nil || again != id {
			t.Errorf("%q is %q; in quotes %s is %q, %v", field, id, quoted, again, err)
		}
	})
}

// FuzzScope: no body except {"all":true} invalidates everything.
func FuzzScope(f *testing.F) {
	for _, s := range []string{`{"keys":["a"]}`, `{"prefix":"a"}`, `{"all":true}`, `{"keys":[]}`, `{"all":false}`, "{",
		`{"keys":["\ud800"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseScope(body)
		if err != nil {
			return
		}
		var want struct {
			Keys   []string `json:"keys"`
			Prefix string   `json:"prefix"`
			All    bool     `json:"all"`
		}
		if err := json.Unmarshal(body, &want); err != nil || got.Prefix != want.Prefix || !slices.Equal(got.Keys,
			want.Keys) ||
			(len(got.Keys) == 0 && got.Prefix == "") != want.All {
			t.Errorf("%q: %+v; encoding/json: %+v, %v", body, got, want, err)
		}
	})
}
