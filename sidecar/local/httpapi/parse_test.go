package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
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

func TestParseBatch(t *testing.T) {
	many := `{"keys":["a"` + strings.Repeat(`,"a"`, api.MaxBatchKeys) + `]}`
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

func TestParseErrorsQuoteTokensAsJSON(t *testing.T) {
	for body, want := range map[string]string{
		`{"keys":null}`: "null at byte 12, not [", `{"keys":"a"}`: `"a" at byte 11, not [`, `[1]`: "[ at byte 1, not {",
		`{"kys":[]}`: `"kys" at byte 6, not "keys"`, `{"keys":["a"],"x":1}`: `"x" at byte 17, not }`,
	} {
		if _, err := parseBatch([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	_, err := parseScope([]byte(`{"key":["a"]}`))
	if err == nil || !strings.HasSuffix(err.Error(), `: unknown member "key"`) {
		t.Errorf("unknown member: %v", err)
	}
	_, err = parseScope([]byte(`{"prefix":null}`))
	if err == nil || !strings.Contains(err.Error(), "null at byte 14 is not a string") {
		t.Error(err)
	}
}

// FuzzUnescape compares unescape with net/url, which decodes a path segment in the same way.
func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "a", "%41", "%4", "%", "%%", "%zz", "a%2Fb//../c", "%ff%00",
		strings.Repeat("%6b", 2000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, _, err := unescape(s, make([]byte, 0, 8), false)
		want, wantErr := url.PathUnescape(s)
		if got != want && wantErr == nil || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: %q, %v; net/url: %q, %v", s, got, err, want, wantErr)
		}
	})
}

// answering is a dataset "blobs" of which every key has a value.
type answering struct{ api.Dataset }

func (answering) Name() string { return "blobs" }

func (answering) GetMany(_ context.Context, keys []string, _ kv.ReadOptions, _ kv.BatchLimit) []kv.Result {
	return make([]kv.Result, len(keys))
}

func (answering) Get(_ context.Context, key string, _ kv.ReadOptions) (kv.Answer, error) {
	return kv.Answer{Value: []byte(key), Source: kv.SourceHit, Fresh: time.Second}, nil
}

func (answering) Write(_ context.Context, c kv.Change) (kv.Answer, error) {
	return kv.Answer{Value: c.Value}, nil
}

func (answering) WriteMany(_ context.Context, cs []kv.Change) []kv.Result {
	return make([]kv.Result, len(cs))
}

func (answering) Append(_ context.Context, value []byte, _ string) (kv.Appended, error) {
	return kv.Appended{Key: "a/b?", Answer: kv.Answer{Value: value}}, nil
}

func (answering) Invalidate(context.Context, kv.Scope) (kv.InvalidateResult, error) {
	return kv.InvalidateResult{Members: 1}, nil
}

func newHandler(d api.Dataset, isJSON bool) *Handler {
	backend := api.NewBackend(context.Background(), api.Config{}, api.NewCatalog(api.Served{Dataset: d, JSON: isJSON}))
	return New(backend, watch.NewEngine(backend), Options{Stats: &backend.Stats().HTTP})
}

// FuzzTarget handles any request target.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/v1/", "/v1//", "/v1/blobs/a", "/v1/blobs:batchGet", "/v1/%62lobs/%",
		"http://localhost/v1/x", "*", "", "/v1/datasets/"} {
		f.Add("GET", s)
	}
	f.Add("POST", "/v1/blobs:batchGet")
	f.Add("POST", "/v1/blobs:batchPut")
	f.Add("POST", "/v1/blobs")
	handler := newHandler(answering{}, true)
	f.Fuzz(func(t *testing.T, method, target string) {
		c := NewRequestContext()
		c.Method, c.Target, c.Host, c.HTTP11 = method, target, "localhost", true
		handler.Handle(t.Context(), c)
		if c.Status < 200 || c.Status > 504 || c.Status == 500 {
			t.Errorf("%s %q: %d %s", method, target, c.Status, c.Body)
		}
		if c.Status >= 400 && !json.Valid(c.Body) {
			t.Errorf("%s %q: %q", method, target, c.Body)
		}
	})
}

