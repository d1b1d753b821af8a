package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

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
	who := caller.From(ctx)
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
