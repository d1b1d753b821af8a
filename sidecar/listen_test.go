package sidecar

import "testing"

func TestListenersShareTheFilesThatAreNotReserved(t *testing.T) {
	origins := map[string]OriginConfig{"a": {}, "b": {MaxConns: 8}}
	for _, c := range []struct {
		limit, listeners, operators int
		want                        bounds
		routed                      int
	}{
		{1 << 20, 5, 3, bounds{1024, 10_000, 256}, 0},
		{20_000, 5, 3, bounds{1024, 10_000, 256}, 0},
		{8192, 5, 3, bounds{962, 964, 256}, 771},
		{256, 5, 3, bounds{24, 27, 11}, 21},
		{256, 0, 1, bounds{169, 169, 11}, 135},
		{32, 5, 3, bounds{1, 1, 1}, 1},
	} {
		files := c.limit - Config{Origins: origins}.reservedFiles(c.limit)
		got := connBounds(files, c.listeners, c.operators)
		if got != c.want || got.routed() != c.routed {
			t.Errorf("limit %d: %+v and %d; want %+v and %d", c.limit, got, got.routed(), c.want, c.routed)
		}
		if taken := c.listeners*got.local + got.peer + c.operators*got.operator; got.lowered() && files > 9 && taken > files {
			t.Errorf("limit %d: %d connections for %d files", c.limit, taken, files)
		}
	}
}
