package lru

import (
	"slices"
	"testing"
)

func TestByUse(t *testing.T) {
	for _, p := range []Policy{LRU, SLRU} {
		c, err := New[int](Config{MaxBytes: 1 << 20, Policy: p, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range []string{"a", "b", "c"} {
			c.Update(key, 1, func(int, bool) (int, bool) { return i, true })
		}
		c.Get("a")
		var got []string
		c.ByUse(func(key string, _ int) bool {
			got = append(got, key)
			return len(got) < 2
		})
		if want := []string{"a", "c"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want the two used last, %v", p, got, want)
		}
	}
}
