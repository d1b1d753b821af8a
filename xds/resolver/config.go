// Package resolver is the client of publishers: the ring.Directory of a sidecar that is not on the ring itself.
package resolver

import (
	"cmp"
	"time"

	"google.golang.org/grpc/credentials"
)

// Config configures a Resolver. Only Addresses is required.
type Config struct {
	// Addresses are the publishers (host:port), all equivalent.
	Addresses []string
	// Credentials are for publishers on other hosts; nil means plain text. Those on this host, at a loopback address, serve
	// plain text.
	Credentials credentials.TransportCredentials
	// Node is the node id that this client sends to them.
	Node string
	// AnswerTimeout is how long a publisher may take for its first valid list before the next one is tried; 5 s by default.
	AnswerTimeout time.Duration
	// OnEvent is called when a publisher is found or lost, and for rejected lists: a few times per outage, not once per
	// attempt. err is nil when a publisher is found. It must be quick. May be nil.
	OnEvent func(what string, err error)
}

func (c Config) withDefaults() Config {
	c.AnswerTimeout = cmp.Or(c.AnswerTimeout, 5*time.Second)
	if c.OnEvent == nil {
		c.OnEvent = func(string, error) {}
	}
	return c
}

// Status is a snapshot of a Resolver.
type Status struct {
	// Publisher is the address of the connected publisher; empty while there is none.
	Publisher string
	// Members is the number of members in the last list, leaving ones included.
	Members int
	// Updates counts the accepted lists, NACKs the rejected lists, and Losses the publishers that were lost or never sent a
	// list.
	Updates, NACKs, Losses int64
	// LastError is why the last publisher was lost or its list rejected; empty after an accepted list.
	LastError string
	// ContactAge is the time since the publisher was lost, or since the start before there was one; 0 while connected.
	ContactAge time.Duration
}
