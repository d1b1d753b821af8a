package local

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// Mount is an API beside the datasets', such as package cnfmetrics. It is reached on HTTP, gRPC and the unix socket, and
// not by clients that route by the ring. Its calls are bounded, counted and survived like all others.
type Mount interface {
	// Register adds its gRPC services, of unary methods.
	Register(grpc.ServiceRegistrar)
	// ServeHTTP answers requests below its path. Of their headers come those that an answer may depend on: Cache-Control,
	// Ringside-Min-Version, If-Match, If-None-Match, and of requests that are no plain reads Ringside-If-Version,
	// Idempotency-Key, Content-Type, Content-Encoding and Content-Range. These come from no page of another site.
	http.Handler
}

// mountPath begins the paths of Config.CNFMetrics.
const mountPath = "/cnfmetrics/"

// mountOn adds the services of Config.CNFMetrics to a gRPC server.
func (s *Server) mountOn(g *grpc.Server, stats *Protocol) {
	if s.config.CNFMetrics != nil {
		s.config.CNFMetrics.Register(mountRegistrar{g, &service{server: s, stats: stats}})
	}
}

// mountRegistrar turns services that know nothing of this server into such as are bounded, counted and survived. An
// interceptor would cost the calls of all others allocations, too.
type mountRegistrar struct {
	grpc.ServiceRegistrar
	service *service
}

// RegisterService implements grpc.ServiceRegistrar.
func (m mountRegistrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = slices.Clone(desc.Methods)
	for i := range guarded.Methods {
		guarded.Methods[i].Handler = m.service.guard(guarded.Methods[i].Handler)
	}
	m.ServiceRegistrar.RegisterService(&guarded, impl)
}

func (g *service) guard(next grpc.MethodHandler) grpc.MethodHandler {
	return func(impl any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (
		_ any, err error) {
		defer g.finish(time.Now(), &err)                                        //guard:mounted-panic-ends-process
		ctx, cancel := context.WithTimeout(ctx, g.server.config.RequestTimeout) //guard:mounted-calls-without-end
		defer cancel()
		return next(impl, ctx, decode, intercept)
	}
}

// mounts reports whether a path is one of Config.CNFMetrics.
func (e *entrance) mounts(path string) bool {
	return e.mount != nil && strings.HasPrefix(path, mountPath)
}

// answerMount has Config.CNFMetrics answer. The path has its query, and is cloned: a handler may keep it.
func (e *entrance) answerMount(c *call, path string) {
	if c.method != http.MethodGet && c.method != http.MethodHead && !e.sameSite(c) { //guard:another-sites-page-changes-metrics
		return
	}
	r, err := http.NewRequestWithContext(c.deadline, strings.Clone(c.method), strings.Clone(path),
		bytes.NewReader(c.content))
	if err != nil || strings.Contains(path, "#") { //guard:id-cut-off
		c.fail(apierror.New(apierror.MalformedRequest, "the method is no token, or the target no path with a query"))
		return
	}
	c.header(r.Header)
	w := recorder{header: http.Header{}, status: http.StatusOK}
	e.mount.ServeHTTP(&w, r)
	c.status, c.body, c.contentType = w.status, w.body.Bytes(), w.header.Get("Content-Type")
	w.header.Del("Content-Type")
	for name, values := range w.header {
		c.setString(name, strings.Join(values, ", "))
	}
}

// header adds the fields that an answer may depend on.
func (r *request) header(h http.Header) {
	for name, value := range map[string]string{
		"Cache-Control": r.cacheControl, "Ringside-Min-Version": r.minVersion,
		"If-Match": r.ifMatch, "If-None-Match": r.ifNoneMatch, "Ringside-If-Version": r.ifVersion,
		"Idempotency-Key": r.idempotencyKey, "Content-Type": r.mediaType, "Content-Encoding": r.contentCoding,
		"Content-Range": r.contentRange,
	} {
		if value != "" {
			h.Set(name, strings.Clone(value))
		}
	}
}

// recorder keeps the answer of a handler.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }
