package listen

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// A server of connections that another listener has accepted takes their bytes there, and idle connections keep none out.
func TestPrepaidConnectionTakesThePlaceOfOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1 << 20)
		first := pipes{newHandoff(&net.UnixAddr{})}
		outer := New(first, Config{MaxConns: 1000, Bytes: b.Of(budget.Connections), ConnBytes: 1})
		inner := New(outer, Config{MaxConns: 1000})
		most := b.Limit(budget.Connections)
		accept := func() *conn {
			first.dial()
			c, err := inner.Accept()
			if err != nil {
				t.Fatal(err)
			}
			return c.(*conn)
		}
		idle, working := accept(), accept()
		if !idle.Prepay(most/2-1) || !working.Prepay(most/2-2) {
			t.Fatal("the first connections got no bytes")
		}
		if used := b.Stats()[budget.Connections].Used; used != 2*(most/2)-1 {
			t.Errorf("%d bytes are taken, want those of two connections", used)
		}
		idle.place.Wait()
		time.Sleep(time.Minute)
		if late := accept(); !late.Prepay(most/2 - 1) {
			t.Error("an idle connection kept a new one out")
		}
		if other := accept(); other.Prepay(most / 2) {
			t.Error("a connection got bytes although all others work")
		}
		if _, open := outer.conns[connOf(idle.Conn)]; open {
			t.Error("the idle connection is open")
		}
	})
}