// FuzzParseBatchPut: a row that is accepted is in the document, with one value.
func FuzzParseBatchPut(f *testing.F) {
	for _, s := range []string{`{"rows":[{"key":"a","value":{"b":1}},{"key":"b","delete":true,"ifVersion":7}]}`, `{"rows":[`, `{"rows":[]}x`, "\xff",
		`{"rows":[{"key":"a","valueBase64":"AA==","ifMatch":"*","idempotencyKey":"i"}]}`, `{"rows":[{"key":"\ud800","value":1}]}`, `{"rows":[{}]}`,
		`{"rows":[{"key":"a","value":[}]}`, `{"rows":[{"key":"a","value":1,"ifNoneMatch":"x"}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		rows, e := parseBatchPut(body)
		if e != nil {
			return
		}
		var document struct{ Rows []map[string]json.RawMessage }
		if err := json.Unmarshal(body, &document); err != nil || len(document.Rows) != len(rows) || len(rows) > kv.MaxBatchWrites {
			t.Fatalf("%q: got %d rows, %v", body, len(rows), err)
		}
		for i, r := range rows {
			var key string
			if err := json.Unmarshal(document.Rows[i]["key"], &key); err != nil || key != r.Key || r.Delete && r.Value != nil {
				t.Errorf("%q: got %+v", body, r)
			}
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
		if err := d.Decode(&want); err != nil || !slices.Equal(keys, want.Keys) || len(keys) > api.MaxBatchKeys {
			t.Errorf("%q: %q; encoding/json: %q, %v", body, keys, want.Keys, err)
		}
		if slices.ContainsFunc(keys, func(k string) bool { return !utf8.ValidString(k) }) {
			t.Errorf("%q: a key is not UTF-8", body)
		}
	})
}

func TestHeadersOfEntry(t *testing.T) {
	hit := kv.Answer{Value: []byte("v"), Version: 7, ETag: `"e"`, Age: 2900 * time.Millisecond,
		Fresh: 4900 * time.Millisecond, Source: kv.SourceHit}
	with := func(change func(*kv.Answer)) kv.Answer {
		a := hit
		change(&a)
		return a
	}
	tests := []struct {
		name   string
		answer kv.Answer
		o      kv.ReadOptions
		status string // Cache-Status
		maxAge string
	}{
		{"hit", hit, kv.ReadOptions{}, "ringside; hit; ttl=4", "max-age=4"},
		{"stale", with(func(a *kv.Answer) { a.Stale, a.Detail = true, "origin-error" }), kv.ReadOptions{},
			"ringside; hit; ttl=0; detail=origin-error", "max-age=0"},
		{"local copy", with(func(a *kv.Answer) { a.Source, a.Owner = kv.SourceLocalHit, "n2" }), kv.ReadOptions{},
			"ringside; hit; ttl=4", "max-age=4"},
		{"owner's memory", with(func(a *kv.Answer) { a.Source, a.Owner = kv.SourcePeerHit, `n"2\é` }),
			kv.ReadOptions{}, `"n\"2\\??"; hit; ttl=4, ringside; fwd=miss`, "max-age=4"},
		{"owner's load", with(func(a *kv.Answer) { a.Source, a.Owner = kv.SourceLoad, "n2" }), kv.ReadOptions{},
			`"n2"; fwd=miss, ringside; fwd=miss`, "max-age=4"},
		{"own load", with(func(a *kv.Answer) { a.Source = kv.SourceLoad }), kv.ReadOptions{},
			"ringside; fwd=miss", "max-age=4"},
		{"no-cache", with(func(a *kv.Answer) { a.Source, a.Owner = kv.SourceLoad, "n2" }),
			kv.ReadOptions{NoCache: true}, `"n2"; fwd=request, ringside; fwd=request`, "max-age=4"},
		{"failover", with(func(a *kv.Answer) { a.Source, a.Owner, a.Detail = kv.SourcePeerHit, "n3", "owner away" }),
			kv.ReadOptions{}, `"n3"; hit; ttl=4, ringside; fwd=miss; detail="owner away"`, "max-age=4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewRequestContext()
			c.sendEntry(&tt.answer, tt.o, api.Served{JSON: true})
			got := map[string]string{}
			for _, f := range c.Fields {
				got[f.Name] = string(f.Value)
			}
			want := map[string]string{"ETag": `"e"`, "Age": "2", "Cache-Control": tt.maxAge, "Cache-Status": tt.status,
				"Ringside-Version": "7", "Ringside-Source": tt.answer.Source.String(), "Ringside-Stale": ""}
			if tt.answer.Stale {
				want["Ringside-Stale"] = "true"
			}
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%s: %q, want %q", name, got[name], want[name])
				}
			}
		})
	}
}

// BenchmarkHandle is a hit without any server or socket.
func BenchmarkHandle(b *testing.B) {
	d, err := cache.New(cache.Config{Name: "cnf-metrics", Policy: kv.DefaultPolicy(), MaxBytes: 16 << 20,
		Origin: origintest.New(map[string]string{"CNF-001": strings.Repeat("x", 200)})})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Get(b.Context(), "CNF-001", kv.ReadOptions{}); err != nil {
		b.Fatal(err)
	}
	handler, c, ctx := newHandler(d, true), NewRequestContext(), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		c.Method, c.Target, c.Host, c.HTTP11 = "GET", "/v1/cnf-metrics/CNF-001", "localhost:7070", true
		handler.Handle(ctx, c)
		c.Recycle()
	}
}

func TestPathsOfCompositeKeys(t *testing.T) {
	for path, want := range map[string]string{
		"example.org/alice": "example.org/alice", "a%2Fb/c": "a%2Fb/c", "a%2fb/%63": "a%2Fb/c", "100%25/": "100%25/", "/x": "/x",
		"%252F/%2525": "%252F/%2525", "%c3%a4/ä": "ä/ä", "a/b/c": "a/b/c",
	} {
		if got, _, err := unescape(path, nil, true); err != nil || got != want {
			t.Errorf("%q is the key %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"%", "a/%2", "%zz/a"} {
		if got, _, err := unescape(path, nil, true); err == nil {
			t.Errorf("%q is the key %q", path, got)
		}
	}
}

func FuzzPathOfACompositeKey(f *testing.F) {
	f.Add("a/b", "100%")
	f.Add("", "\x00\xff?#")
	f.Fuzz(func(t *testing.T, a, b string) {
		path := url.PathEscape(a) + "/" + url.PathEscape(b)
		if got, _, err := unescape(path, nil, true); err != nil || got != origin.JoinKey(a, b) {
			t.Errorf("%q, %q have the path %q, which is the key %q, %v", a, b, path, got, err)
		}
	})
}
