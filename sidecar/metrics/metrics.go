// Package metrics exports the counters of a sidecar to Prometheus and serves the probes of the kubelet. It reads all
// counters during the scrape, so that it adds no cost to a read.
package metrics

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// MaxLabelValues is the limit of datasets, of origins and of protocols that one sidecar exports: a dataset costs
// Prometheus about 250 series per pod, two thirds of them buckets of histograms in the classic form.
const MaxLabelValues = 256

// Source is what a scrape reads. Its functions return snapshots without blocking and may be called concurrently. A nil
// function has no metrics.
type Source struct {
	Version, Revision string // of the program
	Configured        func() Configured
	Protocols         []Protocol
	Listeners         []Listener
	Ring              func() Ring
	Peers             func() Peers
	PeerListener      func() PeerListener
	PeerTLS           func() PeerTLS
	Directory         func() Directory
	Local             func() Local
	Budget            func() []BudgetUse
	XDS               func() XDS
	Reloads           func() Reloads
	Access            func() []Access
	Audit             func() Audit
	Traces            func() Traces
	OTLP              func() OTLP  // nil if no metrics are received
	LogLinesDropped   func() int64 // by the rate limit of the log
}

// Configured is what the configuration in use has; a reload changes it.
type Configured struct {
	Datasets    []*cache.Dataset
	Origins     []Origin
	ChangeFeeds []ChangeFeed
}

// Access is the requests for one dataset that were refused since the start.
type Access struct {
	Dataset string
	Denied  map[string]int64 // :: operation (a fixed set) → requests without the permission
	Limited map[string]int64 // :: limit (a fixed set) → requests above the rate limit of their client
}

// Traces is what has become of the spans since the start, and how many wait.
type Traces struct{ Exported, Failed, Dropped, Waiting, MaxWaiting int64 }

// OTLP is what has become of the data points that were received since the start, and the memory that they hold.
type OTLP struct {
	Points                                 map[string]int64 // :: result (a fixed set) → points
	Superseded, Memory, MaxMemory, Refused int64
}

// Audit counts lines of the audit log since the start.
type Audit struct{ Written, Dropped int64 }

// ChangeFeed is the change feed of one dataset.
type ChangeFeed struct {
	Dataset string
	Reading func() bool // whether this member reads it from the database, without a gap
	Log     func() ChangeLog
}

// ChangeLog is the table of changes that a member reads; zero on the others.
type ChangeLog struct {
	Rows, MaxRows int64
	PruneFailed   bool
	WAL, MaxWAL   int64 // bytes
}

// Origin is one origin with its limits.
type Origin struct {
	Name string
	Load func() OriginLoad
}

// OriginLoad is the use of the limits of an origin. Counts are since the start.
type OriginLoad struct {
	InFlight, MaxInFlight int64 // statements
	Queued, MaxQueued     int64 // loads that wait for a statement to end
	Refused               int64 // loads refused because the queue was full or the breaker open
	QueueTimeouts         int64 // loads that timed out in the queue
	BreakerOpen           bool
}

// Ring is the ring in use.
type Ring struct {
	ID      string // equal on members whose rings are equal
	Members int
	// Unlisted counts the members that the directory no longer lists, but that stay because they still respond.
	Unlisted int
	// Changes counts the rings since the start, Unreachable the members removed because they did not respond.
	Changes, Unreachable int64
	// OtherSettings counts the listed members whose ring has other sizes.
	OtherSettings int64
	// Off: this member has left the ring because no other one can reach it. NotReached counts the members that have asked this one
	// whether it can reach them, and that it cannot.
	Off        bool
	NotReached int64
	// Refused counts the listed members with the id, hash key or address of another member, again at each decision.
	Refused int64
	// Role is member or client. Promotions counts how often this sidecar, a client, became a member.
	Role       string
	Promotions int64
}

// Protocol is a protocol that applications use.
type Protocol struct {
	Name     string        // http, grpc, unix or routed
	Duration *kv.Histogram // of requests
	Load     func() ProtocolLoad
}

// ProtocolLoad is the use of the limits of a listener.
type ProtocolLoad struct {
	Conns, MaxConns int64
	AcceptErrors    int64
	Refused         map[string]int64 // :: reason (a fixed set) → connections and requests refused since the start
}

// Peers is the pool of connections to other members. Counts are since the start.
type Peers struct {
	Conns, MaxConns int64
	BreakersOpen    int64 // members that get no requests for now because they did not respond
	BreakersOpened  int64 // times that this began
	MaxCalls        int64 // limit of the fetches and writes in flight to one member
	Unreachable     int64 // fetches that got no response, and writes that could not be sent
	Refused         int64 // fetches and writes not sent because a limit was reached
	PingTimeouts    int64
	Disagreements   int64 // responses from members with a different ring
	// SameZone and OtherZone are the keys that members of this one's zone, and of others, were asked for; 0 without a zone.
	SameZone, OtherZone int64

	Subscriptions     int64 // members to whose invalidations this one is subscribed now
	Published         int64 // invalidations, each counted once for all subscribers
	Received          int64 // invalidations from all members
	Merged            int64 // lists of invalidations beyond the quota of their member
	Gaps              int64 // times that invalidations from a member may have been missed
	BroadcastFailures int64 // members not reached with an invalidation for all members
}

