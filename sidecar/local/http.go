package local

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

const (
	typeJSON  = "application/json"
	typeBytes = "application/octet-stream"
	typeText  = "text/plain; charset=utf-8"
)

const pointer = "Ringside reads datasets: GET /v1/{dataset}/{key}. GET /openapi.json describes this API.\n"

// noStore is the Cache-Control of what no cache may keep.
const noStore = "no-store"

//go:embed openapi.json
var openAPI []byte

// request is what the answer depends on. The strings lie in the server's buffers: they are valid until the answer is
// complete, and no longer.
type request struct {
	method, target, host string
	http11               bool
	content              []byte

	// Of every request.
	cacheControl, ifMatch, ifNoneMatch, fetchSite, minVersion string
	// Of those that are no plain reads.
	origin, ifVersion, idempotencyKey, mediaType, contentCoding, contentRange, lastEventID string
}

// header are the fields of a request, in the shape of the server that read it.
type header interface {
	// joined returns the value of a field; that of several lines is theirs, with commas between (RFC 9110, 5.3). It is
	// empty when there is none. A field without a value is one space: who sends "If-Match:" means a condition.
	joined(name string) string
}

// read takes the fields that an answer may depend on. method and target are known.
func (r *request) read(h header) {
	r.cacheControl, r.ifNoneMatch = h.joined("Cache-Control"), h.joined("If-None-Match")
	r.fetchSite, r.minVersion = h.joined("Sec-Fetch-Site"), h.joined("Ringside-Min-Version")
	r.ifMatch = h.joined("If-Match")
	if (r.method == http.MethodGet || r.method == http.MethodHead) && !strings.Contains(r.target, ":watch") {
		return
	}
	r.origin, r.ifVersion = h.joined("Origin"), h.joined("Ringside-If-Version")
	r.idempotencyKey, r.mediaType = h.joined("Idempotency-Key"), h.joined("Content-Type")
	r.contentCoding, r.contentRange = h.joined("Content-Encoding"), h.joined("Content-Range")
	r.lastEventID = h.joined("Last-Event-ID")
}

// response is the answer, to be written before its call is used again.
type response struct {
	status      int
	contentType string
	fields      []field
	body        []byte // may be shared with the cache: read only
	scratch     []byte // holds the values of fields
	watching    *watch // goes on from here, instead of body; nil for an answer that ends
}

type field struct {
	name  string
	value []byte
}

// call is one request and its answer. It is used again and again, so that a hit allocates nothing.
type call struct {
	request
	response
	deadline  *deadline
	authority string // the Host, or what stands in for it
	key       []byte // scratch of unescape
	name      []byte // scratch of unescape
}

func newCall() *call { return &call{deadline: new(deadline)} }

// recycle makes c ready for its next use. A deadline that somebody waited for may still be held; it is left to them.
func (c *call) recycle() {
	if !c.deadline.stop() {
		c.deadline = new(deadline)
	}
	c.deadline.Context = nil
	c.request, c.authority = request{}, ""
	c.response = response{fields: c.fields[:0], scratch: c.scratch[:0]}
}

// set adds a header field whose value has been appended to scratch from mark on.
func (r *response) set(name string, mark int) {
	r.fields = append(r.fields, field{name, r.scratch[mark:]})
}

func (r *response) setString(name, value string) {
	mark := len(r.scratch)
	r.scratch = append(r.scratch, value...)
	r.set(name, mark)
}

func (r *response) setInt(name string, value int64) {
	mark := len(r.scratch)
	r.scratch = strconv.AppendInt(r.scratch, value, 10)
	r.set(name, mark)
}

func (r *response) send(contentType string, body []byte) {
	r.status, r.contentType, r.body = http.StatusOK, contentType, body
}

// fail answers with a problem document, which no cache may keep unless the caller says so.
func (r *response) fail(e *apierror.Error) {
	r.status, r.contentType, r.body = e.Type.Status, apierror.ContentType, e.JSON()
	if seconds := e.RetrySeconds(); seconds > 0 {
		r.setInt("Retry-After", seconds)
	}
	if e.Type != apierror.NotFound {
		r.setString("Cache-Control", noStore)
	}
}

// entrance answers HTTP requests. It does not know which server reads and writes them.
type entrance struct {
	server  *Server
	stats   *Protocol
	hosts   hosts
	anyHost bool  // a browser cannot reach a unix socket
	routed  bool  // by the ring: answers only what is about keys of one owner
	mount   Mount // nil where there is none
}

