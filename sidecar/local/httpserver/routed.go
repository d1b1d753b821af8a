package httpserver

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// RoutedHandler is the http.Handler of HTTP/2 for clients that route by the ring. It passes HTTP requests to package httpapi,
// and gRPC calls on the same connections to a gRPC server.
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
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		h.grpc.ServeHTTP(w, r)
		return
	}
	c := h.contexts.Get().(*httpapi.RequestContext)
	content := h.read(c, w, r)
	h.handler.Handle(r.Context(), c)
	h.write(w, &c.Response)
	content.close()
	c.Recycle()
	h.contexts.Put(c)
}

// read fills in the request of c. It returns the content, which has not been read; nil if there is none.
func (h *RoutedHandler) read(c *httpapi.RequestContext, w http.ResponseWriter, r *http.Request) *routedContent {
	c.Caller = caller.From(r.Context())
	c.Method, c.Target, c.Host, c.HTTP11 = r.Method, r.RequestURI, r.Host, true
	c.ReadHeader(netHeader(r.Header))
	if r.ContentLength == 0 {
		return nil
	}
	content := &routedContent{h, w, r, h.handler.Backend().Config().Budget.Loan(budget.Requests)}
	c.Content = content
	return content
}

// routedContent is the content of a request over HTTP/2.
type routedContent struct {
	handler *RoutedHandler
	w       http.ResponseWriter
	r       *http.Request
	loan    budget.Loan
}

// Length implements httpapi.Content.
func (c *routedContent) Length() int64 { return c.r.ContentLength }

// Read implements httpapi.Content. The first read of the body sends 100 Continue to a client that waits for it.
func (c *routedContent) Read() ([]byte, *apierror.Error) {
	config := c.handler.handler.Backend().Config()
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(config.ReadTimeout)) // HTTP/2 supports it
	b, err := readContent(c.r.Body, int(c.r.ContentLength), c.handler.handler.MaxBodyBytes, &c.loan)
	if err != nil {
		return nil, readError(err, c.handler.handler)
	}
	return b, nil
}

// close returns the bytes of the content.
func (c *routedContent) close() {
	if c != nil {
		c.loan.Close()
	}
}

// netHeader is the header of a request as an http.Handler gets it.
type netHeader http.Header

// Joined implements httpapi.Header.
func (h netHeader) Joined(name string) string {
	lines := http.Header(h).Values(name) // http.Header has its own canonical form, such as Last-Event-Id
	if len(lines) == 1 && lines[0] == "" {
		return " "
	}
	return strings.Join(lines, ", ")
}

func (h *RoutedHandler) write(w http.ResponseWriter, r *httpapi.Response) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.handler.Backend().Config().WriteTimeout))
	header := w.Header()
	for _, f := range r.Fields {
		header[f.Name] = []string{string(f.Value)}
	}
	if r.ContentType != "" {
		header["Content-Type"] = []string{r.ContentType}
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body) // fails only if the client has gone
}
