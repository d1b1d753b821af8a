package h2

import "github.com/ringside-cache/ringside/sidecar/internal/listen"

// place tells the listener whether the connection waits for its client, so that it can be closed for a new one. mu of the
// connection guards it.
type place struct {
	at      *listen.Place
	state   placeState
	blocked int // handlers that wait for the client to read
}

type placeState int

const (
	unknown placeState = iota
	working            // on a request
	stalled            // for the rest of requests, or for the client to read
	idle               // for the next request
)

// set tells the listener what has changed; a fast answer costs one clock reading for all requests of a read.
func (p *place) set(state placeState) {
	if p.state == state {
		return
	}
	switch p.state = state; state {
	case working:
		p.at.Work()
	case stalled:
		p.at.Stall()
	case idle:
		p.at.Wait()
	}
}

// setPlace finds out what the connection waits for.
func (c *conn) setPlace() {
	switch {
	case c.streams.handlers > c.place.blocked:
		c.place.set(working)
	case len(c.streams.open) > 0 || c.streams.handlers > 0:
		c.place.set(stalled) //guard:h2-stalled-connection-keeps-its-place
	default:
		c.place.set(idle) //guard:h2-idle-connection-keeps-its-place
	}
}
