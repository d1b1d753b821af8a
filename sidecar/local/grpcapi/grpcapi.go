// Package grpcapi is the gRPC API of the datasets: ringside.v1.Cache, and groupcachepb.GroupCache for old clients.
package grpcapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress; the response has the compression of the request
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing/calls"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/extauthz"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// envelopeBytes is the size that a message may have beside a value: key, condition and names.
const envelopeBytes = 8 << 10

// MaxMessageBytes returns the size of the largest message of a call.
func MaxMessageBytes(c *api.Config) int {
	return c.MaxBodyBytes + envelopeBytes //guard:largest-value-fails-over-grpc
}

// NewServer returns a gRPC server, to be called by package h2, with the services of this package. stats are the counters of its listener. With routed
// set it is for clients that route by the ring, which have neither watches nor the mounted API.
func NewServer(
	backend *api.Backend, watches *watch.Engine, stats *api.Protocol, routed bool, options ...grpc.ServerOption,
) *grpc.Server {
	config := backend.Config()
	options = append(append(options, h2.GRPCOptions()...), calls.Options(config.Tracer)...)
	g := grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(MaxMessageBytes(config)),
		grpc.ChainStreamInterceptor(streamEnder(backend.Stopping())),
	)...)
	s := newService(backend, watches, stats, routed)
	ringsidev1.RegisterCacheServer(g, s)
	groupcachepb.RegisterGroupCacheServer(g, &groupCache{service: s})
	if mount := config.CNFMetrics; mount != nil && !routed {
		mount.Register(mountRegistrar{g, s})
	}
	if config.ExtAuthz.Dataset != "" && !routed {
		extauthz.Register(mountRegistrar{g, s}, backend, config.ExtAuthz)
	}
	return g
}

// streamEnder ends streams, such as health watches, when stopping ends: a graceful stop would wait for them forever.
func streamEnder(stopping context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(stopping, cancel)()
		return next(srv, endingStream{stream, ctx})
	}
}

// endingStream is a stream with a context that can end before its client does.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s endingStream) Context() context.Context { return s.ctx }

// service is ringside.v1.Cache. The errors of its methods are of type *apierror.Error, or statuses.
type service struct {
	ringsidev1.UnimplementedCacheServer
	backend   *api.Backend
	watches   *watch.Engine
	stats     *api.Protocol
	routed    bool
	deadlines sync.Pool // of *api.Deadline
}

func newService(backend *api.Backend, watches *watch.Engine, stats *api.Protocol, routed bool) *service {
	return &service{backend: backend, watches: watches, stats: stats, routed: routed,
		deadlines: sync.Pool{New: func() any { return new(api.Deadline) }}}
}

// Get implements ringside.v1.Cache.
func (s *service) Get(ctx context.Context, q *ringsidev1.GetRequest) (_ *ringsidev1.GetResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	o, field, err := readOptions(q)
	if err != nil {
		return nil, api.InvalidRequest(err).At(field)
	}
	return s.get(ctx, start, q.GetDataset(), q.GetKey(), o)
}

// readOptions returns the options that q requests, or the field that is wrong and why.
func readOptions(q *ringsidev1.GetRequest) (o kv.ReadOptions, field string, err error) {
	o = kv.ReadOptions{NoCache: q.GetNoCache(), OnlyIfCached: q.GetOnlyIfCached(), MinVersion: q.GetMinVersion()}
	if o.MinVersion < 0 {
		return o, "min_version", errors.New("a version must not be negative")
	}
	if q.GetMaxStale() == nil {
		return o, "", nil
	}
	o.LimitStale, o.MaxStale = true, min(q.GetMaxStale().AsDuration(), httpfield.MaxStaleness)
	if err := q.GetMaxStale().CheckValid(); err != nil || o.MaxStale < 0 {
		return o, "max_stale", errors.New("max_stale must be a valid google.protobuf.Duration and not negative")
	}
	return o, "", nil
}

