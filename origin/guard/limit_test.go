package guard_test

import (
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// guarded is a Fake within a budget.
type guarded struct {
	origin.Origin
	origin.Writer
	origin.Lister
}

func within(f *origintest.Fake) origintest.Rows {
	l := guard.NewLimiter(guard.LimitConfig{})
	return guarded{guard.NewBatch(f, guard.BatchConfig{Limiter: l}), l.Writer(f), l.Lister(f)}
}

func TestLimitConformsAsAWriter(t *testing.T) {
	origintest.ConformanceWriter(t, origintest.WriterSubject{
		New: func(_ *testing.T, rows map[string]string) origintest.Rows { return within(origintest.New(rows)) },
		Unversioned: func(*testing.T) origintest.Rows {
			f := origintest.New(map[string]string{"a": "old"})
			f.Unversioned()
			return within(f)
		},
		Stuck: func(*testing.T) (origintest.Rows, func()) {
			f := origintest.New(map[string]string{"a": "old"})
			return within(f), f.BlockWrites()
		},
	})
}
