package httporigin

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func TestTemplates(t *testing.T) {
	for _, tt := range []struct {
		template string
		columns  []string
		key      string
		want     string
	}{
		{"/things/{key}", nil, "a b&c=d?e#f%", "/things/a%20b%26c%3Dd%3Fe%23f%25"},
		{"/things/{key}.json", nil, "é", "/things/%C3%A9.json"},
		{"/things?name={key}&x=y", nil, "a/../b&admin=1#", "/things?name=a%2F..%2Fb%26admin%3D1%23&x=y"},
		{`/q?query=up{instance="{key}"}`, nil, "a:9100", "/q?query=up%7Binstance=%22a%3A9100%22%7D"},
		{"/{ue}/{plmn}/am-data", []string{"ue", "plmn"}, "imsi-1/20893", "/imsi-1/20893/am-data"},
		{"/{ue}?plmn={plmn}", []string{"ue", "plmn"}, "imsi-1/", "/imsi-1?plmn="},
		{"/a%20b/{key}/{key}", nil, "k", "/a%20b/k/k"},
	} {
		parsed, err := parseTemplate(tt.template, tt.columns)
		if err != nil {
			t.Errorf("%s: %v", tt.template, err)
			continue
		}
		if got, err := parsed.expand(tt.key); got != tt.want || err != nil {
			t.Errorf("%s with %q: got %s, %v; want %s", tt.template, tt.key, got, err, tt.want)
		}
	}
}

func TestKeysDoNotLeaveTheirPlace(t *testing.T) {
	inPath, err := parseTemplate("/v1/{key}/rows", nil)
	if err != nil {
		t.Fatal(err)
	}
	dotted, err := parseTemplate("/v1/.{key}", nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, template := range map[string]*template{
		".": inPath, "..": inPath, "a/b": inPath, `a\b`: inPath, "../../admin": inPath, "a\r\nX: y": inPath, "\x00": inPath, "\xff": inPath,
		"\x7f": inPath, "": inPath, "./": dotted,
	} {
		if got, err := template.expand(key); !errors.Is(err, origin.ErrInvalidKey) {
			t.Errorf("%q: got %s, %v; want ErrInvalidKey", key, got, err)
		}
	}
	if got, err := dotted.expand("."); !errors.Is(err, origin.ErrInvalidKey) {
		t.Errorf("a dot after a dot: got %s, %v; want ErrInvalidKey", got, err)
	}
}

func TestInvalidTemplates(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "begins with one slash",
		"things/{key}":         "begins with one slash",
		"//other.host/{key}":   "begins with one slash",
		"https://host/{key}":   "begins with one slash",
		"/things":              "does not contain {key}",
		"/things/{id}":         "does not contain {key}",
		"/{key}/{id}":          "unknown variable {id}",
		"/{key}/../admin":      "segment . or ..",
		"/{key}/%2e%2E/admin":  "segment . or ..",
		"/{key}/a%2Fb":         "encoded slash",
		"/{key}/%zz":           "begins no percent-encoding",
		"/things?{key}=1":      "name of a parameter",
		"/things?{key}":        "name of a parameter",
		"/things/{key}#x":      "a #",
		"/things\\{key}":       "backslash",
		"/things/{key}\r\nX:y": "control character",
		"/{key}" + strings.Repeat("a", maxTemplate): "at most 4096",
	} {
		if _, err := parseTemplate(text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q in it", text, err, want)
		}
	}
}

// FuzzTemplate: whatever the key is, the URL has the host, the segments and the parameters of the template.
func FuzzTemplate(f *testing.F) {
	for _, text := range []string{"/a/{key}", "/a/{key}.json?x={key}&y=1", `/q?query=up{i="{key}"}`, "/.{key}", "/{key}//b", "/a;b/{key}?&="} {
		for _, key := range []string{"k", "..", ".", "a/b", "a&b=c", "?#", "@host:80", "%2e%2e", "\r\n", "é", "a+b", ";"} {
			f.Add(text, key)
		}
	}
	f.Fuzz(func(t *testing.T, text, key string) {
		parsed, err := parseTemplate(text, nil)
		if err != nil {
			return
		}
		plain, err := parsed.expand("k")
		if err != nil {
			t.Fatalf("%q rejects the key k: %v", text, err)
		}
		got, err := parsed.expand(key)
		if err != nil {
			if !errors.Is(err, origin.ErrInvalidKey) {
				t.Fatal(err)
			}
			return
		}
		const base = "https://host:8443"
		model, err := url.Parse(base + plain)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		u, err := url.Parse(base + got)
		if err != nil {
			t.Fatalf("%q with %q: %v", text, key, err)
		}
		if u.Scheme != "https" || u.Host != "host:8443" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
			t.Fatalf("%q with %q leaves its place: %s", text, key, got)
		}
		segments, want := strings.Split(u.EscapedPath(), "/"), strings.Split(model.EscapedPath(), "/")
		if len(segments) != len(want) || u.EscapedPath() != strings.Split(got, "?")[0] {
			t.Fatalf("%q with %q has other segments: %s", text, key, got)
		}
		for _, s := range segments {
			if decoded, err := url.PathUnescape(s); err != nil || decoded == "." || decoded == ".." || strings.ContainsAny(decoded, "/\\\r\n") {
				t.Fatalf("%q with %q has the segment %q", text, key, s)
			}
		}
		if len(strings.Split(u.RawQuery, "&")) != len(strings.Split(model.RawQuery, "&")) || !slices.Equal(names(u), names(model)) {
			t.Fatalf("%q with %q has other parameters: %s", text, key, got)
		}
	})
}

func names(u *url.URL) (list []string) {
	for field := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(field, "=")
		list = append(list, name)
	}
	return list
}
