package sidecar

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

// decoder turns the syntax tree of one file into a Config. The library's own decoder stops at the first error, has no
// position for the errors of our units, and reads the password 007 as 7; see DESIGN.md.
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

// decode fills c, which is a pointer to a struct, and leaves what is wrong in d.problems.
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

// syntaxError reports where the file stops being YAML. The library's Error() would print the lines around it.
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
		message, _, _ = strings.Cut(message, `: "`) // what follows is text of the file
		message += "; put a value with special characters into quotes"
	}
	d.problem("", position{p.Line, p.Column}, "%s", message)
}

// maybeSecret reports whether what is written at p may be a part of a secret.
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

// value decodes n into v, which lies at path.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	if path != "" {
		d.marks[path] = place(n)
	}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.AnchorNode:
		d.value(n.Value, v, path)
		// Known only now, so that an alias inside of its own anchor cannot go in circles.
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

// anchor returns what the alias n stands for, or nil.
func (d *decoder) anchor(n *ast.AliasNode, path string) ast.Node {
	name := n.Value.GetToken().Value
	anchor := d.anchors[name]
	switch {
	case anchor == nil && d.maybeSecret(place(n)): //guard:secret-yaml-takes-alias-printed
		d.problem(path, place(n), "no such anchor above; put a value that begins with * into quotes")
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
	// Merged fields first, so that those written out win (yaml.org/type/merge.html).
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
	// Without an excerpt: what stands behind a misspelt "dsn" is a secret all the same.
	d.problems = append(d.problems, Problem{
		Where: d.where(place(entry.Key)), Field: path, Message: d.unknown(entry, name, v.Type()),
	})
}

// unknown says that t has no field of that name. A name without a value may be what follows a comma in a secret:
// {dsn: user:pass,word@host}.
func (d *decoder) unknown(entry *ast.MappingValueNode, name string, t reflect.Type) string {
	names := strings.Join(namesOf(t), ", ")
	if entry.Value.Type() == ast.NullType && d.maybeSecret(place(entry.Key)) {
		return "unknown field; put a value with a comma into quotes; want one of " + names
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
	if !isLeaf(v.Type()) || v.Kind() == reflect.Slice {
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

// scalarText returns the text of a scalar as it was written: YAML's own ideas of numbers, such as 007 for 7 and .5e1,
// do not apply.
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

// expand replaces ${NAME} by the variable NAME, and $$ by $; any other $, such as that of $1 in a query, stays. It
// sees a value, never the file: whatever a variable holds, it cannot become YAML.
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
		return "", fmt.Errorf("the environment has no variable %s; set it, or write $${ for a plain ${",
			strings.Join(missing, ", "))
	}
	return b.String(), nil
}

// place is where n is written. The first token of a mapping is its first colon, so its first key is taken.
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
