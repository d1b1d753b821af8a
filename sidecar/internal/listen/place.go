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
// nobody out. A server calls Wait, Stall or Queue when a connection begins to wait; without that it is never closed. All
// methods may be called on nil.
type Place struct {
	waits   atomic.Int64 // since when the connection has waited, in nanoseconds; 0 while it does not
	why     atomic.Int32 // what it waits for: silent, idle or stalled
	used    atomic.Bool  // it has had a request
	outside *Place       // of the same connection, in the listener that accepted it first
}

// What a connection waits for.
const (
	silent  int32 = iota // its first request
	idle                 // another request
	stalled              // its client in the middle of a request
	queued               // other requests
)

// gone is the value of waits after the connection has lost its place.
const gone = -1

// PlaceOf returns the place of a connection of a Listener, or of one that wraps it and has the method NetConn; else nil.
func PlaceOf(c net.Conn) *Place {
	if of := connOf(c); of != nil {
		return &of.place
	}
	return nil
}

// connOf returns c, or the first connection of a Listener that it wraps; else nil.
func connOf(c net.Conn) *conn {
	found, _ := As[*conn](c)
	return found
}

// Wait says that the connection waits for the client's next request.
func (p *Place) Wait() {
	for ; p != nil; p = p.outside {
		p.begin(p.waitsFor())
	}
}

// Stall says that the connection waits for the client in the middle of a request: for its content, or for the client to read
// the response.
func (p *Place) Stall() {
	for ; p != nil; p = p.outside {
		p.begin(stalled)
	}
}

// Queue says that a request has to wait for those of others.
func (p *Place) Queue() {
	for ; p != nil; p = p.outside {
		p.begin(queued)
	}
}

func (p *Place) waitsFor() int32 {
	if p.used.Load() {
		return idle
	}
	return silent
}

func (p *Place) begin(why int32) {
	p.why.Store(why)
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

// promptness is how long a client that behaves well may take to send a request after it has connected, and to send and
// read what is in transit.
const promptness = time.Second

// Ranks of connections that wait: one of the lowest rank that has waited longest loses its place.
const (
	slow  = iota // silent or stalled for longer than clients that behave well
	kept         // idle for as long as it may be kept
	fresh        // silent or stalled, or waiting for others
	ranks
)

// longestWaiting returns the connection that loses its place; nil if there is none. It has lost it then.
func longestWaiting(conns map[*conn]struct{}, now time.Time, keep time.Duration,
	only func(why int32, waited time.Duration) bool,
) *conn {
	for {
		var oldest [ranks]*conn
		var since [ranks]int64
		for c := range conns {
			waits, why := c.place.waits.Load(), c.place.why.Load()
			rank, waited := fresh, now.Sub(time.Unix(0, waits))
			switch {
			case waits <= 0 || !only(why, waited):
				continue
			case why == idle && waited < keep:
				continue
			case why == idle:
				rank = kept
			case waited >= promptness && why != queued:
				rank = slow
			}
			if oldest[rank] == nil || waits < since[rank] {
				oldest[rank], since[rank] = c, waits
			}
		}
		rank := slow
		for rank < fresh && oldest[rank] == nil {
			rank++
		}
		if c := oldest[rank]; c == nil || c.place.waits.CompareAndSwap(since[rank], gone) {
			return c
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
