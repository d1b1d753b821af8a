// Package decode sets the fields of a struct from YAML, environment variables and assignments. It reports all problems of
// the text at once, each with its line and column, and shows no part of a secret in them.
package decode

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder sets the fields of a struct from the syntax tree of one file. The library's own decoder stops at the first error,
// has no position for the errors of encoding.TextUnmarshaler, and reads the password 007 as 7; see config/DESIGN.md.
type decoder struct {
	file     string
	source   []byte
	getenv   func(string) (string, bool)
	marks    map[string]position // :: path → place of its value
	anchors  map[string]ast.Node
	problems []Problem
}

func newDecoder(file string, source []byte, getenv func(string) (string, bool)) *decoder {
	return &decoder{
		file: file, source: source, getenv: getenv,
		marks: map[string]position{}, anchors: map[string]ast.Node{},
	}
}

// decode sets the fields of c, a pointer to a struct, and collects problems in d.problems.
func (d *decoder) decode(c any) {
	const byteOrderMark = "\ufeff" // YAML 1.2.2, 5.2; some editors write it
	d.source = bytes.TrimPrefix(d.source, []byte(byteOrderMark))
	file, err := parser.ParseBytes(d.source, 0)
	if err != nil {
		d.syntaxError(err)
		return
	}
	if len(file.Docs) > 1 {
		d.problem("", position{}, "holds %d YAML documents; want one", len(file.Docs))
		return
	}
	if len(file.Docs) == 1 && file.Docs[0].Body != nil {
		d.value(file.Docs[0].Body, reflect.ValueOf(c).Elem(), "")
	}
}

// syntaxError reports the place of a YAML syntax error. The library's Error() would print the lines around it.
func (d *decoder) syntaxError(err error) {
	var e yaml.Error
	if !errors.As(err, &e) || e.GetToken() == nil {
		d.problem("", position{}, "is not YAML: %v", err)
		return
	}
	p, message := e.GetToken().Position, e.GetMessage()
	if strings.Contains(message, "'\t'") || strings.Contains(message, "'	'") {
		message = "YAML takes no tab for indentation; use spaces"
	}
	if at := (position{p.Line, p.Column}); d.maybeSecret(at) {
		message, _, _ = strings.Cut(message, `: "`) // text of the file follows
		message += "; quote a value that has special characters"
	}
	d.problem("", position{p.Line, p.Column}, "%s", message)
}

// maybeSecret reports whether the text at p may be a part of a secret.
func (d *decoder) maybeSecret(p position) bool {
	return p.line > 0 && mayHoldSecret(slices.Collect(strings.Lines(string(d.source)))[:p.line])
}

func (d *decoder) problem(path string, p position, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		Where: d.where(p), Field: path, Message: fmt.Sprintf(format, args...), Excerpt: excerpt(d.source, p),
	})
}

func (d *decoder) where(p position) string {
	if p.line == 0 {
		return d.file
	}
	return fmt.Sprintf("%s:%d:%d", d.file, p.line, p.column)
}

