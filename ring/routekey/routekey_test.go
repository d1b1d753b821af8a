package routekey

import (
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	for _, test := range []struct{ dataset, key, want string }{
		{"cnf-metrics", "CNF-001", "cnf-metrics/CNF-001"},
		{"cnf-metrics", "", "cnf-metrics/"},
		{"", "", "/"},
		{"d", "a/b//c/", "d/a/b//c/"},
		{"d", "AZaz09-._~!$&'()*+,;=:@", "d/AZaz09-._~!$&'()*+,;=:@"},
		{"d", "a b", "d/a%20b"},
		{"d", "100%", "d/100%25"},
		{"d", "%2F", "d/%2F"}, // of a composite key
		{"d", "a%2Fb/100%25/%252F", "d/a%2Fb/100%25/%252F"},
		{"d", "%2f%2", "d/%252f%252"},
		{"d", "a?b#c", "d/a%3Fb%23c"},
		{"d", `"<>[\]^{|}` + "`", "d/%22%3C%3E%5B%5C%5D%5E%7B%7C%7D%60"},
		{"d", "ä", "d/%C3%A4"},
		{"d", "\x00\x1f\x7f\xff", "d/%00%1F%7F%FF"},
		{"a/b", "c", "a%2Fb/c"},
	} {
		if got := Format(test.dataset, test.key); got != test.want {
			t.Errorf("Format(%q, %q) = %q, want %q", test.dataset, test.key, got, test.want)
		}
		if got := string(Append([]byte("x"), test.dataset, test.key)); got != "x"+test.want {
			t.Errorf("Append(x, %q, %q) = %q, want %q", test.dataset, test.key, got, "x"+test.want)
		}
	}
}

func TestParseAcceptsOtherSpellings(t *testing.T) {
	for routeKey, want := range map[string][2]string{
		"d/%c3%a4":    {"d", "ä"},
		"d/a%2fb":     {"d", "a/b"},
		"d/a%2Db":     {"d", "a-b"},
		"%64/k":       {"d", "k"},
		"a%2Fb/c%25/": {"a/b", "c%/"},
	} {
		dataset, key, err := Parse(routeKey)
		if err != nil || dataset != want[0] || key != want[1] {
			t.Errorf("Parse(%q) = %q, %q, %v; want %q", routeKey, dataset, key, err, want)
		}
	}
}

func TestParseNamesTheInvalidByte(t *testing.T) {
	for routeKey, want := range map[string]string{
		"":              "has no slash",
		"cnf-metrics":   "has no slash",
		"d%2Fk":         "has no slash",
		"d/a b":         "byte 3 of route key \"d/a b\" must be escaped as %20",
		"d/k?x":         "must be escaped as %3F",
		"d/\xff":        "must be escaped as %FF",
		"d/\r\nx: y":    "must be escaped as %0D",
		"d/%":           `key of route key "d/%"`,
		"d/%4":          `invalid URL escape "%4"`,
		"d/%4g":         `invalid URL escape "%4g"`,
		"%zz/k":         `dataset of route key "%zz/k"`,
		"http://d/k[1]": "must be escaped as %5B",
	} {
		_, _, err := Parse(routeKey)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %s", routeKey, err, want)
		}
	}
}

func FuzzFormat(f *testing.F) {
	for _, key := range []string{"CNF-001", "", "/", "a/b", "..", "100% ä", "\x00\xff", "%2F", "a?b#c", "+, ;"} {
		f.Add("cnf-metrics", key)
		f.Add(key, key)
	}
	f.Fuzz(func(t *testing.T, dataset, key string) {
		routeKey := Format(dataset, key)
		// gRPC and HTTP carry it as one header value; RFC 3986 as a path.
		const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/%"
		if i := strings.IndexFunc(routeKey, func(c rune) bool { return !strings.ContainsRune(allowed, c) }); i >= 0 {
			t.Errorf("Format(%q, %q) = %q has %q", dataset, key, routeKey, routeKey[i])
		}
		path := Path(dataset, key)
		gotDataset, gotKey, err := Parse(path)
		if err != nil || gotDataset != dataset || gotKey != key {
			t.Errorf("%q, %q is %q, which is %q, %q, %v", dataset, key, path, gotDataset, gotKey, err)
		}
		if !strings.Contains(key, "%25") && !strings.Contains(key, "%2F") && path != routeKey {
			t.Errorf("%q, %q has the path %q and the route key %q", dataset, key, path, routeKey)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, routeKey := range []string{"", "/", "d/k", "d/%", "d/%2", "d/%2f", "%/%", "d%2Fk", "d/\xff", "d/a b", "//%25"} {
		f.Add(routeKey)
	}
	f.Fuzz(func(t *testing.T, routeKey string) {
		dataset, key, err := Parse(routeKey)
		if err != nil {
			return
		}
		again := Path(dataset, key)
		if d, k, err := Parse(again); err != nil || d != dataset || k != key {
			t.Errorf("%q means %q, %q, which is written %q, which means %q, %q, %v", routeKey, dataset, key, again, d, k, err)
		}
		if len(again) > len(routeKey) {
			t.Errorf("%q is a shorter spelling than the canonical %q", routeKey, again)
		}
	})
}

func TestAppendDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { Append(buf, "cnf-metrics", "CNF 001/ä") }); n != 0 {
		t.Errorf("%g allocations, want 0", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	buf := make([]byte, 0, 64)
	for b.Loop() {
		Append(buf, "cnf-metrics", "CNF-00001/cpu load")
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse("cnf-metrics/CNF-00001/cpu"); err != nil {
			b.Fatal(err)
		}
	}
}
