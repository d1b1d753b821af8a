package sidecar

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Config is everything that a sidecar can be told. Its zero value works: a sidecar without datasets that is alone.
// The yaml tag of a field is its name in the file, in RINGSIDE_… variables and in error messages; example.yaml shows
// and explains each one. A nil pointer, a zero number and an empty string mean the default.
type Config struct {
	Node       Node                     `yaml:"node"`
	Listen     Listen                   `yaml:"listen"`
	PeerTLS    PeerTLS                  `yaml:"peer_tls"`
	Memory     Size                     `yaml:"memory"`
	Membership Membership               `yaml:"membership"`
	Ring       Ring                     `yaml:"ring"`
	Origins    map[string]OriginConfig  `yaml:"origins"`  // :: name → how to reach it
	Datasets   map[string]DatasetConfig `yaml:"datasets"` // :: name → what to load and for how long
	// CNFMetrics names the dataset that the typed service of CNF metrics reads and writes; empty: it is not served.
	CNFMetrics string   `yaml:"cnf_metrics"`
	Hosts      []string `yaml:"hosts"`
	Log        Log      `yaml:"log"`
	// Pprof serves Go's profiles on the admin listener.
	Pprof bool `yaml:"pprof"`
	// DrainTimeout bounds how long a leaving sidecar still serves its peers, and after that its applications.
	DrainTimeout *time.Duration `yaml:"drain_timeout"`

	// source is where the configuration came from, so that Run can follow it; nil when it was made in Go.
	source *Source
	places *places // of its fields; nil when it was made in Go
}

// Node says who this member is.
type Node struct {
	// ID is unique among the members; by default the host name.
	ID string `yaml:"id"`
	// Advertise is the ip:port at which the other members reach the peer listener. Port 0 means the bound one.
	Advertise string `yaml:"advertise"`
	// Zone is carried in the member's record for operators; it does not change the ring.
	Zone string `yaml:"zone"`
}

// Listen has the address of each listener: host:port, or "off". Port 0 picks a free port.
type Listen struct {
	HTTP    string `yaml:"http"`
	GRPC    string `yaml:"grpc"`
	Unix    string `yaml:"unix"` // a path
	Peer    string `yaml:"peer"`
	Metrics string `yaml:"metrics"`
	XDS     string `yaml:"xds"`
	Admin   string `yaml:"admin"`
}

// PeerTLS is how members prove to each other who they are.
type PeerTLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
	// Name is the DNS name that the certificate of every member carries.
	Name string `yaml:"name"`
}

func (t PeerTLS) files() TLS { return TLS{CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile} }

// TLS names PEM files. They are read again when they change.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

func (t TLS) zero() bool { return t == TLS{} }

// Membership says how members find each other: by etcd, by a list, by the feeds of members, or, when all are empty, not
// at all.
type Membership struct {
	Etcd   Etcd     `yaml:"etcd"`
	Static []string `yaml:"static"` // advertised ip:port of each member; this one may be among them
	XDS    []string `yaml:"xds"`    // host:port of feeds; this sidecar is then an edge
}

func (m Membership) alone() bool { return m.kind() == "none" }

// edge reports whether this sidecar follows the ring without being on it: it owns nothing, and nobody asks it.
func (m Membership) edge() bool { return m.kind() == "xds" }

// Etcd is the directory of members.
type Etcd struct {
	Endpoints    []string       `yaml:"endpoints"` // URLs
	Prefix       string         `yaml:"prefix"`
	LegacyPrefix string         `yaml:"legacy_prefix"` // where clients of groupcachepb look; empty: nowhere
	LeaseTTL     *time.Duration `yaml:"lease_ttl"`     // whole seconds
	Username     string         `yaml:"username"`
	PasswordFile string         `yaml:"password_file"`
	TLS          TLS            `yaml:"tls"`
}

// Ring bounds the number of virtual nodes. All members, and the proxies that route by the ring, must agree on it.
type Ring struct {
	Min int `yaml:"min"`
	Max int `yaml:"max"`
}

// OriginConfig is one database and what may be asked of it at once.
type OriginConfig struct {
	Driver  string `yaml:"driver"` // a kind of origin; package drivers lists them
	DSN     Secret `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`
	// MaxConns bounds the connections.
	MaxConns int `yaml:"max_conns"`
	// MaxInFlight bounds the statements under way; Queue those that wait for their turn.
	MaxInFlight int     `yaml:"max_in_flight"`
	Queue       int     `yaml:"queue"`
	Batch       Batch   `yaml:"batch"`
	Breaker     Breaker `yaml:"breaker"`
}

// Batch says how misses of one dataset become one query.
type Batch struct {
	MaxKeys int            `yaml:"max_keys"`
	MaxWait *time.Duration `yaml:"max_wait"`
}

