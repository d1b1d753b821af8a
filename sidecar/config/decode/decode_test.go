package decode

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "x", "EMPTY": "", "LINES": "a\nmemory: 1GiB"}
	getenv := func(name string) (string, bool) { value, ok := env[name]; return value, ok }
	for text, want := range map[string]string{
		"${A}": "x", "p-${A}-${A}": "p-x-x", "$1": "$1", "a$": "a$", "$$": "$", "$${A}": "${A}", "$$$$": "$$",
		"${EMPTY}": "", "${A": "${A", "100% $A": "100% $A", "${LINES}": "a\nmemory: 1GiB",
	} {
		if got, err := expand(text, getenv); err != nil || got != want {
			t.Errorf("expand(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	if got, err := expand("${NONE}${A}", getenv); err == nil {
		t.Errorf("expand of an unset variable = %q, want an error", got)
	}
}

const canary = "canary-5f3a"

func TestNoProblemShowsASecret(t *testing.T) {
	for _, text := range []string{
		"db: {dsn: " + canary + ", max_conns: many}",
		"db:\n  dsn: [" + canary + "]",
		"db:\n  dsn: >\n      " + canary + "\n     @bad\n",
		"db:\n  dsn: \"" + canary,
		"db:\n  dsn: |" + canary + "\n",
		"db: user:" + canary + "@tcp(host:3306)/db",
		"db: {dsn: *" + canary + "}",
		"db:\n  dsn_file:\n    *" + canary + "\n",
		"db: {dsn: u," + canary + "}",
	} {
		var c struct {
			DB struct {
				DSN      string `yaml:"dsn"`
				DSNFile  string `yaml:"dsn_file"`
				MaxConns int    `yaml:"max_conns"`
			} `yaml:"db"`
		}
		none := func(string) (string, bool) { return "", false }
		_, problems := Source{File: "f.yaml", Text: []byte(text), Getenv: none}.Into(&c)
		if len(problems) == 0 {
			t.Errorf("got no problem with %q", text)
		}
		if shown := (&Error{problems}).Error(); strings.Contains(shown, canary) {
			t.Errorf("for\n%s\nthe message shows the secret:\n%s", text, shown)
		}
	}
}
