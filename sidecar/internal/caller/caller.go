// Package caller says who makes a request. A listener finds out once per connection and puts it into the context of each
// request; permissions, rate limits and the audit log read it there.
package caller

import (
	"context"
	"fmt"
)

// Kind is how a caller is known.
type Kind int

// The kinds of callers.
const (
	Unknown  Kind = iota // a connection in plain text from another host
	Loopback             // a TCP connection from this host
	Unix                 // the unix socket: the kernel says which process connected
	Token                // a token that the request carries
	Client               // a certificate of a client that routes by the ring
	Member               // a certificate of a member
)

// String returns the name of a kind in metrics and in the audit log.
func (k Kind) String() string {
	return [...]string{"unknown", "loopback", "unix", "token", "client", "member"}[k]
}

// noID is the uid and the gid of a process that is not known. No process has it: the system calls that set ids take it for
// "unchanged" (setresuid(2)).
const noID = 1<<32 - 1

// Caller is who makes a request. The zero value is an unknown one.
type Caller struct {
	Kind Kind
	// ID is the SPIFFE id or the name in the certificate of a Client or Member, or the name of a Token. It was verified.
	ID string
	// UID, GID and PID are those of the process at the other end of a Unix connection.
	UID, GID uint32
	PID      int32
	// Addr is the address of the other end; empty for Unix. It is for the audit log, not for permissions.
	Addr string
}

// String returns the caller as it appears in the audit log and in error messages: never a secret.
func (c Caller) String() string {
	switch c.Kind {
	case Unix:
		return fmt.Sprintf("unix:uid=%d,gid=%d", c.UID, c.GID)
	case Unknown, Loopback:
		return c.Kind.String()
	}
	return c.Kind.String() + ":" + c.ID
}

type key struct{}

// With returns a context of requests by c.
func With(ctx context.Context, c Caller) context.Context { return context.WithValue(ctx, key{}, c) }

// From returns the caller of a request; the zero value if no listener has set it.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(key{}).(Caller)
	return c
}
