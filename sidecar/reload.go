package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

// pollInterval is how often the file is looked at. Reading it is simpler than being told: a ConfigMap changes by the
// switch of a symbolic link two levels up, which watchers of files miss.
const pollInterval = 2 * time.Second

// reloads counts attempts to take over a changed configuration.
type reloads struct {
	ok, failed atomic.Int64
	lastFailed atomic.Bool
}

func (r *reloads) snapshot() metrics.Reloads {
	return metrics.Reloads{OK: r.ok.Load(), Failed: r.failed.Load(), LastFailed: r.lastFailed.Load()}
}

// followConfig reloads when the file changes and on SIGHUP. A configuration that was made in Go has nothing to follow.
func (p *process) followConfig(ctx context.Context) error {
	source := p.config.source
	if source == nil {
		return done(ctx)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for seen := source.text; ; {
		asked := false
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			asked = true
		case <-ticker.C:
		}
		text, err := source.read()
		if !asked && (err != nil || bytes.Equal(text, seen)) {
			continue // a file that is missing for a moment is being replaced
		}
		seen = text
		p.reload(func() (Config, error) {
			if err != nil {
				return Config{}, err
			}
			return source.parse(text)
		})
	}
}

// reload takes over what load returns, or keeps everything as it is and says why. p.config stays as it was at the
// start: what differs is in the datasets' policies.
func (p *process) reload(load func() (Config, error)) {
	next, err := load()
	if err == nil {
		err = errors.Join(p.config.changeable(next), p.moved()) //guard:reload-well-although-database-moved
	}
	if err != nil {
		p.reloads.failed.Add(1)
		p.reloads.lastFailed.Store(true)
		p.log.Error("the changed configuration is refused; the old one stays in use", zap.Error(err))
		return
	}
	for _, d := range p.datasets {
		d.SetPolicy(next.Datasets[d.Name()].policy())
	}
	p.reloads.ok.Add(1)
	p.reloads.lastFailed.Store(false)
	p.log.Info("the configuration is reloaded")
}

// moved names the files that have become those of another database. A new password in them needs no reload.
func (p *process) moved() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.origins)) {
		source, ok := p.origins[name].source.(origin.ReloadableSource)
		if ok && source.TargetChanged() {
			errs = append(errs, fmt.Errorf("origins.%s.dsn_file: its content is of another database: restart to use it", name))
		}
	}
	return errors.Join(errs...)
}

// live are the fields of a dataset that a running sidecar takes over.
var live = []string{
	"ttl", "ttl_jitter", "negative_ttl", "stale_while_revalidate", "stale_if_error", "local_ttl", "load_timeout",
	"write_timeout", "gap_ttl",
}

// changeable returns an error that names what differs in next and needs a restart.
func (c Config) changeable(next Config) error {
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
	// A hop that ended before the owner's load would send each read to the successor, for a load of its own, and one that
	// ended before the owner's write would leave its outcome unknown.
	if most := c.attemptTimeout(); next.attemptTimeout() > most { //guard:longer-loadtimeout-doubles-loads
		changed = append(changed, fmt.Sprintf("load_timeout or write_timeout of more than %v", most-wayTime))
	}
	if len(changed) == 0 {
		return nil
	}
	slices.Sort(changed)
	return fmt.Errorf("%w: %s", errRestart, strings.Join(changed, ", "))
}

var errRestart = errors.New("these fields take effect only after a restart; undo their change, or restart")

// fixed returns what a running sidecar cannot change: path → value.
func fixed(c Config) map[string]string {
	values := map[string]string{}
	for path, v := range leaves(c) {
		field := path[strings.LastIndex(path, ".")+1:]
		if strings.HasPrefix(path, "datasets.") && slices.Contains(live, field) {
			continue
		}
		values[path] = plain(v)
	}
	return values
}

// plain is for comparison only, never for print: it has secrets.
func plain(v reflect.Value) string {
	if s, ok := v.Interface().(Secret); ok {
		return s.Reveal()
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return fmt.Sprintf("%#v", v.Interface())
}
