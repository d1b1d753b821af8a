package listen

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Place is the place of a connection among those that its listener may have open. When all are taken, the listener closes
// the connection that has waited longest for its client, so that clients that hold connections without using them keep
// nobody out. A server says when a connection waits; one that never says so is never closed. All methods may be called on nil.
type Place struct {
	waits   atomic.Int64 // since when the connection has waited, in nanoseconds; 0 while it does not
	idle    atomic.Bool  // it waits for the next request, and has had one
	used    atomic.Bool  // it has had a request
	outside *Place       // of the same connection, in the listener that accepted it first
}

// gone is the value of waits after the connection has lost its place.
const gone = -1

// PlaceOf returns the place of a connection of a Listener, or of one that wraps it and has the method NetConn; else nil.
func PlaceOf(c net.Conn) *Place {
	for {
		if p, ok := c.(*conn); ok {
			return &p.place
		}
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = wrapped.NetConn()
	}
}

// Wait says that the connection waits for the client's next request.
func (p *Place) Wait() {
	for ; p != nil; p = p.outside {
		p.idle.Store(p.used.Load())
		p.begin()
	}
}

// Stall says that the connection waits for the client in the middle of a request: for its content, or for the client to read
// the response.
func (p *Place) Stall() {
	for ; p != nil; p = p.outside {
		p.idle.Store(false)
		p.begin()
	}
}

func (p *Place) begin() {
	if since := p.waits.Load(); since != gone {
		p.waits.CompareAndSwap(since, time.Now().UnixNano())
	}
}

// Work says that the connection does not wait for the client: the process works on a request.
func (p *Place) Work() {
	for q := p; q != nil; q = q.outside {
		q.used.Store(true)
	}
	p.stop()
}

// stop says that the connection does not wait, although it has had no request.
func (p *Place) stop() {
	for ; p != nil; p = p.outside {
		if since := p.waits.Load(); since > 0 {
			p.waits.CompareAndSwap(since, 0)
		}
	}
}

// longestWaiting returns the connection that has waited longest: one that has not had a request yet, or is in the middle of
// one, or else one that is idle between two and has been so for keep. It has lost its place then; nil if there is none.
func longestWaiting(conns map[*conn]struct{}, now time.Time, keep time.Duration) *conn {
	for {
		var oldest, oldestIdle *conn
		var since, sinceIdle int64
		for c := range conns {
			switch waits := c.place.waits.Load(); {
			case waits <= 0:
			case !c.place.idle.Load():
				if oldest == nil || waits < since {
					oldest, since = c, waits
				}
			case oldestIdle == nil || waits < sinceIdle:
				oldestIdle, sinceIdle = c, waits
			}
		}
		if oldest == nil && oldestIdle != nil && sinceIdle <= now.Add(-keep).UnixNano() {
			oldest, since = oldestIdle, sinceIdle
		}
		if oldest == nil || oldest.place.waits.CompareAndSwap(since, gone) {
			return oldest
		}
	}
}

type placeKey struct{}

// WithPlace is a ConnContext of an http.Server: it adds the place of the connection to the context of its requests.
func WithPlace(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, placeKey{}, PlaceOf(c))
}

// PlaceIn returns the place that WithPlace has added.
func PlaceIn(ctx context.Context) *Place {
	p, _ := ctx.Value(placeKey{}).(*Place)
	return p
}

// ConnState is a ConnState of an http.Server: it says when a connection waits for a request.
func ConnState(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew, http.StateIdle:
		PlaceOf(c).Wait()
	case http.StateActive, http.StateHijacked:
		PlaceOf(c).Work()
	}
}
