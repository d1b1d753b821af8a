package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// get handles GET and HEAD of a key.
func (h *Handler) get(c *RequestContext, escapedName, escapedKey string) {
	if d, key, ok := h.keyOf(c, escapedName, escapedKey, access.Read); ok {
		h.read(c, d, key)
	}
}

// read responds with the value of a key. It reports whether it does.
func (h *Handler) read(c *RequestContext, d api.Served, key string) bool {
	o, e := c.readOptions()
	if e != nil {
		c.Fail(e)
		return false
	}
	a, err := h.answer(c, d, key, o)
	if err != nil {
		c.Fail(h.backend.Error(err))
		return false
	}
	if c.elsewhere {
		return false
	}
	c.hit = (a.Source == kv.SourceHit || a.Source == kv.SourceLocalHit) && fromMemory(d, &a)
	c.span.Set(tracing.Source, a.Source.String())
	c.sendEntry(&a, o, d)
	if d.View.Headers() > 0 && !a.NotFound && c.Status < 400 {
		if err := c.setColumns(d.View, a.Value); err != nil {
			c.replace(api.NoHeaders())
		}
	}
	return c.Status == http.StatusOK && !a.NotFound
}

// answer reads a key; if c is answered from memory, it sets c.elsewhere instead of waiting.
func (h *Handler) answer(c *RequestContext, d api.Served, key string, o kv.ReadOptions) (kv.Answer, error) {
	if !c.memory { //guard:read-from-memory-waits-for-a-load
		if err := d.LimitRead(&c.who, o, 1); err != nil {
			return kv.Answer{}, err
		}
		return d.Get(c.deadline, key, o)
	}
	a, ok := d.Cached(key, o)
	if c.elsewhere = !ok || !fromMemory(d, &a); !c.elsewhere {
		d.Stats().CountHit(false, a.Source == kv.SourceLocalHit)
	}
	return a, nil
}

// fromMemory reports whether FromMemory may send an answer.
func fromMemory(d api.Served, a *kv.Answer) bool {
	return !a.NotFound && len(a.Value) <= MaxFromMemory && d.View.Headers() == 0
}

// sendEntry responds with a value, with 304, or that the key does not exist. Conditions apply to responses that would succeed,
// and If-Match takes precedence over If-None-Match (RFC 9110, 13.2).
func (c *RequestContext) sendEntry(a *kv.Answer, o kv.ReadOptions, d api.Served) {
	switch {
	case a.NotFound:
		if !c.sendAbsent(d) {
			return
		}
	case c.ifMatch != "" && !httpfield.StrongMatch(c.ifMatch, a.ETag): //guard:condition-of-read-ignored
		c.failIfMatch()
		return
	case c.ifNoneMatch != "" && !httpfield.NoneMatch(c.ifNoneMatch, a.ETag):
		c.Status = http.StatusNotModified
	default:
		c.send(d.MediaType(a.Content), a.Value)
	}
	c.setEntry(a)
	mark := len(c.scratch)
	c.scratch = httpfield.AppendCacheStatus(c.scratch, a, o, api.TimeLeft(a))
	c.set("Cache-Status", mark)
	c.setString("Ringside-Source", a.Source.String())
}

func (c *RequestContext) failIfMatch() {
	c.fail(apierror.PreconditionFailed, "the ETag of the value is not in If-Match")
}

// write handles PUT and DELETE of a key.
func (h *Handler) write(c *RequestContext, escapedName, escapedKey string) {
	d, key, ok := h.keyOf(c, escapedName, escapedKey, access.Write)
	if !ok {
		return
	}
	if d.ReadOnly { // Write reports it, too, but only after the client has sent the value
		c.failReadOnly("dataset " + d.Name() + " is read-only; see `writable` in the configuration")
		return
	}
	change, e := c.change(d, key)
	if e != nil {
		c.Fail(e)
		return
	}
	if change.Value, ok = h.content(c); !ok {
		return
	}
	if !c.cover(len(change.Value)) { // most likely the row is as large
		c.Fail(h.backend.Error(kv.ErrNoMemory))
		return
	}
	a, err := d.WriteFor(c.deadline, &c.who, change)
	switch {
	case kv.KindOf(err) == kv.KindReadOnly:
		c.failReadOnly(err.Error())
	case err != nil:
		c.Fail(writeError(h.backend.Error(err), change.If))
	case change.Delete:
		c.prefersMinimal()
		c.sendNoRow(a.Version)
	default:
		path, _ := originForm(c.Target, c.Host)
		c.sendWritten(&a, path, d.MediaType(a.Content), change.If.Absent)
	}
}

func (c *RequestContext) failReadOnly(detail string) {
	c.fail(apierror.TypeOf(kv.KindReadOnly), detail)
	c.setString("Allow", allowReads)
}

