package local

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// envelopeBytes is what the rest of a message may take beside a value: key, condition and names.
const envelopeBytes = 8 << 10

func (s *Server) newGRPC(stats *Protocol, routed bool) *grpc.Server {
	g := grpc.NewServer(
		grpc.MaxConcurrentStreams(uint32(s.config.MaxStreams)),
		grpc.MaxRecvMsgSize(s.config.MaxBodyBytes+envelopeBytes), //guard:largest-value-fails-over-grpc
		grpc.MaxHeaderListSize(uint32(s.config.MaxHeaderBytes)),
		grpc.ConnectionTimeout(s.config.ReadTimeout),
		grpc.StreamInterceptor(s.endStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.config.IdleTimeout, Timeout: s.config.WriteTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	reads := &service{server: s, stats: stats, routed: routed,
		deadlines: sync.Pool{New: func() any { return new(deadline) }}}
	ringsidev1.RegisterCacheServer(g, reads)
	groupcachepb.RegisterGroupCacheServer(g, &groupCache{service: reads})
	if routed {
		healthpb.RegisterHealthServer(g, s.routedHealth)
	} else {
		healthpb.RegisterHealthServer(g, s.health)
	}
	return g
}

// endStream ends streams, which are health watches, when Shutdown begins: it would wait for them for ever.
func (s *Server) endStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	return next(srv, endingStream{stream, ctx})
}

// endingStream is a stream that ends before its client does.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s endingStream) Context() context.Context { return s.ctx }

// service is ringside.v1.Cache.
type service struct {
	ringsidev1.UnimplementedCacheServer
	server    *Server
	stats     *Protocol
	routed    bool      // by the ring: no watches
	deadlines sync.Pool // of *deadline
}

// Get implements ringside.v1.Cache.
func (g *service) Get(ctx context.Context, q *ringsidev1.GetRequest) (_ *ringsidev1.GetResponse, err error) {
	start := time.Now()
	defer g.finish(start, &err)
	o, field, err := optionsOf(q)
	if err != nil {
		return nil, invalidRequest(err).At(field)
	}
	a, err := g.find(ctx, start, q.GetDataset(), q.GetKey(), o)
	if err != nil {
		return nil, err
	}
	return reply(&a), nil
}

// optionsOf returns what q asks for, or the field that is wrong and why.
func optionsOf(q *ringsidev1.GetRequest) (o cache.ReadOptions, field string, err error) {
	o = cache.ReadOptions{NoCache: q.GetNoCache(), OnlyIfCached: q.GetOnlyIfCached(), MinVersion: q.GetMinVersion()}
	if o.MinVersion < 0 {
		return o, "min_version", errors.New("a version is not negative")
	}
	if q.GetMaxStale() == nil {
		return o, "", nil
	}
	o.LimitStale, o.MaxStale = true, min(q.GetMaxStale().AsDuration(), anyStaleness)
	if err := q.GetMaxStale().CheckValid(); err != nil || o.MaxStale < 0 {
		return o, "max_stale", errors.New("a staleness is a valid google.protobuf.Duration, and not negative")
	}
	return o, "", nil
}

// find reads one key. Its error, also that of an absent key, is a status.
func (g *service) find(ctx context.Context, start time.Time, dataset, key string, o cache.ReadOptions) (
	cache.Answer, error) {
	d, err := g.dataset(dataset)
	if err != nil {
		return cache.Answer{}, err
	}
	if err := checkKey(key); err != nil {
		return cache.Answer{}, invalidKey(err).At("key")
	}
	limit := g.deadline(ctx, start)
	defer g.recycle(limit)
	a, err := d.Get(limit, key, o)
	switch {
	case err != nil:
		return cache.Answer{}, g.server.fail(err).At("key")
	case a.NotFound:
		return cache.Answer{}, absent().At("key")
	}
	return a, nil
}

// BatchGet implements ringside.v1.Cache.
func (g *service) BatchGet(
	ctx context.Context, q *ringsidev1.BatchGetRequest,
) (_ *ringsidev1.BatchGetResponse, err error) {
	start := time.Now()
	defer g.finish(start, &err)
	d, err := g.dataset(q.GetDataset())
	if err != nil {
		return nil, err
	}
	keys := q.GetKeys()
	if err := checkBatch(keys); err != nil {
		return nil, invalidBatch(err).At("keys")
	}
	limit := g.deadline(ctx, start)
	defer g.recycle(limit)
	results := make([]*ringsidev1.BatchGetResult, len(keys))
	for i, o := range g.server.readAll(limit, d, keys, cache.ReadOptions{}) {
		results[i] = g.result(keys[i], o)
	}
	return &ringsidev1.BatchGetResponse{Results: results}, nil
}

// finish counts a call, and makes an error of a panic: one bad call must not end the sidecar.
func (g *service) finish(start time.Time, err *error) {
	if p := recover(); p != nil {
		*err = g.server.fail(fmt.Errorf("panic while answering a call: %v\n%s", p, debug.Stack())).At("")
	}
	g.stats.Duration.Observe(time.Since(start))
}

func (g *service) dataset(name string) (Served, error) {
	d, ok := g.server.datasets.Lookup(name)
	if !ok {
		return Served{}, unknownDataset(name, g.server.datasets.All()).At("dataset")
	}
	return d, nil
}

func (g *service) deadline(ctx context.Context, start time.Time) *deadline {
	d := g.deadlines.Get().(*deadline)
	d.reset(ctx, start.Add(g.server.config.RequestTimeout))
	return d
}

// recycle keeps d for the next call, unless somebody may still hold it.
func (g *service) recycle(d *deadline) {
	if d.stop() {
		d.Context = nil
		g.deadlines.Put(d)
	}
}

func (g *service) result(key string, o outcome) *ringsidev1.BatchGetResult {
	switch {
	case o.err != nil:
		return failedResult(key, g.server.fail(o.err))
	case o.answer.NotFound:
		return failedResult(key, absent())
	}
	return &ringsidev1.BatchGetResult{Key: key, Result: &ringsidev1.BatchGetResult_Found{Found: reply(&o.answer)}}
}

func failedResult(key string, e *apierror.Error) *ringsidev1.BatchGetResult {
	return &ringsidev1.BatchGetResult{Key: key, Result: &ringsidev1.BatchGetResult_Error{Error: message(e)}}
}

// message returns e as a part of a batch or a watch, which is no error as a whole.
func message(e *apierror.Error) *ringsidev1.Error {
	m := &ringsidev1.Error{Code: int32(e.Type.Code), Reason: e.Type.Reason, Message: e.Detail}
	if e.RetryAfter > 0 {
		m.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return m
}

// found is all that an answer consists of, in one allocation.
type found struct {
	response  ringsidev1.GetResponse
	meta      ringsidev1.Meta
	age, left durationpb.Duration
}

func reply(a *cache.Answer) *ringsidev1.GetResponse {
	f := new(found)
	setDuration(&f.age, a.Age)
	setDuration(&f.left, timeLeft(a))
	f.meta.Version = a.Version
	f.meta.Age, f.meta.TimeLeft = &f.age, &f.left
	f.meta.Etag = a.ETag
	f.meta.Source = sources[a.Source]
	f.meta.Stale = a.Stale
	f.meta.Owner = a.Owner
	f.response.Value, f.response.Meta = a.Value, &f.meta
	return &f.response
}

func setDuration(to *durationpb.Duration, d time.Duration) {
	to.Seconds, to.Nanos = int64(d/time.Second), int32(d%time.Second)
}

var sources = [...]ringsidev1.Source{
	cache.SourceHit:      ringsidev1.Source_SOURCE_HIT,
	cache.SourceLocalHit: ringsidev1.Source_SOURCE_LOCAL_HIT,
	cache.SourcePeerHit:  ringsidev1.Source_SOURCE_PEER_HIT,
	cache.SourceLoad:     ringsidev1.Source_SOURCE_LOAD,
}
