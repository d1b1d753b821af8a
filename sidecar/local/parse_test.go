package local

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

func TestOriginForm(t *testing.T) {
	for target, want := range map[string][2]string{
		"/a":                {"/a", "h"},
		"//a//b":            {"//a//b", "h"},
		"*":                 {"*", "h"},
		"http://x:1/a?b":    {"/a?b", "x:1"},
		"http://x":          {"/", "x"},
		"http://x?b":        {"/?b", "x"},
		"http:///a":         {"/a", ""},
		"/a?b=http://evil/": {"/a?b=http://evil/", "h"},
	} {
		if path, authority := originForm(target, "h"); path != want[0] || authority != want[1] {
			t.Errorf("%q: %q, %q; want %q", target, path, authority, want)
		}
	}
}

func TestHosts(t *testing.T) {
	h := newHosts([]string{"Metrics.local"})
	for _, ok := range []string{"localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:65535", "[::1]", "[::1]:7070",
		"metrics.LOCAL:80", "[::ffff:127.0.0.1]:1", "localhost:"} {
		if !h.allow(ok) {
			t.Errorf("%q is refused", ok)
		}
	}
	for _, bad := range []string{"", "evil.example", "localhost.evil.example", "evil.localhost", "10.0.0.1",
		"0.0.0.0", "[::]", "::1",
		"localhost:x", "localhost:123456", "127.0.0.1.evil.example", "[localhost]", "[::1", "localhost@evil",
		"127.1", "user@localhost"} {
		if h.allow(bad) {
			t.Errorf("%q is allowed", bad)
		}
	}
}

func TestNoneMatch(t *testing.T) {
	for header, match := range map[string]bool{
		`"e"`: true, `W/"e"`: true, `"a", "e"`: true, `"a" , W/"e" `: true, "*": true, " * ": true,
		`"a,b","e"`: true, `,,"e",`: true,
		`"a"`: false, `e`: false, ``: false, `"`: false, `"e`: false, `""`: false, `"a\", "e"`: true, `"E"`: false,
		`"a"e"b"`: false,
	} {
		if noneMatch(header, `"e"`) == match {
			t.Errorf("If-None-Match: %s: match is %v", header, !match)
		}
	}
}

func TestReadOptions(t *testing.T) {
	for header, want := range map[string]cache.ReadOptions{
		"":                             {},
		"no-cache":                     {NoCache: true},
		"max-age=0 , No-Cache":         {NoCache: true},
		"only-if-cached,no-cache":      {NoCache: true, OnlyIfCached: true},
		`x="no-cache, only-if-cached"`: {},
		`x="\", no-cache, y"`:          {},
		`x="unclosed, no-cache`:        {},
		"no-cache=1":                   {},
		"no cache":                     {},
		",,,\tonly-if-cached\t,":       {OnlyIfCached: true},
	} {
		if got := parseCacheControl(header); got != want {
			t.Errorf("Cache-Control: %s: %+v, want %+v", header, got, want)
		}
	}
}

func TestParseBatch(t *testing.T) {
	many := `{"keys":["a"` + strings.Repeat(`,"a"`, MaxBatchKeys) + `]}`
	for body, want := range map[string][]string{
		`{"keys":[]}`: nil, " {\n\"keys\" : [ \"a\" , \"\\u00e9\" ] }\n": {"a", "é"},
		``: nil, `null`: nil, `[]`: nil, `{}`: nil, `{"keys":null}`: nil, `{"keys":"a"}`: nil, `{"keys":[1]}`: nil,
		`{"keys":[null]}`: nil,
		`{"KEYS":["a"]}`:  nil, `{"keys":["a"],"keys":["a"]}`: nil, `{"keys":["a"],"x":1}`: nil, `{"x":1,"keys":["a"]}`: nil,
		`{"keys":["a"]}{}`: nil,
		`{"keys":["a"]`:    nil, `{"keys":[["a"]]}`: nil, "{\"keys\":[\"\xff\"]}": nil, many: nil,
		`{"keys":["\ud83d\ude00"]}`: {"😀"}, `{"keys":["\\ud800"]}`: {`\ud800`},
		`{"keys":["a\ud800"]}`: nil, `{"keys":["\udc00\ud800"]}`: nil, `{"keys":["\ud800","\udc00"]}`: nil,
	} {
		got, err := parseBatch([]byte(body))
		if (err == nil) != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%.60s: %q, %v; want %q", body, got, err, want)
		}
	}
}