// writeError returns e as HTTP reports it: RFC 9110 has a status of its own for the conditions that it defines.
func writeError(e *apierror.Error, condition kv.Condition) *apierror.Error {
	if e.Type == apierror.TypeOf(kv.KindConflict) && (condition.Absent || condition.Present || condition.ETag != "") {
		e.Type = apierror.PreconditionFailed
	}
	return e
}

// sendWritten responds with the current row, which is at path. Content-Location declares the body to be the row itself instead of a report
// about the write (RFC 9110, 8.7), so that its ETag is not taken for that of the request's content (9.3.4).
func (c *RequestContext) sendWritten(a *kv.Answer, path, contentType string, created bool) {
	switch {
	case c.prefersMinimal(), !c.cover(len(a.Value)): // the write has been committed, and must not look refused
		c.sendNoRow(a.Version)
	default:
		c.send(contentType, a.Value)
		c.setString("Content-Location", path)
		c.setEntry(a)
	}
	if created {
		c.Status = http.StatusCreated
	}
	mark := len(c.scratch)
	c.scratch = httpfield.AppendWriteStatus(c.scratch, a)
	c.set("Cache-Status", mark)
}

// prefersMinimal reports whether the client wants no row in the response (RFC 7240, 4.2), and says that it gets none.
func (c *RequestContext) prefersMinimal() bool {
	if c.prefer == "" || !httpfield.PrefersMinimal(c.prefer) {
		return false
	}
	c.setString("Preference-Applied", "return=minimal")
	return true
}

func (c *RequestContext) sendNoRow(version int64) {
	c.Status = http.StatusNoContent
	c.setString("Cache-Control", noStore)
	if version != 0 {
		c.setInt("Ringside-Version", version)
	}
}

// change returns the change that a request asks for.
func (r *Request) change(d api.Served, key string) (kv.Change, *apierror.Error) {
	c := kv.Change{Key: key, Delete: r.Method == http.MethodDelete}
	if !c.Delete {
		if e := r.checkContent(d); e != nil {
			return c, e
		}
	}
	var err error
	if c.If, err = parseCondition(r.ifMatch, r.ifNoneMatch, r.ifVersion); err != nil {
		return c, api.InvalidRequest(err)
	}
	if c.Delete && c.If.Absent { //guard:absent-row-deleted
		return c, api.InvalidRequest(fmt.Errorf("If-None-Match: %w", api.ErrDeleteAbsent))
	}
	if c.ID, err = parseIdempotencyKey(r.idempotencyKey); err != nil {
		return c, api.InvalidRequest(fmt.Errorf("Idempotency-Key: %w", err))
	}
	return c, nil
}

func parseIdempotencyKey(field string) (string, error) {
	if field == "" {
		return "", nil
	}
	id, err := httpfield.IdempotencyKey(field)
	if err != nil {
		return "", err
	}
	return id, api.CheckIdempotencyID(id)
}

// checkContent returns an error if the header of a PUT shows that its content cannot be a value.
func (r *Request) checkContent(d api.Served) *apierror.Error {
	switch {
	case r.contentRange != "": //guard:partial-content-becomes-whole
		return api.InvalidRequest(errors.New("Content-Range: a part of a value cannot be written; send the whole value"))
	case !httpfield.IsUncoded(r.contentCoding): //guard:compressed-bytes-become-row
		return apierror.New(apierror.UnsupportedMediaType, "send the value without a Content-Encoding")
	case d.JSON && !httpfield.AllowsJSON(r.mediaType) && r.mediaType != d.ContentType: //guard:put-with-type-of-get-rejected
		return apierror.New(apierror.UnsupportedMediaType,
			"the values of this dataset are rows as JSON objects: send Content-Type: application/json")
	}
	return nil
}

// parseCondition returns the condition of a write, of which at most one header may be present.
func parseCondition(ifMatch, ifNoneMatch, ifVersion string) (c kv.Condition, err error) {
	ifMatch, ifNoneMatch = httpfield.Trim(ifMatch), httpfield.Trim(ifNoneMatch)
	switch {
	case moreThanOne(ifMatch, ifNoneMatch, ifVersion):
		return c, errors.New("send at most one of If-Match, If-None-Match and Ringside-If-Version")
	case ifMatch == "*":
		c.Present = true
	case ifMatch != "":
		if err = api.CheckETag(ifMatch); err != nil {
			return c, fmt.Errorf("If-Match: %w, or *", err)
		}
		c.ETag = strings.Clone(ifMatch)
	case ifNoneMatch == "*":
		c.Absent = true
	case ifNoneMatch != "":
		return c, errors.New("If-None-Match: a write supports only *, which requires that the row is absent")
	case ifVersion != "":
		if c.Version, err = httpfield.Version(ifVersion); err != nil || c.Version == 0 {
			return c, errors.New("Ringside-If-Version: a version is a whole number from 1 to 9223372036854775807")
		}
	}
	return c, nil
}

func moreThanOne(fields ...string) bool {
	n := 0
	for _, f := range fields {
		if f != "" {
			n++
		}
	}
	return n > 1
}
