package httpapi

import (
	"net/http"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// routePath handles a read of a key at a path of its dataset. It reports whether a dataset has the path.
func (h *Handler) routePath(c *RequestContext, path string) bool {
	d, parts, ok := h.backend.Datasets.Match(path, nil)
	if !ok {
		return false
	}
	if !h.admit(c, d, access.Read) || !h.allow(c, allowReads, http.MethodGet, http.MethodHead) { //guard:path-without-permission
		return true
	}
	key, err := joinKey(parts)
	if c.checkKey(key, err) && h.read(c, d, key) {
		h.surround(c, d.View)
	}
	return true
}

// joinKey returns the key whose columns have the given values, percent-encoded as in a path.
func joinKey(parts []string) (string, error) {
	for i, part := range parts {
		decoded, _, err := unescape(part, nil, false)
		if err != nil {
			return "", err
		}
		parts[i] = decoded
	}
	return origin.JoinKey(parts...), nil
}

// surround adds the text around the value that the configuration has.
func (h *Handler) surround(c *RequestContext, v *httpview.View) {
	before, after := v.Around()
	if before == "" && after == "" {
		return
	}
	size := len(before) + len(c.Body) + len(after)
	if !c.cover(size) {
		c.replace(h.backend.Error(kv.ErrNoMemory))
		return
	}
	c.Body = append(append(append(make([]byte, 0, size), before...), c.Body...), after...)
}

// notFoundField says that the origin does not have the key, whatever the status says to a program that knows nothing of Ringside.
const notFoundField = "Ringside-Not-Found"

// sendAbsent responds that the origin does not have the key. It reports whether the response is that of an entry.
func (c *RequestContext) sendAbsent(d api.Served) bool {
	absent := d.View.Absent()
	if c.ifMatch != "" && absent.Status < 300 { //guard:absent-key-meets-if-match
		c.failIfMatch()
		return false
	}
	e := api.NotFound()
	e.Type.Status = absent.Status
	switch {
	case absent.Body != "":
		c.send(absent.ContentType, []byte(absent.Body))
		if c.ContentType == "" {
			c.ContentType = d.MediaType(origin.ContentUnknown)
		}
		c.Status = absent.Status
	case absent.Status == http.StatusNoContent:
		c.Status = http.StatusNoContent
	default:
		c.Fail(e)
	}
	c.setString(notFoundField, "true")
	return true
}

// setColumns sets the header fields that are columns of a row.
func (c *RequestContext) setColumns(v *httpview.View, row []byte) (err error) {
	begin := len(c.scratch)
	for i := range v.Headers() {
		mark, ok := len(c.scratch), false
		if c.scratch, ok, err = v.AppendHeader(c.scratch, row, i); err != nil {
			return err
		}
		if ok {
			c.set(v.HeaderName(i), mark)
		}
	}
	if len(c.scratch)-begin > httpview.MaxHeaderBytes {
		return httpview.ErrHeaders
	}
	return nil
}
