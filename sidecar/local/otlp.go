package local

import (
	"context"
	"net/http"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/httpserver"
)

// newOTLP makes the servers of Config.OTLP. Those of gRPC and HTTP have the limits and counters of the other listeners.
func (s *Server) newOTLP(stats *Protocol) {
	otlp := s.backend.Config().OTLP
	if otlp == nil {
		return
	}
	handler := s.newHandler(httpapi.Options{Stats: stats, Only: otlp, MaxBodyBytes: otlp.MaxRequest()})
	s.otlpHTTP = httpserver.New(s.base, handler, caller.Of)
	config := s.h2Config()
	config.MaxBody = func(string) int64 { return int64(otlp.MaxRequest()) + 5 } // with the prefix of a message
	config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.exportOTLP(w, r, stats) })
	s.otlpGRPC = h2.New(config)
}

// exportOTLP answers one call within its deadline, and counts it.
func (s *Server) exportOTLP(w http.ResponseWriter, r *http.Request, stats *Protocol) {
	start := time.Now()
	defer func() { stats.Duration.Observe(time.Since(start)) }()
	ctx, cancel := context.WithTimeout(r.Context(), s.backend.Config().RequestTimeout) //guard:otlp-calls-without-deadline
	defer cancel()
	ctx = access.WithAuthorization(ctx, r.Header.Get("Authorization"))
	s.backend.Config().OTLP.ServeGRPC(w, r.WithContext(ctx))
}
