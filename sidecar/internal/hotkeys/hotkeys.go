// Package hotkeys finds the keys that other members fetch most often from this one, in constant memory, and remembers which
// keys their owners report to be hot.
package hotkeys

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Threshold is the number of fetches per second at which a key is hot. Members that read a key all the time fetch it once
	// per local_ttl, so that no key is hot in a cluster of less than a hundred; with a hundred, one key costs its owner about a
	// five-hundredth of a core.
	Threshold = 100
	// coldShare is the part of Threshold below which a hot key is no longer hot: longer copies divide the rate by up to four
	// (kv.Policy.CopyTTL), and a key must not become hot and cold in turn because of that.
	coldShare = 8
	// Tracked is how many keys are counted. A key with more than 1/Tracked of all fetches soon is, and stays, among them. With keys of
	// 1 KiB, the longest, they take 150 KiB.
	Tracked = 128
	// admitted: when the list is full, one of so many fetches of other keys replaces a key, which costs more than to count. A key
	// that is about to be hot has as many fetches many times a second.
	admitted = 8
	// window is how often rates are computed; counts are halved as often.
	window = time.Second
)

// Tracker counts the fetches of keys with the algorithm Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of
// Frequent and Top-k Elements in Data Streams, ICDT 2005), and halves all counts once per window. It is safe for concurrent use.
type Tracker struct {
	start time.Time

	mu     sync.Mutex // guards the fields below
	rolled time.Duration
	index  map[id]int // :: key → its place in the lists
	keys   []counted
	counts []float64 // a list of its own: the search for the least one reads nothing else
}

type id struct{ dataset, key string }

// counted is a key in the list. Its count is at least the true one, and exceeds it by at most excess.
type counted struct {
	id
	excess float64
	rate   float64 // per second, at least, in the latest windows
	hot    bool
}

// Key is a hot key.
type Key struct {
	Dataset, Key string
	Rate         float64 // fetches per second
}

// New returns an empty Tracker.
func New() *Tracker { return &Tracker{start: time.Now(), index: map[id]int{}} }

// Count counts n fetches of a key, whose strings may be reused by the caller, and returns its fetches per second if it is hot,
// else 0.
func (t *Tracker) Count(dataset, key string, n uint32) (rate uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roll()
	i := t.place(id{dataset, key})
	if i < 0 {
		return 0
	}
	t.counts[i] += float64(n)
	k := &t.keys[i]
	if sure := t.counts[i] - k.excess; !k.hot && sure >= 2*Threshold { //guard:herd-is-hot-after-a-second
		k.hot, k.rate = true, sure/2 // of a constant rate, the count is twice the fetches of a window
	}
	if !k.hot {
		return 0
	}
	return uint32(min(max(k.rate, 1), 1<<31))
}

// place returns the place of a key. One that has none takes that of the key with the least count, if it is admitted; otherwise
// the place is negative.
func (t *Tracker) place(k id) int {
	if i, ok := t.index[k]; ok {
		return i
	}
	if len(t.keys) == Tracked && rand.Uint32()%admitted != 0 {
		return -1
	}
	k = id{strings.Clone(k.dataset), strings.Clone(k.key)}
	i := len(t.keys)
	if i < Tracked { //guard:counted-keys-without-limit
		t.keys, t.counts = append(t.keys, counted{id: k}), append(t.counts, 0)
	} else {
		i = least(t.counts)
		delete(t.index, t.keys[i].id)
		t.keys[i] = counted{id: k, excess: t.counts[i]}
	}
	t.index[k] = i
	return i
}

func least(counts []float64) (at int) {
	for i, n := range counts {
		if n < counts[at] {
			at = i
		}
	}
	return at
}

// roll halves the counts for each window that has passed, and removes keys that nobody fetches any more.
func (t *Tracker) roll() {
	now := time.Since(t.start)
	passed := int((now - t.rolled) / window)
	if passed == 0 {
		return
	}
	t.rolled += time.Duration(passed) * window
	half := 1 / float64(uint64(1)<<min(passed, 60))
	for i := len(t.keys) - 1; i >= 0; i-- {
		k := &t.keys[i]
		t.counts[i] *= half
		k.excess *= half
		k.rate = t.counts[i] - k.excess
		k.hot = k.rate >= Threshold || k.hot && k.rate >= Threshold/coldShare //guard:hot-key-is-hot-and-cold-in-turn
		if t.counts[i] < 1 {
			t.remove(i)
		}
	}
}

func (t *Tracker) remove(i int) {
	last := len(t.keys) - 1
	delete(t.index, t.keys[i].id)
	if i < last {
		t.keys[i], t.counts[i] = t.keys[last], t.counts[last]
		t.index[t.keys[i].id] = i
	}
	t.keys[last] = counted{}
	t.keys, t.counts = t.keys[:last], t.counts[:last]
}

// Rate returns the fetches of a key per second, at least; 0 if it is not among those with the most.
func (t *Tracker) Rate(dataset, key string) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roll()
	if i, ok := t.index[id{dataset, key}]; ok {
		return t.keys[i].rate
	}
	return 0
}

// Hot returns the given number of hot keys at most, the one with the highest rate first.
func (t *Tracker) Hot(most int) []Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roll()
	var list []Key
	for _, k := range t.keys {
		if k.hot {
			list = append(list, Key{k.dataset, k.key, k.rate})
		}
	}
	slices.SortFunc(list, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Dataset, b.Dataset), cmp.Compare(a.Key, b.Key))
	})
	return list[:min(len(list), most)]
}