// Breaker says when an origin that fails is left alone, and for how long.
type Breaker struct {
	Failures int            `yaml:"failures"`
	Cooldown *time.Duration `yaml:"cooldown"`
}

// DatasetConfig is one dataset: a table or a query of an origin, and a policy.
type DatasetConfig struct {
	Origin string `yaml:"origin"`

	Table   string   `yaml:"table"`
	Key     string   `yaml:"key"`
	Version string   `yaml:"version"`
	Value   string   `yaml:"value"`
	Columns []string `yaml:"columns"`

	Query string `yaml:"query"`
	Batch string `yaml:"batch"`

	// Writable lets applications change the rows of the table.
	Writable bool       `yaml:"writable"`
	Feed     ChangeFeed `yaml:"feed"`

	TTL                  *time.Duration `yaml:"ttl"`
	TTLJitter            *Share         `yaml:"ttl_jitter"`
	NegativeTTL          *time.Duration `yaml:"negative_ttl"`
	StaleWhileRevalidate *time.Duration `yaml:"stale_while_revalidate"`
	StaleIfError         *time.Duration `yaml:"stale_if_error"`
	LocalTTL             *time.Duration `yaml:"local_ttl"`
	LoadTimeout          *time.Duration `yaml:"load_timeout"`
	WriteTimeout         *time.Duration `yaml:"write_timeout"`
	GapTTL               *time.Duration `yaml:"gap_ttl"`

	Eviction    string `yaml:"eviction"` // lru or slru
	MemoryShare *Share `yaml:"memory_share"`
}

// ChangeFeed says how changes are heard of that go around the cache. The zero value: not at all.
type ChangeFeed struct {
	Kind     string         `yaml:"kind"`     // notify or poll
	Channel  string         `yaml:"channel"`  // of notify
	Table    string         `yaml:"table"`    // of poll
	Interval *time.Duration `yaml:"interval"` // of poll
}

// The kinds of change feeds.
const (
	feedNotify = "notify"
	feedPoll   = "poll"
)

// Log says how log lines look and which are written.
type Log struct {
	Format string `yaml:"format"` // json or console
	Level  string `yaml:"level"`  // debug, info, warn or error
}

// or returns value, or fallback where value is not set.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// orDefault returns what value points to, or fallback where it is nil. Zero is a value here.
func orDefault[T any](value *T, fallback T) T {
	if value == nil {
		return fallback
	}
	return *value
}

const off = "off"

func (l Listen) http() string    { return or(l.HTTP, "127.0.0.1:7070") }
func (l Listen) grpc() string    { return or(l.GRPC, "127.0.0.1:7071") }
func (l Listen) unix() string    { return or(l.Unix, off) }
func (l Listen) metrics() string { return or(l.Metrics, "0.0.0.0:7073") }
func (l Listen) xds() string     { return or(l.XDS, off) }
func (l Listen) admin() string   { return or(l.Admin, "127.0.0.1:7075") }

// peerListen is off by default for a sidecar that is alone or an edge: nobody would call, and what need not be open is
// closed.
func (c Config) peerListen() string {
	if c.Membership.alone() || c.Membership.edge() {
		return or(c.Listen.Peer, off)
	}
	return or(c.Listen.Peer, "0.0.0.0:7072")
}

func (e Etcd) prefix() string          { return or(e.Prefix, "/ringside/default") }
func (e Etcd) leaseTTL() time.Duration { return orDefault(e.LeaseTTL, 5*time.Second) }

func (r Ring) min() int { return or(r.Min, 1024) }
func (r Ring) max() int { return or(r.Max, 4096) }

func (r Ring) size() ring.Size { return ring.Size{Min: uint64(r.min()), Max: uint64(r.max())} }

func (o OriginConfig) maxConns() int    { return or(o.MaxConns, origin.DefaultMaxConns) }
func (o OriginConfig) maxInFlight() int { return or(o.MaxInFlight, o.maxConns()) }
func (o OriginConfig) queue() int       { return or(o.Queue, guard.DefaultMaxQueue) }

func (b Batch) maxKeys() int           { return or(b.MaxKeys, guard.DefaultMaxKeys) }
func (b Batch) maxWait() time.Duration { return orDefault(b.MaxWait, guard.DefaultMaxWait) }

func (b Breaker) failures() int           { return or(b.Failures, guard.DefaultFailures) }
func (b Breaker) cooldown() time.Duration { return orDefault(b.Cooldown, guard.DefaultCooldown) }

func (d DatasetConfig) eviction() string { return or(d.Eviction, "lru") }

func (f ChangeFeed) configured() bool { return f != ChangeFeed{} }
func (f ChangeFeed) channel() string  { return or(f.Channel, origin.DefaultFeedChannel) }
func (f ChangeFeed) table() string    { return or(f.Table, origin.DefaultFeedTable) }
func (f ChangeFeed) interval() time.Duration {
	return orDefault(f.Interval, origin.DefaultFeedInterval)
}

