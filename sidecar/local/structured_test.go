package local

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

// checkCacheStatus holds a header against RFC 8941 and the parameters of RFC 9211.
func checkCacheStatus(t *testing.T, header string) {
	t.Helper()
	rest := header
	for rest != "" {
		m := sfMember.FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("Cache-Status %q: no list member at %q", header, rest)
		}
		checkMember(t, header, m[2])
		rest = rest[len(m[0]):]
	}
	if header == "" || strings.HasSuffix(strings.TrimRight(header, " \t"), ",") {
		t.Errorf("Cache-Status %q: a member is missing", header)
	}
}

func checkMember(t *testing.T, header, params string) {
	t.Helper()
	forwards := []string{"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}
	seen := map[string]bool{}
	for _, p := range sfParams.FindAllStringSubmatch(params, -1) {
		name, value := p[1], p[2]
		ok := map[string]bool{
			"hit": value == "", "fwd": slices.Contains(forwards, value),
			"ttl": strings.Trim(value, "-0123456789") == "" && value != "", "detail": value != "",
		}[name]
		if !ok || seen[name] {
			t.Errorf("Cache-Status %q: parameter %s=%s", header, name, value)
		}
		seen[name] = true
	}
	if seen["hit"] == seen["fwd"] {
		t.Errorf("Cache-Status %q: exactly one of hit and fwd", header)
	}
}
