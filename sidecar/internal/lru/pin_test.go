package lru

import (
	"fmt"
	"testing"
)

func TestPinnedEntriesAreEvictedLast(t *testing.T) {
	c, err := New[bool](Config{MaxBytes: 100 * (entryOverhead + 4), Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	c.Pin(func(pinned bool) bool { return pinned })
	store := func(prefix string, n int, pinned bool) {
		for i := range n {
			c.Update(fmt.Sprintf("%s%03d", prefix, i), 0, func(bool, bool) (bool, bool) { return pinned, true })
		}
	}
	held := func(prefix string, n int) (count int) {
		for i := range n {
			if _, ok := c.Peek(fmt.Sprintf("%s%03d", prefix, i)); ok {
				count++
			}
		}
		return count
	}
	store("p", 60, true)
	store("o", 1000, false)
	if p, o := held("p", 60), held("o", 1000); p != 60 || o != 40 || c.Stats().Pinned != 60*(entryOverhead+4) {
		t.Errorf("%d pinned entries and %d others, %d bytes pinned; want 60 and 40", p, o, c.Stats().Pinned)
	}
	store("p", 10, false) // they are pinned no more
	store("q", 90, true)
	if p, q, o := held("p", 60), held("q", 90), held("o", 1000); p+q != 100 || c.Stats().Bytes != c.Stats().Pinned {
		t.Errorf("%d and %d pinned entries, %d others; want 100 pinned ones", p, q, o)
	}
	c.RemoveIf(func(string, bool) bool { return true })
	if s := c.Stats(); s.Pinned != 0 || s.Bytes != 0 {
		t.Errorf("%d bytes, %d of them pinned, are left of an empty cache", s.Bytes, s.Pinned)
	}
}
