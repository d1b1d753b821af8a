package grpcapi

import (
	"context"
	"errors"
	"time"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Put implements ringside.v1.Cache.
func (s *service) Put(ctx context.Context, q *ringsidev1.PutRequest) (_ *ringsidev1.PutResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	d, a, err := s.write(ctx, start, q.GetDataset(), q.GetCondition(),
		kv.Change{Key: q.GetKey(), Value: q.GetValue(), ID: q.GetIdempotencyId()})
	if err != nil {
		return nil, err
	}
	row := getResponse(&a, d.MediaType(a.Content))
	return &ringsidev1.PutResponse{Value: row.GetValue(), Meta: row.GetMeta()}, nil
}

// Append implements ringside.v1.Cache.
func (s *service) Append(ctx context.Context, q *ringsidev1.AppendRequest) (_ *ringsidev1.AppendResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	d, who, err := s.dataset(ctx, q.GetDataset(), access.Write)
	if err != nil {
		return nil, err
	}
	if id := q.GetIdempotencyId(); id != "" {
		if err := api.CheckIdempotencyID(id); err != nil {
			return nil, api.InvalidRequest(err).At("idempotency_id")
		}
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	a, err := d.AppendFor(limited, &who, q.GetValue(), q.GetIdempotencyId())
	if err != nil {
		return nil, writeError(api.AppendError(s.backend.Error(err)))
	}
	row := getResponse(&a.Answer, d.MediaType(a.Answer.Content))
	return &ringsidev1.AppendResponse{Key: a.Key, Value: row.GetValue(), Meta: row.GetMeta()}, nil
}

// Delete implements ringside.v1.Cache.
func (s *service) Delete(ctx context.Context, q *ringsidev1.DeleteRequest) (_ *ringsidev1.DeleteResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	_, a, err := s.write(ctx, start, q.GetDataset(), q.GetCondition(),
		kv.Change{Key: q.GetKey(), Delete: true, ID: q.GetIdempotencyId()})
	if err != nil {
		return nil, err
	}
	return &ringsidev1.DeleteResponse{Version: a.Version}, nil
}

// write makes one change.
func (s *service) write(
	ctx context.Context, start time.Time, dataset string, condition *ringsidev1.Condition, c kv.Change,
) (api.Served, kv.Answer, error) {
	d, who, err := s.dataset(ctx, dataset, access.Write)
	if err != nil {
		return d, kv.Answer{}, err
	}
	if e := checkChange(&c, condition); e != nil {
		return d, kv.Answer{}, e
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	a, err := d.WriteFor(limited, &who, c)
	if err != nil {
		return d, kv.Answer{}, writeError(s.backend.Error(err))
	}
	return d, a, nil
}

// checkChange adds a condition to c, and returns an error unless c can be written.
func checkChange(c *kv.Change, condition *ringsidev1.Condition) *apierror.Error {
	var field string
	var err error
	if c.If, field, err = parseCondition(condition); err != nil {
		return api.InvalidRequest(err).At(field)
	}
	return api.CheckWrite(*c)
}

// BatchWrite implements ringside.v1.Cache.
func (s *service) BatchWrite(
	ctx context.Context, q *ringsidev1.BatchWriteRequest,
) (_ *ringsidev1.BatchWriteResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	d, who, err := s.dataset(ctx, q.GetDataset(), access.Write)
	if err != nil {
		return nil, err
	}
	cs, refused := make([]kv.Change, len(q.GetRows())), map[int]error{}
	for i, r := range q.GetRows() {
		cs[i] = kv.Change{Key: r.GetKey(), Value: r.GetValue(), Delete: r.GetDelete(), ID: r.GetIdempotencyId()}
		if e := checkChange(&cs[i], r.GetCondition()); e != nil {
			refused[i] = e
		}
	}
	if e := api.CheckBatchWrite(cs); e != nil {
		return nil, e.At("rows")
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	answers, err := d.WriteManyFor(limited, &who, cs, refused)
	if err != nil {
		return nil, s.backend.Error(err)
	}
	results := make([]*ringsidev1.BatchWriteResult, len(cs))
	for i, r := range answers {
		results[i] = &ringsidev1.BatchWriteResult{Key: cs[i].Key}
		if r.Err != nil {
			results[i].Result = &ringsidev1.BatchWriteResult_Error{Error: errorMessage(s.backend.Error(r.Err))}
		} else {
			results[i].Result = &ringsidev1.BatchWriteResult_Written{Written: &ringsidev1.Written{Version: r.Answer.Version}}
		}
	}
	return &ringsidev1.BatchWriteResponse{Results: results}, nil
}

// writeError adds the field that is wrong to e: the key, the id, or a column of the value.
func writeError(e *apierror.Error) *apierror.Error {
	switch column := e.Column(); {
	case e.Type == apierror.TypeOf(kv.KindIDReused):
		return e.At("idempotency_id")
	case e.Type != apierror.TypeOf(kv.KindInvalidValue):
		return e.At("key")
	case column != "":
		return e.At("value." + column)
	}
	return e.At("value")
}

// parseCondition returns the condition of m, or the field that is wrong and why.
func parseCondition(m *ringsidev1.Condition) (c kv.Condition, field string, err error) {
	switch row := m.GetRow().(type) {
	case *ringsidev1.Condition_Version:
		c.Version = row.Version
		if row.Version < 1 {
			return c, "condition.version", errors.New("a version is at least 1")
		}
	case *ringsidev1.Condition_Etag:
		c.ETag = row.Etag
		return c, "condition.etag", api.CheckETag(row.Etag)
	case *ringsidev1.Condition_Absent:
		c.Absent = row.Absent
		if !row.Absent {
			return c, "condition.absent", errors.New("the field has no meaning when it is false; omit it")
		}
	case *ringsidev1.Condition_Present:
		c.Present = row.Present
		if !row.Present {
			return c, "condition.present", errors.New("the field has no meaning when it is false; omit it")
		}
	}
	return c, "", nil
}

// Invalidate implements ringside.v1.Cache.
func (s *service) Invalidate(
	ctx context.Context, q *ringsidev1.InvalidateRequest,
) (_ *ringsidev1.InvalidateResponse, err error) {
	start := time.Now()
	defer s.finish(ctx, start, &err)
	d, who, err := s.dataset(ctx, q.GetDataset(), access.Invalidate)
	if err != nil {
		return nil, err
	}
	scope, field, err := parseScope(q)
	if err != nil {
		return nil, api.InvalidRequest(err).At(field)
	}
	limited := s.deadline(ctx, start)
	defer s.recycle(limited)
	result, err := d.InvalidateFor(limited, &who, scope)
	if err != nil {
		return nil, s.backend.Error(err).At("keys")
	}
	return &ringsidev1.InvalidateResponse{Members: int32(result.Members), Unreached: result.Unreached}, nil
}

// parseScope returns what q invalidates, or the field that is wrong and why.
func parseScope(q *ringsidev1.InvalidateRequest) (s kv.Scope, field string, err error) {
	keys, prefix, all := len(q.GetKeys()) > 0, q.GetPrefix() != "", q.GetAll()
	switch {
	case keys && !prefix && !all:
		return kv.Scope{Keys: q.GetKeys()}, "keys", api.CheckScopeKeys(q.GetKeys())
	case prefix && !keys && !all:
		return kv.Scope{Prefix: q.GetPrefix()}, "prefix", api.CheckPrefix(q.GetPrefix())
	case all && !keys && !prefix:
		return kv.Scope{}, "", nil
	}
	return s, "keys", errors.New("set exactly one of keys, prefix and all")
}
