// Package metrics exports the counters of the core to Prometheus and answers the probes of a kubelet. Everything is
// read when it is scraped: a read of an application costs the atomics of cache.Stats and nothing here.
package metrics

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// MaxLabelValues bounds the datasets, and apart from them the protocols and the origins, that one sidecar exports: each
// value costs a Prometheus some fifty series in every pod.
const MaxLabelValues = 256

// Source is what a scrape reads. Its functions return snapshots, do not block, and may be called at the same time.
// Those that are nil have no metrics.
type Source struct {
	Version, Revision string // of the program
	Datasets          []*cache.Dataset
	Protocols         []Protocol
	Origins           []Origin
	ChangeFeeds       []ChangeFeed
	Ring              func() Ring
	Peers             func() Peers
	PeerListener      func() PeerListener
	Directory         func() Directory
	Local             func() Local
	CNFMetrics        func() CNFMetrics
	Feed              func() Feed
	Reloads           func() Reloads
}

// ChangeFeed is the change feed of one dataset.
type ChangeFeed struct {
	Dataset string
	Reading func() bool // whether this member reads it, without a gap
}

// Origin is one origin's guard.
type Origin struct {
	Name string
	Load func() OriginLoad
}

// OriginLoad is how near an origin is to its bounds.
type OriginLoad struct {
	InFlight, MaxInFlight int64 // statements
	Queued, MaxQueued     int64 // loads that wait for a statement's turn
	Refused               int64 // loads refused since the start, because the queue was full or the breaker open
	GaveUp                int64 // loads whose time passed in the queue, since the start
	BreakerOpen           bool
}

// Ring is the ring that reads are routed by.
type Ring struct {
	ID      string // equal on members whose rings are equal
	Members int
	Doubted int // of these, not listed by the directory any more: they stay because they still answer
	// Changes counts the rings since the start, Unreachable the members that were taken off because they did not answer.
	Changes, Unreachable int64
}

// Protocol is one way by which applications ask.
type Protocol struct {
	Name     string           // http, grpc, unix or routed
	Duration *cache.Histogram // of requests
	Load     func() ProtocolLoad
}

// ProtocolLoad is how near a listener is to its bounds.
type ProtocolLoad struct {
	Conns, MaxConns int64
	Refused         map[string]int64 // :: reason, of a fixed few → connections and requests refused since the start
}

// Peers is the pool of connections to other members. Counts are since the start.
type Peers struct {
	Conns, MaxConns int64
	BreakersOpen    int64 // members that are not asked at the moment, because they did not answer
	MaxCalls        int64 // bound of the fetches and writes under way to one member
	Unreachable     int64 // fetches that got no answer, and writes that were not sent
	Refused         int64 // fetches and writes refused because a bound was reached
	Silences        int64 // times that a member did not answer a ping in time
	Disagreements   int64 // answers by members whose ring was another
	Followed        int64 // members whose invalidations are followed, now
	Published       int64 // invalidations, to all followers as one
	Received        int64 // invalidations, of all followed members
	Gaps            int64 // times that invalidations of a followed member may have been missed
	TellsFailed     int64 // members that could not be told what concerns all of them
}

// PeerListener is how near the listener for other members is to its bounds. Counts are since the start.
type PeerListener struct {
	Conns, MaxConns       int64 // of members, and of clients that route by the ring
	ConnsRefused          int64
	InFlight, MaxInFlight int64 // fetches that are being answered
	FetchesRefused        int64
	Writing, MaxWriting   int64 // writes that are being made for members
	WritesRefused         int64

	Followers, MaxFollowers           int64 // members that follow this one
	FollowersRefused, FollowersCutOff int64 // because there were too many; because one was too slow
}

// Directory is how well the member directory is followed. Counts are since the start.
type Directory struct {
	Edge          bool // this sidecar is on no ring and cannot be registered: Registered and Registrations say nothing
	Registered    bool // this member is in it, as far as is known
	Following     bool // the list of members is known and watched
	Members       int  // that it listed last
	Registrations int64
	Lists         int64            // full lists read
	WatchRestarts int64            // watches that ended before their time
	Refused       map[string]int64 // :: reason, of a fixed few → records passed over
	ContactAge    time.Duration    // since it last answered
}

// Local is what the listeners for applications share.
type Local struct {
	BatchReaders, MaxBatchReaders int64 // goroutines that read keys of batches
	BatchTruncated                int64 // keys refused since the start because an answer would have been too large
	Watches, MaxWatches           int64
	WatchesRefused, WatchesCut    int64 // since the start: because of their bound; because the client was too slow
	Defects                       int64 // panics and errors of no known kind since the start
}

// CNFMetrics is the typed service of CNF metrics.
type CNFMetrics struct {
	BatchReaders, MaxBatchReaders int64 // goroutines that read metrics of batches
}

// Feed is how the proxies that route by the ring are told of it. Counts are since the start.
type Feed struct {
	Subscribers, MaxSubscribers int
	Endpoints                   int   // members in the last update
	Updates                     int64 // of the members
	Refusals                    int64 // updates that a proxy did not take
	TurnedAway                  int64 // proxies that were one too many, or asked for too much
}

// Reloads is how often the config was read again since the start.
type Reloads struct {
	OK, Failed int64
	LastFailed bool // the config in use is not the one in the file
}

// NewRegistry returns a registry of its own that exports s, the Go runtime and this process.
func NewRegistry(s Source) (*prometheus.Registry, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		newCollector(s),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: register: %w", err)
		}
	}
	return r, nil
}

// check refuses at the start what would otherwise fail each scrape as a whole.
func (s Source) check() error {
	var datasets, origins, protocols []string
	for _, d := range s.Datasets {
		datasets = append(datasets, d.Name())
	}
	for _, o := range s.Origins {
		origins = append(origins, o.Name)
	}
	for _, p := range s.Protocols {
		protocols = append(protocols, p.Name)
	}
	for label, values := range map[string][]string{"dataset": datasets, "origin": origins, "protocol": protocols} {
		if err := checkLabel(label, values); err != nil {
			return err
		}
	}
	return nil
}

func checkLabel(label string, values []string) error {
	if len(values) > MaxLabelValues {
		return fmt.Errorf("metrics: %d values of label %q; at most %d can be exported", len(values), label, MaxLabelValues)
	}
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		if seen[v] || !utf8.ValidString(v) {
			return fmt.Errorf("metrics: value %q of label %q is there twice, or is not UTF-8", v, label)
		}
		seen[v] = true
	}
	return nil
}
