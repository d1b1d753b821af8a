package httpview_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
)

func compile(t testing.TB, f httpview.Fields, keys ...string) *httpview.View {
	t.Helper()
	v, problems := f.Compile(keys)
	if len(problems) > 0 {
		t.Fatalf("%+v: %v", f, problems)
	}
	return v
}

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template string
		keys     []string
		path     string
		want     []string // nil: no match
	}{
		{"/lookup/{name}", []string{"name"}, "/lookup/a", []string{"a"}},
		{"/lookup/{name}", []string{""}, "/lookup/a%2Fb", []string{"a%2Fb"}},
		{"/lookup/{name}", []string{"name"}, "/lookup/", []string{""}},
		{"/lookup/{name}", []string{"name"}, "/lookup", nil},
		{"/lookup/{name}", []string{"name"}, "/lookup/a/b", nil},
		{"/lookup/{name}", []string{"name"}, "/lookup/a/", nil},
		{"/lookup/{name}", []string{"name"}, "/Lookup/a", nil},
		{"/lookup/{name}", []string{"name"}, "lookup/a", nil},
		{"/lookup/{name}", []string{"name"}, "/l%6fokup/a", nil},
		{"/dns/lookup/{name}/{type}", []string{"name", "type"}, "/dns/lookup/example.org./A", []string{"example.org.", "A"}},
		{"/dns/lookup/{name}/{type}", []string{"type", "name"}, "/dns/lookup/example.org./A", []string{"A", "example.org."}},
		{"/dns/lookup/{name}/{type}", []string{"name", "type"}, "/dns/lookup//A", []string{"", "A"}},
		{"/u/{user}/auth", []string{"user"}, "/u/x/auth", []string{"x"}},
		{"/u/{user}/auth", []string{"user"}, "/u/x/y", nil},
		{"/f/{path...}", []string{"path"}, "/f/a//b/../c", []string{"a//b/../c"}},
		{"/f/{path...}", []string{"path"}, "/f/", []string{""}},
		{"/f/{path...}", []string{"path"}, "/f", nil},
		{"/f/{host}/{path...}", []string{"host", "path"}, "/f/h/a/b", []string{"h", "a/b"}},
	} {
		v := compile(t, httpview.Fields{Paths: []string{c.template}}, c.keys...)
		got, ok := v.Paths[0].Match(c.path, nil)
		if ok != (c.want != nil) || ok && !slices.Equal(got, c.want) {
			t.Errorf("%s with %s: got %q, %t, want %q", c.template, c.path, got, ok, c.want)
		}
		if v.Paths[0].String() != c.template {
			t.Errorf("got %q, want %q", v.Paths[0], c.template)
		}
	}
}

func TestOverlappingTemplates(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"/a/{x}", "/a/{y}", true}, {"/a/{x}", "/b/{x}", false}, {"/a/{x}", "/a/b/{x}", false}, {"/a/{x}/c", "/a/b/{x}", true},
		{"/a/{x...}", "/a/b/{x}", true}, {"/a/{x...}", "/a/{x}", true}, {"/a/b/{x...}", "/a/c/{x}", false}, {"/a/{x...}", "/b/{x}", false},
		{"/a/b/{x...}", "/a/{x}", false}, {"/a/{x...}", "/a/{y...}", true},
	} {
		parse := func(text string) *httpview.Template {
			return compile(t, httpview.Fields{Paths: []string{text}}, "").Paths[0]
		}
		a, b := parse(c.a), parse(c.b)
		if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
			t.Errorf("%s and %s: got %t and %t, want %t", c.a, c.b, a.Overlaps(b), b.Overlaps(a), c.want)
		}
	}
}

