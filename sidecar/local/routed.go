package local

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

type acceptedKey struct{}

// withAccepted adds when a connection was accepted, and who is at its other end as far as it shows that without TLS.
func withAccepted(ctx context.Context, c net.Conn) context.Context {
	return caller.With(context.WithValue(listen.WithPlace(ctx, c), acceptedKey{}, time.Now()), caller.Of(c))
}

// identified puts the caller into the context of each request, and limits the life of connections with TLS: first each response
// asks the client to reconnect (Connection: close, or GOAWAY on HTTP/2), then running requests end.
func (s *Server) identified(next http.Handler) http.Handler {
	identify := s.backend.Config().RoutedCaller
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if identify != nil {
			ctx = caller.With(ctx, identify(r.TLS, remote(r)))
		}
		if accepted, ok := ctx.Value(acceptedKey{}).(time.Time); ok && r.TLS != nil {
			life := listen.LifeOf(accepted, r.TLS)
			if !time.Now().Before(life.Drain) { //guard:routed-connection-outlives-certificate
				w.Header().Set("Connection", "close")
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, life.End) //guard:routed-stream-outlives-certificate
			defer cancel()
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// remote returns the address of the client; nil if it is not TCP.
func remote(r *http.Request) net.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	return net.TCPAddrFromAddrPort(addr)
}
