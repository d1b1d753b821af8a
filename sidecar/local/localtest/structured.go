package localtest

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The grammar of RFC 8941 that a Cache-Status (RFC 9211, 2) is made of: a list of strings or tokens with parameters.
const (
	sfString = `"(?:[ !#-\[\]-~]|\\["\\])*"`
	sfToken  = `[A-Za-z*][!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z:/]*`
	sfParam  = `; *([a-z*][a-z0-9_\-.*]*)(?:=(` + sfString + `|` + sfToken + `|-?[0-9]{1,15}|\?[01]))?`
)

var (
	sfMember = regexp.MustCompile(`^(` + sfString + `|` + sfToken + `)((?:` + sfParam + `)*)(?:[ \t]*,[ \t]*|$)`)
	sfParams = regexp.MustCompile(sfParam)
)

// CheckCacheStatus fails unless a Cache-Status field conforms to RFC 8941 and RFC 9211.
func CheckCacheStatus(tb testing.TB, header string) {
	tb.Helper()
	rest := header
	for rest != "" {
		m := sfMember.FindStringSubmatch(rest)
		if m == nil {
			tb.Fatalf("Cache-Status %q: no list member at %q", header, rest)
		}
		checkMember(tb, header, m[2])
		rest = rest[len(m[0]):]
	}
	if header == "" || strings.HasSuffix(strings.TrimRight(header, " \t"), ",") {
		tb.Errorf("Cache-Status %q: a member is missing", header)
	}
}

func checkMember(tb testing.TB, header, params string) {
	tb.Helper()
	forwards := []string{"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}
	seen := map[string]bool{}
	for _, p := range sfParams.FindAllStringSubmatch(params, -1) {
		name, value := p[1], p[2]
		ok := map[string]bool{
			"hit": value == "", "fwd": slices.Contains(forwards, value),
			"ttl": strings.Trim(value, "-0123456789") == "" && value != "", "detail": value != "",
		}[name]
		if !ok || seen[name] {
			tb.Errorf("Cache-Status %q: parameter %s=%s", header, name, value)
		}
		seen[name] = true
	}
	if seen["hit"] == seen["fwd"] {
		tb.Errorf("Cache-Status %q: exactly one of hit and fwd", header)
	}
}