// answer fills in the response of c. It ends when ctx does, or after Config.RequestTimeout.
func (e *entrance) answer(ctx context.Context, c *call) {
	start := time.Now()
	defer e.finish(c, start)
	c.deadline.reset(ctx, start.Add(e.server.config.RequestTimeout))
	path, authority := originForm(c.target, c.host)
	c.authority = authority
	if f := e.refuse(c, path, authority); f != nil {
		c.fail(f)
		return
	}
	if e.mounts(path) {
		e.answerMount(c, path)
		return
	}
	e.route(c, path)
}

// finish counts a request, and makes an answer of a panic: one bad request must not end the sidecar.
func (e *entrance) finish(c *call, start time.Time) {
	if p := recover(); p != nil {
		c.response = response{}
		c.fail(e.server.fail(fmt.Errorf("panic while answering a request: %v\n%s", p, debug.Stack())))
	}
	e.stats.Duration.Observe(time.Since(start))
}

// refuse says why a request is answered on no route at all.
func (e *entrance) refuse(c *call, path, authority string) *apierror.Error {
	switch {
	case !e.anyHost && authority == "" && c.http11:
		return apierror.New(apierror.MalformedRequest, "the Host header is missing (RFC 9112, 3.2)")
	case !e.anyHost && authority != "" && !e.hosts.allow(authority): //guard:page-whose-name-points-loopback-reads-2
		e.stats.HostRefused.Add(1)
		return apierror.New(apierror.WrongHost, "the Host header names neither localhost nor a configured host; see `hosts` in the configuration")
	case c.fetchSite == "cross-site":
		e.stats.HostRefused.Add(1)
		return apierror.New(apierror.CrossSite, "a page of another site may not use this sidecar")
	case strings.ContainsAny(path, "?#") && !e.mounts(path) && !isWatch(path):
		return apierror.New(apierror.MalformedRequest, "a key has no query and no fragment: write ? as %3F and # as %23")
	}
	return nil
}

// refuseEarly answers a request of which the header tells that its content would be sent in vain, and reports whether it
// did.
func (e *entrance) refuseEarly(c *call) bool {
	start := time.Now()
	path, authority := originForm(c.target, c.host)
	c.authority = authority
	if f := e.refuse(c, path, authority); f != nil {
		c.fail(f)
	} else if name, key, ok := keyPath(path); ok && c.method == http.MethodPut && e.sameSite(c) {
		if d, _, ok := e.keyOf(c, name, key); ok && d.ReadOnly {
			c.readOnly("dataset " + d.Name() + ": it takes no writes; see `writable` in the configuration")
		}
	}
	if c.status == 0 {
		return false
	}
	e.stats.Duration.Observe(time.Since(start))
	return true
}

// keyPath takes dataset and key, both escaped, from a path.
func keyPath(path string) (name, key string, ok bool) {
	rest, versioned := strings.CutPrefix(path, "/v1/")
	name, key, keyed := strings.Cut(rest, "/")
	return name, key, versioned && keyed
}

func (e *entrance) route(c *call, path string) {
	switch path {
	case "/":
		e.static(c, typeText, []byte(pointer))
		return
	case "/openapi.json":
		e.static(c, typeJSON, openAPI)
		return
	case "/v1/datasets":
		e.static(c, typeJSON, e.list())
		return
	}
	rest, versioned := strings.CutPrefix(path, "/v1/")
	name, key, keyed := keyPath(path)
	collection, verb := cutVerb(rest)
	switch {
	case isWatch(path):
		if e.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead) && e.sameSite(c) {
			e.watch(c, path)
		}
	case keyed:
		e.keyed(c, name, key)
	case versioned && verb == ":batchGet":
		if e.allow(c, http.MethodPost, http.MethodPost) {
			e.batchGet(c, collection)
		}
	case versioned && verb == ":invalidate":
		if e.allow(c, http.MethodPost, http.MethodPost) && e.sameSite(c) { //guard:another-origins-page-drops-entries
			e.invalidate(c, collection)
		}
	case !strings.HasPrefix(path, "/") && !e.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead):
		// OPTIONS * and CONNECT name no resource (RFC 9112, 3.2.3 and 3.2.4) that could be there or not.
	default:
		c.fail(apierror.New(apierror.NoSuchRoute, "a key is read at /v1/{dataset}/{key}; see /openapi.json"))
	}
}

