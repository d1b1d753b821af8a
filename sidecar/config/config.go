// Package config is the configuration of a sidecar: what it can contain, its defaults, its faults, and its example.
package config

import (
	"reflect"
	"time"

	"github.com/ringside-cache/ringside/sidecar/config/decode"
	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
)

// Config is the configuration of a sidecar. Its zero value works: a sidecar without datasets that is alone. The yaml tag of
// a field is its name in the file, in RINGSIDE_… variables and in error messages; example.yaml shows and explains each
// one. A nil pointer, a zero number and an empty string mean the default.
type Config struct {
	Node    Node    `yaml:"node"`
	Listen  Listen  `yaml:"listen"`
	PeerTLS PeerTLS `yaml:"peer_tls"`
	Memory  Size    `yaml:"memory"`
	// ClientMemory limits what clients and members make the process use beside the entries.
	ClientMemory Size               `yaml:"client_memory"`
	Membership   Membership         `yaml:"membership"`
	Ring         Ring               `yaml:"ring"`
	Origins      map[string]Origin  `yaml:"origins"`  // :: name → how to reach it
	Datasets     map[string]Dataset `yaml:"datasets"` // :: name → what to load and for how long
	// Tokens are what clients may send as Authorization: Bearer; see Allow.
	Tokens map[string]Token `yaml:"tokens"` // :: name → where it is
	Audit  Audit            `yaml:"audit"`
	// CNFMetrics is the dataset of the typed service of CNF metrics; empty disables the service.
	CNFMetrics string   `yaml:"cnf_metrics"`
	Hosts      []string `yaml:"hosts"`
	ExtAuthz   ExtAuthz `yaml:"ext_authz"`
	OTLP       OTLP     `yaml:"otlp"`
	Log        Log      `yaml:"log"`
	// Pprof serves Go's profiles on the admin listener.
	Pprof bool `yaml:"pprof"`
	// DrainTimeout bounds how long a leaving sidecar waits for the last request of other members.
	DrainTimeout *time.Duration `yaml:"drain_timeout"`

	// source is where the configuration came from, for reloads; nil if it was made in Go.
	source *Source
	places *decode.Places // of its fields; nil if it was made in Go
}

// ExtAuthz answers the checks of Envoy's ext_authz over gRPC. The zero value disables it.
type ExtAuthz struct {
	Dataset string `yaml:"dataset"`
	Header  string `yaml:"header"` // of a request, with the key
}

// OTLP says which metrics, received on Listen.OTLP, are rows of datasets.
type OTLP struct {
	Ack    string              `yaml:"ack"`    // committed or accepted
	Memory Size                `yaml:"memory"` // of requests and of points that wait, a part of ClientMemory
	Rows   map[string]OTLPRows `yaml:"rows"`   // :: name → rule
}

// The values of OTLP.Ack: when a client gets its response.
const (
	AckCommitted = "committed" // when its points are in the database
	AckAccepted  = "accepted"  // when they wait to be written
)

// OTLPRows makes points of metrics rows of a dataset. Key and Columns are templates; see package metricrow.
type OTLPRows struct {
	Metrics decode.OneOrMore  `yaml:"metrics"`
	Dataset string            `yaml:"dataset"`
	Key     decode.OneOrMore  `yaml:"key"`
	Columns map[string]string `yaml:"columns"` // :: column → template
}

// Rules returns the rules in the form that metricrow.Compile takes.
func (o OTLP) Rules() map[string]metricrow.Rule {
	rules := make(map[string]metricrow.Rule, len(o.Rows))
	for name, r := range o.Rows {
		rules[name] = metricrow.Rule{Metrics: r.Metrics, Dataset: r.Dataset, Key: r.Key, Columns: r.Columns}
	}
	return rules
}

// Node is the identity of this member.
type Node struct {
	// ID is unique among the members; default: the host name.
	ID string `yaml:"id"`
	// Advertise is the ip:port at which the other members reach the peer listener. Port 0 means the bound one.
	Advertise string `yaml:"advertise"`
	// Namespace is that of the pod in Kubernetes. It is a part of the default of membership.etcd.prefix: namespaces are different
	// clusters unless they have the same prefix.
	Namespace string `yaml:"namespace"`
	// Zone is where the node is; see Membership.Zones. The ring does not depend on it.
	Zone string `yaml:"zone"`
}

