// Package metrics exports the counters of the core to Prometheus and answers the probes of a kubelet. Everything is read
// when it is scraped: a read of an application costs the atomics of cache.Stats and nothing here.
package metrics

import (
	"fmt"
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
	Protocols         map[string]*cache.Histogram // :: protocol → durations of applications' requests
	Origins           []Origin
	Ring              func() Ring
	Peers             func() Peers
	Directory         func() Directory
	Local             func() Local
	Reloads           func() Reloads
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
	BreakerOpen           bool
}

// Ring is the ring that reads are routed by.
type Ring struct {
	ID      string // equal on members whose rings are equal
	Members int
}

// Peers is the pool of connections to other members.
type Peers struct {
	Connections  int
	OpenBreakers int // members that are not asked at the moment, because they did not answer
}

// Directory is how well the member directory is followed.
type Directory struct {
	Connected  bool  // the last thing it said was not an error
	Registered bool  // this member is in it
	Refused    int64 // malformed records passed over, since the start
	Held       int64 // members that the directory lost and that stay because they still answer
	Resyncs    int64 // full lists, since the start
	Failures   int64 // lists, watches and registrations that failed, since the start
}

// Local is the load on the listeners for applications.
type Local struct {
	Connections, MaxConnections int64
	Refused                     int64 // connections and requests refused because a bound was reached, since the start
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
	for p := range s.Protocols {
		protocols = append(protocols, p)
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
