package httpview

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Template is a path whose variables are the columns of a key: /dns/lookup/{name}/{type}. A variable is a whole segment; the last
// one may be the rest of the path: /files/{name...}.
type Template struct {
	text     string
	segments []segment
	rest     bool  // the last segment is the rest of the path
	order    []int // :: column of the key → variable
}

type segment struct {
	literal  string
	variable bool
}

// The first segments of the paths that the API itself has.
var reserved = []string{"v1", "cnfmetrics", "openapi.json"}

const maxTemplate, maxSegments = 256, 16

// parse parses a template for keys of the given columns; an empty name takes any variable.
func parse(text string, keys []string) (*Template, error) {
	t := &Template{text: text}
	rest, rooted := strings.CutPrefix(text, "/")
	switch {
	case !rooted || rest == "":
		return nil, fmt.Errorf("want a path that begins with / and has variables, such as /lookup/{name}; got %q", text)
	case len(text) > maxTemplate:
		return nil, fmt.Errorf("at most %d bytes; got %d", maxTemplate, len(text))
	}
	var names []string
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		if t.rest {
			return nil, fmt.Errorf("%q must be the last segment: it is the rest of the path", parts[i-1])
		}
		name, isVariable, err := t.add(part)
		if err != nil {
			return nil, err
		}
		if isVariable {
			names = append(names, name)
		}
	}
	switch {
	case len(parts) > maxSegments:
		return nil, fmt.Errorf("at most %d segments; got %d", maxSegments, len(parts))
	case t.segments[0].variable:
		return nil, errors.New("the first segment must not be a variable: it would take the paths of the API itself")
	case slices.Contains(reserved, t.segments[0].literal):
		return nil, fmt.Errorf("paths below /%s are those of the API itself; begin with another segment", t.segments[0].literal)
	}
	return t, t.bind(names, keys)
}

// add appends a segment, and returns the name of its variable.
func (t *Template) add(part string) (name string, isVariable bool, err error) {
	inner, opened := strings.CutPrefix(part, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	switch {
	case part == "":
		return "", false, errors.New("a segment is empty; remove // and a / at the end")
	case opened && closed:
		name, t.rest = strings.CutSuffix(inner, "...")
		if name == "" || strings.ContainsAny(name, "{}") {
			return "", false, fmt.Errorf("%q is not a variable; want {name}, or {name...} at the end", part)
		}
		t.segments = append(t.segments, segment{variable: true})
		return name, true, nil
	}
	for i := range len(part) {
		if !isPathByte(part[i]) {
			return "", false, fmt.Errorf("%q is neither a variable, such as {name}, nor text without special characters", part)
		}
	}
	if part == "." || part == ".." {
		return "", false, fmt.Errorf("the segment %q is removed by many clients; use another one", part)
	}
	t.segments = append(t.segments, segment{literal: part})
	return "", false, nil
}

// isPathByte reports whether clients send a byte of a path as it is: pchar of RFC 3986, 3.3, without the escapes.
func isPathByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}

// bind finds the variable of each column of the key.
func (t *Template) bind(names, keys []string) error {
	anyName := len(keys) == 1 && keys[0] == ""
	if anyName {
		keys = names
	}
	if len(names) != len(keys) || anyName && len(names) != 1 {
		return fmt.Errorf("want a variable for each column of the key (%d); got %d", max(1, len(keys)), len(names))
	}
	for _, key := range keys {
		i := slices.Index(names, key)
		if i < 0 {
			return fmt.Errorf("no variable has the name of the column %s of the key; the variables are %s", key, strings.Join(names, ", "))
		}
		t.order = append(t.order, i)
	}
	return nil
}

// String returns the template as it is in the configuration.
func (t *Template) String() string { return t.text }

// Match reports whether a path, without a query, is one of the template. It appends the values of the variables, percent-encoded
// as they are in the path, in the order of the columns of the key.
func (t *Template) Match(path string, into []string) (values []string, ok bool) {
	rest, rooted := strings.CutPrefix(path, "/")
	if !rooted {
		return into, false
	}
	var found [maxSegments]string
	n := 0
	for i, s := range t.segments {
		part := rest
		last := i == len(t.segments)-1
		if !last || !t.rest {
			var more bool
			part, rest, more = strings.Cut(rest, "/")
			if more == last {
				return into, false
			}
		}
		if s.variable {
			found[n] = part
			n++
		} else if part != s.literal {
			return into, false
		}
	}
	for _, i := range t.order {
		into = append(into, found[i])
	}
	return into, true
}

// Overlaps reports whether some path is one of both templates.
func (t *Template) Overlaps(o *Template) bool {
	for i := 0; ; i++ {
		switch {
		case t.takesAll(i) && i < len(o.segments), o.takesAll(i) && i < len(t.segments):
			return true
		case i == len(t.segments) || i == len(o.segments):
			return len(t.segments) == len(o.segments)
		case !t.segments[i].variable && !o.segments[i].variable && t.segments[i].literal != o.segments[i].literal:
			return false
		}
	}
}

// takesAll reports whether the segment i is the rest of the path.
func (t *Template) takesAll(i int) bool { return t.rest && i == len(t.segments)-1 }
