package grpcapi

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Explain implements ringside.v1.Cache.
func (s *service) Explain(ctx context.Context, q *ringsidev1.ExplainRequest) (_ *ringsidev1.ExplainResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	explain := s.backend.Config().Explain
	if s.routed || explain == nil {
		return nil, status.Error(codes.Unimplemented, api.ErrNoExplain.Error())
	}
	d, who, err := s.dataset(ctx, q.GetDataset(), access.Read)
	if err != nil {
		return nil, err
	}
	if err := kv.CheckKey(q.GetKey()); err != nil {
		return nil, api.InvalidKey(err).At("key")
	}
	if err := d.LimitExplain(&who); err != nil {
		return nil, s.backend.Error(err)
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	body, err := explain(limited, d.Name(), q.GetKey())
	if err != nil {
		return nil, s.backend.Error(err).At("key")
	}
	return &ringsidev1.ExplainResponse{Json: body}, nil
}
