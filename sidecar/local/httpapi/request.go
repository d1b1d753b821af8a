package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

const (
	typeEvents = "text/event-stream"
)

// noStore is the Cache-Control of a response that no cache may keep.
const noStore = "no-store"

// Request is what a response depends on. The strings may lie in the server's buffers: they are valid until the response is
// complete.
type Request struct {
	Method, Target, Host string
	HTTP11               bool          // or later
	Caller               caller.Caller // who is at the other end of the connection
	// Content is read after all checks of the header; nil if the request has none.
	Content Content

	// Of every request.
	cacheControl, ifMatch, ifNoneMatch, fetchSite, minVersion string
	// Of requests that are more than plain reads.
	origin, ifVersion, idempotencyKey, mediaType, contentCoding, contentRange, lastEventID, prefer, override string

	header Header // of a field that most requests do not need; see authorization
}

// Content is the content of a request that has not been read.
type Content interface {
	// Length returns how many bytes it has; negative if that is unknown.
	Length() int64
	// Read reads all of it. It may be called once. The bytes are valid until the response has been sent.
	Read() ([]byte, *apierror.Error)
}

// Header gives access to the header of a request, in the form of the server that read it.
type Header interface {
	// Joined returns the value of a field; several lines are joined with commas (RFC 9110, 5.3). It is empty if the field
	// is absent, and one space if it has no value: a client that sends "If-Match:" means a condition.
	Joined(name string) string
}

// ReadHeader reads the fields that a response may depend on. Method and Target must be set.
func (r *Request) ReadHeader(h Header) {
	r.header = h
	r.cacheControl, r.ifNoneMatch = h.Joined("Cache-Control"), h.Joined("If-None-Match")
	r.fetchSite, r.minVersion = h.Joined("Sec-Fetch-Site"), h.Joined("Ringside-Min-Version")
	r.ifMatch = h.Joined("If-Match")
	if r.isRead() && !strings.Contains(r.Target, ":watch") {
		return
	}
	r.origin, r.ifVersion = h.Joined("Origin"), h.Joined("Ringside-If-Version")
	r.idempotencyKey, r.mediaType = h.Joined("Idempotency-Key"), h.Joined("Content-Type")
	r.contentCoding, r.contentRange = h.Joined("Content-Encoding"), h.Joined("Content-Range")
	r.lastEventID, r.prefer, r.override = h.Joined("Last-Event-ID"), h.Joined("Prefer"), h.Joined("X-HTTP-Method-Override")
}

// overrideMethod makes a POST to a key the write that a client without PUT or DELETE means. The field is required: a form of
// another website can send a POST, but not the field.
func (r *Request) overrideMethod(path string) *apierror.Error {
	if _, _, keyed := keyPath(path); !keyed || r.Method != http.MethodPost {
		return nil
	}
	switch method := httpfield.Trim(r.override); method {
	case http.MethodPut, http.MethodDelete: //guard:form-of-another-website-writes
		r.Method = method
		return nil
	}
	return apierror.New(apierror.MalformedRequest, "a POST to a key needs X-HTTP-Method-Override: PUT or DELETE")
}

// authorization returns the Authorization header, or "".
func (r *Request) authorization() string {
	if r.header == nil {
		return ""
	}
	return r.header.Joined("Authorization")
}

func (r *Request) isRead() bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// readOptions returns the options that the header of a read requests. Cache-Control is parsed leniently,
// Ringside-Min-Version is not: a client that requires a version relies on it.
func (r *Request) readOptions() (kv.ReadOptions, *apierror.Error) {
	o := httpfield.ReadOptions(r.cacheControl)
	if r.minVersion == "" {
		return o, nil
	}
	var err error
	if o.MinVersion, err = httpfield.Version(r.minVersion); err != nil {
		return o, api.InvalidRequest(fmt.Errorf("Ringside-Min-Version: %w", err))
	}
	return o, nil
}

// Response is to be written before its RequestContext is used again.
type Response struct {
	Status      int
	ContentType string
	Fields      []Field
	Body        []byte // may be shared with the cache: read only
	scratch     []byte // holds the values of Fields
	// Watch continues the response instead of Body; nil for a response that ends.
	Watch watch.Stream
}

