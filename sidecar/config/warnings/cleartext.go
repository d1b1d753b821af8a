package warnings

import (
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// ofClearText are the warnings about credentials that other hosts on the way may read.
func ofClearText(c config.Config) []string {
	list := append(ofEtcd(c.Membership.Etcd), tokensInClearText(c)...)
	source := c.Source()
	if source == nil {
		return list // the drivers are not known
	}
	for _, name := range slices.Sorted(maps.Keys(c.Origins)) {
		if fix := c.Origins[name].ClearText(source.Drivers); fix != "" {
			list = append(list, fmt.Sprintf("origins.%s: the password of the database may be sent in clear text: %s", name, fix))
		}
	}
	return list
}

func ofEtcd(e config.Etcd) (list []string) {
	for i, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err == nil && u.Scheme == "http" && e.Username != "" && !address.IsLoopback(u.Hostname()) {
			list = append(list, fmt.Sprintf("membership.etcd.endpoints[%d] is %s: the password of etcd is sent in clear text; use https",
				i, endpoint))
		}
	}
	return list
}

// tokensInClearText warns of tokens on listeners that other hosts reach: the listeners for applications have no TLS.
func tokensInClearText(c config.Config) (list []string) {
	if len(c.Tokens) == 0 {
		return nil
	}
	for _, l := range [][2]string{{"http", c.Listen.HTTP}, {"grpc", c.Listen.GRPC}, {"redis", c.Listen.Redis}, {"otlp", c.Listen.OTLP}} {
		if beyondHost(l[1]) {
			list = append(list, fmt.Sprintf("listen.%s is %s, and there are tokens: clients on other hosts send them in clear text; use "+
				"127.0.0.1 or the unix socket", l[0], l[1]))
		}
	}
	return list
}