func (l Log) format() string { return or(l.Format, "json") }
func (l Log) level() string  { return or(l.Level, "info") }

func (c Config) drainTimeout() time.Duration { return orDefault(c.DrainTimeout, 10*time.Second) }

// defaultGapTTL is for datasets with a change feed.
const defaultGapTTL = time.Second

// policy is the default policy with what the dataset says in its place.
func (d DatasetConfig) policy() cache.Policy {
	p := cache.DefaultPolicy()
	p.TTL = orDefault(d.TTL, p.TTL)
	p.TTLJitter = float64(orDefault(d.TTLJitter, Share(p.TTLJitter)))
	p.NegativeTTL = orDefault(d.NegativeTTL, p.NegativeTTL)
	p.StaleWhileRevalidate = orDefault(d.StaleWhileRevalidate, p.StaleWhileRevalidate)
	p.StaleIfError = orDefault(d.StaleIfError, p.StaleIfError)
	p.LocalTTL = orDefault(d.LocalTTL, min(p.TTL, p.LocalTTL))
	p.LoadTimeout = orDefault(d.LoadTimeout, p.LoadTimeout)
	p.WriteTimeout = orDefault(d.WriteTimeout, p.WriteTimeout)
	if d.Feed.configured() {
		p.GapTTL = orDefault(d.GapTTL, min(p.TTL, defaultGapTTL))
	}
	return p
}

// Effective returns c with every default written out, but for those that only a running sidecar knows.
func (c Config) Effective() Config {
	c.Listen = Listen{
		HTTP: c.Listen.http(), GRPC: c.Listen.grpc(), Unix: c.Listen.unix(), Peer: c.peerListen(),
		Metrics: c.Listen.metrics(), XDS: c.Listen.xds(), Admin: c.Listen.admin(),
	}
	c.Membership.Etcd = c.Membership.Etcd.effective()
	c.Ring = Ring{Min: c.Ring.min(), Max: c.Ring.max()}
	c.Origins, c.Datasets = maps.Clone(c.Origins), maps.Clone(c.Datasets)
	for name, o := range c.Origins {
		c.Origins[name] = o.effective()
	}
	for name, d := range c.Datasets {
		c.Datasets[name] = d.effective()
	}
	c.Log = Log{Format: c.Log.format(), Level: c.Log.level()}
	c.DrainTimeout = new(c.drainTimeout())
	return c
}

func (e Etcd) effective() Etcd {
	if len(e.Endpoints) > 0 {
		e.Prefix, e.LeaseTTL = e.prefix(), new(e.leaseTTL())
	}
	return e
}

func (o OriginConfig) effective() OriginConfig {
	o.MaxConns, o.MaxInFlight, o.Queue = o.maxConns(), o.maxInFlight(), o.queue()
	o.Batch = Batch{MaxKeys: o.Batch.maxKeys(), MaxWait: new(o.Batch.maxWait())}
	o.Breaker = Breaker{Failures: o.Breaker.failures(), Cooldown: new(o.Breaker.cooldown())}
	return o
}

func (d DatasetConfig) effective() DatasetConfig {
	p := d.policy()
	d.TTL, d.TTLJitter, d.NegativeTTL = new(p.TTL), new(Share(p.TTLJitter)), new(p.NegativeTTL)
	d.StaleWhileRevalidate, d.StaleIfError = new(p.StaleWhileRevalidate), new(p.StaleIfError)
	d.LocalTTL, d.LoadTimeout, d.Eviction = new(p.LocalTTL), new(p.LoadTimeout), d.eviction()
	if d.Writable {
		d.WriteTimeout = new(p.WriteTimeout)
	}
	if d.Feed.configured() {
		d.Feed, d.GapTTL = d.Feed.effective(), new(p.GapTTL)
	}
	return d
}

func (f ChangeFeed) effective() ChangeFeed {
	if f.Kind == feedNotify {
		f.Channel = f.channel()
		return f
	}
	f.Table, f.Interval = f.table(), new(f.interval())
	return f
}

// Print returns c as YAML, or as JSON; secrets are hidden.
func (c Config) Print(asJSON bool) ([]byte, error) {
	// A list that is not set is null, or it would be refused where it is read again.
	options := []yaml.EncodeOption{yaml.CustomMarshaler(func(list []string) ([]byte, error) { return json.Marshal(list) })}
	if asJSON {
		options = append(options, yaml.JSON())
	}
	text, err := yaml.MarshalWithOptions(c, options...)
	if err != nil {
		return nil, fmt.Errorf("print the configuration: %w", err)
	}
	return text, nil
}
