package config

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

func (k *checker) origins() {
	for _, n := range slices.Sorted(maps.Keys(k.config.Origins)) {
		path, o := "origins."+n, k.config.Origins[n]
		k.name(path, n)
		k.driver(path+".driver", o.Driver)
		k.dsn(path, o)
		if o.Breaker.cooldown() == 0 {
			k.problem(path+".breaker.cooldown", "must be more than 0s")
		}
	}
}

// driver omits the value from its message, because it may be a connection string in the wrong field.
func (k *checker) driver(path, driver string) {
	missing := ""
	if driver == "" {
		missing = "is missing; "
	}
	if names := k.drivers.Names(); !slices.Contains(names, driver) {
		k.problem(path, "%swant one of %s", missing, strings.Join(names, ", ")) //guard:connection-string-in-driver-is-printed
	}
}

func (k *checker) dsn(path string, o Origin) {
	if (o.DSN.Reveal() == "") == (o.DSNFile == "") {
		k.problem(path, "set either dsn_file, a file that contains the connection string, or dsn")
		return
	}
	if _, err := o.currentDSN(); err != nil {
		k.problem(path+".dsn_file", "%v", err)
	}
}

// statements lets the drivers check connection strings and queries; none of them connects. It skips a configuration with
// other faults, which the drivers would report a second time.
func (k *checker) statements() {
	if len(k.problems) > 0 {
		return
	}
	for _, n := range slices.Sorted(maps.Keys(k.config.Origins)) {
		source, err := k.config.Origins[n].Open(n, k.drivers, nil, func(context.Context) string { return "" })
		if err != nil {
			k.problem("origins."+n, "%v", err)
			continue
		}
		k.statementsOf(n, source)
		_ = source.Close() // it has no connection
	}
}

func (k *checker) statementsOf(name string, source origin.Source) {
	for _, n := range slices.Sorted(maps.Keys(k.config.Datasets)) {
		d := k.config.Datasets[n]
		if d.Origin != name {
			continue
		}
		var feed *origin.FeedConfig
		if d.Feed.Configured() {
			feed = new(d.Feed.Config())
		}
		if err := origin.Check(source, d.Rows(n), d.Writable, feed); err != nil {
			k.problem("datasets."+n, "%v", err)
		}
	}
}
