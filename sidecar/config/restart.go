package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

// NeedsRestart returns an error that names the fields of next that differ from c and take effect only after a restart.
func (c Config) NeedsRestart(next Config) error {
	before, after := fixed(c), fixed(next)
	var changed []string
	for path := range before {
		if after[path] != before[path] {
			changed = append(changed, path)
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			changed = append(changed, path)
		}
	}
	// A peer fetch that ended before the owner's load would send each read to the successor, which would load as well. One
	// that ended before the owner's write would leave the outcome of the write unknown.
	if most := c.FetchTimeout(); next.FetchTimeout() > most { //guard:longer-load-timeout-doubles-loads
		changed = append(changed, fmt.Sprintf("load_timeout or write_timeout of more than %v", most-fetchOverhead))
	}
	if len(changed) == 0 {
		return nil
	}
	slices.Sort(changed)
	return fmt.Errorf("%w: %s", errRestart, strings.Join(changed, ", "))
}

var errRestart = errors.New("these fields take effect only after a restart; restart, or revert them")

// fixed returns the fields that a reload does not change: path → value.
func fixed(c Config) map[string]string {
	c.Datasets, c.Tokens = maps.Clone(c.Datasets), nil
	for name, d := range c.Datasets {
		d.Times = Times{} //guard:reload-rejects-changed-times
		d.Allow, d.Limits = Allow{}, Limits{}
		c.Datasets[name] = d
	}
	values := map[string]string{}
	for path, v := range decode.Leaves(c) {
		values[path] = plain(v)
	}
	return values
}

// plain returns the text of v for comparison only, never for output: it includes secrets.
func plain(v reflect.Value) string {
	if s, ok := v.Interface().(Secret); ok {
		return s.Reveal()
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return fmt.Sprintf("%#v", v.Interface())
}
