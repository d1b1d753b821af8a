package grpcapi

import (
	"context"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing/calls"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// maxFastKeys is the largest batch: the reads of a connection wait for each other.
const maxFastKeys = 16

// Fast answers the reads of values that are fresh in memory, with the bytes that the server of NewServer would send. It
// leaves everything else to that server: other methods, misses, errors, large values, and messages with anything unusual. It
// neither waits nor allocates, and is safe for concurrent use.
type Fast struct {
	backend *api.Backend
	stats   *api.Protocol
}

// NewFast returns a Fast that counts its calls in stats, as NewServer does.
func NewFast(backend *api.Backend, stats *api.Protocol) *Fast {
	return &Fast{backend: backend, stats: stats}
}

// Match reports whether Append may answer calls of a method.
func (f *Fast) Match(path string) bool {
	switch path {
	case ringsidev1.Cache_Get_FullMethodName, ringsidev1.Cache_BatchGet_FullMethodName, groupcachepb.GroupCache_Get_FullMethodName:
		return true
	}
	return false
}

// Append appends the response, at most limit bytes, to dst. It reports false, and has counted nothing, if it does not
// answer.
func (f *Fast) Append(ctx context.Context, call h2.Call, message, dst []byte, limit int) (_ []byte, ok bool) {
	start := time.Now()
	defer f.recovered(&ok) //guard:fast-panic-ends-process
	switch call.Path {
	case ringsidev1.Cache_Get_FullMethodName:
		dst, ok = f.get(ctx, message, dst, limit)
	case ringsidev1.Cache_BatchGet_FullMethodName:
		dst, ok = f.batchGet(ctx, message, dst, limit)
	case groupcachepb.GroupCache_Get_FullMethodName:
		dst, ok = f.groupGet(ctx, message, dst, limit)
	}
	if ok {
		took := time.Since(start)
		f.stats.Duration.Observe(took)
		if _, span := calls.Begin(ctx, f.backend.Config().Tracer, call, call.Path, start); span != nil {
			span.Set(tracing.Source, kv.SourceHit.String())
			span.Exemplify(&f.stats.Duration, took)
			calls.End(span, codes.OK)
		}
	}
	return dst, ok
}

func (f *Fast) recovered(ok *bool) {
	if p := recover(); p != nil {
		_ = f.backend.Panic("while reading from memory", p) // it is counted and logged; the server answers
		*ok = false
	}
}

func (f *Fast) get(ctx context.Context, message, dst []byte, limit int) ([]byte, bool) {
	q, ok := parseGet(message, numMinVersion)
	if !ok {
		return dst, false
	}
	a, d, ok := f.read(ctx, &q)
	mediaType := d.MediaType(a.Content)
	if !ok || sizeGetResponse(&a, mediaType) > limit {
		return dst, false
	}
	count(d, &a)
	return appendGetResponse(dst, &a, mediaType), true
}

func (f *Fast) groupGet(ctx context.Context, message, dst []byte, limit int) ([]byte, bool) {
	q, ok := parseGet(message, numKey) // the same numbers
	if !ok {
		return dst, false
	}
	a, d, ok := f.read(ctx, &q)
	if !ok || sizeBytes(a.Value) > limit {
		return dst, false
	}
	count(d, &a)
	return appendBytes(dst, numValue, a.Value), true
}

func (f *Fast) read(ctx context.Context, q *getRequest) (kv.Answer, api.Served, bool) {
	d, ok := f.dataset(ctx, q.dataset)
	if !ok {
		return kv.Answer{}, d, false
	}
	a, ok := d.Cached(q.key, q.options)
	return a, d, ok && sendable(&a)
}

// dataset finds a dataset that the caller may read without a token; the server looks for one.
func (f *Fast) dataset(ctx context.Context, name string) (api.Served, bool) {
	d, ok := f.backend.Datasets.Lookup(name)
	if !ok || d.Gate.Open(access.Read) {
		return d, ok
	}
	who := caller.From(ctx)
	return d, d.Gate.Allows(&who, access.Read) //guard:fast-path-answers-denied-call
}

// batchGet counts its reads at the end: another server counts all of them if one is not answered here.
func (f *Fast) batchGet(ctx context.Context, message, dst []byte, limit int) ([]byte, bool) {
	var q batchRequest
	if !q.parse(message) {
		return dst, false
	}
	d, ok := f.dataset(ctx, q.dataset)
	if !ok {
		return dst, false
	}
	var answers [maxFastKeys]kv.Answer
	values, size := 0, 0
	for i, key := range q.keys[:q.n] {
		if answers[i], ok = d.Cached(key, kv.ReadOptions{}); !ok || !sendable(&answers[i]) {
			return dst, false
		}
		values += len(answers[i].Value)
		size += sizeMessage(sizeBatchResult(key, &answers[i], d.MediaType(answers[i].Content)))
	}
	if size > limit || values > f.backend.Config().MaxBatchBytes {
		return dst, false
	}
	for i, key := range q.keys[:q.n] {
		count(d, &answers[i])
		dst = appendBatchResult(dst, key, &answers[i], d.MediaType(answers[i].Content))
	}
	return dst, true
}

// sendable reports whether protobuf can send an answer: it rejects strings that are not UTF-8.
func sendable(a *kv.Answer) bool { return utf8.ValidString(a.ETag) && utf8.ValidString(a.Owner) }

func count(d api.Served, a *kv.Answer) { d.Stats().CountHit(false, a.Source == kv.SourceLocalHit) }
