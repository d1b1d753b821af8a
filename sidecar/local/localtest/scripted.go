package localtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Scripted is a dataset whose methods are functions, for states that a real dataset reaches only by a failure.
type Scripted struct {
	ItsName      string
	OnGet        func(ctx context.Context, key string, o cache.ReadOptions) (cache.Answer, error)
	OnWrite      func(ctx context.Context, c cache.Change) (cache.Answer, error)
	OnInvalidate func(ctx context.Context, s cache.Scope) (cache.InvalidateResult, error)
	OnWatch      func(keys []string) *cache.Watch
}

// Name implements api.Dataset.
func (s Scripted) Name() string { return s.ItsName }

// GetMany implements api.Dataset. It turns panics into errors, as a cache.Dataset does.
func (s Scripted) GetMany(ctx context.Context, keys []string, o cache.ReadOptions) []cache.Result {
	results := make([]cache.Result, len(keys))
	for i, key := range keys {
		results[i] = s.getOne(ctx, key, o)
	}
	return results
}

func (s Scripted) getOne(ctx context.Context, key string, o cache.ReadOptions) (r cache.Result) {
	defer func() {
		if p := recover(); p != nil {
			r.Err = fmt.Errorf("panic: %v", p)
		}
	}()
	r.Answer, r.Err = s.OnGet(ctx, key, o)
	return r
}

// Get implements api.Dataset.
func (s Scripted) Get(ctx context.Context, key string, o cache.ReadOptions) (cache.Answer, error) {
	return s.OnGet(ctx, key, o)
}

// Write implements api.Dataset.
func (s Scripted) Write(ctx context.Context, c cache.Change) (cache.Answer, error) {
	return s.OnWrite(ctx, c)
}

// Invalidate implements api.Dataset.
func (s Scripted) Invalidate(ctx context.Context, scope cache.Scope) (cache.InvalidateResult, error) {
	return s.OnInvalidate(ctx, scope)
}

// Watch implements api.Dataset.
func (s Scripted) Watch(keys []string) *cache.Watch { return s.OnWatch(keys) }

// Failing returns a dataset "failing" whose keys name how a read of them fails.
func Failing() api.Dataset {
	return Scripted{ItsName: "failing", OnGet: func(ctx context.Context, key string, _ cache.ReadOptions) (cache.Answer, error) {
		switch key {
		case "overloaded":
			return cache.Answer{}, &cache.Error{Kind: cache.KindOverloaded, RetryAfter: 1500 * time.Millisecond,
				Err: errors.New("10000 loads are running")}
		case "unavailable":
			return cache.Answer{}, &cache.Error{Kind: cache.KindUnavailable, Err: errors.New("the origin refused")}
		case "invalid":
			return cache.Answer{}, &cache.Error{Kind: cache.KindInvalidKey, Err: errors.New("not a number")}
		case "canceled":
			return cache.Answer{}, &cache.Error{Kind: cache.KindCanceled, Err: context.Canceled}
		case "internal":
			return cache.Answer{}, errors.New("dsn postgres://canary-secret")
		case "panic":
			panic("canary-secret")
		case "stale":
			return cache.Answer{Value: []byte(key), Stale: true, Detail: "origin-error", Source: cache.SourceHit}, nil
		case "wait":
			<-ctx.Done()
			return cache.Answer{}, ctx.Err()
		}
		return cache.Answer{Value: []byte(key), Source: cache.SourceHit, Fresh: time.Second}, nil
	}}
}

// FailingWrites returns a dataset "spoiled" whose keys name how a write of them fails.
func FailingWrites() api.Dataset {
	errs := map[string]error{
		"unknown": &cache.Error{Kind: cache.KindUnknown, Err: errors.New("the connection to the owner broke")},
		"column": &cache.Error{Kind: cache.KindInvalidValue, Err: fmt.Errorf("%w", &origin.ValueError{Column: "unit",
			Reason: "too long"})},
		"value":    &cache.Error{Kind: cache.KindInvalidValue, Err: &origin.ValueError{Reason: "it is not a JSON object"}},
		"conflict": &cache.Error{Kind: cache.KindConflict, Err: errors.New("another row has this unit")},
		"internal": errors.New("dsn postgres://canary-secret"),
	}
	return Scripted{ItsName: "spoiled",
		OnWrite: func(_ context.Context, c cache.Change) (cache.Answer, error) {
			if c.Key == "panic" {
				panic("canary-secret")
			}
			return cache.Answer{}, errs[c.Key]
		},
		OnGet: func(context.Context, string, cache.ReadOptions) (cache.Answer, error) {
			return cache.Answer{}, &cache.Error{Kind: cache.KindVersion, RetryAfter: time.Second,
				Err: errors.New("version 3 is the latest")}
		},
		OnInvalidate: func(_ context.Context, s cache.Scope) (cache.InvalidateResult, error) {
			if s.Prefix == "" && s.Keys == nil {
				return cache.InvalidateResult{}, &cache.Error{Kind: cache.KindOverloaded, Err: errors.New("too many")}
			}
			return cache.InvalidateResult{Members: 2, Unreached: []string{"n3"}}, nil
		},
	}
}
