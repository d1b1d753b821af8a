package newest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// table is what the writes of a test make.
type table struct {
	hold    chan struct{} // the first write waits until it is closed
	rows    map[string]kv.Change
	batches [][]kv.Change
	merged  atomic.Int64
}

func newTable() *table { return &table{hold: make(chan struct{}), rows: map[string]kv.Change{}} }

// write returns the time of each change.
func (b *table) write(_ context.Context, cs []kv.Change) []int64 {
	<-b.hold
	b.batches = append(b.batches, cs)
	results := make([]int64, len(cs))
	for i, c := range cs {
		b.rows[c.Key], results[i] = c, c.Observed
	}
	return results
}

func observation(key string, at int64) kv.Change {
	return kv.Change{Key: key, Value: fmt.Append(nil, at), Observed: at}
}

// However many clients report the same keys while a write runs, one more write follows, of the newest of each.
func TestNewestOfEachKeyIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, memory := newTable(), budget.New(1<<20)
		q := New(b.write, memory.Of(budget.Calls), &b.merged)
		var all sync.WaitGroup
		do := func(want int64, cs ...kv.Change) {
			all.Go(func() {
				if got, err := q.Do(t.Context(), cs); err != nil || got[0] != want {
					t.Errorf("%v: got %d, %v; want the result of %d", cs, got, err, want)
				}
			})
			synctest.Wait()
		}
		do(1, observation("a", 1))
		const clients = 50
		for _, at := range rand.New(rand.NewPCG(1, 2)).Perm(clients) {
			do(clients+9, observation("a", int64(10+at)), observation("b", int64(10+at)))
		}
		close(b.hold)
		all.Wait()
		if len(b.batches) != 2 || len(b.batches[1]) != 2 || b.rows["a"].Observed != clients+9 || string(b.rows["b"].Value) != "59" {
			t.Errorf("got %d writes, the last one %v; want 2, the last of both keys", len(b.batches), b.batches[len(b.batches)-1])
		}
		if got := b.merged.Load(); got != 2*(clients-1) {
			t.Errorf("%d are counted as merged, want %d", got, 2*(clients-1))
		}
		q.Close()
		if used := memory.Stats()[budget.Calls].Used; used != 0 {
			t.Errorf("%d bytes are taken when nothing waits", used)
		}
	})
}

func TestFirstOfTwoWithTheSameTimeIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTable()
		q := New(b.write, nil, &b.merged)
		for _, c := range []kv.Change{observation("x", 1), {Key: "a", Value: []byte("first"), Observed: 5}, {Key: "a", Value: []byte("second"), Observed: 5}} {
			if err := q.Add([]kv.Change{c}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		close(b.hold)
		synctest.Wait()
		if got := string(b.rows["a"].Value); got != "first" {
			t.Errorf("got %q", got)
		}
		q.Close()
	})
}

func TestWaitingObservationsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, memory := newTable(), budget.New(200_000)
		q := New(b.write, memory.Of(budget.Calls), &b.merged)
		refused := 0
		for i := range 1000 {
			if err := q.Add([]kv.Change{observation(fmt.Sprint(i), 1)}); errors.Is(err, ErrFull) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if u := memory.Stats()[budget.Calls]; refused == 0 || refused == 1000 || u.Used > u.Limit {
			t.Errorf("%d of 1000 were refused with %d of %d bytes", refused, u.Used, u.Limit)
		}
		close(b.hold)
		synctest.Wait()
		if err := q.Add([]kv.Change{observation("later", 1)}); err != nil {
			t.Errorf("with all written: %v", err)
		}
		q.Close()
		if err := q.Add([]kv.Change{observation("closed", 1)}); !errors.Is(err, ErrClosed) || !errors.Is(err, context.Canceled) {
			t.Errorf("after Close: got %v", err)
		}
		if len(b.rows) != 1000-refused+1 || memory.Stats()[budget.Calls].Used != 0 {
			t.Errorf("got %d rows, %d bytes", len(b.rows), memory.Stats()[budget.Calls].Used)
		}
	})
}

func TestBatchesFitIntoOneRequest(t *testing.T) {
	b := newTable()
	close(b.hold)
	q := New(b.write, nil, &b.merged)
	var cs []kv.Change
	for i := range 2*maxBatch + 1 {
		cs = append(cs, observation(fmt.Sprint(i), 1))
	}
	for i := range 3 {
		cs = append(cs, kv.Change{Key: fmt.Sprint("large", i), Value: []byte(strings.Repeat("x", kv.MaxValueBytes*2/3)), Observed: 1})
	}
	results, err := q.Do(t.Context(), cs)
	if err != nil || len(results) != len(cs) || len(b.rows) != len(cs) {
		t.Fatalf("got %d results and %d rows, %v; want %d", len(results), len(b.rows), err, len(cs))
	}
	for _, batch := range b.batches {
		bytes := 0
		for _, c := range batch {
			bytes += c.Bytes()
		}
		if len(batch) > maxBatch || bytes > kv.MaxBatchWriteBytes {
			t.Errorf("a batch has %d changes and %d bytes", len(batch), bytes)
		}
	}
	q.Close()
}

func TestCallerThatLeavesEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTable()
		q := New(b.write, nil, &b.merged)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := q.Do(ctx, []kv.Change{observation("a", 1)})
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(b.hold)
		q.Close()
		if b.rows["a"].Observed != 1 {
			t.Error("the observation was not written")
		}
	})
}
