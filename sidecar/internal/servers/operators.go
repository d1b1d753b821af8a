package servers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// Limits of the servers for operators: small requests, and responses of up to a megabyte.
const (
	headerTimeout   = 5 * time.Second
	responseTimeout = 60 * time.Second // longer than a CPU profile takes
	idleTimeout     = 2 * time.Minute
	maxHeader       = 16 << 10
)

// tooManyConnections is the response to a connection over the limit.
const tooManyConnections = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"

// HTTP is a server for operators: metrics with the probes, or the console.
type HTTP struct {
	name      string // of its listener
	listeners *Listeners
	server    *http.Server
	bounded   atomic.Pointer[listen.Listener]
}

// NewHTTP returns a server of handler on the listener of that name, if that is on.
func NewHTTP(listeners *Listeners, name string, handler http.Handler) *HTTP {
	h := &HTTP{name: name, listeners: listeners}
	h.server = &http.Server{
		Handler:     newGuarded(handler, listeners.budget.Account(budget.Responses, responseShare), h.closeSlowClient),
		ConnContext: listen.WithPlace, ConnState: listen.ConnState,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: responseTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// The standard logger would write a line for each fault of a client.
		ErrorLog: zap.NewStdLog(zap.NewNop()),
	}
	return h
}

// closeSlowClient disconnects the client that has been slowest, if there is one.
func (h *HTTP) closeSlowClient() {
	if l := h.bounded.Load(); l != nil {
		l.CloseLongestStalled()
	}
}

// Start serves until Stop.
func (h *HTTP) Start(context.Context) error {
	h.listeners.serve(h.name, func(ln net.Listener) error {
		bounded := h.listeners.bounded(h.name, ln, listen.HTTP1Bytes, []byte(tooManyConnections)) //guard:operators-have-no-connection-limit
		h.bounded.Store(bounded)
		err := h.server.Serve(strictLines{bounded})
		if !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// Stop lets requests in flight end until ctx is done, and then cuts them off.
func (h *HTTP) Stop(ctx context.Context) {
	if h.server.Shutdown(ctx) != nil {
		_ = h.server.Close()
	}
}
