package config

import (
	"reflect"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/identity"
)

// or returns value, or fallback if value is not set.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// orDefault returns what value points to, or fallback if it is nil. A pointer to zero is set.
func orDefault[T any](value *T, fallback T) T {
	if value == nil {
		return fallback
	}
	return *value
}

const off = "off"

func (l Listen) http() string    { return or(l.HTTP, "127.0.0.1:7070") }
func (l Listen) grpc() string    { return or(l.GRPC, "127.0.0.1:7071") }
func (l Listen) redis() string   { return or(l.Redis, off) }
func (l Listen) otlp() string    { return or(l.OTLP, off) }
func (l Listen) unix() string    { return or(l.Unix, off) }
func (l Listen) metrics() string { return or(l.Metrics, "0.0.0.0:7073") }
func (l Listen) xds() string     { return or(l.XDS, off) }
func (l Listen) admin() string   { return or(l.Admin, "127.0.0.1:7075") }

// peerListen is off by default for a sidecar that is alone or a client: it gets no requests from other members.
func (c Config) peerListen() string {
	if c.Membership.Alone() || c.Membership.Client() {
		return or(c.Listen.Peer, off)
	}
	return or(c.Listen.Peer, "0.0.0.0:7072")
}

// effectivePeerTLS has the defaults of SPIFFE ids, if connections use TLS.
func (c Config) effectivePeerTLS() PeerTLS {
	t := c.PeerTLS
	if t.On() {
		t.Cluster = c.clusterID()
		t.MemberPath = or(t.MemberPath, identity.DefaultMemberPath)
		t.ClientPath = or(t.ClientPath, identity.DefaultClientPath)
	}
	return t
}

// etcdPrefix has the namespace by default, so that two namespaces with the same configuration are two rings.
func (c Config) etcdPrefix() string {
	return or(c.Membership.Etcd.Prefix, "/ringside/"+or(c.Node.Namespace, "default")) //guard:namespaces-share-a-ring
}

func (e Etcd) leaseTTL() time.Duration { return orDefault(e.LeaseTTL, 5*time.Second) }

// defaultMaxMembers: each member costs each other one a connection and a part of each change of the ring, and etcd a lease and a watch;
// with the default ring, each of 256 has four entries, so that shares are still even. At 10 000 pods, one has 38 clients.
const defaultMaxMembers = 256

func (m Membership) role() string {
	if m.Kind() == "xds" {
		return RoleClient
	}
	return or(m.Role, RoleAuto)
}

func (c Config) maxMembers() int {
	return or(c.Membership.MaxMembers, min(defaultMaxMembers, c.Ring.max()))
}

func (r Ring) min() int { return or(r.Min, int(ring.DefaultSize().Min)) }
func (r Ring) max() int { return or(r.Max, int(ring.DefaultSize().Max)) }

// Size returns the ring's limits in the form that package ring takes.
func (r Ring) Size() ring.Size { return ring.Size{Min: uint64(r.min()), Max: uint64(r.max())} }

func (o Origin) maxConns() int    { return or(o.MaxConns, origin.DefaultMaxConns) }
func (o Origin) maxInFlight() int { return or(o.MaxInFlight, o.maxConns()) }
func (o Origin) queue() int       { return or(o.Queue, guard.DefaultMaxQueue) }

func (b Batch) maxKeys() int { return or(b.MaxKeys, guard.DefaultMaxKeys) }

func (b Breaker) failures() int           { return or(b.Failures, guard.DefaultFailures) }
func (b Breaker) cooldown() time.Duration { return orDefault(b.Cooldown, guard.DefaultCooldown) }

func (d Dataset) eviction() string { return or(d.Eviction, "lru") }

// WarmInterval is by default a quarter of the time in which an entry can be sent: in an outage, entries that nobody has read
// since the last load are useful for most of that time.
func (d Dataset) WarmInterval() time.Duration {
	p := d.Policy()
	return orDefault(d.Warm.Interval, max((p.TTL+p.StaleIfError)/4, minWarmInterval))
}

// WarmWait is how long readiness waits for the first load.
func (d Dataset) WarmWait() time.Duration { return orDefault(d.Warm.Wait, 0) }

// Configured reports whether there is a change feed.
func (f ChangeFeed) Configured() bool { return !reflect.ValueOf(f).IsZero() }
func (f ChangeFeed) table() string    { return or(f.Table, origin.DefaultFeedTable) }

func (f ChangeFeed) keep() time.Duration { return orDefault(f.Keep, origin.DefaultFeedKeep) }
func (f ChangeFeed) keepRows() int       { return or(f.KeepRows, origin.DefaultFeedKeepRows) }

func (f ChangeFeed) maxWAL() Size { return or(f.MaxWAL, Size(origin.DefaultFeedMaxWAL)) }

func (f ChangeFeed) interval() time.Duration {
	return orDefault(f.Interval, origin.DefaultFeedInterval)
}

// defaultOTLPMemory lets a request have 4 MiB, as gRPC servers do: it takes a sixth.
const defaultOTLPMemory = 24 << 20

func (o OTLP) ack() string  { return or(o.Ack, AckCommitted) }
func (o OTLP) memory() Size { return or(o.Memory, defaultOTLPMemory) }

func (l Log) format() string { return or(l.Format, "json") }
func (l Log) level() string  { return or(l.Level, "info") }

func (c Config) drainTimeout() time.Duration { return orDefault(c.DrainTimeout, 10*time.Second) }

// defaultGapTTL is for datasets with a change feed.
const defaultGapTTL = time.Second

// Policy is the default policy with the fields that the dataset sets.
func (d Dataset) Policy() kv.Policy {
	p := kv.DefaultPolicy()
	p.TTL = orDefault(d.TTL, p.TTL)
	p.TTLJitter = float64(orDefault(d.TTLJitter, Share(p.TTLJitter)))
	p.NegativeTTL = orDefault(d.NegativeTTL, p.NegativeTTL)
	p.StaleWhileRevalidate = orDefault(d.StaleWhileRevalidate, p.StaleWhileRevalidate)
	p.StaleIfError = orDefault(d.StaleIfError, p.StaleIfError)
	p.NegativeStaleIfError = orDefault(d.NegativeStaleIfError, p.NegativeStaleIfError)
	p.LocalTTL = orDefault(d.LocalTTL, min(p.TTL, p.LocalTTL))
	p.LoadTimeout = orDefault(d.LoadTimeout, p.LoadTimeout)
	p.WriteTimeout = orDefault(d.WriteTimeout, p.WriteTimeout)
	p.VerifyRate = orDefault(d.VerifyRate, p.VerifyRate)
	if d.Feed.Configured() {
		p.GapTTL = orDefault(d.GapTTL, min(p.TTL, defaultGapTTL))
	}
	return p
}
