package httpserver

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// RoutedHandler is the http.Handler for clients that route by the ring. It passes HTTP requests to package httpapi, and
// gRPC calls on the same connections to a gRPC server.
type RoutedHandler struct {
	handler  *httpapi.Handler
	grpc     http.Handler
	contexts sync.Pool // of *httpapi.RequestContext
}

// NewRouted returns a RoutedHandler.
func NewRouted(handler *httpapi.Handler, grpc http.Handler) *RoutedHandler {
	return &RoutedHandler{handler: handler, grpc: grpc, contexts: newContexts()}
}

// ServeHTTP implements http.Handler.
func (h *RoutedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	large := headerlimit.Exceeds(r.Header, h.handler.Backend().Config().MaxHeaderBytes)
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		if large {
			headerlimit.RejectCall(w)
			return
		}
		h.grpc.ServeHTTP(w, r)
		return
	}
	c := h.contexts.Get().(*httpapi.RequestContext)
	if large { //guard:routed-requests-without-header-limit
		h.handler.Stats.HeaderRefused.Add(1)
		c.Fail(headerTooLarge())
	} else {
		h.read(c, w, r)
	}
	if c.Status == 0 {
		h.handler.Handle(r.Context(), c)
	}
	writeRouted(w, &c.Response)
	c.Recycle()
	h.contexts.Put(c)
}

// read fills in the request of c, or its response if the body cannot be read.
func (h *RoutedHandler) read(c *httpapi.RequestContext, w http.ResponseWriter, r *http.Request) {
	config := h.handler.Backend().Config()
	c.Caller = caller.From(r.Context())
	c.Method, c.Target, c.Host, c.HTTP11 = r.Method, r.RequestURI, r.Host, r.ProtoAtLeast(1, 1)
	c.ReadHeader(netHeader(r.Header))
	// Timeouts of the http.Server would also end long gRPC calls. The response controller has deadlines on every protocol.
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetWriteDeadline(now.Add(config.RequestTimeout + config.WriteTimeout))
	if r.ContentLength == 0 { //guard:routed-request-cut-off-after-read-timeout
		return
	}
	_ = control.SetReadDeadline(now.Add(config.ReadTimeout))
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(config.MaxBodyBytes)))
	if err != nil {
		c.Fail(h.readError(err))
		return
	}
	// net/http keeps reading to notice that the client disconnects, and takes an expired deadline for that.
	_ = control.SetReadDeadline(time.Time{})
	c.Content = content
}

// netHeader is the header of a request as net/http has it.
type netHeader http.Header

// Joined implements httpapi.Header.
func (h netHeader) Joined(name string) string {
	lines := http.Header(h).Values(name) // net/http has its own canonical form, such as Last-Event-Id
	if len(lines) == 1 && lines[0] == "" {
		return " "
	}
	return strings.Join(lines, ", ")
}

func (h *RoutedHandler) readError(err error) *apierror.Error {
	var tooLarge *http.MaxBytesError
	switch stats := h.handler.Stats; {
	case errors.As(err, &tooLarge):
		return bodyTooLarge(stats)
	case isTimeout(err):
		return requestTimeout(stats)
	default:
		stats.Malformed.Add(1)
	}
	return apierror.New(apierror.MalformedRequest, "the body of the request did not arrive completely")
}

func writeRouted(w http.ResponseWriter, r *httpapi.Response) {
	header := w.Header()
	for _, f := range r.Fields {
		header[f.Name] = []string{string(f.Value)}
	}
	header["Content-Type"] = nil // net/http would guess one
	if r.ContentType != "" {
		header["Content-Type"] = []string{r.ContentType}
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body) // fails only if the client has gone
}
