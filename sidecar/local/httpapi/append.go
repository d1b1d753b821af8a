package httpapi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// append handles POST of a dataset: a row whose key the database generates.
func (h *Handler) append(c *RequestContext, escapedName string) {
	d, ok := h.dataset(c, escapedName, access.Write)
	if !ok {
		return
	}
	if d.ReadOnly { // Append reports it, too, but only after the client has sent the value
		h.failAppend(c, &kv.Error{Kind: kv.KindReadOnly, Err: errors.New("the dataset is read-only")})
		return
	}
	id, e := c.appendID(d)
	if e != nil {
		c.Fail(e)
		return
	}
	value, ok := h.content(c)
	if !ok {
		return
	}
	if !c.cover(len(value)) { // most likely the row is as large
		c.Fail(h.backend.Error(kv.ErrNoMemory))
		return
	}
	a, err := d.AppendFor(c.deadline, &c.who, value, id)
	if err != nil {
		h.failAppend(c, err)
		return
	}
	path, _ := originForm(c.Target, c.Host)
	location := path + routekey.Path("", a.Key) // by which clients that route find the owner
	c.setString("Location", location)
	c.sendWritten(&a.Answer, location, d.MediaType(a.Answer.Content), true)
}

// failAppend responds with an error of an append. A dataset that has none supports no method without a key.
func (h *Handler) failAppend(c *RequestContext, err error) {
	c.Fail(api.AppendError(h.backend.Error(err)))
	if k := kv.KindOf(err); k == kv.KindReadOnly || k == kv.KindNoAppend {
		c.setString("Allow", "")
	}
}

// appendID returns the idempotency id of an append, or what is wrong with the header.
func (r *Request) appendID(d api.Served) (string, *apierror.Error) {
	if override := strings.TrimSpace(r.override); override != "" { //guard:put-without-a-key-appends
		return "", apierror.New(apierror.MalformedRequest, "X-HTTP-Method-Override needs a key: POST /v1/{dataset} appends a row, and "+
			"/v1/{dataset}/{key} is the row that PUT and DELETE mean")
	}
	if r.ifMatch != "" || r.ifNoneMatch != "" || r.ifVersion != "" { //guard:condition-of-an-append-ignored
		return "", api.InvalidRequest(errors.New("an append has no condition: its row does not exist yet"))
	}
	if e := r.checkContent(d); e != nil {
		return "", e
	}
	id, err := parseIdempotencyKey(r.idempotencyKey)
	if err != nil {
		return "", api.InvalidRequest(fmt.Errorf("Idempotency-Key: %w", err))
	}
	return id, nil
}