func TestFaultsOfFields(t *testing.T) {
	for _, c := range []struct {
		fields httpview.Fields
		want   string // field: part of the text
	}{
		{httpview.Fields{Alias: []string{"a b"}}, `alias[0]: got "a b"`},
		{httpview.Fields{Alias: []string{"a", ".b"}}, `alias[1]: got ".b"`},
		{httpview.Fields{Alias: []string{strings.Repeat("a", 64)}}, "alias[0]: at most 63"},
		{httpview.Fields{Alias: make([]string, 9)}, "alias: at most 8"},
		{httpview.Fields{Paths: []string{"lookup"}}, "paths[0]: begins with /"},
		{httpview.Fields{Paths: []string{"/"}}, "paths[0]: begins with /"},
		{httpview.Fields{Paths: []string{"/lookup"}}, "paths[0]: want a variable for each column of the key (1); got 0"},
		{httpview.Fields{Paths: []string{"/lookup/{a}/{b}"}}, "(1); got 2"},
		{httpview.Fields{Paths: []string{"/lookup/{x}"}}, "column key of the key; the variables are x"},
		{httpview.Fields{Paths: []string{"/lookup//{key}"}}, "a segment is empty"},
		{httpview.Fields{Paths: []string{"/lookup/{key}/"}}, "a segment is empty"},
		{httpview.Fields{Paths: []string{"/lookup/{key...}/x"}}, "must be the last segment"},
		{httpview.Fields{Paths: []string{"/lookup/{}"}}, "is not a variable"},
		{httpview.Fields{Paths: []string{"/lookup/{...}"}}, "is not a variable"},
		{httpview.Fields{Paths: []string{"/lookup/{key}.json"}}, "neither a variable"},
		{httpview.Fields{Paths: []string{"/look%75p/{key}"}}, "neither a variable"},
		{httpview.Fields{Paths: []string{"/lookup/{key}?x=y"}}, "neither a variable"},
		{httpview.Fields{Paths: []string{"/../{key}"}}, "is removed by many clients"},
		{httpview.Fields{Paths: []string{"/{key}/x"}}, "the first segment must not be a variable"},
		{httpview.Fields{Paths: []string{"/v1/{key}"}}, "paths below /v1"},
		{httpview.Fields{Paths: []string{"/cnfmetrics/{key}"}}, "paths below /cnfmetrics"},
		{httpview.Fields{Paths: []string{"/openapi.json/{key}"}}, "paths below /openapi.json"},
		{httpview.Fields{Paths: []string{"/x/{key}/" + strings.Repeat("a", 256)}}, "at most 256 bytes"},
		{httpview.Fields{Paths: []string{"/x/{key}" + strings.Repeat("/a", 16)}}, "at most 16 segments"},
		{httpview.Fields{Paths: make([]string, 9)}, "paths: at most 8"},
		{httpview.Fields{Body: "{value}"}, "body: belongs to paths"},
		{httpview.Fields{Paths: []string{"/x/{key}"}, Body: "x"}, "body: want {value} once, where the value of the dataset stands; got it 0 times"},
		{httpview.Fields{Paths: []string{"/x/{key}"}, Body: "{value}{value}"}, "got it 2 times"},
		{httpview.Fields{Paths: []string{"/x/{key}"}, Body: "{value}" + strings.Repeat("x", 4096)}, "body: at most 4096"},
		{httpview.Fields{Absent: httpview.Absent{Status: 200}}, "absent.body: is missing"},
		{httpview.Fields{Absent: httpview.Absent{Status: 204, Body: "x"}}, "absent.body: a response with status 204"},
		{httpview.Fields{Absent: httpview.Absent{Status: 204, ContentType: "text/plain"}}, "absent.body: a response with status 204"},
		{httpview.Fields{Absent: httpview.Absent{Status: 500}}, "absent.status: want one of 200, 204, 403, 404; got 500"},
		{httpview.Fields{Absent: httpview.Absent{Body: strings.Repeat("x", 4097)}}, "absent.body: at most 4096"},
		{httpview.Fields{Absent: httpview.Absent{ContentType: "text/plain"}}, "absent.content_type: belongs to absent.body"},
		{httpview.Fields{Absent: httpview.Absent{Body: "x", ContentType: "text"}}, "absent.content_type: want a media type"},
		{httpview.Fields{Absent: httpview.Absent{Body: "x", ContentType: "text/plain\r\nX: y"}}, "absent.content_type: want a media type"},
		{httpview.Fields{Headers: map[string]string{"X Y": "c"}}, "headers.X Y: want the name of a header field"},
		{httpview.Fields{Headers: map[string]string{"X:": "c"}}, "headers.X:: want the name"},
		{httpview.Fields{Headers: map[string]string{"": "c"}}, "headers.: want the name"},
		{httpview.Fields{Headers: map[string]string{"X-A": ""}}, "headers.X-A: is empty"},
		{httpview.Fields{Headers: map[string]string{"X-A": "c", "x-a": "d"}}, "headers.x-a: names of header fields have no case"},
	} {
		_, problems := c.fields.Compile([]string{"key"})
		if got := fmt.Sprint(problems); !strings.Contains(got, part(c.want)) || !strings.Contains(got, field(c.want)) {
			t.Errorf("%+v: got %v, want %s", c.fields, problems, c.want)
		}
	}
	for _, name := range []string{"content-length", "Transfer-Encoding", "connection", "Content-Type", "ETag", "Ringside-Version", "set-cookie",
		"Access-Control-Allow-Origin", "Location", "TE", "X-Accel-Redirect", "Date", "grpc-status", "Sec-Fetch-Site", "Vary", "WWW-Authenticate"} {
		if _, problems := (httpview.Fields{Headers: map[string]string{name: "c"}}).Compile([]string{"k"}); len(problems) != 1 {
			t.Errorf("%s: got %v, want one problem", name, problems)
		}
	}
}

