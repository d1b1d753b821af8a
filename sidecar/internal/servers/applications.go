package servers

import (
	"context"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/local"
)

// Applications serves the applications of the pod.
type Applications struct {
	Server    *local.Server
	listeners *Listeners
	log       *zap.Logger
}

// NewApplications returns a server on the listeners http, grpc, redis, otlp and unix.
func NewApplications(listeners *Listeners, server *local.Server, log *zap.Logger) *Applications {
	return &Applications{server, listeners, log}
}

// Start serves until Stop. The server bounds its connections by local.Config.MaxConns.
func (a *Applications) Start(context.Context) error {
	a.listeners.serve("http", a.Server.ServeHTTP)
	a.listeners.serve("grpc", a.Server.ServeGRPC)
	a.listeners.serve("redis", a.Server.ServeRedis)
	a.listeners.serve("otlp", a.Server.ServeOTLP)
	a.listeners.serve("unix", a.Server.ServeUnix)
	return nil
}

// Stop lets requests in flight end until ctx is done, and then cuts them off.
func (a *Applications) Stop(ctx context.Context) {
	if err := a.Server.Shutdown(ctx); err != nil {
		a.log.Warn("requests of applications were cut off", zap.Error(err))
	}
}
