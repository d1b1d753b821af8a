package service

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing/calls"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// Fast answers fetches of values in memory, with the bytes that Service.Fetch would send. It leaves everything else to that:
// loads, errors, large values, and messages with anything unusual. It does not wait, and implements h2.Fast.
type Fast struct{ service *Service }

// Fast returns the Fast of s.
func (s *Service) Fast() Fast { return Fast{s} }

// Match reports whether Append may answer calls of a method.
func (f Fast) Match(path string) bool { return path == peerv1.Peer_Fetch_FullMethodName }

// Append appends the response, at most limit bytes, to dst. It reports false, and has counted nothing, if it does not answer.
func (f Fast) Append(ctx context.Context, call h2.Call, message, dst []byte, limit int) ([]byte, bool) {
	s, began := f.service, time.Now()
	req, ok := wire.ParseFetch(message)
	if !ok {
		return dst, false
	}
	dataset, ok := s.config.Datasets(req.Dataset)
	if !ok {
		return dst, false
	}
	a, ok := dataset.ServeHit(req.Query, req.MaxValue(limit))
	if !ok {
		return dst, false
	}
	if _, span := calls.Begin(ctx, s.config.Tracer, call, call.Path, began); span != nil {
		span.Set(tracing.Source, a.Source.String())
		calls.End(span, codes.OK)
	}
	return wire.AppendHit(dst, &a, s.config.Ring.RingID(), s.owns(&req, dataset), s.entryOf(req.Query, a))
}
