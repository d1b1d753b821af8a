package decode

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// All sources of text, the file, the environment and assignments, set fields through setText, so that a value means the
// same in each of them.

// inline is the yaml tag of an embedded struct whose fields stand among those of the outer one.
const inline = ",inline"

// fieldNames yields the yaml names of the fields of struct type t with their indexes.
func fieldNames(t reflect.Type) iter.Seq2[string, []int] {
	return func(yield func(string, []int) bool) {
		for _, f := range reflect.VisibleFields(t) {
			if name := f.Tag.Get("yaml"); name != "" && name != inline && !yield(name, f.Index) {
				return
			}
		}
	}
}

// fieldNamed returns the field of v whose yaml name is name, or the zero Value.
func fieldNamed(v reflect.Value, name string) reflect.Value {
	for n, i := range fieldNames(v.Type()) {
		if n == name {
			return v.FieldByIndex(i)
		}
	}
	return reflect.Value{}
}

// removed returns an error with advice if struct type t had a field of that name. A field without a name keeps its tags:
//
//	_ struct{} `removed:"old_name" advice:"what to do instead"`
func removed(t reflect.Type, name string) error {
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("removed") == name && name != "" { //guard:removed-field-is-merely-unknown
			return fmt.Errorf("%q was removed: %s", name, f.Tag.Get("advice"))
		}
	}
	return nil
}

// isLeaf reports whether a value of t is a scalar or a list of scalars in YAML.
func isLeaf(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Map
}

// setText stores text in the settable leaf v.
func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		return setDuration(v, text)
	}
	switch v.Kind() {
	case reflect.Pointer:
		elem := reflect.New(v.Type().Elem())
		v.Set(elem)
		return setText(elem.Elem(), text)
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		return setBool(v, text)
	case reflect.Int:
		return setInt(v, text)
	case reflect.Slice:
		v.Set(reflect.ValueOf(splitList(text)))
	default:
		return fmt.Errorf("fields of type %s cannot be set", v.Type())
	}
	return nil
}

// duration is the syntax of time.ParseDuration. Text that matches and is rejected exceeds an int64.
var duration = regexp.MustCompile(`^[-+]?([0-9.]+(ns|us|µs|ms|s|m|h))+$`)

func setDuration(v reflect.Value, text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case d < 0:
		return fmt.Errorf("want 0s or more; %s is negative", text)
	case err != nil && duration.MatchString(text):
		return fmt.Errorf("%s is too long; at most %dh", text, math.MaxInt64/time.Hour)
	case err != nil:
		return fmt.Errorf("want a duration with a unit, such as 500ms, 5s or 10m; got %q", text)
	}
	v.SetInt(int64(d))
	return nil
}

// setInt accepts at most 31 bits: the numbers of a configuration count things that cost memory.
func setInt(v reflect.Value, text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("want a whole number, 0 or more; got %q", text)
	}
	v.SetInt(int64(n))
	return nil
}

func setBool(v reflect.Value, text string) error {
	if text != "true" && text != "false" {
		return fmt.Errorf("want true or false; got %q", text)
	}
	v.SetBool(text == "true")
	return nil
}

// splitList splits a list in a variable or flag at its commas.
func splitList(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// setPath stores text in the leaf of v at path, such as "datasets.routes.ttl", and creates missing map entries.
func setPath(v reflect.Value, path, text string) error {
	name, rest, _ := strings.Cut(path, ".")
	switch {
	case isLeaf(v.Type()) && path == "":
		return setText(v, text)
	case isLeaf(v.Type()) || path == "":
		return errNoField
	case v.Kind() == reflect.Map:
		return setEntry(v, name, rest, text)
	}
	field := fieldNamed(v, name)
	if !field.IsValid() {
		return cmp.Or(removed(v.Type(), name), errNoField)
	}
	return setPath(field, rest, text)
}

var errNoField = errors.New("no such field; `ringside config example` shows them all")

func setEntry(m reflect.Value, name, rest, text string) error {
	entry := reflect.New(m.Type().Elem()).Elem()
	if old := m.MapIndex(reflect.ValueOf(name)); old.IsValid() {
		entry.Set(old)
	}
	if err := setPath(entry, rest, text); err != nil {
		return err
	}
	if m.IsNil() {
		m.Set(reflect.MakeMap(m.Type()))
	}
	m.SetMapIndex(reflect.ValueOf(name), entry)
	return nil
}

// Leaves yields the path and value of every leaf of the struct c. Maps contribute the entries that they have.
func Leaves(c any) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) { walkLeaves(reflect.ValueOf(c), "", yield) }
}

func walkLeaves(v reflect.Value, path string, yield func(string, reflect.Value) bool) bool {
	if isLeaf(v.Type()) {
		return yield(path, v)
	}
	if v.Kind() == reflect.Map {
		for _, name := range entryNames(v) {
			if !walkLeaves(v.MapIndex(reflect.ValueOf(name)), join(path, name), yield) {
				return false
			}
		}
		return true
	}
	for name, i := range fieldNames(v.Type()) {
		if !walkLeaves(v.FieldByIndex(i), join(path, name), yield) {
			return false
		}
	}
	return true
}

// entryNames returns the sorted keys of the map v, which are strings.
func entryNames(v reflect.Value) []string {
	names := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		names = append(names, k.String())
	}
	slices.Sort(names)
	return names
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
