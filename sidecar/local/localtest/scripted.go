package localtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Scripted is a dataset whose methods are functions, for states that a real dataset reaches only by a failure.
type Scripted struct {
	ItsName      string
	OnGet        func(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error)
	OnWrite      func(ctx context.Context, c kv.Change) (kv.Answer, error)
	OnInvalidate func(ctx context.Context, s kv.Scope) (kv.InvalidateResult, error)
	OnWatch      func(keys []string) *watches.Watch
}

// Name implements api.Dataset.
func (s Scripted) Name() string { return s.ItsName }

// GetMany implements api.Dataset, without a limit. It turns panics into errors, as a cache.Dataset does.
func (s Scripted) GetMany(ctx context.Context, keys []string, o kv.ReadOptions, _ kv.BatchLimit) []kv.Result {
	results := make([]kv.Result, len(keys))
	for i, key := range keys {
		results[i] = s.getOne(ctx, key, o)
	}
	return results
}

func (s Scripted) getOne(ctx context.Context, key string, o kv.ReadOptions) (r kv.Result) {
	defer func() {
		if p := recover(); p != nil {
			r.Err = fmt.Errorf("panic: %v", p)
		}
	}()
	r.Answer, r.Err = s.OnGet(ctx, key, o)
	return r
}

// Cached implements api.Dataset: nothing is in memory.
func (s Scripted) Cached(string, kv.ReadOptions) (kv.Answer, bool) { return kv.Answer{}, false }

// Stats implements api.Dataset.
func (s Scripted) Stats() *kv.Stats { return new(kv.Stats) }

// Get implements api.Dataset.
func (s Scripted) Get(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error) {
	return s.OnGet(ctx, key, o)
}

// Write implements api.Dataset.
func (s Scripted) Write(ctx context.Context, c kv.Change) (kv.Answer, error) {
	return s.OnWrite(ctx, c)
}

// WriteMany implements api.Dataset. A script sees single writes.
func (s Scripted) WriteMany(ctx context.Context, cs []kv.Change) []kv.Result {
	results := make([]kv.Result, len(cs))
	for i, c := range cs {
		results[i].Answer, results[i].Err = s.OnWrite(ctx, c)
	}
	return results
}

// Append implements api.Dataset. A script sees a write without a key, and the key of the row is appended/100%.
func (s Scripted) Append(ctx context.Context, value []byte, id string) (kv.Appended, error) {
	a, err := s.OnWrite(ctx, kv.Change{Value: value, ID: id})
	if err != nil {
		return kv.Appended{}, err
	}
	return kv.Appended{Key: "appended/100%", Answer: a}, nil
}

// Invalidate implements api.Dataset.
func (s Scripted) Invalidate(ctx context.Context, scope kv.Scope) (kv.InvalidateResult, error) {
	return s.OnInvalidate(ctx, scope)
}

// CachedKeys implements api.Dataset: nothing is in memory.
func (s Scripted) CachedKeys(int) (keys []string, parts int) { return nil, 1 }

// Watch implements api.Dataset.
func (s Scripted) Watch(keys []string) *watches.Watch { return s.OnWatch(keys) }

// WatchRange implements api.Dataset: nothing changes.
func (s Scripted) WatchRange(prefix string) *watches.Range {
	return new(watches.Set).WatchRange(prefix)
}

// FeedLive implements api.Dataset: there is no feed.
func (s Scripted) FeedLive() (live, has bool) { return false, false }

// Policy implements api.Dataset.
func (s Scripted) Policy() kv.Policy { return kv.DefaultPolicy() }

// Failing returns a dataset "failing" whose keys name how a read of them fails.
func Failing() api.Dataset {
	return Scripted{ItsName: "failing", OnGet: func(ctx context.Context, key string, _ kv.ReadOptions) (kv.Answer, error) {
		switch key {
		case "overloaded":
			return kv.Answer{}, &kv.Error{Kind: kv.KindOverloaded, RetryAfter: 1500 * time.Millisecond,
				Err: errors.New("10000 loads are running")}
		case "unavailable":
			return kv.Answer{}, &kv.Error{Kind: kv.KindUnavailable, Err: errors.New("the origin refused")}
		case "invalid":
			return kv.Answer{}, &kv.Error{Kind: kv.KindInvalidKey, Err: errors.New("not a number")}
		case "canceled":
			return kv.Answer{}, &kv.Error{Kind: kv.KindCanceled, Err: context.Canceled}
		case "internal":
			return kv.Answer{}, errors.New("dsn postgres://canary-secret")
		case "panic":
			panic("canary-secret")
		case "stale":
			return kv.Answer{Value: []byte(key), Stale: true, Detail: "origin-error", Source: kv.SourceHit}, nil
		case "wait":
			<-ctx.Done()
			return kv.Answer{}, ctx.Err()
		}
		return kv.Answer{Value: []byte(key), Source: kv.SourceHit, Fresh: time.Second}, nil
	}}
}

// FailingWrites returns a dataset "spoiled" whose keys name how a write of them fails; the values name how an append does.
func FailingWrites() api.Dataset {
	errs := map[string]error{
		"unknown": &kv.Error{Kind: kv.KindUnknown, Err: errors.New("the connection to the owner broke")},
		"column": &kv.Error{Kind: kv.KindInvalidValue, Err: fmt.Errorf("%w", &origin.ValueError{Column: "unit",
			Reason: "too long"})},
		"value":    &kv.Error{Kind: kv.KindInvalidValue, Err: &origin.ValueError{Reason: "it is not a JSON object"}},
		"conflict": &kv.Error{Kind: kv.KindConflict, Err: errors.New("another row has this unit")},
		"internal": errors.New("dsn postgres://canary-secret"),
		"keyless": &kv.Error{Kind: kv.KindNoAppend, Err: fmt.Errorf("dataset canary: %w", &origin.AppendError{
			Reason: "the database generates no key for column k"})},
	}
	return Scripted{ItsName: "spoiled",
		OnWrite: func(_ context.Context, c kv.Change) (kv.Answer, error) {
			if c.Key == "panic" {
				panic("canary-secret")
			}
			return kv.Answer{Value: c.Value}, errs[cmp.Or(c.Key, string(c.Value))]
		},
		OnGet: func(context.Context, string, kv.ReadOptions) (kv.Answer, error) {
			return kv.Answer{}, &kv.Error{Kind: kv.KindVersion, RetryAfter: time.Second,
				Err: errors.New("version 3 is the latest")}
		},
		OnInvalidate: func(_ context.Context, s kv.Scope) (kv.InvalidateResult, error) {
			if s.Prefix == "" && s.Keys == nil {
				return kv.InvalidateResult{}, &kv.Error{Kind: kv.KindOverloaded, Err: errors.New("too many")}
			}
			return kv.InvalidateResult{Members: 2, Unreached: []string{"n3"}}, nil
		},
	}
}
