package api

import (
	"context"
	"sync/atomic"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// LimitRead returns an error if a client has read too often with no-cache: every such key is a query.
func (s Served) LimitRead(who *caller.Caller, o kv.ReadOptions, keys int) error {
	if !o.NoCache {
		return nil
	}
	return s.Gate.Limit(who, access.NoCache, keys) //guard:no-cache-reads-without-limit
}

// LimitExplain returns an error if a client has requested too many explanations: each calls other members, as much work as a query.
func (s Served) LimitExplain(who *caller.Caller) error {
	return s.Gate.Limit(who, access.NoCache, 1) //guard:explanations-without-limit
}

// WriteFor makes a change for a caller that may write, within its rate limit, and logs it.
func (s Served) WriteFor(ctx context.Context, who *caller.Caller, c kv.Change) (a kv.Answer, err error) {
	err = s.Gate.Limit(who, access.Writes, 1)
	if err == nil {
		a, err = s.Write(ctx, c)
	}
	s.recordWrite(who, c, err)
	return a, err
}

// WriteManyFor makes the changes of a batch for a caller that may write, within its rate limit, and logs each. refused has those that
// are not to be made, each with an *apierror.Error. An error is that of the batch: none was made.
func (s Served) WriteManyFor(ctx context.Context, who *caller.Caller, cs []kv.Change, refused map[int]error) ([]kv.Result, error) {
	if err := s.Gate.Limit(who, access.Writes, len(cs)); err != nil { //guard:batches-of-writes-without-limit
		for _, c := range cs {
			s.recordWrite(who, c, err)
		}
		return nil, err
	}
	results := make([]kv.Result, len(cs))
	var at []int // those of cs that are made
	var some []kv.Change
	for i, c := range cs {
		if results[i].Err = refused[i]; results[i].Err == nil {
			at, some = append(at, i), append(some, c)
		}
	}
	if len(some) > 0 {
		for n, r := range s.WriteMany(ctx, some) {
			results[at[n]] = r
			s.recordWrite(who, some[n], r.Err)
		}
		if err := results[at[0]].Err; kv.KindOf(err) == kv.KindReadOnly { // so are all
			return nil, err
		}
	}
	return results, nil
}

// ObserveFor reports observations by a caller that may write, within its rate limit, and logs each. report returns no results where
// nothing is written yet.
func (s Served) ObserveFor(who *caller.Caller, cs []kv.Change, report func() ([]kv.Result, error)) (list []kv.Result, err error) {
	if err = s.Gate.Limit(who, access.Writes, len(cs)); err == nil { //guard:observations-without-limit
		list, err = report()
	}
	for i, c := range cs {
		switch {
		case err == nil && list == nil:
			s.Gate.Record(audit.Event{Action: audit.Put, Caller: *who, Key: c.Key, Result: audit.Accepted})
		case err == nil:
			s.recordWrite(who, c, list[i].Err)
		default:
			s.recordWrite(who, c, err)
		}
	}
	return list, err
}

func (s Served) recordWrite(who *caller.Caller, c kv.Change, err error) {
	e := audit.Event{Action: audit.Put, Caller: *who, Key: c.Key, Result: resultOf(err)}
	if c.Delete {
		e.Action = audit.Delete
	}
	e.Refused = e.Result == apierror.RateLimited.Name
	s.Gate.Record(e)
}

// AppendFor inserts a row for a caller that may write, within its rate limit, and logs it.
func (s Served) AppendFor(ctx context.Context, who *caller.Caller, value []byte, id string) (a kv.Appended, err error) {
	err = s.Gate.Limit(who, access.Writes, 1) //guard:appends-without-limit
	if err == nil {
		a, err = s.Append(ctx, value, id)
	}
	e := audit.Event{Action: audit.Append, Caller: *who, Key: a.Key, Result: resultOf(err)}
	e.Refused = e.Result == apierror.RateLimited.Name
	s.Gate.Record(e)
	return a, err
}

// InvalidateFor invalidates a scope for a caller that may do so, within its rate limit, and logs it.
func (s Served) InvalidateFor(ctx context.Context, who *caller.Caller, scope kv.Scope) (r kv.InvalidateResult, err error) {
	err = s.Gate.Limit(who, access.Invalidations, 1)
	if err == nil {
		r, err = s.Invalidate(ctx, scope)
	}
	result := resultOf(err)
	s.Gate.Record(audit.Event{
		Action: audit.Invalidate, Caller: *who, Result: result, Refused: result == apierror.RateLimited.Name,
		Keys: scope.Keys, Prefix: scope.Prefix, All: len(scope.Keys) == 0 && scope.Prefix == "",
	})
	return r, err
}

// resultOf returns the result of a change in the audit log: the type of the error, not its text.
func resultOf(err error) string {
	if err == nil {
		return audit.OK
	}
	return apierror.From(err, func(error) string { return "" }).Type.Name
}

// Guarded is a dataset for a service that is mounted beside the APIs of this package: it asks for the permission and the
// limits of the caller in the context of each call (see caller.With and access.WithAuthorization).
type Guarded struct{ current atomic.Pointer[listed] }

type listed struct {
	Served
	origin.Lister
}

// NewGuarded returns a Guarded of a dataset, and of a lister of its rows, which may be nil.
func NewGuarded(s Served, lister origin.Lister) *Guarded {
	g := new(Guarded)
	g.Replace(s, lister)
	return g
}

// Replace makes s the dataset of all further calls.
func (g *Guarded) Replace(s Served, lister origin.Lister) { g.current.Store(&listed{s, lister}) }

func (g *Guarded) authorize(ctx context.Context, o access.Operation) (*caller.Caller, error) {
	who, err := g.current.Load().Gate.Authorize(caller.From(ctx), o, access.AuthorizationFrom(ctx))
	return &who, err
}

func (g *Guarded) admitRead(ctx context.Context, o kv.ReadOptions, keys int) error {
	who, err := g.authorize(ctx, access.Read)
	if err != nil { //guard:mounted-reads-without-permission
		return err
	}
	return g.current.Load().LimitRead(who, o, keys)
}

// Get reads a key.
func (g *Guarded) Get(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error) {
	if err := g.admitRead(ctx, o, 1); err != nil {
		return kv.Answer{}, err
	}
	return g.current.Load().Get(ctx, key, o)
}

// GetMany reads keys; see Dataset.
func (g *Guarded) GetMany(ctx context.Context, keys []string, o kv.ReadOptions, limit kv.BatchLimit) []kv.Result {
	if err := g.admitRead(ctx, o, len(keys)); err != nil {
		results := make([]kv.Result, len(keys))
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	return g.current.Load().GetMany(ctx, keys, o, limit)
}

// Write makes a change.
func (g *Guarded) Write(ctx context.Context, c kv.Change) (kv.Answer, error) {
	who, err := g.authorize(ctx, access.Write)
	if err != nil {
		return kv.Answer{}, err
	}
	return g.current.Load().WriteFor(ctx, who, c)
}

// List implements origin.Lister. Each page is a query.
func (g *Guarded) List(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	if err := g.admitRead(ctx, kv.ReadOptions{NoCache: true}, 1); err != nil {
		return nil, err
	}
	return g.current.Load().List(ctx, q)
}
