// Package config is the configuration of a sidecar: what it can contain, its defaults, its faults, and its example.
package config

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

// Config is everything that a sidecar can be told. Its zero value works: a sidecar without datasets that is alone.
// The yaml tag of a field is its name in the file, in RINGSIDE_… variables and in error messages; example.yaml shows
// and explains each one. A nil pointer, a zero number and an empty string mean the default.
type Config struct {
	Node       Node               `yaml:"node"`
	Listen     Listen             `yaml:"listen"`
	PeerTLS    PeerTLS            `yaml:"peer_tls"`
	Memory     Size               `yaml:"memory"`
	Membership Membership         `yaml:"membership"`
	Ring       Ring               `yaml:"ring"`
	Origins    map[string]Origin  `yaml:"origins"`  // :: name → how to reach it
	Datasets   map[string]Dataset `yaml:"datasets"` // :: name → what to load and for how long
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
	places *decode.Places // of its fields; nil when it was made in Go
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

func (m Membership) Kind() string {
	switch {
	case len(m.Static) > 0:
		return "static"
	case len(m.Etcd.Endpoints) > 0:
		return "etcd"
	case len(m.XDS) > 0:
		return "xds"
	}
	return "none"
}

func (m Membership) Alone() bool { return m.Kind() == "none" }

// edge reports whether this sidecar follows the ring without being on it: it owns nothing, and nobody asks it.
func (m Membership) Client() bool { return m.Kind() == "xds" }

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

func (e Etcd) Configured() bool {
	return len(e.Endpoints) > 0 || e.Prefix != "" || e.LegacyPrefix != "" || e.LeaseTTL != nil || e.Username != "" ||
		e.PasswordFile != "" || !e.TLS.zero()
}

// Ring bounds the number of virtual nodes. All members, and the proxies that route by the ring, must agree on it.
type Ring struct {
	Min int `yaml:"min"`
	Max int `yaml:"max"`
}

// Origin is one database and what may be asked of it at once.
type Origin struct {
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

// Dataset is one dataset: a table or a query of an origin, and a policy.
type Dataset struct {
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
