package local

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// sameSite reports whether a request may do more than read, and answers 403 when it may not: no page of another origin
// can write through a sidecar. Programs, which send neither header, may.
func (e *entrance) sameSite(c *call) bool {
	foreign := c.fetchSite != "" && c.fetchSite != "same-origin" && c.fetchSite != "none"
	if !foreign && (c.origin == "" || e.hosts.allowOrigin(c.origin, c.authority)) {
		return true
	}
	e.stats.HostRefused.Add(1)
	c.fail(apierror.New(apierror.CrossSite, "only pages of this origin, or of a host in `hosts` of the configuration, may do this through this sidecar"))
	return false
}

// write answers PUT and DELETE.
func (e *entrance) write(c *call, escapedName, escapedKey string) {
	d, key, ok := e.keyOf(c, escapedName, escapedKey)
	if !ok {
		return
	}
	change, f := c.change(d, key)
	if f != nil {
		c.fail(f)
		return
	}
	e.server.stats.Writes.Add(1)
	a, err := d.Write(c.deadline, change)
	switch {
	case cache.KindOf(err) == cache.KindReadOnly:
		c.readOnly(err.Error())
	case err != nil:
		c.fail(writeFailure(e.server.fail(err), change.If))
	case change.Delete:
		c.deleted(&a)
	default:
		c.written(&a, d.contentType(), change.If.Absent)
	}
}

// readOnly answers a write to a dataset that takes none.
func (c *call) readOnly(detail string) {
	c.fail(apierror.New(apierror.TypeOf(cache.KindReadOnly), detail))
	c.setString("Allow", allowReads)
}

// writeFailure is f, but that RFC 9110 has a status of its own for the conditions that it knows.
func writeFailure(f *apierror.Error, condition cache.Condition) *apierror.Error {
	if f.Type == apierror.TypeOf(cache.KindConflict) && (condition.Absent || condition.Present || condition.ETag != "") {
		f.Type = apierror.PreconditionFailed
	}
	return f
}

// written answers with the row as it is now. Content-Location says that it is the row itself, and no report about the
// write (RFC 9110, 8.7); so its ETag is not taken for that of the request's value (9.3.4).
func (c *call) written(a *cache.Answer, contentType string, created bool) {
	c.send(contentType, a.Value)
	if created {
		c.status = http.StatusCreated
	}
	path, _ := originForm(c.target, c.host)
	c.setString("Content-Location", path)
	c.setEntry(a)
	mark := len(c.scratch)
	c.scratch = appendWriteStatus(c.scratch, a)
	c.set("Cache-Status", mark)
}

func (c *call) deleted(a *cache.Answer) {
	c.status = http.StatusNoContent
	c.setString("Cache-Control", noStore)
	if a.Version != 0 {
		c.setInt("Ringside-Version", a.Version)
	}
}

// change makes a cache.Change of a request.
func (r *request) change(d Served, key string) (cache.Change, *apierror.Error) {
	c := cache.Change{Key: key, Delete: r.method == http.MethodDelete}
	if !c.Delete {
		if f := r.refuseContent(d); f != nil {
			return c, f
		}
		c.Value = r.content
	}
	var err error
	if c.If, err = parseCondition(r.ifMatch, r.ifNoneMatch, r.ifVersion); err != nil {
		return c, invalidRequest(err)
	}
	if c.Delete && c.If.Absent { //guard:absent-row-deleted
		return c, invalidRequest(errors.New("If-None-Match: a row that is not there can not be deleted"))
	}
	if c.ID, err = parseIdempotencyKey(r.idempotencyKey); err != nil {
		return c, invalidRequest(err)
	}
	return c, nil
}

