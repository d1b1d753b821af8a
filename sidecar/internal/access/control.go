package access

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/audit"
)

// Config is the rules of all datasets.
type Config struct {
	Tokens   map[string]string  // :: name → file
	Datasets map[string]Dataset // :: name → its rules and limits
}

// Dataset is the rules and the limits of one dataset.
type Dataset struct {
	Rules  Rules
	Limits Limits
}

// Control has the Gates of all datasets of a sidecar, and the tokens.
type Control struct {
	tokens Tokens
	log    *audit.Log
	gates  atomic.Pointer[map[string]*Gate] // :: dataset → its Gate; the map is not modified
}

// New returns a Control that writes to an audit log, which may be nil. The error names what is wrong with the rules and the files; with an error there is no Control.
func New(c Config, log *audit.Log) (*Control, error) {
	control := &Control{log: log}
	control.gates.Store(&map[string]*Gate{})
	if err := control.Apply(c); err != nil {
		return nil, err
	}
	return control, nil
}

// Apply changes the rules, the limits and the files of the tokens, or nothing if there is something wrong. A dataset keeps its
// Gate. It must not be called concurrently.
func (c *Control) Apply(next Config) error {
	rules := make(map[string]*compiled, len(next.Datasets))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(next.Datasets)) {
		r, err := compile(next.Datasets[name].Rules)
		if err != nil {
			errs = append(errs, fmt.Errorf("dataset %s: %w", name, err))
		}
		rules[name] = r
	}
	for _, name := range slices.Sorted(maps.Keys(next.Tokens)) {
		if err := CheckTokenFile(next.Tokens[name]); err != nil {
			errs = append(errs, fmt.Errorf("token %s: %w", name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	_ = c.tokens.SetFiles(next.Tokens) // checked above; a file that has vanished since is found at the next reload
	held, gates := *c.gates.Load(), make(map[string]*Gate, len(rules))
	for name, r := range rules {
		gate := held[name]
		if gate == nil {
			gate = &Gate{dataset: name, tokens: &c.tokens, log: c.log}
		}
		gate.rules.Store(r)
		gate.limits.set(next.Datasets[name].Limits)
		gates[name] = gate
	}
	c.gates.Store(&gates)
	return nil
}

// Gate returns the Gate of a dataset. A nil Control has Gates that allow everything.
func (c *Control) Gate(dataset string) *Gate {
	if c == nil {
		return nil
	}
	return (*c.gates.Load())[dataset]
}

// ReloadTokens reads the files of the tokens again; see Tokens.Reload.
func (c *Control) ReloadTokens() error { return c.tokens.Reload() }
