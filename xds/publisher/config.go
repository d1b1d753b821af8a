// Package publisher is the service that sends the ring as xDS resources over ADS, in both the state-of-the-world and the
// incremental protocol. Its caller has the server, with the connections and their limits.
package publisher

import (
	"cmp"
	"time"

	"github.com/ringside-cache/ringside/ring"
)

// MaxRequestBytes is for the limit of messages of the server. It exceeds the first request of an Envoy: its node lists every
// extension, about 100 KiB.
const MaxRequestBytes = 512 << 10

// Config configures a Publisher. Every field may be zero.
type Config struct {
	// Size is the size of the ring.
	Size ring.Size
	// Delay is how long a change waits for others, so that clients receive only the last of them; 100 ms by default.
	Delay time.Duration
	// MaxStreams limits the clients; 256 by default. A publisher serves the proxies of one pod.
	MaxStreams int
	// OnNACK is called when a client rejects an update, at most once a second. It must be quick. May be nil.
	OnNACK func(NACK)
	// OnUnpublishable is called with the members that cannot be published, and why. It must be quick and not call the
	// Publisher. May be nil.
	OnUnpublishable func(error)
	// Defect is called with each panic, stack included. May be nil.
	Defect func(error)
}

func (c Config) withDefaults() Config {
	size := ring.DefaultSize()
	c.Size = ring.Size{Min: cmp.Or(c.Size.Min, size.Min), Max: cmp.Or(c.Size.Max, size.Max)}
	c.Delay = cmp.Or(c.Delay, 100*time.Millisecond)
	c.MaxStreams = cmp.Or(c.MaxStreams, 256)
	if c.OnNACK == nil {
		c.OnNACK = func(NACK) {}
	}
	if c.OnUnpublishable == nil {
		c.OnUnpublishable = func(error) {}
	}
	if c.Defect == nil {
		c.Defect = func(error) {}
	}
	return c
}

// NACK is the rejection of an update by a client, which keeps its last good configuration.
type NACK struct {
	At time.Time
	// Node is the id of the client, Resource the type that it rejected, and Reason its error. All are printable and of
	// limited length.
	Node, Resource, Reason string
}

// Status is a snapshot of a Publisher.
type Status struct {
	// Version is the version of the endpoints; empty before the first list of members.
	Version string
	// Endpoints is the number of members in it, leaving ones included.
	Endpoints int
	// Clients is the number of open streams, and MaxClients their limit.
	Clients, MaxClients int
	// Updates counts versions, NACKs the updates that clients rejected, and ClientsRefused the streams that were refused or
	// ended because their client exceeded a limit.
	Updates, NACKs, ClientsRefused int64
	// LastNACK is nil before the first one.
	LastNACK *NACK
}
