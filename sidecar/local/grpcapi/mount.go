package grpcapi

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
)

// mountRegistrar gives the methods of services that know nothing of this server the limits, counters and panic handling of
// this package. An interceptor would cost the calls of all other services allocations, too.
type mountRegistrar struct {
	grpc.ServiceRegistrar
	service *service
}

// RegisterService implements grpc.ServiceRegistrar.
func (m mountRegistrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	wrapped := *desc
	wrapped.Methods = slices.Clone(desc.Methods)
	for i := range wrapped.Methods {
		wrapped.Methods[i].Handler = m.service.wrap(wrapped.Methods[i].Handler)
	}
	m.ServiceRegistrar.RegisterService(&wrapped, impl)
}

func (s *service) wrap(next grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (
		_ any, err error) {
		defer s.finish(ctx, time.Now(), &err)                                      //guard:mounted-panic-ends-process
		ctx, cancel := context.WithTimeout(ctx, s.backend.Config().RequestTimeout) //guard:mounted-calls-without-deadline
		defer cancel()
		ctx = access.WithAuthorization(ctx, authorization(ctx)) //guard:mounted-calls-without-token
		return next(impl, ctx, decode, intercept)
	}
}
