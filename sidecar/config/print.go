package config

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/goccy/go-yaml"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
)

// Effective returns c with every default filled in, except those that depend on the host, such as node.id. Packages that
// run a configuration take an effective one.
func (c Config) Effective() Config {
	c.Listen = Listen{
		HTTP: c.Listen.http(), GRPC: c.Listen.grpc(), Redis: c.Listen.redis(), OTLP: c.Listen.otlp(), Unix: c.Listen.unix(), Peer: c.peerListen(),
		Metrics: c.Listen.metrics(), XDS: c.Listen.xds(), Admin: c.Listen.admin(), GRPCGo: c.Listen.GRPCGo,
	}
	c.PeerTLS = c.effectivePeerTLS()
	if e := &c.Membership.Etcd; len(e.Endpoints) > 0 {
		e.Prefix, e.LeaseTTL = c.etcdPrefix(), new(e.leaseTTL())
	}
	if !c.Membership.Alone() {
		c.Membership.MaxMembers, c.Membership.Role = c.maxMembers(), c.Membership.role()
	}
	c.Ring = Ring{Min: c.Ring.min(), Max: c.Ring.max()}
	c.Origins, c.Datasets = maps.Clone(c.Origins), maps.Clone(c.Datasets)
	for name, o := range c.Origins {
		c.Origins[name] = o.effective()
	}
	for name, d := range c.Datasets {
		c.Datasets[name] = d.effective()
	}
	if len(c.OTLP.Rows) > 0 {
		c.OTLP.Ack, c.OTLP.Memory = c.OTLP.ack(), c.OTLP.memory()
	}
	c.Log = Log{Format: c.Log.format(), Level: c.Log.level()}
	c.DrainTimeout = new(c.drainTimeout())
	return c
}

func (o Origin) effective() Origin {
	o.MaxConns, o.MaxInFlight, o.Queue = o.maxConns(), o.maxInFlight(), o.queue()
	o.Batch = Batch{MaxKeys: o.Batch.maxKeys()}
	o.Breaker = Breaker{Failures: o.Breaker.failures(), Cooldown: new(o.Breaker.cooldown())}
	return o
}

func (d Dataset) effective() Dataset {
	p := d.Policy()
	d.TTL, d.TTLJitter, d.NegativeTTL = new(p.TTL), new(Share(p.TTLJitter)), new(p.NegativeTTL)
	d.StaleWhileRevalidate, d.StaleIfError = new(p.StaleWhileRevalidate), new(p.StaleIfError)
	d.NegativeStaleIfError = new(p.NegativeStaleIfError)
	d.LocalTTL, d.LoadTimeout, d.Eviction = new(p.LocalTTL), new(p.LoadTimeout), d.eviction()
	d.Limits, d.VerifyRate = d.Limits.effective(), new(p.VerifyRate)
	if d.Writable {
		d.WriteTimeout = new(p.WriteTimeout)
	}
	if d.Feed.Configured() {
		d.Feed, d.GapTTL = d.Feed.effective(), new(p.GapTTL)
	}
	if d.Warm.Configured() {
		d.Warm.Interval, d.Warm.Wait = new(d.WarmInterval()), new(d.WarmWait())
	}
	return d
}

func (l Limits) effective() Limits {
	return Limits{
		NoCache: or(l.NoCache, access.DefaultRate(access.NoCache)), Watch: or(l.Watch, access.DefaultRate(access.Watches)),
		Write: or(l.Write, access.DefaultRate(access.Writes)), Invalidate: or(l.Invalidate, access.DefaultRate(access.Invalidations)),
	}
}

func (f ChangeFeed) effective() ChangeFeed {
	switch f.Kind {
	case feedNotify:
		return f
	case feedLogical:
		f.MaxWAL = f.maxWAL()
		return f
	}
	f.Table, f.Interval, f.Keep, f.KeepRows = f.table(), new(f.interval()), new(f.keep()), f.keepRows()
	return f
}

// Print returns c as YAML or JSON, with secrets hidden.
func (c Config) Print(asJSON bool) ([]byte, error) {
	// An unset list prints as null: Parse rejects an empty one.
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
