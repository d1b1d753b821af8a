package local

import (
	"context"
	"errors"
	"time"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// Put implements ringside.v1.Cache.
func (g *service) Put(ctx context.Context, q *ringsidev1.PutRequest) (_ *ringsidev1.PutResponse, err error) {
	start := time.Now()
	defer g.finish(start, &err)
	a, err := g.write(ctx, start, q.GetDataset(), q.GetCondition(),
		cache.Change{Key: q.GetKey(), Value: q.GetValue(), ID: q.GetIdempotencyId()})
	if err != nil {
		return nil, err
	}
	row := reply(&a)
	return &ringsidev1.PutResponse{Value: row.GetValue(), Meta: row.GetMeta()}, nil
}

// Delete implements ringside.v1.Cache.
func (g *service) Delete(ctx context.Context, q *ringsidev1.DeleteRequest) (_ *ringsidev1.DeleteResponse, err error) {
	start := time.Now()
	defer g.finish(start, &err)
	a, err := g.write(ctx, start, q.GetDataset(), q.GetCondition(),
		cache.Change{Key: q.GetKey(), Delete: true, ID: q.GetIdempotencyId()})
	if err != nil {
		return nil, err
	}
	return &ringsidev1.DeleteResponse{Version: a.Version}, nil
}

// write makes one change. Its error is a status.
func (g *service) write(
	ctx context.Context, start time.Time, dataset string, condition *ringsidev1.Condition, c cache.Change,
) (cache.Answer, error) {
	d, err := g.dataset(dataset)
	if err != nil {
		return cache.Answer{}, err
	}
	if err := checkKey(c.Key); err != nil {
		return cache.Answer{}, invalidKey(err).At("key")
	}
	if c.ID != "" {
		if err := checkIdempotencyKey(c.ID); err != nil {
			return cache.Answer{}, invalidRequest(err).At("idempotency_id")
		}
	}
	var field string
	if c.If, field, err = conditionOf(condition); err != nil {
		return cache.Answer{}, invalidRequest(err).At(field)
	}
	if c.Delete && c.If.Absent {
		err := errors.New("a row that is not there can not be deleted")
		return cache.Answer{}, invalidRequest(err).At("condition.absent")
	}
	limit := g.deadline(ctx, start)
	defer g.recycle(limit)
	g.server.stats.Writes.Add(1)
	a, err := d.Write(limit, c)
	if err != nil {
		return cache.Answer{}, g.server.writeError(err)
	}
	return a, nil
}

// writeError is a status that names the field that is wrong: the key, the id, or a column of the value.
func (s *Server) writeError(err error) error {
	e := s.fail(err)
	switch column := e.Column(); {
	case e.Type == apierror.TypeOf(cache.KindIDReused):
		return e.At("idempotency_id")
	case e.Type != apierror.TypeOf(cache.KindInvalidValue):
		return e.At("key")
	case column != "":
		return e.At("value." + column)
	}
	return e.At("value")
}

// conditionOf returns the condition that m names, or the field that is wrong and why.
func conditionOf(m *ringsidev1.Condition) (c cache.Condition, field string, err error) {
	switch row := m.GetRow().(type) {
	case *ringsidev1.Condition_Version:
		c.Version = row.Version
		if row.Version < 1 {
			return c, "condition.version", errors.New("a version is at least 1")
		}
	case *ringsidev1.Condition_Etag:
		c.ETag = row.Etag
		return c, "condition.etag", checkETag(row.Etag)
	case *ringsidev1.Condition_Absent:
		c.Absent = row.Absent
		if !row.Absent {
			return c, "condition.absent", errors.New("it says nothing when it is false; leave it out")
		}
	case *ringsidev1.Condition_Present:
		c.Present = row.Present
		if !row.Present {
			return c, "condition.present", errors.New("it says nothing when it is false; leave it out")
		}
	}
	return c, "", nil
}

// Invalidate implements ringside.v1.Cache.
func (g *service) Invalidate(
	ctx context.Context, q *ringsidev1.InvalidateRequest,
) (_ *ringsidev1.InvalidateResponse, err error) {
	start := time.Now()
	defer g.finish(start, &err)
	d, err := g.dataset(q.GetDataset())
	if err != nil {
		return nil, err
	}
	scope, field, err := scopeOf(q)
	if err != nil {
		return nil, invalidRequest(err).At(field)
	}
	limit := g.deadline(ctx, start)
	defer g.recycle(limit)
	g.server.stats.Invalidations.Add(1)
	told, err := d.Invalidate(limit, scope)
	if err != nil {
		return nil, g.server.fail(err).At("keys")
	}
	return &ringsidev1.InvalidateResponse{Members: int32(told.Members), Unreached: told.Unreached}, nil
}

// scopeOf returns what q says to invalidate, or the field that is wrong and why.
func scopeOf(q *ringsidev1.InvalidateRequest) (s cache.Scope, field string, err error) {
	keys, prefix, all := len(q.GetKeys()) > 0, q.GetPrefix() != "", q.GetAll()
	switch {
	case keys && !prefix && !all:
		return cache.Scope{Keys: q.GetKeys()}, "keys", checkScopeKeys(q.GetKeys())
	case prefix && !keys && !all:
		return cache.Scope{Prefix: q.GetPrefix()}, "prefix", checkPrefix(q.GetPrefix())
	case all && !keys && !prefix:
		return cache.Scope{}, "", nil
	}
	return s, "keys", errors.New("set exactly one of keys, prefix and all")
}
