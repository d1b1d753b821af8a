package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/batch"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// sized is a dataset whose key of n letters has a value of n × 1000 bytes.
type sized struct{ Dataset }

func (sized) Name() string { return "sized" }

func (sized) GetMany(_ context.Context, keys []string, _ kv.ReadOptions, limit kv.BatchLimit) []kv.Result {
	b := batch.New(len(keys), limit)
	for i, key := range keys {
		b.Put(i, kv.Answer{Value: make([]byte, 1000*len(key))}, nil)
	}
	results, _ := b.Close()
	return results
}

func TestBatchIsReadWithinTheBudget(t *testing.T) {
	for _, c := range []struct {
		name        string
		total       int64
		sizes, want []int // in 1000 bytes; 0 for a key that does not fit, -1 for one without memory
		loan        int64
	}{
		{"small values are prepaid", 1, []int{1, 1, 1}, []int{1, 1, 1}, 0},
		{"only what is prepaid", 1, []int{5, 5, 1}, []int{5, 0, 1}, 0},
		{"a single large value", 1, []int{100}, []int{-1}, 0},
		{"large values", 32 << 20, []int{100, 100, 1}, []int{100, 100, 1}, 201_000 - PrepaidResponse},
		{"what is granted", 1 << 20, []int{100, 100, 100, 100}, []int{100, 100, 100, 0}, 300_000 - PrepaidResponse},
		{"the limit of a batch", 32 << 20, []int{1000, 1000, 1000, 1000}, []int{1000, 1000, 1000, 0}, 3_000_000 - PrepaidResponse},
	} {
		limit := budget.New(c.total)
		b := NewBackend(t.Context(), Config{Budget: limit, MaxBatchBytes: 3 << 20}, NewCatalog())
		loan := limit.Loan(budget.Responses)
		var keys []string
		for _, size := range c.sizes {
			keys = append(keys, strings.Repeat("k", size))
		}
		var got []int
		for _, r := range b.ReadBatch(t.Context(), sized{}, keys, kv.ReadOptions{}, &loan) {
			size := len(r.Answer.Value) / 1000
			if errors.Is(r.Err, kv.ErrNoMemory) {
				size = -1
			}
			got = append(got, size)
		}
		if !slices.Equal(got, c.want) || loan.Bytes() != c.loan {
			t.Errorf("%s: got values %v with a loan of %d, want %v with %d", c.name, got, loan.Bytes(), c.want, c.loan)
		}
	}
}
