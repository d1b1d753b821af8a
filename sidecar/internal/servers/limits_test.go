package servers

import (
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

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

// In the default container, connections up to the limit of all listeners but one leave that one its own.
func TestNoListenerStarvesAnother(t *testing.T) {
	const clientMemory = 29 << 20
	kinds := []struct {
		name    string
		sockets int
		bytes   int64
	}{{"http", 5, listen.HTTP1Bytes}, {"peer", 1, listen.HTTP2Bytes + listen.TLSBytes}, {"metrics", 3, listen.HTTP1Bytes}}
	for spared := range kinds {
		b := budget.New(clientMemory)
		l := &Listeners{shares: newShares(5, 3)}
		var own *budget.Account
		for i, k := range kinds {
			for n := range k.sockets {
				a := b.Account(budget.Connections, l.ConnShare(k.name))
				if i == spared && n == 0 {
					own = a
					continue
				}
				for a.Take(k.bytes) {
				}
			}
		}
		conns := 0
		for own.Take(kinds[spared].bytes) {
			conns++
		}
		if conns < 10 {
			t.Errorf("%s has room for %d connections while the other listeners have all they can get, want at least 10", kinds[spared].name, conns)
		}
	}
}

func TestClientMemoryLimitsConnections(t *testing.T) {
	byFiles, s := newLimits(1<<20, 5, 3), newShares(5, 3)
	if got := byFiles.within(nil, s); got != byFiles {
		t.Errorf("without a budget: got %+v, want %+v", got, byFiles)
	}
	if got, want := byFiles.within(budget.New(29<<20), s), (limits{248, 257, 235}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := byFiles.within(budget.New(4<<30), s); got != byFiles {
		t.Errorf("with 4 GiB: got %+v, want %+v", got, byFiles)
	}
	if got := byFiles.within(budget.New(1), s); got != (limits{1, 1, 1}) {
		t.Errorf("with 1 byte: got %+v, want one connection each", got)
	}
}
