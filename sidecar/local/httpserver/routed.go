package httpserver

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
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
	var content *routedContent
	if large { //guard:routed-requests-without-header-limit
		h.handler.Stats.HeaderRefused.Add(1)
		c.Fail(headerTooLarge())
	} else {
		content = h.read(c, w, r)
		h.handler.Handle(r.Context(), c)
	}
	h.write(w, r, &c.Response)
	content.close()
	c.Recycle()
	h.contexts.Put(c)
}

// read fills in the request of c. It returns the content, which has not been read; nil if there is none.
func (h *RoutedHandler) read(c *httpapi.RequestContext, w http.ResponseWriter, r *http.Request) *routedContent {
	config := h.handler.Backend().Config()
	c.Caller = caller.From(r.Context())
	c.Method, c.Target, c.Host, c.HTTP11 = r.Method, r.RequestURI, r.Host, r.ProtoAtLeast(1, 1)
	c.ReadHeader(netHeader(r.Header))
	// Timeouts of the http.Server would also end long gRPC calls. The response controller has deadlines on every protocol.
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetWriteDeadline(now.Add(config.ReadTimeout + config.RequestTimeout + config.WriteTimeout))
	if r.ContentLength == 0 { //guard:routed-request-cut-off-after-read-timeout
		return nil
	}
	_ = control.SetReadDeadline(now.Add(config.ReadTimeout))
	content := &routedContent{h, w, r, config.Budget.Loan(budget.Requests)}
	c.Content = content
	return content
}

// routedContent is the content of a request that net/http reads.
type routedContent struct {
	handler *RoutedHandler
	w       http.ResponseWriter
	r       *http.Request
	loan    budget.Loan
}

// Length implements httpapi.Content.
func (c *routedContent) Length() int64 { return c.r.ContentLength }

// Read implements httpapi.Content. net/http says 100 Continue when the content is read first.
func (c *routedContent) Read() ([]byte, *apierror.Error) {
	most := c.handler.handler.Backend().Config().MaxBodyBytes
	stall(c.r)
	defer work(c.r)
	b, err := readContent(c.r.Body, int(c.r.ContentLength), most, &c.loan)
	if err != nil {
		return nil, c.refuse(err)
	}
	// net/http keeps reading to notice that the client disconnects, and takes an expired deadline for that.
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
	return b, nil
}

// refuse returns the response to content that could not be read. HTTP/1.1 cannot go on after it.
func (c *routedContent) refuse(err error) *apierror.Error {
	if c.r.ProtoMajor == 1 {
		c.w.Header().Set("Connection", "close")
	}
	return readError(err, c.handler.handler)
}

// close returns the bytes of the content.
func (c *routedContent) close() {
	if c != nil {
		c.loan.Close()
	}
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

// stall says that the connection of a request waits for the client, unless it has other requests; work ends that.
func stall(r *http.Request) {
	if r.ProtoMajor == 1 {
		listen.PlaceIn(r.Context()).Stall()
	}
}

func work(r *http.Request) {
	if r.ProtoMajor == 1 {
		listen.PlaceIn(r.Context()).Work()
	}
}

func (h *RoutedHandler) write(w http.ResponseWriter, q *http.Request, r *httpapi.Response) {
	stall(q)
	defer work(q)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.handler.Backend().Config().WriteTimeout))
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
