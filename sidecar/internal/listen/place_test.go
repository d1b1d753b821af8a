package listen

import (
	"context"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// accepted accepts n connections on a listener with that many places, and returns their places and a function that accepts
// one more and returns which of them were closed; nil and false if the new one was refused.
func accepted(t *testing.T, n int, keep time.Duration) (places []*Place, next func() (closed []int, ok bool)) {
	results := []any{}
	for range n + 10 {
		server, client := net.Pipe()
		t.Cleanup(func() { _, _ = server.Close(), client.Close() })
		results = append(results, server)
	}
	script := &scripted{results: results}
	l := New(script, Config{MaxConns: n, KeepIdle: keep})
	var conns []net.Conn
	for range n {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns, places = append(conns, c), append(places, PlaceOf(c))
	}
	left := script.results
	return places, func() (closed []int, ok bool) {
		script.results, left = []any{left[0], net.ErrClosed}, left[1:]
		_, err := l.Accept()
		for i, c := range conns {
			l.mu.Lock()
			_, open := l.conns[c.(*conn)]
			l.mu.Unlock()
			if !open {
				closed = append(closed, i)
			}
		}
		if want := int64(len(closed)); l.Stats().Evicted.Load() != want || l.Stats().Open.Load() != int64(n) {
			t.Errorf("got %d evicted and %d open, want %d and %d", l.Stats().Evicted.Load(), l.Stats().Open.Load(), want, n)
		}
		return closed, err == nil
	}
}

func TestNewConnectionTakesThePlaceOfTheLongestWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*Place) // of connection 1, a second after 0 and before 2 have begun to wait
		want   []int
	}{
		"never said anything":  {func(*Place) {}, []int{0}},
		"works on a request":   {func(p *Place) { p.Wait(); p.Work() }, []int{0}},
		"waits for content":    {func(p *Place) { p.Work(); p.Stall() }, []int{0}},
		"waits for its second": {func(p *Place) { p.Work(); p.Wait() }, []int{0}},
	} {
		synctest.Test(t, func(t *testing.T) {
			places, next := accepted(t, 3, time.Minute)
			for i, p := range places {
				if i == 1 {
					c.before(p)
				} else {
					p.Wait()
				}
				time.Sleep(time.Second)
			}
			if closed, ok := next(); !ok || !slices.Equal(closed, c.want) {
				t.Errorf("%s: got %v closed and the new one accepted %t, want %v", name, closed, ok, c.want)
			}
		})
	}
}

func TestConnectionThatIsUsedKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places, next := accepted(t, 3, time.Minute)
		places[0].Work()
		places[0].Wait() // idle, and oldest
		places[1].Work()
		time.Sleep(time.Second)
		places[2].Work()
		places[2].Wait()
		if closed, ok := next(); ok || closed != nil {
			t.Errorf("got %v closed and the new one accepted %t, want it refused: the others were used a second ago", closed, ok)
		}
		time.Sleep(time.Minute)
		if closed, ok := next(); !ok || !slices.Equal(closed, []int{0}) {
			t.Errorf("got %v closed and the new one accepted %t after a minute, want 0", closed, ok)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		places, next := accepted(t, 2, time.Minute)
		places[0].Work()
		places[0].Wait()
		time.Sleep(time.Hour)
		places[1].Work()
		places[1].Stall()
		time.Sleep(promptness)
		if closed, ok := next(); !ok || !slices.Equal(closed, []int{1}) {
			t.Errorf("got %v closed and the new one accepted %t, want 1: it is slow in the middle of a request", closed, ok)
		}
	})
}

// The methods of a place have no effect after the connection has lost it, or if the connection is not of a Listener.
func TestPlaceWithoutEffect(t *testing.T) {
	places, next := accepted(t, 1, 0)
	places[0].Wait()
	if closed, ok := next(); !ok || len(closed) != 1 {
		t.Fatalf("got %v, %t", closed, ok)
	}
	places[0].Work()
	places[0].Wait()
	if waits := places[0].waits.Load(); waits != gone {
		t.Errorf("got %d, want that the place stays gone", waits)
	}
	c, _ := net.Pipe()
	defer c.Close()
	if p := PlaceIn(WithPlace(context.Background(), c)); p != nil {
		t.Errorf("got place %v of a connection without listener", p)
	}
	ConnState(c, http.StateNew)
	ConnState(c, http.StateActive)
}

// The place of a connection that two listeners count is that of both.
func TestPlacesOfNestedListeners(t *testing.T) {
	server, client := net.Pipe()
	defer client.Close()
	outer := New(&scripted{results: []any{server}}, Config{MaxConns: 1})
	inner := New(outer, Config{MaxConns: 1})
	c, err := inner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ConnState(&replayed{Conn: c}, http.StateNew)
	if !outer.CloseLongestWaiting() {
		t.Error("the outer listener does not know that the connection waits")
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("the connection is open after it lost its place")
	}
	if inner.CloseLongestWaiting() && inner.Stats().Open.Load() != 0 {
		t.Errorf("%d connections are open", inner.Stats().Open.Load())
	}
}
