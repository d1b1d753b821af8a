package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// largeRows is an origin in which each key has a row of size bytes. It makes one row after the other, and measures the
// memory in between.
type largeRows struct {
	size int

	mu         sync.Mutex // guards the fields below
	rows       int
	start, top uint64 // bytes in use
}

func (o *largeRows) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, o, keys)
}

func (o *largeRows) LoadEach(_ context.Context, keys []string, yield func(int, origin.Result)) error {
	for i := range keys {
		yield(i, origin.Result{Value: origin.Value{Data: make([]byte, o.size), Version: 1}})
		o.measure()
	}
	return nil
}

func (o *largeRows) measure() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rows++; o.rows%32 == 0 {
		o.top = max(o.top, inUse())
	}
}

// measured returns the number of rows, and how many bytes were in use at most.
func (o *largeRows) measured() (rows int, used int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rows, int64(o.top - o.start)
}

// inUse returns the bytes in use after a collection.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// slowPolicy has time for a collection of the garbage after each 32 rows.
func slowPolicy() kv.Policy {
	p := testPolicy()
	p.LoadTimeout = time.Minute
	return p
}

func newSmallDataset(t *testing.T, o origin.Origin, peers kv.Peers) *Dataset {
	t.Helper()
	d, err := New(Config{Name: "test", Policy: slowPolicy(), Origin: o, Peers: peers, MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// smallCluster is two members that have little memory for entries; the first one owns all keys.
func smallCluster(t *testing.T, o origin.Origin) *cluster {
	c := newCluster(t, 0, o, slowPolicy())
	other := newCluster(t, 2, o, slowPolicy())
	c.away, c.frozen = other.away, other.frozen
	for i := range 2 {
		c.members = append(c.members, newSmallDataset(t, o, seenFrom{c, i}))
	}
	return c
}

// 400 values of 256 KiB are 100 MiB, of which the response has 3 MiB and the two members cache 8 MiB.
func TestBatchOfLargeMissesHoldsOnlyItsResponse(t *testing.T) {
	const n, size, fit, most = 400, 256 << 10, kv.DefaultBatchBytes / (256 << 10), 32 << 20
	keys, _ := numbered(n)
	for name, member := range map[string]func(*testing.T, origin.Origin) *Dataset{
		"owner": func(t *testing.T, o origin.Origin) *Dataset { return newSmallDataset(t, o, nil) },
		"other": func(t *testing.T, o origin.Origin) *Dataset { return smallCluster(t, o).members[1] },
		"failover": func(t *testing.T, o origin.Origin) *Dataset {
			c := smallCluster(t, o)
			c.away[0].Store(true)
			return c.members[1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &largeRows{size: size, start: inUse()}
			d := member(t, o)
			results := d.GetMany(t.Context(), keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes})
			for i, r := range results {
				switch {
				case i < fit && (r.Err != nil || len(r.Answer.Value) != size):
					t.Errorf("key %d is %d bytes, %v; want the value: the response has room for it", i, len(r.Answer.Value), r.Err)
				case i >= fit && !errors.Is(r.Err, kv.ErrBatchBytes):
					t.Errorf("key %d has %v; want that the response is too large", i, r.Err)
				}
			}
			if rows, used := o.measured(); used > most {
				t.Errorf("%d bytes were in use while %d rows of %d bytes were read; want at most %d", used, rows, size, most)
			}
			if dropped := d.Stats().BatchDropped.Load(); dropped != n-fit {
				t.Errorf("%d keys were counted as dropped; want %d", dropped, n-fit)
			}
		})
	}
}

func TestReaderOfAKeyThatABatchDropsGetsTheValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, rows := numbered(100)
		o := origintest.New(rows)
		o.Slow(10 * tick)
		c := newCluster(t, 2, o, testPolicy())
		var readers sync.WaitGroup
		for _, d := range c.members {
			readers.Go(func() {
				results := d.GetMany(t.Context(), keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: 10})
				if r := results[99]; !errors.Is(r.Err, kv.ErrBatchBytes) {
					t.Errorf("the last key has %v; want that the response is too large", r.Err)
				}
			})
			synctest.Wait()
			readers.Go(func() { expect(t, get(t, d, keys[99]), rows[keys[99]], kv.SourceLoad) })
		}
		readers.Wait()
		if n := o.Keys(); n != 100 {
			t.Errorf("%d keys were loaded; want each of 100 once", n)
		}
	})
}

// inReverse is an origin that has the rows of the last keys first.
type inReverse struct{ *origintest.Fake }

func (o inReverse) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	results, err := o.Load(ctx, keys)
	for i := range results {
		n := len(results) - 1 - i
		yield(n, results[n])
	}
	return err
}

