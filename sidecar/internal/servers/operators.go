package servers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

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
}

// NewHTTP returns a server of handler on the listener of that name, if that is on.
func NewHTTP(listeners *Listeners, name string, handler http.Handler) *HTTP {
	return &HTTP{name, listeners, &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: responseTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// The standard logger would write a line for each fault of a client.
		ErrorLog: zap.NewStdLog(zap.NewNop()),
	}}
}

// Start serves until Stop.
func (h *HTTP) Start(context.Context) error {
	h.listeners.serve(h.name, func(ln net.Listener) error {
		err := h.server.Serve(h.listeners.bounded(h.name, ln, listen.HTTP1Bytes, []byte(tooManyConnections))) //guard:operators-have-no-connection-limit
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
