package decode

import (
	"maps"
	"reflect"
	"strings"
	"time"
)

// Schema is a part of a JSON schema (draft 7).
type Schema = map[string]any

// Formed is a type whose text has a form of its own. Form is the schema of it.
type Formed interface{ Form() Schema }

// Notes returns what a schema says about the field at path beside its type: a description, and what the meaning of the field
// requires. In a path, * stands for the name of an entry and [] for an element of a list.
type Notes func(path string) (description string, requires Schema)

// SchemaOf returns the schema of what Into accepts as the fields of a struct.
func SchemaOf(t reflect.Type, notes Notes) Schema {
	w := schemaWriter{notes: notes, definitions: Schema{variable: Schema{
		"type": "string", "pattern": `\$\{[^}]*\}`, "description": "Text with an environment variable, such as ${NAME}.",
	}}}
	s := w.value(t, "")
	s["$schema"], s["definitions"] = "http://json-schema.org/draft-07/schema#", w.definitions
	return s
}

type schemaWriter struct {
	notes       Notes
	definitions Schema // :: name of a form → its schema
}

// value returns the schema of the field at path.
func (w schemaWriter) value(t reflect.Type, path string) Schema {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if isLeaf(t) {
		return w.leaf(t, path)
	}
	s := Schema{"type": []string{"object", "null"}}
	if t.Kind() == reflect.Map {
		s["additionalProperties"] = w.value(t.Elem(), join(path, "*"))
	} else {
		fields := Schema{}
		for name, index := range fieldNames(t) {
			fields[name] = w.value(t.FieldByIndex(index).Type, join(path, name))
		}
		s["additionalProperties"], s["properties"] = false, fields
	}
	return w.note(s, path)
}

// note adds the notes of a mapping or list.
func (w schemaWriter) note(s Schema, path string) Schema {
	description, requires := w.notes(path)
	if description != "" {
		s["description"] = description
	}
	maps.Copy(s, requires)
	return s
}

// leaf returns the schema of a scalar or a list of scalars.
func (w schemaWriter) leaf(t reflect.Type, path string) Schema {
	text := reflect.TypeFor[string]()
	switch {
	case t == reflect.TypeFor[OneOrMore]():
		list := Schema{"type": "array", "items": w.form(text)}
		return w.note(Schema{"anyOf": []Schema{w.form(text), list}}, path)
	case t.Kind() == reflect.Slice:
		return w.note(Schema{"type": []string{"array", "null"}, "items": w.leaf(text, path+"[]")}, path)
	}
	parts := []Schema{w.form(t)}
	description, requires := w.notes(path)
	if requires != nil {
		parts = append(parts, orVariable(requires))
	}
	if description == "" && len(parts) == 1 {
		return parts[0]
	}
	s := Schema{"allOf": parts} // beside $ref, draft 7 allows nothing
	if description != "" {
		s["description"] = description
	}
	return s
}

const variable = "variable"

// form defines the form of a type, and returns a reference to it.
func (w schemaWriter) form(t reflect.Type) Schema {
	name, form := formOf(t)
	if form["pattern"] != nil || form["enum"] != nil {
		form = orVariable(form)
	}
	w.definitions[name] = form
	return refer(name)
}

func refer(name string) Schema { return Schema{"$ref": "#/definitions/" + name} }

// orVariable also allows a variable, whose content is known only where the sidecar runs.
func orVariable(s Schema) Schema { return Schema{"anyOf": []Schema{s, refer(variable)}} }

// formOf returns the schema of the text of a scalar, and its name. null leaves the default.
func formOf(t reflect.Type) (string, Schema) {
	if f, ok := reflect.Zero(t).Interface().(Formed); ok {
		return strings.ToLower(t.Name()), f.Form()
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration", Schema{"type": []string{"string", "number", "null"}, "pattern": durationForm, "minimum": 0, "maximum": 0}
	case t.Kind() == reflect.Bool:
		return "boolean", Schema{"enum": []any{true, false, "true", "false", nil}}
	case t.Kind() == reflect.Int:
		return "count", Schema{"type": []string{"string", "integer", "null"}, "pattern": `^[0-9]+$`, "minimum": 0, "maximum": 1<<31 - 1}
	}
	return "text", Schema{"type": []string{"string", "number", "boolean", "null"}}
}

// durationForm is the form of a time.Duration. 0 needs no unit.
const durationForm = `^([-+]?0|\+?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`

// Form implements Formed.
func (Size) Form() Schema {
	return Schema{
		"type": []string{"string", "number", "null"}, "minimum": 1,
		"pattern": `^\s*(auto|\+?([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMGT]iB?|[kKMGT]B|B)?)?\s*$`,
		"not":     Schema{"type": "string", "pattern": `^\s*\+?((0+\.?0*|\.0+)\s*[A-Za-z]*|0*\.[0-9]*\s*B?)\s*$`},
	}
}

// Form implements Formed.
func (Share) Form() Schema {
	return Schema{
		"type": []string{"string", "number", "null"}, "minimum": 0, "maximum": 1,
		"pattern": `^\s*\+?(0*(100(\.0*)?|[0-9]{1,2}(\.[0-9]*)?|\.[0-9]+)%|0*(1(\.0*)?|0?\.[0-9]+|0\.?))\s*$`,
	}
}
