package config

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
	"github.com/ringside-cache/ringside/sidecar/peer/identity"
)

// FetchOverhead is the maximum time that a peer fetch takes in addition to the owner's load.
const FetchOverhead = 500 * time.Millisecond

// FetchTimeout bounds one peer fetch. It leaves the owner the time of its longest load or write.
func (c Config) FetchTimeout() time.Duration {
	longest := 5 * time.Second
	for _, d := range c.Datasets {
		longest = max(longest, d.Policy().LoadTimeout+FetchOverhead)
		if d.Writable {
			longest = max(longest, d.Policy().WriteTimeout+FetchOverhead) //guard:peer-fetches-end-before-writes
		}
	}
	return longest
}

// RequestTimeout bounds one request of an application: time for the owner of a key and, if the owner is unreachable, for
// its successor to load or write. It is the same without writable datasets: a reload may add one.
func (c Config) RequestTimeout() time.Duration { return 2 * c.FetchTimeout() }

// SubscriptionIdle is how long this member stays subscribed to the invalidations of a member after its last fetch from it:
// for longer than local copies live, so that a member that is read now and then needs one stream.
func (c Config) SubscriptionIdle() time.Duration {
	return max(30*time.Second, c.CopyLife())
}

// CopyLife is the maximum lifetime of local copies. A member that keeps them for its zone keeps them until their ttl ends.
func (c Config) CopyLife() (longest time.Duration) {
	for _, d := range c.Datasets {
		p := d.Policy()
		longest = max(longest, p.LocalTTL)
		if c.Membership.Zones && !c.Membership.Client() { //guard:copies-of-a-zone-outlive-subscriptions
			longest = max(longest, p.TTL, p.NegativeTTL)
		}
	}
	return longest
}

// WithFeed returns the names of the datasets that have a change feed, sorted.
func (c Config) WithFeed() []string {
	without := func(name string) bool { return !c.Datasets[name].Feed.Configured() }
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Datasets)), without)
}

// Config returns the feed in the form that an origin takes.
func (f ChangeFeed) Config() origin.FeedConfig {
	var tables map[string][]string
	if len(f.Tables) > 0 {
		tables = make(map[string][]string, len(f.Tables))
		for name, key := range f.Tables {
			tables[name] = key
		}
	}
	return origin.FeedConfig{
		Tables: tables, Kind: f.Kind, Channel: f.Channel, Table: f.table(), Interval: f.interval(), Keep: f.keep(), KeepRows: f.keepRows(),
		Publication: f.Publication, MaxWAL: int64(f.maxWAL()),
	}
}

// Rows returns the dataset in the form that an origin takes: which of its rows are the values.
func (d Dataset) Rows(name string) origin.Dataset {
	return origin.Dataset{
		Name: name, Table: d.Table, Key: d.Key, Columns: d.Columns, Query: d.Query, Batch: d.Batch, Version: d.Version, Expires: d.Expires,
		HTTP: origin.HTTPValues{
			URL: d.URL, Preset: d.Preset, NotFound: statuses(d.Response.NotFound), Invalid: statuses(d.Response.Invalid),
			IgnoreCacheControl: d.Response.CacheControl == ignore,
		},
		Prefix: d.Prefix,
		Value:  d.Value, IntegerTimes: d.IntegerTimes, Many: d.Many(), Order: d.Order, MaxRows: d.MaxRows,
	}
}

// statuses returns the status codes of a list; nil for the default. The checks have rejected what is none.
func statuses(list []string) (codes []int) {
	for _, text := range list {
		code, _ := strconv.Atoi(text)
		codes = append(codes, code)
	}
	return codes
}

// Many reports whether a key may have many rows.
func (d Dataset) Many() bool { return d.RowsOfKey == rowsMany }

// JSON reports whether the values are rows as JSON.
func (d Dataset) JSON() bool { return !d.ofService() && (d.Value == "" || d.Many()) }

// Open opens the origin without connecting to it. Errors do not name it.
func (o Origin) Open(name string, drivers origin.Drivers, defect func(error), comment func(context.Context) string) (
	origin.Source, error) {
	dsn, err := o.currentDSN()
	if err != nil {
		return nil, fmt.Errorf("dsn_file: %w", err)
	}
	c := origin.SourceConfig{Name: name, DSN: dsn.Reveal(), Auth: o.auth(), MaxConns: o.maxConns(), Defect: defect}
	if o.TraceComments {
		c.Comment = comment
	}
	if o.DSNFile != "" {
		c.ReloadDSN = func() (string, error) {
			dsn, err := o.currentDSN()
			return dsn.Reveal(), err
		}
	}
	return drivers.Open(o.Driver, c)
}

func (o Origin) auth() origin.Auth {
	return origin.Auth{
		Username: o.Username, PasswordFile: o.PasswordFile, TokenFile: o.TokenFile,
		CertFile: o.TLS.CertFile, KeyFile: o.TLS.KeyFile, CAFile: o.TLS.CAFile,
	}
}

// ClearText returns what to change in the connection string so that the password or token is sent with TLS; "" if there is nothing to
// change, or the drivers are not known.
func (o Origin) ClearText(drivers origin.Drivers) string {
	if drivers.ValuesField(o.Driver) != "" && o.Username == "" && o.TokenFile == "" {
		return "" // there are no credentials
	}
	dsn, err := o.currentDSN()
	if err != nil {
		return "" // Open reports it
	}
	return drivers.ClearText(o.Driver, dsn.Reveal(), address.IsLoopback)
}

// Target returns the driver and the connection string, from its file if it has one. The caller must not print it.
func (o Origin) Target() []string {
	dsn, err := o.currentDSN()
	if err != nil {
		return []string{o.Driver, o.DSNFile, err.Error()}
	}
	return []string{o.Driver, o.DSNFile, dsn.Reveal()}
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
	return or(c.PeerTLS.Cluster, identity.Cluster(c.etcdPrefix()))
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
		{"http", l.http()}, {"grpc", l.grpc()}, {"redis", l.redis()}, {"otlp", l.otlp()}, {"unix", l.unix()}, {"peer", c.peerListen()},
		{"metrics", l.metrics()}, {"xds", l.xds()}, {"admin", l.admin()},
	}
	return slices.DeleteFunc(all, func(a Address) bool { return a.Addr == off })
}
