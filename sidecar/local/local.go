// Package local serves applications: HTTP, gRPC, the Redis protocol, and all of them on one unix socket. It has the listeners and their
// lifecycle; the APIs are in the packages below it, and caching, the ring and all policy in package cache.
package local

import "github.com/ringside-cache/ringside/sidecar/local/api"

// Config has the limits of what applications may do.
type Config = api.Config

// Served is a dataset and how the APIs present it.
type Served = api.Served

// Catalog is a list of datasets that can be replaced while requests are served.
type Catalog = api.Catalog

// Mount is an API beside that of the datasets.
type Mount = api.Mount

// Stats are the live counters of a Server.
type Stats = api.Stats

// Protocol are the counters of one listener.
type Protocol = api.Protocol

// DefaultMaxConns is the default of Config.MaxConns.
const DefaultMaxConns = api.DefaultMaxConns

// NewCatalog returns a Catalog of datasets with different names.
func NewCatalog(list ...Served) *Catalog { return api.NewCatalog(list...) }
