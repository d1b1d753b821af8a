package httpapi

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// mountPath begins the paths of the mounted API.
const mountPath = "/cnfmetrics/"

// isMounted reports whether a path is one of the mounted API.
func (h *Handler) isMounted(path string) bool {
	return h.mount != nil && strings.HasPrefix(path, mountPath)
}

// handleMount lets the mounted API handle a request. path includes the query. It is cloned because a handler may keep it.
func (h *Handler) handleMount(c *RequestContext, path string) {
	if !c.isRead() && !h.checkSameSite(c) { //guard:page-of-another-site-changes-metrics
		return
	}
	ctx := access.WithAuthorization(caller.With(c.deadline, c.Caller), strings.Clone(c.authorization()))
	r, err := http.NewRequestWithContext(ctx, strings.Clone(c.Method), strings.Clone(path),
		bytes.NewReader(c.Content))
	if err != nil || strings.Contains(path, "#") { //guard:id-cut-off-at-fragment
		c.fail(apierror.MalformedRequest, "the method is not a token, or the target is not a path with a query")
		return
	}
	c.addTo(r.Header)
	w := recorder{header: http.Header{}, status: http.StatusOK}
	h.mount.ServeHTTP(&w, r)
	c.Status, c.Body, c.ContentType = w.status, w.body.Bytes(), w.header.Get("Content-Type")
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

// recorder records the response of a handler.
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
