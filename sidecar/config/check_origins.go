package config

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

func (k *checker) origins() {
	for _, n := range slices.Sorted(maps.Keys(k.config.Origins)) {
		path, o := "origins."+n, k.config.Origins[n]
		k.name(path, n)
		k.driver(path+".driver", o.Driver)
		k.dsn(path, o)
		k.credentials(path, o)
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

// credentials checks the files of a service. Those of a database are in its DSN.
func (k *checker) credentials(path string, o Origin) {
	k.files(path+".tls", o.TLS)
	for field, file := range map[string]string{"token_file": o.TokenFile, "password_file": o.PasswordFile} {
		if _, err := decode.ReadSecret(file, "secret"); file != "" && err != nil {
			k.problem(path+"."+field, "%v", err)
		}
	}
	if k.drivers.Lookup(o.Driver) != nil && k.drivers.ValuesField(o.Driver) == "" && o.auth() != (origin.Auth{}) {
		k.problem(path, "username, password_file, token_file and tls belong to services such as driver: http or etcd; the dsn of a database has its own")
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
		err := origin.Check(source, d.Rows(n), d.Writable, feed)
		if err == nil && d.Warm.Configured() {
			_, err = origin.KeyListable(source)
		}
		if err != nil {
			k.problem("datasets."+n, "%v", err)
		}
	}
}
