// Package local is what applications talk to: HTTP, gRPC, and both of them on one unix socket. It reads, writes and
// watches the datasets, and has no cache, no ring and no policy of its own.
package local

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// Dataset is what this package asks of a cache.Dataset.
type Dataset interface {
	Name() string
	// Get may be called with a key that lies in memory which is reused after Get has returned.
	Get(ctx context.Context, key string, o cache.ReadOptions) (cache.Answer, error)
	// GetMany answers reads of many keys, in their order, with as few loads and peer fetches as possible.
	GetMany(ctx context.Context, keys []string, o cache.ReadOptions) []cache.Result
	// Write may be called with a key and a value that lie in memory which is reused after Write has returned.
	Write(ctx context.Context, c cache.Change) (cache.Answer, error)
	Invalidate(ctx context.Context, s cache.Scope) (cache.InvalidateResult, error)
	// Watch notes changes of keys, which are distinct, until it is closed.
	Watch(keys []string) *cache.Watch
}

// Served is a dataset and how applications see it.
type Served struct {
	Dataset
	// JSON says that the values are JSON: rows as objects. Otherwise they are bytes of which nothing is known.
	JSON bool
	// ReadOnly says that the dataset takes no writes, so that this need not be tried to be known.
	ReadOnly bool
}

func (s Served) contentType() string {
	if s.JSON {
		return typeJSON
	}
	return typeBytes
}

// What a key answers, as the header Allow lists it, and what one of a dataset without writes does.
const allowKey, allowReads = "GET, HEAD, PUT, DELETE", "GET, HEAD"

// Datasets are the datasets of the running configuration. It is safe for concurrent use.
type Datasets interface {
	// Lookup finds a dataset by its name, which may lie in memory that the caller reuses.
	Lookup(name string) (Served, bool)
	// All returns the datasets sorted by name; the caller does not modify the list.
	All() []Served
}

// Catalog is a list of datasets that can be replaced as a whole while requests are served. Its zero value is empty.
type Catalog struct {
	now atomic.Pointer[catalog]
}

type catalog struct {
	byName map[string]Served
	sorted []Served
}

// NewCatalog returns a Catalog of the given datasets, whose names differ.
func NewCatalog(list ...Served) *Catalog {
	c := new(Catalog)
	c.Replace(list...)
	return c
}

// Replace makes the given datasets, whose names differ, the whole list.
func (c *Catalog) Replace(list ...Served) {
	next := &catalog{byName: make(map[string]Served, len(list)), sorted: slices.Clone(list)}
	for _, s := range list {
		next.byName[s.Name()] = s
	}
	slices.SortFunc(next.sorted, func(a, b Served) int { return cmp.Compare(a.Name(), b.Name()) })
	c.now.Store(next)
}

// Lookup implements Datasets.
func (c *Catalog) Lookup(name string) (Served, bool) {
	now := c.now.Load()
	if now == nil {
		return Served{}, false
	}
	s, ok := now.byName[name]
	return s, ok
}

// All implements Datasets.
func (c *Catalog) All() []Served {
	now := c.now.Load()
	if now == nil {
		return nil
	}
	return now.sorted
}

// MaxBatchKeys bounds the keys of one batch.
const MaxBatchKeys = 1000

// DefaultMaxConns is that of Config.
const DefaultMaxConns = 1024

// Config bounds what applications may do. Zero fields mean their default.
type Config struct {
	// Hosts are names that the Host header may carry besides localhost and the loopback addresses, without ports.
	// A web page can make its own name resolve to 127.0.0.1; a name that is not in the list gets 421.
	Hosts []string
	// MaxConns bounds the open connections of each listener; default 1024. One more is refused.
	MaxConns int
	// MaxRoutedConns is that bound for the clients that route by the ring, which come from other pods; default 8192.
	MaxRoutedConns int
	// MaxHeaderBytes bounds a request line with its headers; default 16 KiB.
	MaxHeaderBytes int
	// MaxBodyBytes bounds a request body, and so a value that is written; default 1 MiB.
	MaxBodyBytes int
	// MaxStreams bounds the gRPC calls that one connection has open; default 256. More wait in the client.
	MaxStreams int
	// MaxBatchBytes bounds the values of one batch answer; default 3 MiB, which together with the rest of the message
	// stays below the 4 MiB that gRPC clients take. The keys beyond it fail, each on its own.
	MaxBatchBytes int
	// MaxWatches bounds the watches of HTTP and gRPC together; default 256. One more is refused.
	MaxWatches int
	// ReadTimeout bounds the arrival of one request, headers and body; default 5s.
	ReadTimeout time.Duration
	// RequestTimeout bounds the time in which an answer is found; default 5s. A gRPC deadline may be shorter.
	RequestTimeout time.Duration
	// WriteTimeout bounds the time in which a client takes one HTTP answer, or one event of a watch; default 10s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may be silent between two requests; default 2m.
	IdleTimeout time.Duration
	// CNFMetrics is the service of the CNF metric model; nil: there is none.
	CNFMetrics Mount
	// Defect is called with each defect of this program that a request met: a panic, or an error of no known kind.
	// The caller of the API is told only that there was one. May be nil.
	Defect func(error)
}

func (c Config) withDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.MaxRoutedConns = cmp.Or(c.MaxRoutedConns, 8192)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 16<<10)
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, 1<<20)
	c.MaxStreams = cmp.Or(c.MaxStreams, 256)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, 3<<20)
	c.MaxWatches = cmp.Or(c.MaxWatches, 256)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, 5*time.Second)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
	if c.Defect == nil {
		c.Defect = func(error) {}
	}
	return c
}

// Stats are the counters of a Server since its start. They are live: load them one by one.
type Stats struct {
	HTTP, GRPC, Unix Protocol
	Routed           Protocol // HTTP and gRPC of clients that route by the ring

	BatchTruncated atomic.Int64 // keys of batches refused because Config.MaxBatchBytes was reached
	Writes         atomic.Int64 // changes that were handed to a dataset, whatever came of them
	Invalidations  atomic.Int64 // requests to invalidate that were handed to a dataset
	Watches        atomic.Int64 // open now; bound: Config.MaxWatches
	WatchesRefused atomic.Int64 // because of the bound
	WatchesCut     atomic.Int64 // ended because the client took an event too slowly
	WatchEvents    atomic.Int64 // told to the clients of watches
	Defects        atomic.Int64 // panics and errors of no known kind
}

// Protocol are the counters of one listener, or of the two on the unix socket.
type Protocol struct {
	// Duration is the time from a parsed request to its answer, without reading and writing either.
	Duration cache.Histogram

	Conns         listen.Stats // bound: Config.MaxConns
	HeaderRefused atomic.Int64 // HTTP requests over Config.MaxHeaderBytes
	BodyRefused   atomic.Int64 // HTTP requests over Config.MaxBodyBytes
	ReadTimeouts  atomic.Int64 // HTTP requests that took longer than Config.ReadTimeout to arrive
	Malformed     atomic.Int64 // HTTP requests that could not be parsed
	HostRefused   atomic.Int64 // HTTP requests refused for their Host, Origin or Sec-Fetch-Site header
}
