package httpfield_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestHosts(t *testing.T) {
	h := httpfield.NewHosts([]string{"Metrics.local"})
	for _, ok := range []string{"localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:65535", "[::1]", "[::1]:7070",
		"metrics.LOCAL:80", "[::ffff:127.0.0.1]:1", "localhost:"} {
		if !h.Allow(ok) {
			t.Errorf("%q is refused", ok)
		}
	}
	for _, bad := range []string{"", "evil.example", "localhost.evil.example", "evil.localhost", "10.0.0.1",
		"0.0.0.0", "[::]", "::1",
		"localhost:x", "localhost:123456", "127.0.0.1.evil.example", "[localhost]", "[::1", "localhost@evil",
		"127.1", "user@localhost"} {
		if h.Allow(bad) {
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
		if httpfield.NoneMatch(header, `"e"`) == match {
			t.Errorf("If-None-Match: %s: match is %v", header, !match)
		}
	}
}

func TestReadOptions(t *testing.T) {
	for header, want := range map[string]kv.ReadOptions{
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
		if got := httpfield.ReadOptions(header); got != want {
			t.Errorf("Cache-Control: %s: %+v, want %+v", header, got, want)
		}
	}
}

func TestPrefersMinimal(t *testing.T) {
	for field, want := range map[string]bool{
		"return=minimal": true, " Return = minimal ": true, `return="minimal"`: true, "return=minimal;x=y, a": true,
		`a="x, return=minimal", respond-async`: false, "respond-async, return=minimal": true, "return=minimal, return=representation": true,
		"return=representation, return=minimal": false, "return": false, "return=Minimal": false, "": false, "minimal": false, "x-return=minimal": false,
	} {
		if got := httpfield.PrefersMinimal(field); got != want {
			t.Errorf("Prefer: %s: got %t, want %t", field, got, want)
		}
	}
}

func FuzzPrefer(f *testing.F) {
	for _, s := range []string{"return=minimal", `a="b\",return=minimal"`, ",;=", `"`, "return=;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := httpfield.PrefersMinimal(s)
		if got && !strings.Contains(s, "minimal") {
			t.Errorf("%q prefers minimal", s)
		}
		if !httpfield.PrefersMinimal("return=minimal, " + s) {
			t.Errorf("%q changes what comes before it", s)
		}
	})
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"no-cache", `a="b\",no-cache", only-if-cached`, ",", `"`, `\`, "max-age=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if o := httpfield.ReadOptions(s); (o.NoCache || o.OnlyIfCached) && !strings.Contains(strings.ToLower(s), "cache") {
			t.Errorf("%q: %+v", s, o)
		}
		if !strings.Contains(s, `"`) && !httpfield.ReadOptions(s+",no-cache").NoCache {
			t.Errorf("%q hides the directive after it", s)
		}
	})
}

func FuzzIfNoneMatch(f *testing.F) {
	for _, s := range []string{`"e"`, `W/"e", "f"`, "*", `"`, `"\"`, `,"e"`} {
		f.Add(s, `"e"`)
	}
	f.Fuzz(func(t *testing.T, header, etag string) {
		if !httpfield.NoneMatch(header, etag) && strings.TrimSpace(header) != "*" && !strings.Contains(header, etag) {
			t.Errorf("%q matches %q", header, etag)
		}
	})
}

// FuzzCacheStatus lets any owner and detail through: they come from other members.
func FuzzCacheStatus(f *testing.F) {
	f.Add("n1", "origin-error", uint8(3), true)
	f.Add("\"\\\x00é", "a b", uint8(4), false)
	f.Fuzz(func(t *testing.T, owner, detail string, source uint8, noCache bool) {
		a := kv.Answer{Owner: owner, Detail: detail, Source: kv.Source(source%4 + 1)}
		localtest.CheckCacheStatus(t, string(httpfield.AppendCacheStatus(nil, &a, kv.ReadOptions{NoCache: noCache}, a.Fresh)))
	})
}

func TestAllowOrigin(t *testing.T) {
	h := httpfield.NewHosts([]string{"UI.example"})
	for _, c := range []struct {
		origin, authority string
		want              bool
	}{
		{"http://localhost:7070", "localhost:7070", true}, {"http://127.0.0.1:1", "127.0.0.1:1", true},
		{"https://ui.example", "localhost:7070", true}, {"https://ui.EXAMPLE:8443", "localhost:7070", true},
		{"http://localhost:8080", "localhost:7070", false}, {"http://127.0.0.1:2", "127.0.0.1:1", false},
		{"http://evil.example", "evil.example", false}, {"http://evil.example", "localhost", false},
		{"null", "localhost", false}, {"", "", false},
	} {
		if got := h.AllowOrigin(c.origin, c.authority); got != c.want {
			t.Errorf("page of %q at %q: allowed %t, want %t", c.origin, c.authority, got, c.want)
		}
	}
}

// FuzzOrigin compares AllowOrigin with net/url: what is allowed has a host that is configured, or that of the request.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"http://localhost", "http://ui.example", "null", "http://ui.example@evil",
		"://localhost", "x://[::1]"} {
		f.Add(s, "localhost")
	}
	hosts := httpfield.NewHosts([]string{"ui.example"})
	f.Fuzz(func(t *testing.T, from, authority string) {
		if !hosts.AllowOrigin(from, authority) {
			return
		}
		u, err := url.Parse(from)
		if err != nil {
			return // no browser makes it
		}
		if !strings.EqualFold(u.Host, authority) && !strings.EqualFold(u.Hostname(), "ui.example") {
			t.Errorf("%q may write through %q", from, authority)
		}
	})
}

func TestMaxStale(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"max-stale": httpfield.MaxStaleness, "MAX-STALE=5": 5 * time.Second, `max-stale="5"`: 5 * time.Second, "max-stale=0": 0,
		"max-stale=99999999999999999999": httpfield.MaxStaleness, "max-stale=4294967296": httpfield.MaxStaleness,
		"no-cache, max-stale=7,x":  7 * time.Second,
		"max-stale=9, max-stale=3": 3 * time.Second, "max-stale=3, max-stale": 3 * time.Second,
		"max-stale=x, max-stale=2": 2 * time.Second,
	} {
		if o := httpfield.ReadOptions(header); !o.LimitStale || o.MaxStale != want {
			t.Errorf("%s: %+v, want %v", header, o, want)
		}
	}
	for _, header := range []string{"max-stale=", "max-stale=-1", "max-stale=1.5", `max-stale="`, `max-stale="5`,
		"max-stalemate", "x=max-stale"} {
		if o := httpfield.ReadOptions(header); o != (kv.ReadOptions{}) {
			t.Errorf("%s: %+v", header, o)
		}
	}
}