func TestFirstValuesThatFitAreTheResponseWhateverArrivesFirst(t *testing.T) {
	rows := map[string]string{"a": "12345678", "b": "123456789", "c": "1", "d": "12", "e": "1"}
	o := origintest.New(rows)
	d := newDataset(t, inReverse{o}, nil, testPolicy())
	results := d.GetMany(t.Context(), []string{"a", "b", "c", "none", "d", "e"}, kv.ReadOptions{}, kv.BatchLimit{Bytes: 10})
	got := ""
	for _, r := range results {
		switch {
		case errors.Is(r.Err, kv.ErrBatchBytes):
			got += "-,"
		default:
			got += fmt.Sprintf("%s,", r.Answer.Value)
		}
	}
	if want := "12345678,-,1,,-,1,"; got != want || !results[3].Answer.NotFound {
		t.Errorf("got %s; want %s: the first values that fit into 10 bytes", got, want)
	}
	if n := o.Keys(); n != 6 {
		t.Errorf("%d keys were loaded; want each of 6 once", n)
	}
}

// repeated is an origin that finds a second row of the key "a" after it has passed the first one on.
type repeated struct{ *origintest.Fake }

func (o repeated) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	for i, key := range keys {
		yield(i, origin.Result{Value: origin.Value{Data: []byte("first")}})
		if key == "a" {
			yield(i, origin.Result{Err: errors.New("two rows of one key")})
		}
	}
	return nil
}

func TestOneOfSeveralRowsIsNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, repeated{origintest.New(nil)}, nil, testPolicy())
		get(t, d, "a")
		get(t, d, "b")
		synctest.Wait() // the reader of a may have its answer before the second row arrives
		if d.Explain("a").Held || !d.Explain("b").Held {
			t.Errorf("a: %+v, b: %+v; want only b in memory", d.Explain("a"), d.Explain("b"))
		}
		if n := d.Stats().LoadErrors.Load(); n != 1 {
			t.Errorf("%d load errors; want 1", n)
		}
	})
}

// Where memory does not suffice for all keys of a batch at once, it is read in parts; without any, only what is in memory is read.
func TestReadsOfABatchTakeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 4 * readsTaken
		keys, rows := numbered(n)
		for name, c := range map[string]struct {
			prepaid int
			room    int64 // in parts of a batch
			queries int64
		}{
			"enough":                {0, 4, 1},
			"half":                  {0, 2, 2},
			"only what is prepaid":  {readsTaken * readBytes, 0, 4},
			"prepaid, and one part": {readsTaken * readBytes, 1, 2},
			"none":                  {0, 0, 0},
		} {
			o := origintest.New(rows)
			d := newDataset(t, o, nil, testPolicy())
			memory := &limitedMemory{limit: c.room * readsTaken * readBytes}
			if c.queries > 0 {
				memory.limit += 1 << 10 // of the values
			}
			results := d.GetMany(t.Context(), keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: 1 << 20, Memory: memory, Prepaid: c.prepaid})
			synctest.Wait()
			if got := o.Queries(); got != c.queries {
				t.Errorf("%s: got %d loads, want %d", name, got, c.queries)
			}
			for i, r := range results {
				if refused := errors.Is(r.Err, kv.ErrNoMemory); refused != (c.queries == 0) || !refused && r.Err != nil {
					t.Errorf("%s: key %d has %v", name, i, r.Err)
				}
			}
			values := int64(0)
			for _, r := range results {
				values += int64(len(r.Answer.Value))
			}
			if most := max(values-int64(c.prepaid), 0); memory.used > most {
				t.Errorf("%s: %d bytes are taken after the batch, want at most the %d of its values", name, memory.used, most)
			}
			if c.queries == 0 {
				if _, err := d.Get(t.Context(), keys[0], kv.ReadOptions{}); err != nil {
					t.Fatal(err)
				}
				if r := d.GetMany(t.Context(), keys[:1], kv.ReadOptions{}, kv.BatchLimit{Bytes: 1 << 20, Memory: &limitedMemory{limit: 1 << 10}}); r[0].Err != nil {
					t.Errorf("%s: a key in memory has %v", name, r[0].Err)
				}
			}
		}
	})
}

// limitedMemory is memory of so many bytes.
type limitedMemory struct{ used, limit int64 }

func (m *limitedMemory) Grow(n int64) bool {
	if m.used+n > m.limit {
		return false
	}
	m.used += n
	return true
}

func (m *limitedMemory) Shrink(n int64) { m.used = min(m.used, n) }
func (m *limitedMemory) Bytes() int64   { return m.used }
