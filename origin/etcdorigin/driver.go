// Package etcdorigin reads values that are in etcd: those of the keys that begin with the prefix of a dataset. It is read only. DESIGN.md
// has the reasons.
package etcdorigin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/authfiles"
)

type driver struct{}

// Driver returns the driver etcd. The DSN is a comma-separated list of the URLs of members, without credentials: http:// or https://.
func Driver() origin.Driver { return driver{} }

// Name implements origin.Driver.
func (driver) Name() string { return "etcd" }

// FeedKinds implements origin.Driver.
func (driver) FeedKinds() []string { return []string{origin.FeedWatch} }

// ValuesField implements origin.ServiceDriver.
func (driver) ValuesField() string { return "prefix" }

// ClearText implements origin.ClearTextDriver.
func (driver) ClearText(dsn string, isLocal func(host string) bool) string {
	endpoints, err := parseEndpoints(dsn)
	if err != nil {
		return ""
	}
	for _, e := range endpoints {
		if e.Scheme == "http" && !isLocal(e.Hostname()) {
			return "use https"
		}
	}
	return ""
}

// Open implements origin.Driver.
func (driver) Open(c origin.SourceConfig) (origin.Source, error) {
	c = c.WithDefaults()
	endpoints, err := parseEndpoints(c.DSN)
	if err == nil {
		err = authfiles.Check(c.Auth)
	}
	switch {
	case err != nil:
		return nil, err
	case c.Auth.TokenFile != "":
		return nil, errors.New("etcd takes no token: use username and password_file, or a client certificate")
	case authfiles.HasTLS(c.Auth) && endpoints[0].Scheme != "https":
		return nil, errors.New("tls has files, and the dsn is not https://: want https")
	}
	s := &source{config: c, turn: rand.N(len(endpoints)), dialing: make(chan struct{}, 1)}
	for _, e := range endpoints {
		s.endpoints = append(s.endpoints, e.String())
	}
	return s, nil
}

// parseEndpoints parses a DSN. Its errors have no part of it.
func parseEndpoints(dsn string) (endpoints []*url.URL, err error) {
	for text := range strings.SplitSeq(dsn, ",") {
		e, err := url.Parse(strings.TrimSpace(text))
		switch {
		case err != nil || e.Hostname() == "" || e.Scheme != "http" && e.Scheme != "https":
			return nil, errors.New("the dsn is no list of members of etcd: want https://host:port or http://host:port, separated by commas")
		case e.User != nil:
			return nil, errors.New("the dsn has a user or a password: use username and password_file")
		case strings.Trim(e.Path, "/") != "" || e.RawQuery != "" || e.ForceQuery || e.Fragment != "":
			return nil, errors.New("the dsn has a path, a query or a fragment: want https://host:port; the beginning of the keys is the prefix " +
				"of a dataset")
		}
		e.Path = ""
		if e.Port() == "" {
			e.Host += ":" + defaultPort
		}
		if endpoints = append(endpoints, e); e.Scheme != endpoints[0].Scheme { //guard:password-in-clear-text-to-one-member
			return nil, errors.New("the dsn has a mix of http:// and https://: want the same for all members")
		}
	}
	if len(endpoints) > maxEndpoints {
		return nil, fmt.Errorf("the dsn has %d members: want at most %d", len(endpoints), maxEndpoints)
	}
	return endpoints, nil
}

const (
	defaultPort = "2379"
	// maxEndpoints limits how often a load is tried. Clusters of etcd have up to 7 members.
	maxEndpoints = 16
)