func field(want string) string { f, _, _ := strings.Cut(want, ": "); return f }

func part(want string) string {
	if _, text, ok := strings.Cut(want, ": "); ok {
		return text
	}
	return want
}

func TestNothingConfiguredIsNoView(t *testing.T) {
	v := compile(t, httpview.Fields{}, "key")
	if a := v.Absent(); v != nil || a != (httpview.Absent{Status: 404}) || v.Headers() != 0 {
		t.Errorf("got %+v: %+v", v, a)
	}
}

func headersOf(v *httpview.View, row string) (string, error) {
	var b strings.Builder
	for i := range v.Headers() {
		value, ok, err := v.AppendHeader(nil, []byte(row), i)
		if err != nil {
			return "", err
		}
		if ok {
			fmt.Fprintf(&b, "%s: %s\n", v.HeaderName(i), value)
		}
	}
	return b.String(), nil
}

func TestColumnsBecomeHeaderFields(t *testing.T) {
	v := compile(t, httpview.Fields{Headers: map[string]string{"x-tenant": "tenant", "X-Plan": "plan", "X-Quoted": `a"b`}}, "id")
	for row, want := range map[string]string{
		`{"tenant":"acme","plan":7}`:                           "X-Plan: 7\nX-Tenant: acme\n",
		` { "id" : [1,{"tenant":"x"}], "tenant" : "acme" } `:   "X-Tenant: acme\n",
		`{"tenant":null,"plan":true}`:                          "X-Plan: true\n",
		`{"tenant":""}`:                                        "X-Tenant: \n",
		`{"tenant":"a\r\nX-Admin: 1"}`:                         "X-Tenant: a%0D%0AX-Admin: 1\n",
		`{"tenant":"100% 50%25 %zz"}`:                          "X-Tenant: 100% 50%2525 %zz\n",
		`{"tenant":" a b "}`:                                   "X-Tenant: %20a b%20\n",
		`{"tenant":"é\u00e9\u0000\u007f"}`:                     "X-Tenant: éé%00%7F\n",
		`{"plan":{"a":[1,"}"]}}`:                               "X-Plan: {\"a\":[1,\"}\"]}\n",
		`{"a\"b":1.5e3}`:                                       "X-Quoted: 1.5e3\n",
		`{}`:                                                   "",
		`{"\u0074enant":"escaped"}`:                            "X-Tenant: escaped\n",
		`{"tenant":"` + strings.Repeat("x", 4000) + `"}`:       "X-Tenant: " + strings.Repeat("x", 4000) + "\n",
		`{"other":"` + strings.Repeat("x", 100_000) + `"}`:     "",
		`{"other":[` + strings.Repeat("[", 100_000) + `],"x"`:  "error",
		`{"tenant":"` + strings.Repeat("x", 4097) + `"}`:       "error",
		`{"tenant":"` + strings.Repeat("\\u0000", 2000) + `"}`: "error",
		`[]`: "error", ``: "error", `"tenant"`: "error", `{"tenant"`: "error", `{"tenant":`: "error", `{"tenant":"a`: "error", `{"a":1 "b":2}`: "error",
		`{"tenant":"\x"}`: "error", `{"a":}`: "error", `{,}`: "error",
	} {
		got, err := headersOf(v, row)
		if want == "error" && err == nil || want != "error" && (got != want || err != nil) {
			t.Errorf("%.80s: got %.200q, %v, want %.200q", row, got, err, want)
		}
	}
}