// Listen has the address of each listener: host:port, or "off". Port 0 picks a free port.
type Listen struct {
	HTTP    string `yaml:"http"`
	GRPC    string `yaml:"grpc"`
	Redis   string `yaml:"redis"`
	OTLP    string `yaml:"otlp"`
	Unix    string `yaml:"unix"` // a path
	Peer    string `yaml:"peer"`
	Metrics string `yaml:"metrics"`
	XDS     string `yaml:"xds"`
	Admin   string `yaml:"admin"`
	// GRPCGo lets the transport of grpc-go read the connections of grpc and unix.
	GRPCGo bool `yaml:"grpc_go"`
}

// PeerTLS is mutual TLS between members, and for the clients that route by the ring.
type PeerTLS struct {
	// Insecure allows plain text without authentication. A cluster needs either a certificate or this.
	Insecure bool   `yaml:"insecure"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
	// WorkloadAPI is the socket of the SPIFFE Workload API, instead of the files; default: SPIFFE_ENDPOINT_SOCKET.
	WorkloadAPI string `yaml:"workload_api"`
	// TrustDomain is that of the SPIFFE ids of members and clients; default: that of the certificate of this member.
	TrustDomain string `yaml:"trust_domain"`
	// Cluster is the id of the cluster in SPIFFE ids; default: from membership.etcd.prefix, or node.namespace.
	Cluster string `yaml:"cluster"`
	// MemberPath and ClientPath are patterns of the paths of SPIFFE ids.
	MemberPath string `yaml:"member_path"`
	ClientPath string `yaml:"client_path"`
	// Name is a DNS name whose holders are members and clients without a SPIFFE id.
	Name string `yaml:"name"`
}

func (t PeerTLS) files() TLS { return TLS{CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile} }

// TLS has the paths of PEM files, which are reloaded when they change.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

func (t TLS) zero() bool { return t == TLS{} }

// Membership is how members find each other: in etcd, in DNS, in a static list, or from the xDS publishers of members. If all
// are empty, the sidecar is alone.
type Membership struct {
	Etcd Etcd `yaml:"etcd"`
	// DNS is a name with the addresses of all members, DNSServer the ip:port of the server; empty means those of the host.
	DNS       string `yaml:"dns"`
	DNSServer string `yaml:"dns_server"`

	Static []string `yaml:"static"` // advertised ip:port of each member; this one may be among them
	XDS    []string `yaml:"xds"`    // host:port of publishers; this sidecar is then a client

	Role       string `yaml:"role"`        // auto, member or client
	MaxMembers int    `yaml:"max_members"` // beyond them, sidecars with the role auto are clients

	// Zones lets this sidecar fetch keys that are owned in another zone through a member of its own zone (Node.Zone), which keeps
	// them until the end of their ttl.
	Zones bool `yaml:"zones"`
}

// The roles.
const (
	RoleAuto   = "auto"
	RoleMember = "member"
	RoleClient = "client"
)

// Kind is etcd, dns, static, xds or none.
func (m Membership) Kind() string {
	switch {
	case len(m.Static) > 0:
		return "static"
	case len(m.Etcd.Endpoints) > 0:
		return "etcd"
	case m.DNS != "":
		return "dns"
	case len(m.XDS) > 0:
		return "xds"
	}
	return "none"
}

// Alone reports whether there are no other members.
func (m Membership) Alone() bool { return m.Kind() == "none" }

// Client reports whether this sidecar always uses the ring without being on it: it owns no keys and gets no peer fetches.
func (m Membership) Client() bool { return m.Kind() == "xds" || m.Role == RoleClient }

// Decides is RoleAuto if the directory decides whether this sidecar is a member, RoleClient if it is a client that gets the ring
// from the members that the directory has, and otherwise empty.
func (m Membership) Decides() string {
	if k := m.Kind(); m.Role == RoleMember || k == "none" || k == "xds" {
		return ""
	}
	return or(m.Role, RoleAuto)
}

// Etcd is the directory of members.
type Etcd struct {
	Endpoints    []string       `yaml:"endpoints"` // URLs
	Prefix       string         `yaml:"prefix"`
	LegacyPrefix string         `yaml:"legacy_prefix"` // where clients of groupcachepb find the members; empty: not published
	LeaseTTL     *time.Duration `yaml:"lease_ttl"`     // whole seconds
	Username     string         `yaml:"username"`
	PasswordFile string         `yaml:"password_file"`
	TLS          TLS            `yaml:"tls"`
}

// Configured reports whether any field is set.
func (e Etcd) Configured() bool {
	return len(e.Endpoints) > 0 || e.Prefix != "" || e.LegacyPrefix != "" || e.LeaseTTL != nil || e.Username != "" ||
		e.PasswordFile != "" || !e.TLS.zero()
}

// Ring limits the number of virtual nodes. All members, and the proxies that route by the ring, must use the same values.
type Ring struct {
	Min int `yaml:"min"`
	Max int `yaml:"max"`
}

// Origin is one database or service with its limits.
type Origin struct {
	Driver  string `yaml:"driver"` // a kind of origin; package drivers lists them
	DSN     Secret `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`
	// Username, PasswordFile, TokenFile and TLS are the credentials for a service; the DSN of a database has its own.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	TokenFile    string `yaml:"token_file"`
	TLS          TLS    `yaml:"tls"`
	// MaxConns limits the connections.
	MaxConns int `yaml:"max_conns"`
	// MaxInFlight limits the statements in flight, Queue the loads that wait for one.
	MaxInFlight int     `yaml:"max_in_flight"`
	Queue       int     `yaml:"queue"`
	Batch       Batch   `yaml:"batch"`
	Breaker     Breaker `yaml:"breaker"`
	// TraceComments ends the statements of traced requests with a comment that names the trace.
	TraceComments bool `yaml:"trace_comments"`
}

// Batch combines misses of one dataset into one query while all statements of MaxInFlight are in use.
type Batch struct {
	MaxKeys int `yaml:"max_keys"`

	_ struct{} `removed:"max_wait" advice:"a load waits only while max_in_flight statements run; delete the field"`
}

// Breaker opens after Failures consecutive failures and refuses loads for Cooldown.
type Breaker struct {
	Failures int            `yaml:"failures"`
	Cooldown *time.Duration `yaml:"cooldown"`
}

// Dataset is one dataset: a table or a query of a database, or what a service has, and a policy.
type Dataset struct {
	Origin string `yaml:"origin"`

	Table   string           `yaml:"table"`
	Key     decode.OneOrMore `yaml:"key"`
	Version string           `yaml:"version"`
	Expires string           `yaml:"expires"` // the column that says until when a row is valid
	Value   string           `yaml:"value"`
	Columns []string         `yaml:"columns"`

	Query string `yaml:"query"`
	Batch string `yaml:"batch"`
	// List selects the keys of a query, for watches of a prefix or of all keys; those of a table need none.
	List string `yaml:"list"`

	// URL is the path and query that a service is requested for; its variables are the columns of Key, or {key}.
	URL      string   `yaml:"url"`
	Preset   string   `yaml:"preset"` // a known API over HTTP
	Response Response `yaml:"response"`

	// Prefix begins the keys in etcd.
	Prefix string `yaml:"prefix"`

	// RowsOfKey is one, or many: then the value is a JSON array of up to MaxRows rows, in the order of the columns Order.
	RowsOfKey string           `yaml:"rows"`
	Order     decode.OneOrMore `yaml:"order"`
	MaxRows   int              `yaml:"max_rows"`

	// ContentType is the media type of all values; empty means that of their column.
	ContentType string `yaml:"content_type"`

	// IntegerTimes says what an integer counts in a column of times of SQLite: seconds or milliseconds since 1970.
	IntegerTimes string `yaml:"integer_times"`

	// Writable lets applications change the rows of the table.
	Writable bool       `yaml:"writable"`
	Feed     ChangeFeed `yaml:"feed"`

	Times `yaml:",inline"`
	HTTP  `yaml:",inline"`
	Warm  Warm `yaml:"warm"`

	Allow  Allow  `yaml:"allow"`
	Limits Limits `yaml:"limits"`

	Eviction    string `yaml:"eviction"` // lru or slru
	MemoryShare *Share `yaml:"memory_share"`
}

// Response says what the responses of a service over HTTP mean.
type Response struct {
	// NotFound and Invalid are status codes of keys that do not exist, and that cannot exist.
	NotFound decode.OneOrMore `yaml:"not_found"`
	Invalid  decode.OneOrMore `yaml:"invalid"`
	// CacheControl is honor or ignore.
	CacheControl string `yaml:"cache_control"`
}

// ofService reports whether the values are those of a service, not rows of a database.
func (d Dataset) ofService() bool { return d.ofHTTP() || d.Prefix != "" }

// ofHTTP reports whether a field of services over HTTP is set.
func (d Dataset) ofHTTP() bool {
	return d.URL != "" || d.Preset != "" || !reflect.ValueOf(d.Response).IsZero()
}

// HTTP are the fields of a dataset that change what HTTP clients see.
type HTTP = httpview.Fields

// Times are the policy of a dataset.
type Times struct {
	TTL                  *time.Duration `yaml:"ttl"`
	TTLJitter            *Share         `yaml:"ttl_jitter"`
	NegativeTTL          *time.Duration `yaml:"negative_ttl"`
	StaleWhileRevalidate *time.Duration `yaml:"stale_while_revalidate"`
	StaleIfError         *time.Duration `yaml:"stale_if_error"`
	NegativeStaleIfError *time.Duration `yaml:"negative_stale_if_error"`
	LocalTTL             *time.Duration `yaml:"local_ttl"`
	LoadTimeout          *time.Duration `yaml:"load_timeout"`
	WriteTimeout         *time.Duration `yaml:"write_timeout"`
	GapTTL               *time.Duration `yaml:"gap_ttl"`
	VerifyRate           *int           `yaml:"verify_rate"`
}

// Warm loads the keys of a dataset before anybody reads them, and keeps them in memory. The zero value means no.
type Warm struct {
	Keys     string         `yaml:"keys"`     // all, or a query that returns the keys
	Interval *time.Duration `yaml:"interval"` // between two loads of all keys
	Pin      bool           `yaml:"pin"`      // other entries do not evict them
	Wait     *time.Duration `yaml:"wait"`     // readiness waits so long for the first load
}

// WarmAll is the value of Warm.Keys for all keys of a table.
const WarmAll = "all"

// Configured reports whether the dataset is kept warm.
func (w Warm) Configured() bool { return w != Warm{} }

// Query returns the query that returns the keys; empty for all of a table.
func (w Warm) Query() string {
	if w.Keys == WarmAll {
		return ""
	}
	return w.Keys
}

// ChangeFeed reports changes in the database that bypass the cache. The zero value means none.
type ChangeFeed struct {
	Kind    string `yaml:"kind"`    // notify, poll or logical
	Channel string `yaml:"channel"` // of notify
	Table   string `yaml:"table"`   // of poll
	// Tables are the tables whose rows make the values of a view or query, each with the columns that hold the key, in
	// its order.
	Tables   map[string]decode.OneOrMore `yaml:"tables"`
	Interval *time.Duration              `yaml:"interval"` // of poll
	// Keep and KeepRows are how long, and how many, rows of the table of poll are kept.
	Keep     *time.Duration `yaml:"keep"`
	KeepRows int            `yaml:"keep_rows"`
	// Publication is that of logical, and MaxWAL how many bytes of its log the server may keep for it.
	Publication string `yaml:"publication"`
	MaxWAL      Size   `yaml:"max_wal"`
}

// The kinds of change feeds.
const (
	feedNotify  = "notify"
	feedPoll    = "poll"
	feedLogical = "logical"
	feedWatch   = "watch"
)

// Token is a token of clients.
type Token struct {
	File string `yaml:"file"` // one token per line
}

// Allow lists who may do what with a dataset; see package access for the forms. Nil means the default, an empty list nobody.
type Allow struct {
	Read       []string `yaml:"read"`
	Write      []string `yaml:"write"`
	Invalidate []string `yaml:"invalidate"`
}

// Limits are the rate limits of one client and one dataset.
type Limits struct {
	NoCache    Rate `yaml:"no_cache"`
	Watch      Rate `yaml:"watch"`
	Write      Rate `yaml:"write"`
	Invalidate Rate `yaml:"invalidate"`
}

// Audit is the log of who has changed what, and who was refused. An empty file means off.
type Audit struct {
	File string `yaml:"file"` // a path, or stdout
}

// Log is the format and level of the log.
type Log struct {
	Format string `yaml:"format"` // json or console
	Level  string `yaml:"level"`  // debug, info, warn or error
}