func TestTokensAreNamedAsJSONWritesThem(t *testing.T) {
	for body, want := range map[string]string{
		`{"keys":null}`: "null at byte 12, not [", `{"keys":"a"}`: `"a" at byte 11, not [`, `[1]`: "[ at byte 1, not {",
		`{"kys":[]}`: `"kys" at byte 6, not "keys"`, `{"keys":["a"],"x":1}`: `"x" at byte 17, not }`,
	} {
		if _, err := parseBatch([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	_, err := parseScope([]byte(`{"prefix":null}`))
	if err == nil || !strings.Contains(err.Error(), "null at byte 14 is not a string") {
		t.Error(err)
	}
}

func TestNearNames(t *testing.T) {
	all := NewCatalog(Served{Dataset: scripted{name: "routes"}}, Served{Dataset: scripted{name: "cnf-metrics"}},
		Served{Dataset: scripted{name: "cnf-state"}}).All()
	for asked, want := range map[string][]string{
		"route": {"routes"}, "Routes": {"routes"}, "ruotes": {"routes"}, "cnf": {"cnf-metrics", "cnf-state"},
		"cnf_metric": {"cnf-metrics"},
		"":           {}, "zzz": {}, strings.Repeat("r", 1000): {},
	} {
		if got := nearNames(asked, all); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", asked, got, want)
		}
	}
}

// FuzzUnescape holds unescape against net/url, which decodes a path segment the same way.
func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "a", "%41", "%4", "%", "%%", "%zz", "a%2Fb//../c", "%ff%00",
		strings.Repeat("%6b", 2000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, _, err := unescape(s, make([]byte, 0, 8))
		want, wantErr := url.PathUnescape(s)
		if got != want && wantErr == nil || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: %q, %v; net/url: %q, %v", s, got, err, want, wantErr)
		}
	})
}

// FuzzTarget sends a target through the whole route without a server.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/v1/", "/v1//", "/v1/blobs/a", "/v1/blobs:batchGet", "/v1/%62lobs/%",
		"http://localhost/v1/x", "*", "", "/v1/datasets/"} {
		f.Add("GET", s)
	}
	f.Add("POST", "/v1/blobs:batchGet")
	s := New(Config{}, NewCatalog(Served{Dataset: failing(), JSON: true}))
	f.Fuzz(func(t *testing.T, method, target string) {
		if strings.HasSuffix(target, "/wait") || strings.HasSuffix(target, "/panic") || strings.Contains(target, "internal") {
			return // they fail on purpose
		}
		c := newCall()
		c.method, c.target, c.host, c.http11 = method, target, "localhost", true
		s.http.entrance.answer(s.base, c)
		if c.status < 200 || c.status > 504 || c.status == 500 {
			t.Errorf("%s %q: %d %s", method, target, c.status, c.response.body)
		}
		if c.status >= 400 && !json.Valid(c.response.body) {
			t.Errorf("%s %q: %q", method, target, c.response.body)
		}
	})
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"no-cache", `a="b\",no-cache", only-if-cached`, ",", `"`, `\`, "max-age=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if o := parseCacheControl(s); (o.NoCache || o.OnlyIfCached) && !strings.Contains(strings.ToLower(s), "cache") {
			t.Errorf("%q: %+v", s, o)
		}
		if !strings.Contains(s, `"`) && !parseCacheControl(s+",no-cache").NoCache {
			t.Errorf("%q hides the directive after it", s)
		}
	})
}

func FuzzIfNoneMatch(f *testing.F) {
	for _, s := range []string{`"e"`, `W/"e", "f"`, "*", `"`, `"\"`, `,"e"`} {
		f.Add(s, `"e"`)
	}
	f.Fuzz(func(t *testing.T, header, etag string) {
		if !noneMatch(header, etag) && strings.TrimSpace(header) != "*" && !strings.Contains(header, etag) {
			t.Errorf("%q matches %q", header, etag)
		}
	})
}

func FuzzParseBatch(f *testing.F) {
	for _, s := range []string{`{"keys":["a","b"]}`, `{"keys":[`, `{"keys":["\ud800"]}`, `{"keys":[]}x`, `[`,
		"\xff", `{"keys":[{}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseBatch(body)
		if err != nil {
			return
		}
		var want struct {
			Keys []string `json:"keys"`
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil || !slices.Equal(keys, want.Keys) || len(keys) > MaxBatchKeys {
			t.Errorf("%q: %q; encoding/json: %q, %v", body, keys, want.Keys, err)
		}
		if slices.ContainsFunc(keys, func(k string) bool { return !utf8.ValidString(k) }) {
			t.Errorf("%q: a key is not UTF-8", body)
		}
	})
}

// FuzzCacheStatus lets any owner and detail through: they come from other members.
func FuzzCacheStatus(f *testing.F) {
	f.Add("n1", "origin-error", uint8(3), true)
	f.Add("\"\\\x00é", "a b", uint8(4), false)
	f.Fuzz(func(t *testing.T, owner, detail string, source uint8, noCache bool) {
		a := cache.Answer{Owner: owner, Detail: detail, Source: cache.Source(source%4 + 1)}
		checkCacheStatus(t, string(appendCacheStatus(nil, &a, cache.ReadOptions{NoCache: noCache})))
	})
}
