package servers

import "testing"

func TestListenersShareTheFilesThatAreNotReserved(t *testing.T) {
	for _, c := range []struct {
		limit, applications, operators int
		want                           limits
		routed                         int
	}{
		{1 << 20, 5, 3, limits{1024, 10_000, 256}, 0},
		{20_000, 5, 3, limits{1024, 10_000, 256}, 0},
		{8192, 5, 3, limits{962, 964, 256}, 771},
		{256, 5, 3, limits{24, 27, 11}, 21},
		{256, 0, 1, limits{169, 169, 11}, 135},
		{32, 5, 3, limits{1, 1, 1}, 1},
	} {
		files := c.limit - max(c.limit/5, 64) - 12
		got := newLimits(files, c.applications, c.operators)
		if got != c.want || got.routed() != c.routed {
			t.Errorf("limit %d: got %+v and %d; want %+v and %d", c.limit, got, got.routed(), c.want, c.routed)
		}
		used := c.applications*got.application + got.peer + c.operators*got.operator
		if got.lowered() && files > 9 && used > files {
			t.Errorf("limit %d: got %d connections, want at most %d", c.limit, used, files)
		}
	}
}
