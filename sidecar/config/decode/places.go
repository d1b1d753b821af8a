package decode

import (
	"fmt"
	"reflect"
	"strings"
)

// Source is the text that sets the fields of a struct. Later ones override earlier ones: the file, the environment, Set.
type Source struct {
	// File is the name of the YAML file in messages; Text is its content.
	File string
	Text []byte
	// Getenv looks up a variable, as os.LookupEnv does: for ${NAME} in values, and for the fields themselves.
	Getenv func(name string) (value string, ok bool)
	// Prefix begins the names of the variables that set fields: APP_LISTEN_HTTP sets listen.http if it is APP_.
	Prefix string
	// Set has assignments path=value, such as listen.http=127.0.0.1:0. Lists are separated by commas.
	Set []string
}

// Places knows where each field was set. A nil *Places knows nothing: its problems have no place.
type Places struct {
	decoder    *decoder
	overridden map[string]string // :: path → the variable or flag that set it
	prefix     string
}

// Into sets the fields of c, a pointer to a struct whose fields have yaml tags. It returns where each one was set, and all
// problems of the text.
func (s Source) Into(c any) (*Places, []Problem) {
	d := newDecoder(s.File, s.Text, s.Getenv)
	d.decode(c)
	p := &Places{d, map[string]string{}, s.Prefix}
	v := reflect.ValueOf(c).Elem()
	return p, append(append(d.problems, p.environment(v, s.Getenv)...), p.assign(v, s.Set)...)
}

// environment sets each leaf of c that has a variable.
func (p *Places) environment(c reflect.Value, getenv func(string) (string, bool)) (problems []Problem) {
	for path := range Leaves(c.Interface()) {
		name := p.variable(path)
		if value, ok := getenv(name); ok {
			problems = append(problems, p.override(c, path, value, name)...)
		}
	}
	return problems
}

// variable is the environment variable for path: RINGSIDE_DATASETS_CNF_METRICS_TTL for datasets.cnf-metrics.ttl.
func (p *Places) variable(path string) string {
	return p.prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

func (p *Places) assign(c reflect.Value, assignments []string) (problems []Problem) {
	for _, assignment := range assignments {
		path, value, ok := strings.Cut(assignment, "=")
		if !ok {
			problems = append(problems, Problem{Where: "--set", Message: "want path=value, such as listen.http=127.0.0.1:0"})
			continue
		}
		problems = append(problems, p.override(c, path, value, "--set "+path)...)
	}
	return problems
}

func (p *Places) override(c reflect.Value, path, value, from string) []Problem {
	p.overridden[path] = from
	if err := setPath(c, path, value); err != nil {
		return []Problem{{Where: from, Field: path, Message: err.Error()}}
	}
	return nil
}

// Problem returns a problem of the field at path, with the place where that was set.
func (p *Places) Problem(path, format string, args ...any) Problem {
	wrong := Problem{Field: path, Message: fmt.Sprintf(format, args...)}
	if p == nil {
		return wrong
	}
	list, _, _ := strings.Cut(path, "[") // a variable or flag sets a whole list
	if from, ok := p.overridden[list]; ok {
		wrong.Where = from
		return wrong
	}
	at := p.decoder.nearest(path)
	wrong.Where, wrong.Excerpt = p.decoder.where(at), excerpt(p.decoder.source, at)
	return wrong
}

// nearest returns the place of path, or of what encloses it if the file does not have it.
func (d *decoder) nearest(path string) position {
	for path != "" {
		if p, ok := d.marks[path]; ok {
			return p
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return position{}
}
