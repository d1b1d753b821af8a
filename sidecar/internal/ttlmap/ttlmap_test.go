package ttlmap

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestValuesExpire(t *testing.T) {
	m := New[string](10, 1000)
	m.Put("k", "v", 1, 0, 100)
	for now, want := range map[int64]bool{0: true, 99: true, 100: false, 1000: false} {
		if _, ok := m.Get("k", now); ok != want {
			t.Errorf("at %d: got %t; want %t", now, ok, want)
		}
	}
}

// A read or a write of another key must not extend the life of a value.
func TestNothingRenewsAValue(t *testing.T) {
	m := New[int](10, 1000)
	m.Put("k", 1, 1, 0, 100)
	for now := range int64(300) {
		m.Put(fmt.Sprint(now%5), 2, 1, now, 100)
		if _, ok := m.Get("k", now); ok != (now < 100) {
			t.Fatalf("at %d: got %t", now, ok)
		}
	}
}

func TestMapIsBounded(t *testing.T) {
	m := New[int](100, 1<<20)
	evicted := 0
	for i := range 1000 {
		evicted += m.Put(fmt.Sprint(i), i, 1, 0, 100)
	}
	if m.Len() > 200 || evicted != 1000-m.Len() {
		t.Errorf("%d values held, %d evicted; want at most 200 held and the rest evicted", m.Len(), evicted)
	}
}

func TestSizesAreBounded(t *testing.T) {
	m := New[int](1000, 100)
	for i := range 99 {
		m.Put(fmt.Sprint(i), i, 30, 0, 100)
		m.Put(fmt.Sprint(i), i, 30, 0, 100) // replaced, not added
	}
	if n := m.Len(); n != 6 {
		t.Errorf("%d values of size 30 held; want 3 in each of 2 generations of size 100", n)
	}
	m.Put("large", 1, 1000, 0, 100)
	if _, ok := m.Get("large", 0); !ok {
		t.Error("a value that is larger than a generation is not held; want it alone in one")
	}
}

// Each operation is compared with a map of values and their expiry.
func TestAgainstModel(t *testing.T) {
	type timed struct {
		value int
		until int64
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		m, model := New[int](1000, 1<<20), map[string]timed{}
		for now := int64(0); now < 2000; now += r.Int64N(5) {
			key := fmt.Sprint(r.IntN(20))
			switch r.IntN(10) {
			case 0:
				m.Delete(key)
				delete(model, key)
			case 1:
				m.Sweep(now)
			case 2, 3, 4, 5:
				m.Put(key, int(now), r.IntN(10), now, 100)
				model[key] = timed{int(now), now + 100}
			}
			want := model[key]
			if got, ok := m.Get(key, now); ok != (now < want.until) || ok && got != want.value {
				t.Fatalf("seed %d, at %d: got %d, %t; want %+v", seed, now, got, ok, want)
			}
		}
		m.Clear()
		if m.Len() != 0 || m.size != 0 {
			t.Fatalf("%d values of size %d after Clear", m.Len(), m.size)
		}
	}
}
