// Package restart says which changes of a configuration take effect only after a restart.
package restart

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

// Needed returns an error that names the fields of next that differ from running and take effect only after a restart.
func Needed(running, next config.Config) error {
	before, after := fixed(running), fixed(next)
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
	if most := running.FetchTimeout(); next.FetchTimeout() > most { //guard:longer-load-timeout-doubles-loads
		changed = append(changed, fmt.Sprintf("load_timeout or write_timeout of more than %v", most-config.FetchOverhead))
	}
	// A member that ends a subscription earlier would answer from copies whose invalidations it does not get.
	if most := running.SubscriptionIdle(); next.SubscriptionIdle() > most { //guard:longer-local-ttl-outlives-subscriptions
		field := "local_ttl"
		if next.Membership.Zones {
			field = "local_ttl, ttl or negative_ttl"
		}
		changed = append(changed, fmt.Sprintf("%s of more than %v", field, most))
	}
	if len(changed) == 0 {
		return nil
	}
	slices.Sort(changed)
	return fmt.Errorf("%w: %s", errRestart, strings.Join(changed, ", "))
}

var errRestart = errors.New("these fields take effect only after a restart; restart, or revert them")

// fixed returns the fields that a reload does not change: path → value.
func fixed(c config.Config) map[string]string {
	c.Log.Level = ""
	c.Datasets, c.Origins, c.Tokens = nil, nil, nil //guard:reload-rejects-changed-datasets
	if c.CNFMetrics != "" {
		c.CNFMetrics = "configured" // the service may have another dataset, but not appear or disappear
	}
	values := map[string]string{}
	for path, v := range decode.Leaves(c) {
		values[path] = plain(v)
	}
	return values
}

// plain returns the text of v for comparison only, never for output: it includes secrets.
func plain(v reflect.Value) string {
	if s, ok := v.Interface().(config.Secret); ok {
		return s.Reveal()
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return fmt.Sprintf("%#v", v.Interface())
}
