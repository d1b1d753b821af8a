package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/peer/identity"
)

// fetchOverhead is the maximum that a peer fetch takes in addition to the owner's load.
const fetchOverhead = 500 * time.Millisecond

// FetchTimeout bounds one peer fetch. It leaves the owner the time of its longest load or write.
func (c Config) FetchTimeout() time.Duration {
	longest := 5 * time.Second
	for _, d := range c.Datasets {
		longest = max(longest, d.Policy().LoadTimeout+fetchOverhead)
		if d.Writable {
			longest = max(longest, d.Policy().WriteTimeout+fetchOverhead) //guard:peer-fetches-end-before-writes
		}
	}
	return longest
}

// RequestTimeout bounds one request of an application: time for the owner of a key and, if the owner is unreachable, for
// its successor to write. Loads are not repeated.
func (c Config) RequestTimeout() time.Duration {
	for _, d := range c.Datasets {
		if d.Writable {
			return 2 * c.FetchTimeout()
		}
	}
	return c.FetchTimeout()
}

// SubscriptionIdle is how long this member stays subscribed to the invalidations of a member after its last fetch from it:
// the maximum lifetime of local copies.
func (c Config) SubscriptionIdle() time.Duration {
	longest := 30 * time.Second
	for _, d := range c.Datasets {
		longest = max(longest, d.Policy().LocalTTL)
	}
	return longest
}

// Access returns who may do what, in the form that package access takes.
func (c Config) Access() access.Config {
	a := access.Config{Tokens: make(map[string]string, len(c.Tokens)), Datasets: make(map[string]access.Dataset, len(c.Datasets))}
	for name, t := range c.Tokens {
		a.Tokens[name] = t.File
	}
	for name, d := range c.Datasets {
		a.Datasets[name] = access.Dataset{Rules: access.Rules(d.Allow), Limits: access.Limits(d.Limits)}
	}
	return a
}

// WithFeed returns the names of the datasets that have a change feed, sorted.
func (c Config) WithFeed() []string {
	without := func(name string) bool { return !c.Datasets[name].Feed.Configured() }
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Datasets)), without)
}

// Config returns the feed in the form that an origin takes.
func (f ChangeFeed) Config() origin.FeedConfig {
	return origin.FeedConfig{Kind: f.Kind, Channel: f.Channel, Table: f.table(), Interval: f.interval(), Keep: f.keep(), KeepRows: f.keepRows()}
}

// Rows returns the dataset in the form that an origin takes: which of its rows are the values.
func (d Dataset) Rows(name string) origin.Dataset {
	return origin.Dataset{
		Name: name, Table: d.Table, Key: d.Key, Columns: d.Columns, Query: d.Query, Batch: d.Batch, Version: d.Version,
		Value: d.Value, IntegerTimes: d.IntegerTimes,
	}
}

// MemoryOf divides total among the datasets: each gets its memory_share, and those without one share the rest equally.
func (c Config) MemoryOf(total int64) map[string]int64 {
	rest, others := 1.0, 0
	for _, d := range c.Datasets {
		if d.MemoryShare == nil {
			others++
		} else {
			rest -= float64(*d.MemoryShare)
		}
	}
	parts := make(map[string]int64, len(c.Datasets))
	for name, d := range c.Datasets {
		share := float64(orDefault(d.MemoryShare, Share(rest/float64(max(1, others)))))
		parts[name] = int64(share * float64(total))
	}
	return parts
}

// Open opens the origin without connecting to it. Errors do not name it.
func (o Origin) Open(name string, drivers origin.Drivers) (origin.Source, error) {
	dsn, err := o.currentDSN()
	if err != nil {
		return nil, fmt.Errorf("dsn_file: %w", err)
	}
	c := origin.SourceConfig{Name: name, DSN: dsn.Reveal(), MaxConns: o.maxConns()}
	if o.DSNFile != "" {
		c.ReloadDSN = func() (string, error) {
			dsn, err := o.currentDSN()
			return dsn.Reveal(), err
		}
	}
	return drivers.Open(o.Driver, c)
}

// ClearText returns what to change in the connection string so that its password is sent with TLS; "" if there is nothing to
// change, or the drivers are not known.
func (o Origin) ClearText(drivers origin.Drivers) string {
	dsn, err := o.currentDSN()
	if err != nil {
		return "" // Open reports it
	}
	return drivers.ClearText(o.Driver, dsn.Reveal(), address.IsLoopback)
}

// currentDSN returns the connection string, from its file if it has one.
func (o Origin) currentDSN() (Secret, error) {
	if o.DSNFile == "" {
		return o.DSN, nil
	}
	text, err := decode.ReadSecret(o.DSNFile, "connection string")
	switch {
	case errors.Is(err, decode.ErrNoPath):
		return Secret{}, fmt.Errorf("%w, or use dsn", err)
	case err != nil:
		return Secret{}, err
	}
	dsn := strings.TrimSpace(text)
	if dsn == "" {
		return Secret{}, fmt.Errorf("%s is empty; want one line that contains the connection string", o.DSNFile)
	}
	return decode.NewSecret(dsn), nil
}

// cluster reports whether other hosts are expected to send requests to this sidecar, or this one to them.
func (c Config) cluster() bool { return !c.Membership.Alone() || c.peerListen() != off }

// On reports whether connections between members, and of clients that route by the ring, use mutual TLS.
func (t PeerTLS) On() bool { return t != (PeerTLS{}) && !t.Insecure }

// Scheme says which SPIFFE ids are those of members and clients.
func (c Config) Scheme() (*identity.Scheme, error) {
	t := c.PeerTLS
	return identity.New(identity.Config{
		TrustDomain: t.TrustDomain, Cluster: c.clusterID(), MemberPath: t.MemberPath, ClientPath: t.ClientPath,
	})
}

func (c Config) clusterID() string {
	return or(c.PeerTLS.Cluster, identity.Cluster(c.Membership.Etcd.prefix()))
}

// Address is where a listener listens.
type Address struct {
	// Name is that of its field: http for listen.http.
	Name string
	// Addr is host:port; for the name unix, a path.
	Addr string
}

// Listeners returns the listeners that are on.
func (c Config) Listeners() []Address {
	l := c.Listen
	all := []Address{
		{"http", l.http()}, {"grpc", l.grpc()}, {"unix", l.unix()}, {"peer", c.peerListen()},
		{"metrics", l.metrics()}, {"xds", l.xds()}, {"admin", l.admin()},
	}
	return slices.DeleteFunc(all, func(a Address) bool { return a.Addr == off })
}