// get reads one key. A key that does not exist is an error.
func (s *service) get(ctx context.Context, start time.Time, dataset, key string, o kv.ReadOptions) (
	*ringsidev1.GetResponse, error) {
	d, who, err := s.dataset(ctx, dataset, access.Read)
	if err != nil {
		return nil, err
	}
	span := tracing.From(ctx)
	span.Set(tracing.Dataset, d.Name())
	if err := kv.CheckKey(key); err != nil {
		return nil, api.InvalidKey(err).At("key")
	}
	if err := d.LimitRead(&who, o, 1); err != nil {
		return nil, s.backend.Error(err)
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	a, err := d.Get(limited, key, o)
	if err == nil {
		span.Set(tracing.Source, a.Source.String())
	}
	switch {
	case err != nil:
		return nil, s.backend.Error(err).At("key")
	case a.NotFound:
		return nil, api.NotFound()
	}
	if err := s.reserve(ctx, len(a.Value)); err != nil {
		return nil, s.backend.Error(err).At("key")
	}
	return getResponse(&a, d.MediaType(a.Content)), nil
}

// reserve takes the memory of a large response, before it is encoded, until it is sent: then ctx, that of the call, ends.
func (s *service) reserve(ctx context.Context, size int) error {
	if size <= api.PrepaidResponse {
		return nil
	}
	response := s.backend.Config().Budget.Loan(budget.Responses)
	if !response.Grow(int64(size)) { //guard:large-responses-are-encoded-at-once
		return kv.ErrNoMemory
	}
	context.AfterFunc(ctx, response.Close)
	return nil
}

// BatchGet implements ringside.v1.Cache.
func (s *service) BatchGet(
	ctx context.Context, q *ringsidev1.BatchGetRequest,
) (_ *ringsidev1.BatchGetResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	d, _, err := s.dataset(ctx, q.GetDataset(), access.Read)
	if err != nil {
		return nil, err
	}
	keys := q.GetKeys()
	if e := api.CheckBatch(keys); e != nil {
		return nil, e.At("keys")
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	values := s.backend.Config().Budget.Loan(budget.Responses)
	// Returned once the response is sent, and not before the last value: a client that resets its call ends ctx earlier.
	defer func() { context.AfterFunc(ctx, values.Close) }()
	results := make([]*ringsidev1.BatchGetResult, len(keys))
	for i, r := range s.backend.ReadBatch(limited, d, keys, kv.ReadOptions{}, &values) { //guard:values-of-batches-take-no-memory
		results[i] = s.batchResult(d, keys[i], r)
	}
	return &ringsidev1.BatchGetResponse{Results: results}, nil
}

// finish counts a call, and turns a panic into an error: one bad call must not end the sidecar.
func (s *service) finish(ctx context.Context, start time.Time, err *error) {
	if p := recover(); p != nil {
		*err = s.backend.Panic("while handling a call", p)
	}
	took := time.Since(start)
	s.stats.Duration.Observe(took)
	tracing.From(ctx).Exemplify(&s.stats.Duration, took)
}

func (s *service) deadline(ctx context.Context, start time.Time) *api.Deadline {
	d := s.deadlines.Get().(*api.Deadline)
	d.Reset(ctx, start.Add(s.backend.Config().RequestTimeout))
	return d
}

// recycle keeps d for the next call, unless something may still wait for it.
func (s *service) recycle(d *api.Deadline) {
	if d.Stop() {
		s.deadlines.Put(d)
	}
}

func (s *service) batchResult(d api.Served, key string, r kv.Result) *ringsidev1.BatchGetResult {
	switch {
	case r.Err != nil:
		return failedResult(key, s.backend.Error(r.Err))
	case r.Answer.NotFound:
		return failedResult(key, api.NotFound())
	}
	found := getResponse(&r.Answer, d.MediaType(r.Answer.Content))
	return &ringsidev1.BatchGetResult{Key: key, Result: &ringsidev1.BatchGetResult_Found{Found: found}}
}

func failedResult(key string, e *apierror.Error) *ringsidev1.BatchGetResult {
	return &ringsidev1.BatchGetResult{Key: key, Result: &ringsidev1.BatchGetResult_Error{Error: errorMessage(e)}}
}

// errorMessage returns e as a part of a batch or a watch, which is not an error as a whole.
func errorMessage(e *apierror.Error) *ringsidev1.Error {
	m := &ringsidev1.Error{Code: int32(e.Type.Code), Reason: e.Type.Reason, Message: e.Detail, Id: e.ID}
	if e.RetryAfter > 0 {
		m.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return m
}

// response holds all messages of a GetResponse in one allocation.
type response struct {
	response  ringsidev1.GetResponse
	meta      ringsidev1.Meta
	age, left durationpb.Duration
}

func getResponse(a *kv.Answer, mediaType string) *ringsidev1.GetResponse {
	r := new(response)
	setDuration(&r.age, a.Age)
	setDuration(&r.left, api.TimeLeft(a))
	r.meta.Version = a.Version
	r.meta.Age, r.meta.TimeLeft = &r.age, &r.left
	r.meta.Etag = a.ETag
	r.meta.Source = sources[a.Source]
	r.meta.Stale = a.Stale
	r.meta.Owner = a.Owner
	r.meta.ContentType = mediaType
	r.response.Value, r.response.Meta = a.Value, &r.meta
	return &r.response
}

func setDuration(to *durationpb.Duration, d time.Duration) {
	to.Seconds, to.Nanos = int64(d/time.Second), int32(d%time.Second)
}

var sources = [...]ringsidev1.Source{
	kv.SourceHit:      ringsidev1.Source_SOURCE_HIT,
	kv.SourceLocalHit: ringsidev1.Source_SOURCE_LOCAL_HIT,
	kv.SourcePeerHit:  ringsidev1.Source_SOURCE_PEER_HIT,
	kv.SourceLoad:     ringsidev1.Source_SOURCE_LOAD,
}
