package sidecar

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Example is a commented configuration that shows every field.
//
//go:embed example.yaml
var Example string

// Source is where a configuration comes from. What is later in this list wins: defaults, the file, the environment,
// Set.
type Source struct {
	// File is the path of the YAML file.
	File string
	// Getenv looks up a variable, as os.LookupEnv does: for ${NAME} in values, and for RINGSIDE_LISTEN_HTTP and the
	// like, which stand for fields. Other RINGSIDE_ variables are ignored: Kubernetes makes some for a Service of
	// that name.
	Getenv func(name string) (value string, ok bool)
	// Set has fields as path=value, such as listen.http=127.0.0.1:0. Lists are separated by commas.
	Set []string

	text []byte // of File, as it was loaded
}

// maxFile bounds the configuration file; a ConfigMap cannot be larger either.
const maxFile = 1 << 20

// Load reads, merges and checks a configuration. What is wrong with it is a *ConfigError that has all problems.
func (s Source) Load() (Config, error) {
	text, err := s.read()
	if err != nil {
		return Config{}, err
	}
	return s.parse(text)
}

func (s Source) read() ([]byte, error) {
	info, err := os.Stat(s.File)
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("it has %d bytes; at most %d make sense", info.Size(), maxFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(s.File)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.unreadable("there is no such file; make one with `ringside config example > ringside.yaml`, " +
			"or name yours with --config")
	case err != nil:
		return nil, s.unreadable(err.Error())
	}
	return text, nil
}

func (s Source) unreadable(why string) error {
	return &ConfigError{Problems: []Problem{{Where: s.File, Message: why}}}
}

func (s Source) parse(text []byte) (Config, error) {
	s.text = text
	c := Config{source: &s}
	d := newDecoder(s.File, text, s.Getenv)
	d.decode(&c)
	o := overrides{from: map[string]string{}}
	o.environment(&c, s.Getenv)
	o.set(&c, s.Set)
	c.places = &places{d, o.from}
	k := checker{config: c}
	k.problems = append(d.problems, o.problems...)
	if len(k.problems) == 0 {
		k.check()
	}
	if len(k.problems) > 0 {
		return Config{}, &ConfigError{Problems: k.problems}
	}
	return c, nil
}

// Check returns a *ConfigError with all that is wrong with c, which was made in Go.
func (c Config) Check() error {
	k := checker{config: c}
	k.check()
	if len(k.problems) > 0 {
		return &ConfigError{Problems: k.problems}
	}
	return nil
}

// overrides sets fields from outside of the file.
type overrides struct {
	from     map[string]string // :: path → the variable or flag that set it
	problems []Problem
}

// environment sets each leaf of c that has a variable.
func (o *overrides) environment(c *Config, getenv func(string) (string, bool)) {
	for path := range leaves(*c) {
		name := variable(path)
		if value, ok := getenv(name); ok {
			o.apply(c, path, value, name)
		}
	}
}

// variable is the environment variable that stands for path: RINGSIDE_DATASETS_CNF_METRICS_TTL for
// datasets.cnf-metrics.ttl.
func variable(path string) string {
	return "RINGSIDE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

func (o *overrides) set(c *Config, assignments []string) {
	for _, assignment := range assignments {
		path, value, ok := strings.Cut(assignment, "=")
		if !ok {
			o.problems = append(o.problems, Problem{Where: "--set", Message: "want path=value, such as listen.http=127.0.0.1:0"})
			continue
		}
		o.apply(c, path, value, "--set "+path)
	}
}

func (o *overrides) apply(c *Config, path, value, from string) {
	o.from[path] = from
	if err := setField(c, path, value); err != nil {
		o.problems = append(o.problems, Problem{Where: from, Field: path, Message: err.Error()})
	}
}