// refuseContent says why the content of a PUT can not be a value. What curl says of any data that it is given is no
// reason: whether the data is JSON shows.
func (r *request) refuseContent(d Served) *apierror.Error {
	if r.contentRange != "" { //guard:part-becomes-whole
		return invalidRequest(errors.New("Content-Range: a part of a value can not be put; send the whole"))
	}
	if r.contentCoding != "" && !strings.EqualFold(r.contentCoding, "identity") { //guard:packed-bytes-become-row
		return apierror.New(apierror.UnsupportedMediaType, "a value is put without a Content-Encoding")
	}
	if !d.JSON || r.mediaType == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(r.mediaType)
	if err != nil || media != typeJSON && media != "application/x-www-form-urlencoded" {
		return apierror.New(apierror.UnsupportedMediaType, "the values of this dataset are rows as JSON objects: "+
			"send Content-Type: application/json")
	}
	return nil
}

// parseCondition makes a condition of the headers of a write, at most one of which is there.
func parseCondition(ifMatch, ifNoneMatch, ifVersion string) (c cache.Condition, err error) {
	ifMatch, ifNoneMatch = trimField(ifMatch), trimField(ifNoneMatch)
	switch {
	case moreThanOne(ifMatch, ifNoneMatch, ifVersion):
		return c, errors.New("If-Match, If-None-Match and Ringside-If-Version: at most one of them can be checked")
	case ifMatch == "*":
		c.Present = true
	case ifMatch != "":
		if err = checkETag(ifMatch); err != nil {
			return c, fmt.Errorf("If-Match: %w, or *", err)
		}
		c.ETag = strings.Clone(ifMatch)
	case ifNoneMatch == "*":
		c.Absent = true
	case ifNoneMatch != "":
		return c, errors.New("If-None-Match: a write takes * alone, which means that there must be no such row")
	case ifVersion != "":
		if c.Version, err = parseVersion(ifVersion); err != nil || c.Version == 0 {
			return c, errors.New("Ringside-If-Version: a version is a whole number from 1 to 9223372036854775807")
		}
	}
	return c, nil
}

// trimField takes the white space around a field's value off, but for a field that has no value.
func trimField(value string) string {
	if trimmed := strings.Trim(value, " \t"); trimmed != "" {
		return trimmed
	}
	return value
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

// checkETag says what keeps s from being one strong entity tag (RFC 9110, 8.8.3), if anything.
func checkETag(s string) error {
	if strings.HasPrefix(s, "W/") {
		return errors.New("a weak ETag never matches here; send one strong ETag, quotes included, as GET answers it")
	}
	inner, ok := strings.CutPrefix(s, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	for i := range len(inner) {
		if inner[i] <= ' ' || inner[i] == '"' || inner[i] == 0x7f {
			ok = false
		}
	}
	if !ok || !closed {
		return errors.New("send one strong ETag, quotes included, as GET answers it")
	}
	return nil
}

// parseIdempotencyKey reads a string of structured fields (RFC 8941, 3.3.3), as
// draft-ietf-httpapi-idempotency-key-header has it, or the bare characters that most clients send.
func parseIdempotencyKey(field string) (string, error) {
	if field == "" {
		return "", nil
	}
	id := strings.Trim(field, " \t")
	if strings.HasPrefix(id, `"`) {
		var ok bool
		if id, ok = unquote(id); !ok {
			return "", errors.New(`Idempotency-Key: the closing quote is missing or not the end; in a string write \" and \\`)
		}
	} else if strings.ContainsAny(id, " ,;\"\\") {
		return "", errors.New("Idempotency-Key: send one string in quotes")
	}
	if err := checkIdempotencyKey(id); err != nil {
		return "", fmt.Errorf("Idempotency-Key: %w", err)
	}
	return strings.Clone(id), nil
}

func checkIdempotencyKey(id string) error {
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return errors.New("only printable ASCII characters name a write")
		}
	}
	if id == "" || len(id) > cache.MaxIDBytes {
		return fmt.Errorf("1 to %d characters name a write, not %d", cache.MaxIDBytes, len(id))
	}
	return nil
}

// unquote reads a quoted string of RFC 8941, 3.3.3, which s is as a whole.
func unquote(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return string(b), i == len(s)-1
		case c == '\\' && (i+1 == len(s) || s[i+1] != '"' && s[i+1] != '\\'):
			return "", false
		case c == '\\':
			i++
			b = append(b, s[i])
		default:
			b = append(b, c)
		}
	}
	return "", false
}
