package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

// Schema returns the JSON schema (draft 7) of a configuration file, for editors and for the values of the chart. Its
// descriptions are the comments of Example. It rejects what is wrong in itself, as Parse does; faults that need more than
// one field, another file or an environment variable are found by Parse alone.
func Schema(drivers []string) ([]byte, error) {
	texts, requires := descriptions(Example), requirements(drivers)
	s := decode.SchemaOf(reflect.TypeFor[Config](), func(path string) (string, decode.Schema) { return texts[path], requires[path] })
	s["title"] = "Configuration of a Ringside sidecar"
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return append(text, '\n'), nil
}

// requirements are what the checks require of single fields, beside their types.
func requirements(drivers []string) map[string]decode.Schema {
	names := decode.Schema{"pattern": name.String(), "maxLength": maxName}
	listener := decode.Schema{"type": []string{"string", "null"}, "pattern": `^(off|.*:[0-9]{1,5})?$`}
	filled := decode.Schema{"minItems": 1}
	positive := decode.Schema{"not": decode.Schema{"anyOf": []decode.Schema{
		{"type": "number"}, {"type": "string", "pattern": `^[-+]?([0.]+(ns|us|µs|μs|ms|s|m|h)?)+$`},
	}}}
	n := map[string]decode.Schema{
		"node.id":                     {"pattern": `^$|` + nodeID.String(), "maxLength": address.MaxHost},
		"node.namespace":              {"pattern": `^$|` + name.String(), "maxLength": maxName},
		"node.zone":                   {"maxLength": address.MaxHost},
		"listen.http":                 listener,
		"listen.grpc":                 listener,
		"listen.redis":                listener,
		"listen.otlp":                 listener,
		"listen.peer":                 listener,
		"listen.metrics":              listener,
		"listen.xds":                  listener,
		"listen.admin":                listener,
		"memory":                      {"minimum": MinMemory},
		"client_memory":               {"minimum": MinMemory},
		"otlp.memory":                 {"minimum": MinMemory},
		"ring.max":                    {"maximum": ring.MaxSize},
		"membership.max_members":      {"minimum": 0, "maximum": maxMaxMembers},
		"membership.static":           filled,
		"membership.xds":              filled,
		"membership.etcd.endpoints":   filled,
		"membership.etcd.endpoints[]": {"type": "string", "pattern": `^[hH][tT][tT][pP][sS]?://`},
		"membership.etcd.prefix":      {"pattern": `^$|^/(.*[^/])$`},
		"origins":                     {"propertyNames": names},
		"origins.*":                   {"required": []string{"driver"}, "anyOf": either("dsn", "dsn_file")},
		"origins.*.driver":            {"enum": drivers},
		"origins.*.breaker.cooldown":  positive,
		"datasets":                    {"propertyNames": names},
		"datasets.*":                  {"required": []string{"origin"}, "anyOf": either("table", "query", "url", "preset", "prefix")},
		"datasets.*.ttl":              positive,
		"datasets.*.load_timeout":     positive,
		"datasets.*.write_timeout":    positive,
		"datasets.*.max_rows":         {"maximum": maxRows},
		"datasets.*.absent.status":    {"enum": []any{0, 200, 204, 403, 404, "0", "200", "204", "403", "404", nil}},
		"audit.file":                  {"pattern": `^(|` + AuditStdout + `|/.*)$`},
	}
	for path, allowed := range words {
		n[path] = decode.Schema{"enum": append(slices.Collect(anys(allowed)), "", nil)}
	}
	return n
}

func either(fields ...string) (list []decode.Schema) {
	for _, f := range fields {
		list = append(list, decode.Schema{"required": []string{f}})
	}
	return list
}

func anys(list []string) func(func(any) bool) {
	return func(yield func(any) bool) {
		for _, s := range list {
			if !yield(s) {
				return
			}
		}
	}
}

// descriptions returns the comments of a commented example by the paths of fields, in which * stands for the name of an
// entry. A line that is commented out without a space is a field. A field without a comment has that of the line above it.
func descriptions(example string) map[string]string {
	texts := map[string]string{}
	var parents []string // :: half the indentation → name
	var comment []string
	complete := false // a field has followed the comment
	for line := range strings.Lines(example) {
		line = strings.TrimSuffix(line, "\n")
		body := strings.TrimLeft(line, " ")
		depth := (len(line) - len(body)) / 2
		if text, ok := strings.CutPrefix(body, "# "); ok || body == "#" {
			if complete {
				comment, complete = nil, false
			}
			comment = append(comment, text)
			continue
		}
		field, _, ok := strings.Cut(strings.TrimPrefix(body, "#"), ":")
		if !ok {
			comment = nil
			continue
		}
		parents, complete = append(parents[:min(depth, len(parents))], field), true
		path := strings.Join(generic(parents), ".")
		if _, known := texts[path]; !known && comment != nil {
			texts[path] = strings.Join(comment, " ")
		}
	}
	return texts
}

// generic replaces the names of entries by *.
func generic(path []string) []string {
	path = slices.Clone(path)
	for depth, of := range map[int][]string{1: {"origins", "datasets", "tokens"}, 2: {"rows"}, 3: {"headers"}} {
		if len(path) > depth && slices.Contains(of, path[depth-1]) {
			path[depth] = "*"
		}
	}
	return path
}
