package decode

import (
	"slices"
	"strings"
	"testing"
	"time"
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

func TestRemovedFieldHasAdvice(t *testing.T) {
	var c struct {
		Batch struct {
			Keys int      `yaml:"keys"`
			_    struct{} `removed:"wait" advice:"delete it"`
		} `yaml:"batch"`
	}
	_, problems := Source{
		File: "f", Text: []byte("batch: {wait: 1s, keys: 1}"), Set: []string{"batch.wait=2s"},
		Getenv: func(string) (string, bool) { return "", false },
	}.Into(&c)
	if shown := (&Error{problems}).Error(); len(problems) != 2 || strings.Count(shown, `"wait" was removed: delete it`) != 2 {
		t.Errorf("got %q, want two problems with the advice", shown)
	}
	for path := range Leaves(c) {
		if path != "batch.keys" {
			t.Errorf("got the field %q, want only batch.keys", path)
		}
	}
}

// Fields of an embedded struct with the tag ",inline" stand in the file among those of the outer struct.
func TestInlineFieldsAreFieldsOfTheOuterStruct(t *testing.T) {
	type Times struct {
		TTL time.Duration `yaml:"ttl"`
	}
	var c struct {
		Name  string `yaml:"name"`
		Times `yaml:",inline"`
	}
	source := Source{
		File: "f", Text: []byte("name: n\nttl: 1s\n"), Set: []string{"ttl=2s"},
		Getenv: func(name string) (string, bool) { return "m", name == "X_NAME" }, Prefix: "X_",
	}
	if _, problems := source.Into(&c); problems != nil || c.Name != "m" || c.TTL != 2*time.Second {
		t.Errorf("got %+v, %v", c, problems)
	}
	var paths []string
	for path := range Leaves(c) {
		paths = append(paths, path)
	}
	if want := []string{"name", "ttl"}; !slices.Equal(paths, want) {
		t.Errorf("got the fields %q, want %q", paths, want)
	}
}

func TestOneOrMore(t *testing.T) {
	for text, want := range map[string]OneOrMore{
		"key: realm": {"realm"}, "key: [realm, user name]": {"realm", "user name"}, "key: realm, name": {"realm", "name"},
		`key: ["a,b"]`: {"a,b"}, "key:": nil, "key: [007]": {"007"},
	} {
		var c struct {
			Key OneOrMore `yaml:"key"`
		}
		if _, problems := (Source{Getenv: noVariable, Text: []byte(text)}).Into(&c); len(problems) > 0 || !slices.Equal(c.Key, want) {
			t.Errorf("%s: got %q, %v; want %q", text, c.Key, problems, want)
		}
	}
	var c struct {
		Key OneOrMore `yaml:"key"`
	}
	assigned := Source{Getenv: noVariable, Set: []string{"key=realm,name"}}
	if _, problems := assigned.Into(&c); len(problems) > 0 || !slices.Equal(c.Key, []string{"realm", "name"}) {
		t.Errorf("got %q, %v; want two columns", c.Key, problems)
	}
	_, problems := (Source{Getenv: noVariable, Text: []byte("key: {a: b}")}).Into(&c)
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "want a single value or a list") {
		t.Errorf("got %v", problems)
	}
}

func noVariable(string) (string, bool) { return "", false }
