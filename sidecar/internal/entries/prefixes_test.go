package entries

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// An invalidation by prefix is about the keys that begin with it, and about no others: not their entries, not their loads
// under way, and not what may be accepted from other members.
func TestPrefixInvalidationTouchesOnlyMatchingKeys(t *testing.T) {
	for _, tt := range []struct {
		prefix, key string
		matches     bool
	}{
		{"a/", "a/1", true}, {"a/1", "a/1", true}, {"a/1/", "a/1", false}, {"a/", "b/1", false}, {"a/", "a", false}, {"b", "a/b", false},
		{"", "a/1", true},
	} {
		for _, kind := range []Kind{Load, Copy, Commit} {
			r := newRig(t)
			r.clock = 10
			held := r.Begin(tt.key, Load)
			e := &Entry{Value: []byte("old"), ETag: `"old"`, Began: 9, Seen: 10, FreshUntil: 1000, StaleUntil: 1000}
			if _, stored := held.Put(e); !stored {
				t.Fatal("the first load is not stored")
			}
			r.clock = 20
			ticket := r.Begin(tt.key, kind)
			r.clock = 30
			r.InvalidatePrefix(tt.prefix, r.clock+1)
			if _, ok := r.Peek(tt.key); ok == tt.matches {
				t.Errorf("prefix %q: the entry of %q is there: %t", tt.prefix, tt.key, ok)
			}
			if got := r.BoundOf(tt.key).MinLoadTime; (got == 31) != tt.matches {
				t.Errorf("prefix %q: the bound of %q is %d", tt.prefix, tt.key, got)
			}
			r.clock = 40
			next := &Entry{Value: []byte("new"), ETag: `"new"`, Began: 20, Seen: 40, FreshUntil: 1000, StaleUntil: 1000}
			if kind == Copy {
				next.Owner = "owner"
			}
			if _, stored := ticket.Put(next); stored == tt.matches {
				t.Errorf("prefix %q: a %v of %q that began before is stored: %t", tt.prefix, kind, tt.key, stored)
			}
		}
	}
}

// However many prefixes are invalidated, none is forgotten: they are remembered more coarsely.
func TestManyPrefixesStayBoundedAndStrict(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		var b strings.Builder
		for range random.IntN(6) {
			b.WriteByte("ab"[random.IntN(2)])
		}
		return b.String()
	}
	type invalidation struct {
		prefix    string
		at, until int64
		sequence  uint64
	}
	for _, most := range []int{1, 2, 5, 40} {
		p := newPrefixes(most)
		var all []invalidation
		for now := range int64(3000) {
			switch random.IntN(4) {
			case 0:
				life := random.Int64N(300)
				i := invalidation{prefix: word(), at: now, until: now + life}
				p.add(i.prefix, Bound{MinLoadTime: now + 1}, now, life)
				i.sequence = p.sequence.Load()
				all = append(all, i)
			case 1:
				if random.IntN(50) == 0 {
					p.sweep(now)
				}
			}
			key, sequence := word(), p.sequence.Load()-min(p.sequence.Load(), random.Uint64N(20))
			bound, since := p.of(key, Bound{}, now).MinLoadTime, p.since(key, sequence)
			for _, i := range all {
				if !strings.HasPrefix(key, i.prefix) {
					continue
				}
				if now < i.until && bound < i.at+1 {
					t.Fatalf("most %d, at %d: the bound of %q is %d, older than that of %+v", most, now, key, bound, i)
				}
				if i.sequence > sequence && !since {
					t.Fatalf("most %d, at %d: a load of %q from before %+v is stored", most, now, key, i)
				}
			}
			if len(p.byPrefix) > most+1 {
				t.Fatalf("%d prefixes, want at most %d", len(p.byPrefix), most+1)
			}
		}
	}
}

func TestLongPrefixesAreBounded(t *testing.T) {
	p := newPrefixes(1024)
	for i := range 10_000 {
		p.add(fmt.Sprintf("%04d%s", i, strings.Repeat("x", 1000)), Bound{MinLoadTime: int64(i)}, 0, 1000)
	}
	bytes := 0
	for prefix := range p.byPrefix {
		bytes += len(prefix)
	}
	if bytes > 1024*boundKeyBytes+1100 || bytes != p.bytes {
		t.Errorf("%d bytes of prefixes, counted as %d, want at most %d", bytes, p.bytes, 1024*boundKeyBytes)
	}
}

// With few prefixes, what is invalidated is exact: no other key is concerned.
func TestFewPrefixesAreExact(t *testing.T) {
	p := newPrefixes(1024)
	for i := range 1000 {
		p.add(fmt.Sprintf("tenant-%d/", i), Bound{MinLoadTime: 1}, 0, 1000)
	}
	if p.covers("tenant-1000/x", 1) || p.since("tenant-1000/x", 0) || p.covers("tenant", 1) || !p.covers("tenant-7/", 1) {
		t.Error("a key is concerned that does not begin with one of the prefixes")
	}
	p.sweep(2000)
	if len(p.byPrefix) != 0 || len(p.lengths) != 0 || p.bytes != 0 {
		t.Errorf("%d prefixes after their lifetimes", len(p.byPrefix))
	}
	if !p.since("x", 999) || p.since("x", 1000) {
		t.Error("a load from before a forgotten invalidation is stored, or one from after it is not")
	}
}
