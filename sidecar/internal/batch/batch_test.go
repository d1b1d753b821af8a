package batch

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

func answer(size int) kv.Answer { return kv.Answer{Value: make([]byte, size)} }

// fitting returns the keys whose values fit, in the order of the keys.
func fitting(sizes []int, maxBytes int) (keys []int) {
	bytes := 0
	for i, size := range sizes {
		if size == 0 || bytes == 0 || bytes+size <= maxBytes {
			keys, bytes = append(keys, i), bytes+size
		}
	}
	return keys
}

func answered(r *Results) (keys []int, bytes int) {
	list, _ := r.Close()
	for i, one := range list {
		if one.Err == nil {
			keys, bytes = append(keys, i), bytes+len(one.Answer.Value)
		}
	}
	return keys, bytes
}

// The values that fit are the response, in whatever order they arrive.
func TestResultsAreTheFirstValuesThatFit(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		maxBytes, sizes := 1+r.IntN(20), make([]int, 1+r.IntN(12))
		for i := range sizes {
			sizes[i] = r.IntN(9)
		}
		results := New(len(sizes), kv.BatchLimit{Bytes: maxBytes})
		for _, i := range r.Perm(len(sizes)) {
			results.Put(i, answer(sizes[i]), nil)
			if _, held := answered(results); held > max(maxBytes, slices.Max(sizes)) {
				t.Fatalf("seed %d: %d bytes are held; want at most %d or one value", seed, held, maxBytes)
			}
		}
		for _, i := range results.Missing() {
			results.Put(i, answer(sizes[i]), nil)
		}
		want := fitting(sizes, maxBytes)
		got, _ := answered(results)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: of %v bytes, at most %d, the response has %v; want %v", seed, sizes, maxBytes, got, want)
		}
		if _, dropped := results.Close(); dropped != int64(len(sizes)-len(want)) {
			t.Fatalf("seed %d: %d keys were counted as dropped; want %d", seed, dropped, len(sizes)-len(want))
		}
	}
}

func TestResultsHoldNoMoreThanTheResponse(t *testing.T) {
	results := New(100, kv.BatchLimit{Bytes: 10})
	for i := range 100 {
		results.Put(99-i, answer(4), nil)
		if results.bytes > 10 {
			t.Fatalf("%d bytes are held; want at most 10", results.bytes)
		}
	}
	if got, _ := answered(results); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("the response has %v; want the first two keys", got)
	}
}

func TestErrorsAndEmptyAnswersAlwaysFit(t *testing.T) {
	failed := errors.New("no")
	results := New(4, kv.BatchLimit{Bytes: 1})
	results.Put(0, answer(5), nil)
	results.Put(1, kv.Answer{NotFound: true}, nil)
	results.Put(2, kv.Answer{}, failed)
	results.Put(3, answer(1), nil)
	if missing := results.Missing(); missing != nil {
		t.Errorf("%v are missing; want none", missing)
	}
	list, dropped := results.Close()
	if !list[1].Answer.NotFound || list[2].Err != failed || list[3].Err != kv.ErrBatchBytes || dropped != 1 {
		t.Errorf("got %+v, %d dropped; want the first three, and the last one dropped", list, dropped)
	}
}

func TestLimitOfZeroHoldsOneValue(t *testing.T) {
	for _, maxBytes := range []int{0, -1} {
		results := New(2, kv.BatchLimit{Bytes: maxBytes})
		results.Put(1, answer(3), nil)
		results.Put(0, answer(0), nil)
		if got, _ := answered(results); !slices.Equal(got, []int{0, 1}) {
			t.Errorf("with a limit of %d the response has %v; want both", maxBytes, got)
		}
	}
}

// memory is most bytes.
type memory struct{ taken, most int64 }

func (m *memory) Grow(n int64) bool {
	if m.taken+n > m.most {
		return false
	}
	m.taken += n
	return true
}

func (m *memory) Shrink(n int64) { m.taken = min(m.taken, n) }
func (m *memory) Bytes() int64   { return m.taken }

// Which key gets which error depends on the values and the memory, not on which value arrives first.
func TestErrorsDoNotDependOnTheOrderOfArrival(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		want  []error
	}{
		{[]int{1, 100, 100, 1}, []error{nil, kv.ErrBatchBytes, kv.ErrBatchBytes, nil}},
		{[]int{100, 1, 100}, []error{kv.ErrBatchBytes, nil, kv.ErrBatchBytes}},
		{[]int{100, 100}, []error{kv.ErrNoMemory, kv.ErrNoMemory}},
		{[]int{100, 0, 100}, []error{kv.ErrNoMemory, nil, kv.ErrNoMemory}},
	} {
		for seed := range uint64(100) {
			results := New(len(c.sizes), kv.BatchLimit{Bytes: 1000, Memory: &memory{most: 10}, Prepaid: 5})
			for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(c.sizes)) {
				results.Put(i, answer(c.sizes[i]), nil)
			}
			for _, i := range results.Missing() {
				results.Put(i, answer(c.sizes[i]), nil)
			}
			list, _ := results.Close()
			for i, one := range list {
				if one.Err != c.want[i] {
					t.Fatalf("seed %d: of %v bytes, key %d has the error %v; want %v", seed, c.sizes, i, one.Err, c.want[i])
				}
			}
		}
	}
}

func TestResultsAreTheValuesThatFitIntoTheMemory(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		other := int64(r.IntN(5)) // bytes that another batch has taken from the same memory
		m := &memory{taken: other, most: other + int64(r.IntN(30))}
		limit := kv.BatchLimit{Bytes: 1 + r.IntN(20), Memory: m, Prepaid: r.IntN(4)}
		sizes := make([]int, 1+r.IntN(12))
		results := New(len(sizes), limit)
		for _, i := range r.Perm(len(sizes)) {
			sizes[i] = r.IntN(9)
			results.Put(i, answer(sizes[i]), nil)
		}
		for range 2 { // as GetMany reads again what was dropped and fits
			for _, i := range results.Missing() {
				results.Put(i, answer(sizes[i]), nil)
			}
		}
		_, held := answered(results)
		list, _ := results.Close()
		if want := other + int64(max(held-limit.Prepaid, 0)); m.taken != want {
			t.Fatalf("seed %d: %d bytes are taken for values of %d bytes, of which %d are prepaid, and %d of another; want %d",
				seed, m.taken, held, limit.Prepaid, other, want)
		}
		for i, one := range list {
			if one.Err != nil && one.Err != kv.ErrBatchBytes && one.Err != kv.ErrNoMemory {
				t.Fatalf("seed %d: key %d has %v; want a value or that it does not fit", seed, i, one.Err)
			}
		}
	}
}

func TestBatchWithoutMemoryFails(t *testing.T) {
	results := New(2, kv.BatchLimit{Bytes: 100, Memory: &memory{}, Prepaid: 2})
	results.Put(0, answer(3), nil)
	list, _ := results.Close()
	if !errors.Is(list[0].Err, kv.ErrNoMemory) || kv.KindOf(list[0].Err) != kv.KindOverloaded {
		t.Errorf("got %v; want that the memory does not suffice", list[0].Err)
	}
	results.Put(1, answer(2), nil)
	if list, _ = results.Close(); list[0].Err != kv.ErrBatchBytes || list[1].Err != nil {
		t.Errorf("got %v and %v; want that the first one does not fit beside the second one, which is prepaid", list[0].Err, list[1].Err)
	}
}