// value decodes n into v, the field at path.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	if path != "" {
		d.marks[path] = place(n)
	}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.AnchorNode:
		d.value(n.Value, v, path)
		// Registered after its value, so that an alias inside its own anchor cannot recurse forever.
		d.anchors[n.Name.GetToken().Value] = n.Value
	case *ast.AliasNode:
		if anchor := d.anchor(n, path); anchor != nil {
			d.value(anchor, v, path)
		}
	case *ast.MappingNode:
		d.mapping(n.Values, n, v, path)
	case *ast.MappingValueNode:
		d.mapping([]*ast.MappingValueNode{n}, n, v, path)
	case *ast.SequenceNode:
		d.sequence(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// anchor returns the node that the alias n refers to, or nil.
func (d *decoder) anchor(n *ast.AliasNode, path string) ast.Node {
	name := n.Value.GetToken().Value
	anchor := d.anchors[name]
	switch {
	case anchor == nil && d.maybeSecret(place(n)): //guard:secret-parsed-as-alias-is-printed
		d.problem(path, place(n), "no such anchor above; quote a value that begins with *")
	case anchor == nil:
		d.problem(path, place(n), "no anchor &%s above", name)
	}
	return anchor
}

func (d *decoder) mapping(values []*ast.MappingValueNode, n ast.Node, v reflect.Value, path string) {
	if isLeaf(v.Type()) {
		d.problem(path, place(n), "want %s; got a mapping", wanted(v.Type()))
		return
	}
	// Merged fields come first, because explicit fields override them (yaml.org/type/merge.html).
	for _, merged := range []bool{true, false} {
		for _, entry := range values {
			if entry.Key.IsMergeKey() != merged {
				continue
			}
			if merged {
				d.value(entry.Value, v, path)
				continue
			}
			d.entry(entry, v, path)
		}
	}
}

func (d *decoder) entry(entry *ast.MappingValueNode, v reflect.Value, path string) {
	name := entry.Key.GetToken().Value
	if v.Kind() == reflect.Map {
		d.mapEntry(entry.Value, v, name, path)
		return
	}
	if field := fieldNamed(v, name); field.IsValid() {
		d.value(entry.Value, field, join(path, name))
		return
	}
	// No excerpt: the value of a misspelled "dsn" is a secret too.
	d.problems = append(d.problems, Problem{
		Where: d.where(place(entry.Key)), Field: path, Message: d.unknown(entry, name, v.Type()),
	})
}

// unknown returns the message for a field that t does not have. A name without a value may be the part of a secret after a
// comma: {dsn: user:pass,word@host}.
func (d *decoder) unknown(entry *ast.MappingValueNode, name string, t reflect.Type) string {
	if err := removed(t, name); err != nil {
		return err.Error()
	}
	names := strings.Join(namesOf(t), ", ")
	if entry.Value.Type() == ast.NullType && d.maybeSecret(place(entry.Key)) {
		return "unknown field; quote a value that has a comma; want one of " + names
	}
	return fmt.Sprintf("unknown field %q; want one of %s", name, names)
}

func (d *decoder) mapEntry(n ast.Node, m reflect.Value, name, path string) {
	if m.IsNil() {
		m.Set(reflect.MakeMap(m.Type()))
	}
	elem := reflect.New(m.Type().Elem()).Elem()
	if old := m.MapIndex(reflect.ValueOf(name)); old.IsValid() {
		elem.Set(old)
	}
	d.value(n, elem, join(path, name))
	m.SetMapIndex(reflect.ValueOf(name), elem)
}

func (d *decoder) sequence(n *ast.SequenceNode, v reflect.Value, path string) {
	if v.Kind() != reflect.Slice {
		d.problem(path, place(n), "want %s; got a list", wanted(v.Type()))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values))
	for i, item := range n.Values {
		d.value(item, list.Index(i), path+"["+strconv.Itoa(i)+"]")
	}
	v.Set(list)
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	text, ok := scalarText(n)
	if !ok {
		d.problem(path, place(n), "want %s; got a %s", wanted(v.Type()), n.Type())
		return
	}
	if !isLeaf(v.Type()) || v.Kind() == reflect.Slice && v.Type() != reflect.TypeFor[OneOrMore]() {
		d.problem(path, place(n), "want %s; got a single value", wanted(v.Type()))
		return
	}
	text, err := expand(text, d.getenv)
	if err == nil {
		err = setText(v, text)
	}
	if err != nil {
		d.problem(path, place(n), "%v", err)
	}
}

// scalarText returns the text of a scalar as written, without YAML's conversion of numbers such as 007 or .5e1.
func scalarText(n ast.Node) (text string, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// expand replaces ${NAME} by the variable NAME, and $$ by $. Any other $, such as in a query's $1, stays. It works on single
// values, so the content of a variable cannot be parsed as YAML.
func expand(text string, getenv func(string) (string, bool)) (string, error) {
	var missing []string
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			break
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		switch {
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "{") && closed:
			value, ok := getenv(name)
			if !ok {
				missing = append(missing, name)
			}
			b.WriteString(value)
			text = rest
		default:
			b.WriteByte('$')
			text = after
		}
	}
	if missing != nil {
		return "", fmt.Errorf("the environment variable %s is not set; set it, or write $${ for a literal ${",
			strings.Join(missing, ", "))
	}
	return b.String(), nil
}

// place returns the position of n. The first token of a mapping is its first colon, so place uses its first key.
func place(n ast.Node) position {
	switch m := n.(type) {
	case *ast.MappingNode:
		if len(m.Values) > 0 {
			return place(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(m.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return position{}
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if !isLeaf(t) {
			return "a mapping"
		}
	case reflect.Slice:
		if t == reflect.TypeFor[OneOrMore]() {
			return "a single value or a list"
		}
		return "a list"
	}
	return "a single value"
}

func namesOf(t reflect.Type) []string {
	var names []string
	for name := range fieldNames(t) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