// keyed answers the requests about one key.
func (e *entrance) keyed(c *call, name, key string) {
	switch c.method {
	case http.MethodGet, http.MethodHead:
		e.get(c, name, key)
	case http.MethodPut, http.MethodDelete:
		if e.sameSite(c) { //guard:another-origins-page-writes
			e.write(c, name, key)
		}
	default:
		// What a key of any dataset answers, as the description has it: PUT and DELETE say themselves where they are not taken.
		if _, ok := e.dataset(c, name); ok {
			e.allow(c, allowKey)
		}
	}
}

// allow reports whether the method is one of a route's, and answers 405 when it is not.
func (e *entrance) allow(c *call, list string, methods ...string) bool {
	for _, m := range methods {
		if c.method == m {
			return true
		}
	}
	c.fail(apierror.New(apierror.WrongMethod, "this resource answers "+list))
	c.setString("Allow", list)
	return false
}

func (e *entrance) static(c *call, contentType string, body []byte) {
	if e.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead) {
		c.send(contentType, body)
	}
}

// datasetEntry is one line of GET /v1/datasets.
type datasetEntry struct {
	Name        string `json:"name"`
	ContentType string `json:"contentType"`
}

func (e *entrance) list() []byte {
	list := struct {
		Datasets []datasetEntry `json:"datasets"`
	}{Datasets: []datasetEntry{}}
	for _, d := range e.server.datasets.All() {
		list.Datasets = append(list.Datasets, datasetEntry{d.Name(), d.contentType()})
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	return append(b, '\n')
}

// dataset finds the dataset of an escaped name, or answers why there is none.
func (e *entrance) dataset(c *call, escaped string) (Served, bool) {
	name, scratch, err := unescape(escaped, c.name)
	c.name = scratch
	if err != nil {
		c.fail(apierror.New(apierror.MalformedRequest, err.Error()))
		return Served{}, false
	}
	d, ok := e.server.datasets.Lookup(name)
	if !ok {
		c.fail(unknownDataset(name, e.server.datasets.All()))
	}
	return d, ok
}

// keyOf finds dataset and key of a path, or answers what is wrong with them. The key lies in memory of c.
func (e *entrance) keyOf(c *call, escapedName, escapedKey string) (d Served, key string, ok bool) {
	if d, ok = e.dataset(c, escapedName); !ok {
		return d, "", false
	}
	key, scratch, err := unescape(escapedKey, c.key)
	c.key = scratch
	if err == nil && len(key) > cache.MaxKeyBytes {
		c.fail(apierror.New(apierror.KeyTooLong, checkKey(key).Error()))
		return d, "", false
	}
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		c.fail(invalidKey(err))
		return d, "", false
	}
	return d, key, true
}

func (e *entrance) get(c *call, escapedName, escapedKey string) {
	d, key, ok := e.keyOf(c, escapedName, escapedKey)
	if !ok {
		return
	}
	o, err := c.options()
	if err != nil {
		c.fail(invalidRequest(err))
		return
	}
	a, err := d.Get(c.deadline, key, o)
	if err != nil {
		c.fail(e.server.fail(err))
		return
	}
	c.found(&a, o, d.contentType())
}

// found answers with an entry: a value, the news that the client has it, or the news that there is none. What is absent is
// so under any condition, and If-Match comes before If-None-Match (RFC 9110, 13.2).
func (c *call) found(a *cache.Answer, o cache.ReadOptions, contentType string) {
	switch {
	case a.NotFound:
		c.fail(absent())
	case c.ifMatch != "" && !strongMatch(c.ifMatch, a.ETag): //guard:read-under-condition-so
		c.fail(apierror.New(apierror.PreconditionFailed, "the value has none of the ETags that If-Match names"))
		return
	case c.ifNoneMatch != "" && !noneMatch(c.ifNoneMatch, a.ETag):
		c.status = http.StatusNotModified
	default:
		c.send(contentType, a.Value)
	}
	c.setEntry(a)
	mark := len(c.scratch)
	c.scratch = appendCacheStatus(c.scratch, a, o)
	c.set("Cache-Status", mark)
	c.setString("Ringside-Source", a.Source.String())
}

// setEntry sets the fields that describe an entry, however the answer came by it.
func (c *call) setEntry(a *cache.Answer) {
	if a.ETag != "" {
		c.setString("ETag", a.ETag)
	}
	c.setInt("Age", wholeSeconds(a.Age))
	mark := len(c.scratch)
	c.scratch = strconv.AppendInt(append(c.scratch, "max-age="...), wholeSeconds(timeLeft(a)), 10)
	c.set("Cache-Control", mark)
	if a.Version != 0 {
		c.setInt("Ringside-Version", a.Version)
	}
	if a.Stale {
		c.setString("Ringside-Stale", "true")
	}
}
