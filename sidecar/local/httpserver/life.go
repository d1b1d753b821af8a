package httpserver

import (
	"context"
	"net"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// life ends a connection with TLS before its client's certificate expires; see listen.Life. Without TLS it has no limits.
type life struct {
	limits listen.Life
	ctx    context.Context // of requests
	cancel context.CancelFunc
}

func newLife(base context.Context, c net.Conn) life {
	state := listen.TLSState(c)
	if state == nil {
		return life{ctx: base, cancel: func() {}}
	}
	l := life{limits: listen.LifeOf(time.Now(), state)}
	l.ctx, l.cancel = context.WithDeadline(base, l.limits.End) //guard:routed-request-outlives-certificate
	return l
}

// drains reports whether the client has to use another connection for its next request.
func (l *life) drains() bool {
	return !l.limits.Drain.IsZero() && !time.Now().Before(l.limits.Drain) //guard:routed-connection-outlives-certificate
}

// limit returns at, or the end of the connection if that is earlier.
func (l *life) limit(at time.Time) time.Time {
	if end := l.limits.End; !end.IsZero() && end.Before(at) { //guard:routed-client-outlives-certificate
		return end
	}
	return at
}
