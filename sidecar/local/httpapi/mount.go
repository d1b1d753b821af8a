package httpapi

import (
	"bytes"
	"errors"
	"net/http"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// mountPath begins the paths of the mounted API, unless the listener has nothing else.
const mountPath = "/cnfmetrics/"

// isMounted reports whether a path is one of the mounted API.
func (h *Handler) isMounted(path string) bool {
	return h.Only != nil || h.mount != nil && strings.HasPrefix(path, mountPath)
}

// handleMount lets the mounted API handle a request. path includes the query. It is cloned because a handler may keep it.
func (h *Handler) handleMount(c *RequestContext, path string) {
	if !c.isRead() && !h.checkSameSite(c) { //guard:page-of-another-site-changes-metrics
		return
	}
	ctx := access.WithAuthorization(caller.With(c.deadline, c.Caller), strings.Clone(c.authorization()))
	body := &lazyContent{h: h, c: c}
	r, err := http.NewRequestWithContext(ctx, strings.Clone(c.Method), strings.Clone(path), body)
	if err != nil || strings.Contains(path, "#") { //guard:id-cut-off-at-fragment
		c.fail(apierror.MalformedRequest, "the method is not a token, or the target is not a path with a query")
		return
	}
	c.addTo(r.Header)
	w := recorder{header: http.Header{}, status: http.StatusOK}
	w.body.loan, w.body.free = &c.loan, api.PrepaidResponse
	h.mount.ServeHTTP(&w, r)
	switch {
	case c.Unread:
		return // the response says why
	case w.err != nil:
		c.Fail(h.backend.Error(w.err))
		return
	}
	c.Status, c.Body, c.ContentType = w.status, w.body.bytes, w.header.Get("Content-Type")
	w.header.Del("Content-Type")
	for name, values := range w.header {
		c.setString(name, strings.Join(values, ", "))
	}
}

// addTo adds the fields that a response may depend on to a header.
func (r *Request) addTo(h http.Header) {
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

// lazyContent reads the content of a request when the mounted API has checked its header.
type lazyContent struct {
	h    *Handler
	c    *RequestContext
	read bytes.Reader
	err  error
}

// Read implements io.Reader.
func (l *lazyContent) Read(p []byte) (int, error) {
	if content := l.c.Content; content != nil && l.err == nil {
		b, ok := l.h.content(l.c)
		if l.c.Content = nil; !ok {
			l.err = errUnread
		}
		l.read.Reset(b)
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.read.Read(p)
}

var errUnread = errors.New("the content of the request could not be read")

// recorder records the response of a handler.
type recorder struct {
	header http.Header
	status int
	body   growing
	err    error // the budget has no bytes for the body
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	if w.body.append(&w.err, b); w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}
