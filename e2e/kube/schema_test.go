package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

// schemaText returns the JSON schema of a sidecar's configuration.
func schemaText(t *testing.T) []byte {
	t.Helper()
	text, err := config.Schema(drivers.All().Names())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func compile(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("ringside.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("ringside.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// validate checks a document of YAML or JSON as an editor does.
func validate(t *testing.T, schema *jsonschema.Schema, text []byte) error {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(document)
}

// The schema is in the values of the chart, so that helm rejects a wrong sidecar.config.
func TestValuesHaveTheSchemaOfTheConfiguration(t *testing.T) {
	const file = chart + "/values.schema.json"
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var schema, values map[string]any
	if err := errors.Join(json.Unmarshal(schemaText(t), &schema), json.Unmarshal(have, &values)); err != nil {
		t.Fatal(err)
	}
	values["definitions"] = schema["definitions"]
	for _, key := range []string{"$schema", "title", "definitions"} {
		delete(schema, key)
	}
	at(t, values, "properties", "sidecar", "properties")["config"] = schema
	text := new(bytes.Buffer)
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(values); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(have, text.Bytes()) && !*update {
		t.Errorf("%s is not current; run go test -run Values -update", file)
	}
}

func at(t *testing.T, object map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, name := range path {
		next, ok := object[name].(map[string]any)
		if !ok {
			t.Fatalf("there is no %s", name)
		}
		object = next
	}
	return object
}

// Every configuration of the repository is valid.
func TestSchemaAcceptsAllConfigurations(t *testing.T) {
	schema := compile(t, schemaText(t))
	if err := validate(t, schema, []byte(config.Example)); err != nil {
		t.Errorf("the example: %v", err)
	}
	out, err := exec.Command("git", "-C", "../..", "ls-files", "--cached", "--others", "--exclude-standard", "*.yaml", "*.yml").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range strings.Fields(string(out)) {
		text, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil || !slices.Contains([]string{"ringside.yaml", "sidecar.yaml", "members.yaml"}, filepath.Base(file)) ||
			!bytes.Contains(text, []byte("\ndatasets:")) {
			continue
		}
		n++
		if err := validate(t, schema, text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if n < 8 {
		t.Errorf("checked %d files, want at least the 7 of deploy/functions and that of deploy/processes", n)
	}
}

// values are of all types and of all forms of text in a configuration.
var values = []any{
	nil, true, false, "true", "yes", 0, 1, -1, 5, 0.5, 7000, 2_000_000, 3_000_000_000, "", "0", "7", "x", "off", "stdout", "a.b", "A b",
	"5s", "0s", "-5s", "1.5h30m", "1d", ".5s", "10%", "100%", "150%", "0.5", "1.5", "128MiB", "1.5 GiB", "0MiB", "0.5", ".5kB", "128Mb", "auto",
	"100/s", "1 / h", "0/s", "5/d", "1000001/s", "${HOME}", "a${HOME}b", "$HOME", ":80", ":65536", "host:80", "10.0.0.1:7072", "host", "[::1]:80",
	"http://x", "https://user@x:1", "/", "/a", "/a/", "json", "info", "poll", "many", "slru", "sqlite", "204", 204,
	[]any{}, []any{"a"}, []any{1, nil, true}, []any{[]any{1}}, []any{map[string]any{"a": 1}}, []any{"http://x:1"}, map[string]any{}, map[string]any{"a": 1},
	map[string]any{"A b": nil},
}

// The schema accepts and rejects the same values of every field as the program: it rejects what cannot be decoded, and nothing
// that the program accepts.
func TestSchemaAgreesWithTheProgram(t *testing.T) {
	text := schemaText(t)
	schema := compile(t, text)
	root := map[string]any{}
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	fields := fieldsOf(root, nil)
	if len(fields) < 100 {
		t.Fatalf("got %d fields, want more than 100", len(fields))
	}
	rejected := 0
	for _, field := range fields {
		for _, value := range values {
			document, err := json.Marshal(with(value, field))
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
			if err != nil {
				t.Fatal(err)
			}
			invalid := schema.Validate(parsed)
			_, undecodable := decode.Source{Text: document, Getenv: variable}.Into(new(config.Config))
			switch {
			case invalid == nil && len(undecodable) > 0 && !bytes.Contains(document, []byte("${HOME}")): // a schema knows no content
				t.Errorf("%s: the schema accepts %#v; the program: %v", strings.Join(field, "."), value, undecodable[0].Message)
			case invalid != nil && len(undecodable) == 0:
				source := config.Source{Getenv: variable, Drivers: drivers.All()}
				if _, err := source.Parse(document); err == nil {
					t.Errorf("%s: the program accepts %#v; the schema: %v", strings.Join(field, "."), value, invalid)
				}
			}
			if invalid != nil {
				rejected++
			}
		}
	}
	t.Logf("%d fields with %d values each, %d rejected", len(fields), len(values), rejected)
}

func variable(name string) (string, bool) { return "/home/x", name == "HOME" }

// fieldsOf returns the paths of all fields; * stands for an entry of a map.
func fieldsOf(schema map[string]any, path []string) (fields [][]string) {
	children, _ := schema["properties"].(map[string]any)
	children = maps.Clone(children)
	if entries, ok := schema["additionalProperties"].(map[string]any); ok {
		children = map[string]any{"*": entries}
	}
	for _, name := range slices.Sorted(maps.Keys(children)) {
		child := append(slices.Clone(path), name)
		fields = append(append(fields, child), fieldsOf(children[name].(map[string]any), child)...)
	}
	return fields
}

// with returns a valid configuration in which one field has another value.
func with(value any, path []string) map[string]any {
	document := map[string]any{
		"origins":  map[string]any{"a": map[string]any{"driver": "sqlite", "dsn": "rows.db"}},
		"datasets": map[string]any{"a": map[string]any{"origin": "a", "table": "t", "key": "k"}},
	}
	object := document
	for _, name := range path[:len(path)-1] {
		name = strings.Replace(name, "*", "a", 1)
		if object[name] == nil {
			object[name] = map[string]any{}
		}
		object = object[name].(map[string]any)
	}
	object[strings.Replace(path[len(path)-1], "*", "a", 1)] = value
	return document
}

// helm rejects a wrong configuration and names the field.
func TestHelmRejectsInvalidConfigurations(t *testing.T) {
	const valid = `sidecar: {config: {origins: {db: {driver: postgres, dsn_file: /dsn}}, datasets: {rows: {origin: db, table: t, key: id, ttl: 5s}}}}`
	for i, test := range []struct{ old, wrong, want string }{
		{"", "", ""},
		{"sidecar:", "injector: {excludedNamespaces: []}\nsidecar:", "excludedNamespaces"},
		{"ttl: 5s", "tll: 5s", "tll"},
		{"ttl: 5s", "ttl: 5", "/ttl"},
		{"ttl: 5s", "ttl: 0s", "/ttl"},
		{"ttl: 5s", "memory_share: 120%", "memory_share"},
		{"ttl: 5s", "limits: {watch: 5/d}", "watch"},
		{"ttl: 5s", "feed: {kind: push}", "/feed/kind"},
		{"ttl: 5s", "feed: [poll]", "/feed"},
		{"ttl: 5s", "max_rows: 1000000", "max_rows"},
		{"driver: postgres", "driver: oracle", "driver"},
		{"driver: postgres, ", "", "driver"},
		{"origin: db, ", "", "origin"},
		{"dsn_file: /dsn", "max_conns: many", "max_conns"},
		{"datasets: {rows:", "datasets: {Rows:", "Rows"},
		{"config: {", "config: {log: {level: loud}, ", "/log/level"},
		{"config: {", "config: {listen: {http: 7070}, ", "/listen/http"},
		{"config: {", "config: {memory: 128, ", "/memory"},
		{"config: {", "config: {membership: {etcd: {endpoints: []}}, ", "endpoints"},
		{"config: {", `config: {membership: {etcd: {endpoints: ["etcd:2379"]}}, `, "endpoints"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "values.yaml")
			writeFile(t, file, strings.Replace(valid, test.old, test.wrong, 1))
			_, err := helm(t, "template", release, chart, "--values", file)
			if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want an error with %q", test.wrong, err, test.want)
			}
		})
	}
}
