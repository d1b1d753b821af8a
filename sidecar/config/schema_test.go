package config_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config"
)

var update = flag.Bool("update", false, "write ringside.schema.json")

func TestSchemaIsCurrent(t *testing.T) {
	const file = "ringside.schema.json"
	want, err := config.Schema(drivers.All().Names())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filepath.Clean(file), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != string(want) {
		t.Errorf("%s is not current (%v); run go test ./sidecar/config -run Schema -update", file, err)
	}
}

// An editor explains every field.
func TestSchemaDescribesEveryField(t *testing.T) {
	text, err := config.Schema(drivers.All().Names())
	if err != nil {
		t.Fatal(err)
	}
	root := map[string]any{}
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	n := 0
	var walk func(path string, schema map[string]any)
	walk = func(path string, schema map[string]any) {
		fields, _ := schema["properties"].(map[string]any)
		for name, field := range fields {
			n++
			field := field.(map[string]any)
			if described, _ := field["description"].(string); described == "" && field["properties"] == nil {
				t.Errorf("%s.%s has no description; add a comment to example.yaml", path, name)
			}
			walk(path+"."+name, field)
			if entries, ok := field["additionalProperties"].(map[string]any); ok {
				walk(path+"."+name+".*", entries)
			}
		}
	}
	walk("", root)
	if n < 100 {
		t.Errorf("the schema has %d fields, want more than 100", n)
	}
}