// PeerListener is the use of the limits of the peer listener. Counts are since the start.
type PeerListener struct {
	Conns, MaxConns       int64 // from members, and from clients that route by the ring
	ConnsRefused          int64
	AcceptErrors          int64
	InFlight, MaxInFlight int64 // fetches served to members
	FetchesRefused        int64
	Writing, MaxWriting   int64 // writes executed for members
	WritesRefused         int64
	Disagreements         int64 // fetches and writes by members with a different ring

	Subscribers, MaxSubscribers int64 // members subscribed to the invalidations of this one
	SubscribersRefused          int64 // because MaxSubscribers was reached
	SlowSubscribersClosed       int64 // because they read too slowly

	InvalidationsMerged, InvalidationsRefused int64 // requests of members to invalidate, beyond their quota

	Clients, MaxClients int64 // clients of the ring that get the list of members from this one
	ClientsRefused      int64 // because MaxClients or the memory for them was reached
}

// Listener is a listener for operators or proxies.
type Listener struct {
	Name string // metrics, admin or xds
	Load func() ListenerLoad
}

// ListenerLoad is the use of the limit of a Listener. ConnsRefused and AcceptErrors are since the start.
type ListenerLoad struct{ Conns, MaxConns, ConnsRefused, AcceptErrors int64 }

// BudgetUse is one use of the memory for clients and other members. Refused is since the start.
type BudgetUse struct {
	Use                    string // connections, requests, … (a fixed set)
	Bytes, Limit, Refusals int64
}

// PeerTLS is the state of the certificate, key and CA files for connections between members.
type PeerTLS struct {
	ReloadFailures int64            // handshakes since the start that used an older version because the files are invalid
	LastFailed     bool             // the latest handshake did
	Expires        time.Time        // of the certificate, or of one in its chain
	Lifetime       time.Duration    // of the certificate that expires first
	Rejected       map[string]int64 // reason → connections
}

// Directory is the state of the connection to the member directory. Counts are since the start.
type Directory struct {
	Client         bool // this sidecar is not on the ring and never registers: Registered and Registrations are unused
	Registered     bool
	Connected      bool // the list of members is known and up to date
	Members        int  // in the latest list
	Registrations  int64
	Lists          int64 // full lists read
	WatchRestarts  int64
	InvalidRecords map[string]int64 // :: reason (a fixed set) → records ignored
	ContactAge     time.Duration    // since its last response
}

// Local has the counters that all listeners for applications share. Counts are since the start.
type Local struct {
	BatchTruncated      int64 // keys not returned because the response would have been too large
	Watches, MaxWatches int64
	WatchesRefused      int64 // because MaxWatches was reached
	SlowWatchersClosed  int64 // because they read too slowly
	WatchEvents         int64 // sent to clients
	// WatchedSets are the prefixes and datasets whose keys are watched, and WatchedSetKeys all their keys. SetsRefused were refused or
	// ended because of a limit, and SetResets is how often a watch of one began again.
	WatchedSets, MaxWatchedSets, WatchedSetKeys, SetsRefused, SetResets int64
	InternalErrors                                                      int64 // panics and unclassified errors
}

// XDS is the xDS publisher of the ring. Counts are since the start.
type XDS struct {
	Clients, MaxClients int
	Endpoints           int   // members in the last update
	Updates             int64 // of the members
	NACKs               int64 // updates that a client rejected
	ClientsRefused      int64 // because a limit was reached
}

// Reloads counts the configuration reloads since the start.
type Reloads struct {
	OK, Failed int64
	LastFailed bool // so that the configuration in use is not the one in the file
}

// runtimeMetrics are those of the Go runtime and of the process that the dashboards use, and the limit of files. The others
// would be a fifth of all series.
var runtimeMetrics = []string{
	"go_goroutines", "go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes", "process_cpu_seconds_total", "process_max_fds",
	"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds",
}

// NewGatherer returns what exports s, and some metrics of the Go runtime and of this process.
func NewGatherer(s Source) (prometheus.Gatherer, error) {
	if s.Configured == nil {
		s.Configured = func() Configured { return Configured{} }
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	own, runtime := prometheus.NewRegistry(), prometheus.NewRegistry()
	err := errors.Join(own.Register(newCollector(s)), runtime.Register(collectors.NewGoCollector()),
		runtime.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
	if err != nil {
		return nil, fmt.Errorf("metrics: register: %w", err)
	}
	return prometheus.Gatherers{own, only{runtime, runtimeMetrics}}, nil
}

// only gathers the families with some names.
type only struct {
	prometheus.Gatherer
	names []string
}

// Gather implements prometheus.Gatherer.
func (o only) Gather() ([]*dto.MetricFamily, error) {
	all, err := o.Gatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !slices.Contains(o.names, f.GetName()) }), err
}

// validate rejects at startup what would otherwise fail every scrape.
func (s Source) validate() error {
	configured := s.Configured()
	var datasets, origins, protocols []string
	for _, d := range configured.Datasets {
		datasets = append(datasets, d.Name())
	}
	for _, o := range configured.Origins {
		origins = append(origins, o.Name)
	}
	for _, p := range s.Protocols {
		protocols = append(protocols, p.Name)
	}
	return errors.Join(CheckNames(datasets, origins), checkLabel("protocol", protocols))
}

// CheckNames rejects names of datasets and origins that would fail every scrape.
func CheckNames(datasets, origins []string) error {
	return errors.Join(checkLabel("dataset", datasets), checkLabel("origin", origins))
}

func checkLabel(label string, values []string) error {
	if len(values) > MaxLabelValues {
		return fmt.Errorf("metrics: %d values of label %q; at most %d are allowed", len(values), label, MaxLabelValues)
	}
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		if seen[v] || !utf8.ValidString(v) {
			return fmt.Errorf("metrics: value %q of label %q is a duplicate or not UTF-8", v, label)
		}
		seen[v] = true
	}
	return nil
}