// Field is a header field of a response. Its name is in canonical form.
type Field struct {
	Name  string
	Value []byte
}

// RequestContext is one request and its response. It is reused, so that a cache hit allocates nothing.
type RequestContext struct {
	Request
	Response
	deadline  *api.Deadline
	span      *tracing.Span   // nil if the request is not traced
	who       caller.Caller   // the caller, or the token that it has sent
	base      context.Context // parent of deadline
	arrival   time.Duration   // how long the content has taken to arrive
	Unread    bool            // the content cannot be read, and nothing after it on the connection
	free      bool            // the body of the response belongs to the program
	memory    bool            // the request must not wait
	elsewhere bool            // it would have to
	hit       bool            // FromMemory would have answered
	loan      budget.Loan     // of the body of the response
	authority string          // the Host, or what replaces it
	key       []byte          // scratch of unescape
	name      []byte          // scratch of unescape
}

// NewRequestContext returns an empty RequestContext.
func NewRequestContext() *RequestContext { return &RequestContext{deadline: new(api.Deadline)} }

// Recycle prepares c for its next request, after the response was sent or the connection ended. A deadline that something
// has waited for may still be in use: it is replaced.
func (c *RequestContext) Recycle() {
	if !c.deadline.Stop() {
		c.deadline = new(api.Deadline)
	}
	c.Request, c.who, c.authority, c.base, c.span = Request{}, caller.Caller{}, "", nil, nil
	c.arrival, c.Unread, c.free = 0, false, false
	c.memory, c.elsewhere, c.hit = false, false, false
	c.loan.Close() //guard:response-keeps-its-bytes
	c.Response = Response{Fields: c.Fields[:0], scratch: c.scratch[:0]}
}

// set adds a header field whose value has been appended to scratch from mark on.
func (r *Response) set(name string, mark int) {
	r.Fields = append(r.Fields, Field{name, r.scratch[mark:]})
}

func (r *Response) setString(name, value string) {
	mark := len(r.scratch)
	r.scratch = append(r.scratch, value...)
	r.set(name, mark)
}

func (r *Response) setInt(name string, value int64) {
	mark := len(r.scratch)
	r.scratch = strconv.AppendInt(r.scratch, value, 10)
	r.set(name, mark)
}

func (r *Response) send(contentType string, body []byte) {
	r.Status, r.ContentType, r.Body = http.StatusOK, contentType, body
}

// Fail makes the response a problem document. No cache may keep one, except that of a key that does not exist, which has
// the freshness of an entry.
func (r *Response) Fail(e *apierror.Error) {
	r.Status, r.ContentType, r.Body = e.Type.Status, apierror.ContentType, e.JSON()
	if seconds := e.RetrySeconds(); seconds > 0 {
		r.setInt("Retry-After", seconds)
	}
	if e.Challenge != "" {
		r.setString("Www-Authenticate", e.Challenge)
	}
	if e.Type.Name != apierror.NotFound.Name {
		r.setString("Cache-Control", noStore)
	}
}

// replace makes the response a problem document and nothing else.
func (r *Response) replace(e *apierror.Error) {
	*r = Response{Fields: r.Fields[:0], scratch: r.scratch[:0]}
	r.Fail(e)
}

func (r *Response) fail(t apierror.Type, detail string) { r.Fail(apierror.New(t, detail)) }

// setEntry sets the fields that describe an entry.
func (c *RequestContext) setEntry(a *kv.Answer) {
	if a.ETag != "" {
		c.setString("ETag", a.ETag)
	}
	c.setInt("Age", httpfield.WholeSeconds(a.Age))
	mark := len(c.scratch)
	c.scratch = strconv.AppendInt(append(c.scratch, "max-age="...), httpfield.WholeSeconds(api.TimeLeft(a)), 10)
	c.set("Cache-Control", mark)
	if a.Version != 0 {
		c.setInt("Ringside-Version", a.Version)
	}
	if a.Stale {
		c.setString("Ringside-Stale", "true")
	}
}
