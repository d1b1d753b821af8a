package guard_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
)

var errDown = errors.New("connection refused")

func TestEachGuardConforms(t *testing.T) {
	for name, around := range map[string]func(origin.Origin) origin.Origin{
		"batch": func(o origin.Origin) origin.Origin { return guard.NewBatch(o, guard.BatchConfig{}) },
		"limit": func(o origin.Origin) origin.Origin {
			return guard.NewBatch(o, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{})})
		},
		"breaker": func(o origin.Origin) origin.Origin { return guard.NewBreaker(o, guard.BreakerConfig{}) },
		"all": func(o origin.Origin) origin.Origin {
			o = guard.NewBreaker(o, guard.BreakerConfig{})
			return guard.NewBatch(o, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			origintest.Conformance(t, origintest.Subject{
				New: func(_ *testing.T, rows map[string]string) origin.Origin { return around(origintest.New(rows)) },
				Stuck: func(*testing.T) origin.Origin {
					f := origintest.New(nil)
					f.Block()
					return around(f)
				},
			})
		})
	}
}

// call is one running Load.
type call struct {
	results []origin.Result
	err     error
	took    time.Duration
	done    chan struct{}
}

func start(ctx context.Context, o origin.Origin, keys ...string) *call {
	c := &call{done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(c.done)
		c.results, c.err = o.Load(ctx, keys)
		c.took = time.Since(began)
	}()
	return c
}

func (c *call) wait() *call {
	<-c.done
	return c
}

func minute(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

type panicking struct{}

func (panicking) Load(context.Context, []string) ([]origin.Result, error) { panic("boom") }