func TestHeadersOfARowDoNotAllocate(t *testing.T) {
	v := compile(t, httpview.Fields{Headers: map[string]string{"X-Tenant": "tenant"}}, "id")
	row, into := []byte(`{"id":"x","tenant":"acme","plan":7}`), make([]byte, 0, 100)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = v.AppendHeader(into, row, 0) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// FuzzTemplate: no template is accepted that takes a path of the API, and what a template matches, its values make again.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"/dns/lookup/{name}/{type}", "/f/{path...}", "/v1/{x}", "/{x}", "/a//{b}", "/a/{b}c"} {
		f.Add(s, "/dns/lookup/example.org./A")
		f.Add(s, "/v1/cnf-metrics/CNF-001")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		for _, keys := range [][]string{{""}, {"name", "type"}} {
			v, problems := httpview.Fields{Paths: []string{text}}.Compile(keys)
			if len(problems) > 0 {
				continue
			}
			values, ok := v.Paths[0].Match(path, nil)
			if !ok {
				continue
			}
			if path == "/" || strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/cnfmetrics/") || path == "/openapi.json" {
				t.Errorf("%q takes %q", text, path)
			}
			again := text
			for i, key := range keys {
				if key == "" {
					again = text[:strings.IndexByte(text, '{')] + values[i] + text[strings.IndexByte(text, '}')+1:]
					continue
				}
				again = strings.Replace(strings.Replace(again, "{"+key+"...}", "{"+key+"}", 1), "{"+key+"}", values[i], 1)
			}
			if len(values) != len(keys) || again != path && !strings.ContainsAny(path, "{}") {
				t.Errorf("%q with %q: got %q, which make %q", text, path, values, again)
			}
		}
	})
}

// FuzzHeaders: whatever a row has, no header field has a control character, the size is bounded, and percent-decoding returns the
// value of the column.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{`{"c":"a\r\nb"}`, `{"c":null}`, `{"a":[{"c":1}],"c":"%41"}`, `{"c":" \u2028 "}`, `{"c":1}`, `{"c":"\ud800"}`} {
		f.Add([]byte(s))
	}
	v, _ := httpview.Fields{Headers: map[string]string{"X-C": "c"}}.Compile([]string{"k"})
	f.Fuzz(func(t *testing.T, row []byte) {
		value, ok, err := v.AppendHeader(nil, row, 0)
		if err == nil && bytes.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) || ok && len(value) > httpview.MaxHeaderBytes {
			t.Errorf("%q: got %q", row, value)
		}
		var want map[string]any
		if json.Unmarshal(row, &want) != nil || !utf8.Valid(row) || err != nil || !ok {
			return
		}
		if s, isString := want["c"].(string); isString {
			if decoded := unescape(string(value)); decoded != s {
				t.Errorf("%q: got %q, which is %q, want %q", row, value, decoded, s)
			}
		}
	})
}

// unescape percent-decodes s; a % before anything but two hex digits stays.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if one, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(one)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
