package grpcapi

import (
	"context"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// dataset finds a dataset with which the caller may do o, and returns who that is.
func (s *service) dataset(ctx context.Context, name string, o access.Operation) (api.Served, caller.Caller, error) {
	d, e := s.backend.Dataset(name)
	if e != nil {
		return d, caller.Caller{}, e
	}
	who := callerOf(ctx)
	if o == access.Read && d.Gate.Allows(&who, o) { // without a look at the metadata
		return d, who, nil
	}
	who, err := d.Gate.Authorize(who, o, authorization(ctx))
	if err != nil { //guard:denied-call-is-answered
		return d, who, s.backend.Error(err)
	}
	return d, who, nil
}

// authorization returns the value of the metadata authorization, or "".
func authorization(ctx context.Context) string {
	return strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ", ")
}

// callerOf returns who makes a call: as its server knows, or as its connection shows.
func callerOf(ctx context.Context) caller.Caller {
	if c := caller.From(ctx); c != (caller.Caller{}) {
		return c
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller.Caller{}
	}
	if info, ok := p.AuthInfo.(connInfo); ok {
		return info.caller
	}
	return caller.Caller{}
}

// plainText are credentials for plain text that find out once per connection who is at its other end.
type plainText struct {
	credentials.TransportCredentials
}

func newPlainText() plainText { return plainText{insecure.NewCredentials()} }

// connInfo is what a server knows of a connection.
type connInfo struct {
	credentials.CommonAuthInfo
	caller caller.Caller
}

// AuthType implements credentials.AuthInfo.
func (connInfo) AuthType() string { return "insecure" }

// ServerHandshake implements credentials.TransportCredentials.
func (plainText) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, connInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, caller.Of(c)}, nil
}

// Clone implements credentials.TransportCredentials.
func (p plainText) Clone() credentials.TransportCredentials {
	return plainText{p.TransportCredentials.Clone()}
}
