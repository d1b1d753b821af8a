package sidecar

import "testing"

func TestListenersShareTheFilesThatAreNotReserved(t *testing.T) {
	origins := map[string]OriginConfig{"a": {}, "b": {MaxConns: 8}}
	for _, c := range []struct {
		limit, listeners int
		want             bounds
		routed           int
	}{
		{1 << 20, 5, bounds{1024, 10_000}, 0},
		{20_000, 5, bounds{1024, 10_000}, 0},
		{8192, 5, bounds{1024, 1422}, 1137},
		{256, 5, bounds{30, 30}, 24},
		{256, 0, bounds{180, 180}, 144},
		{32, 5, bounds{1, 1}, 1},
	} {
		files := c.limit - Config{Origins: origins}.reservedFiles(c.limit)
		got := connBounds(files, c.listeners)
		if got != c.want || got.routed() != c.routed {
			t.Errorf("limit %d: %+v and %d; want %+v and %d", c.limit, got, got.routed(), c.want, c.routed)
		}
		if taken := c.listeners*got.local + got.peer; got.lowered() && files > 6 && taken > files {
			t.Errorf("limit %d: %d connections for %d files", c.limit, taken, files)
		}
	}
}
