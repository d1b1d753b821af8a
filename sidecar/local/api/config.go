package api

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// DefaultMaxConns is the default of Config.MaxConns.
const DefaultMaxConns = 1024

// Config has the limits of what applications may do. Zero fields mean their default.
type Config struct {
	// Hosts are names that the Host header may have besides localhost and the loopback addresses, without ports.
	// A website can make its own name resolve to 127.0.0.1; a request with a name that is not listed gets 421.
	Hosts []string
	// MaxConns is how many connections each listener has open at once; default 1024. Further ones are refused.
	MaxConns int
	// MaxRoutedConns is the same limit for clients that route by the ring, which come from other pods; default 8192.
	MaxRoutedConns int
	// MaxHeaderBytes is the size of a request line with its headers; default 16 KiB.
	MaxHeaderBytes int
	// MaxBodyBytes is the size of a request body, and so of a value that is written; default kv.MaxValueBytes.
	MaxBodyBytes int
	// MaxStreams is how many gRPC calls one connection has open; default 256. Further ones wait in the client.
	MaxStreams int
	// MaxBatchBytes is the size of all values of a batch response, and of those that a batch holds while others arrive;
	// default kv.DefaultBatchBytes. Keys beyond it get an error of their own.
	MaxBatchBytes int
	// MaxWatches is how many watches are open at once, over HTTP and gRPC together; default 256. Further ones are refused.
	MaxWatches int
	// MaxSetKeys is how many keys the set of a watch has, the keys that begin with a prefix or those of a dataset; default 100 000. A
	// larger set is refused, or its watches end.
	MaxSetKeys int
	// MaxSets is how many different sets are watched at once; default 32. Watches of the same set share it.
	MaxSets int
	// ReadTimeout is the time for the arrival of one request, headers and body; default 5s.
	ReadTimeout time.Duration
	// RequestTimeout is the time for the work on one request; default 5s. A gRPC deadline may be shorter.
	RequestTimeout time.Duration
	// WriteTimeout is the time in which a client must accept one HTTP response, or one event of a watch; default 10s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may be idle between two requests; default 2m.
	IdleTimeout time.Duration
	// RoutedCaller returns who is at the other end of a connection of a client that routes by the ring: its state is nil for
	// plain text. May be nil.
	RoutedCaller func(*tls.ConnectionState, net.Addr) caller.Caller
	// GRPCGo lets grpc-go read the gRPC connections of applications instead of package h2: without its limits of memory, and
	// without its answers to hits where the connection is read.
	GRPCGo bool
	// Redis lets the unix socket serve the Redis protocol, too.
	Redis bool
	// Budget limits the bytes that clients make the process use; nil means no limit.
	Budget *budget.Budget
	// Loops are where connections wait for their next hit; default ready.NewLoops.
	Loops *ready.Loops
	// ConnShare is the part of the Budget's bytes for connections that belongs to each listener.
	ConnShare float64
	// CNFMetrics is the service of the CNF metric model; nil if there is none.
	CNFMetrics Mount
	// OTLP receives metrics; nil if nothing does.
	OTLP OTLP
	// ExtAuthz is the dataset of Envoy's ext_authz, and the header field of a request that has the key; see package extauthz.
	ExtAuthz struct{ Dataset, Header string }
	// Explain explains a key of a dataset, in JSON; nil if nothing can. The error has a Kind.
	Explain func(ctx context.Context, dataset, key string) ([]byte, error)
	// Tracer traces requests; nil: none.
	Tracer *tracing.Tracer
	// Errors has the texts of errors that clients do not see: of failures, and of defects, such as panics. Nil means one that writes nowhere.
	Errors *apierror.Log
}

// Mount is an API beside that of the datasets, such as package cnfmetrics. Clients reach it over HTTP, gRPC and the unix
// socket, but not over the routed listener. Its calls have the same limits, counters and panic handling as all others.
type Mount interface {
	// Register adds its gRPC services, which have unary methods only.
	Register(grpc.ServiceRegistrar)
	// ServeHTTP answers requests below its path. Requests have only the headers that a response may depend on:
	// Cache-Control, Ringside-Min-Version, If-Match and If-None-Match, and if they are more than plain reads also
	// Ringside-If-Version, Idempotency-Key, Content-Type, Content-Encoding and Content-Range. Requests that can change
	// something do not come from pages of other websites.
	http.Handler
	// PostOnly reports whether a path, without a query, has operations with POST only.
	PostOnly(path string) bool
}

// OTLP receives metrics, such as package otlpmetrics, on a listener of its own.
type OTLP interface {
	// ServeHTTP answers every request of HTTP/1.1, ServeGRPC every call. Their context has the caller and its token.
	http.Handler
	PostOnly(path string) bool
	ServeGRPC(http.ResponseWriter, *http.Request)
	// MaxRequest is the size of the largest request.
	MaxRequest() int
}

func (c Config) withDefaults() Config {
	c.MaxConns = cmp.Or(c.MaxConns, DefaultMaxConns)
	c.MaxRoutedConns = cmp.Or(c.MaxRoutedConns, 8192)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 16<<10)
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, kv.MaxValueBytes)
	c.MaxStreams = cmp.Or(c.MaxStreams, 256)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, kv.DefaultBatchBytes)
	c.MaxWatches = cmp.Or(c.MaxWatches, 256)
	c.MaxSetKeys = cmp.Or(c.MaxSetKeys, 100_000)
	c.MaxSets = cmp.Or(c.MaxSets, 32)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, 5*time.Second)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
	if c.Loops == nil {
		c.Loops = ready.NewLoops()
	}
	if c.Errors == nil {
		c.Errors = apierror.NewLog(func(apierror.Line) {})
	}
	return c
}

// Stats are the counters of a server since its start. They are live: load them one by one.
type Stats struct {
	HTTP, GRPC, Unix Protocol
	Redis, OTLP      Protocol
	Routed           Protocol // HTTP and gRPC of clients that route by the ring

	BatchTruncated     atomic.Int64 // keys of batches refused because of Config.MaxBatchBytes
	Watches            atomic.Int64 // open now; limit: Config.MaxWatches
	WatchesRefused     atomic.Int64 // because of the limit
	SlowWatchersClosed atomic.Int64 // closed because the client accepted an event too slowly
	WatchEvents        atomic.Int64 // sent to the clients of watches
	WatchedSets        atomic.Int64 // in memory now; limit: Config.MaxSets
	WatchedSetKeys     atomic.Int64 // of all sets
	SetsRefused        atomic.Int64 // refused or ended because of Config.MaxSets, Config.MaxSetKeys or the memory
	SetResets          atomic.Int64 // resets sent to watches of sets whose position or token was too old
}

// Protocol are the counters of one listener, or of all protocols on the unix socket.
type Protocol struct {
	// Duration is the time from a parsed request to its response, without reading the one and writing the other.
	Duration kv.Histogram

	Conns         listen.Stats // limit: Config.MaxConns
	HeaderRefused atomic.Int64 // HTTP requests over Config.MaxHeaderBytes
	BodyRefused   atomic.Int64 // HTTP requests over Config.MaxBodyBytes
	ReadTimeouts  atomic.Int64 // HTTP requests that took longer than Config.ReadTimeout to arrive
	Malformed     atomic.Int64 // HTTP requests that could not be parsed
	HostRefused   atomic.Int64 // HTTP requests refused for their Host, Origin or Sec-Fetch-Site header
}
