// Package httpapi is the HTTP API of the datasets: it turns a request, given as strings, into a status, header fields and
// a body. It does not know which server reads requests and writes responses; see package httpserver.
package httpapi

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

const greeting = "Ringside serves datasets: GET /v1/{dataset}/{key}. GET /openapi.json describes this API.\n"

//go:embed openapi.json
var openAPI []byte

// The Allow header of a key, and of a key in a read-only dataset.
const allowKey, allowReads = "GET, HEAD, PUT, DELETE, POST", "GET, HEAD"

// Options are how listeners differ.
type Options struct {
	// Stats are the counters of the listener.
	Stats *api.Protocol
	// AnyHost accepts every Host header: browsers cannot connect to the listener, or only through a proxy.
	AnyHost bool
	// Routed is set for clients that route by the ring: they have neither watches nor the mounted API.
	Routed bool
	// Only is an API that the listener serves instead of the datasets, with bodies of at most MaxBodyBytes.
	Only         Mounted
	MaxBodyBytes int
}

// Mounted is what this package needs of api.Mount.
type Mounted interface {
	http.Handler
	PostOnly(path string) bool
}

// Handler answers HTTP requests. It is safe for concurrent use.
type Handler struct {
	backend *api.Backend
	watches *watch.Engine
	hosts   httpfield.Hosts
	mount   Mounted // nil if there is none
	Options
}

// New returns a Handler.
func New(backend *api.Backend, watches *watch.Engine, o Options) *Handler {
	config := backend.Config()
	h := &Handler{backend: backend, watches: watches, hosts: httpfield.NewHosts(config.Hosts), Options: o}
	switch {
	case o.Only != nil:
		h.mount = o.Only
	case !o.Routed && config.CNFMetrics != nil:
		h.mount = config.CNFMetrics
	}
	h.MaxBodyBytes = cmp.Or(h.MaxBodyBytes, config.MaxBodyBytes)
	return h
}

// Backend returns what the handler answers requests with.
func (h *Handler) Backend() *api.Backend { return h.backend }

// Handle fills in the response of c. It ends when ctx does, or after Config.RequestTimeout.
func (h *Handler) Handle(ctx context.Context, c *RequestContext) {
	start := time.Now()
	defer h.finish(c, start)
	c.loan = h.backend.Config().Budget.Loan(budget.Responses)
	ctx, c.span = tracing.Request(ctx, h.backend.Config().Tracer, c.header, tracing.Server, "HTTP", start)
	c.base = ctx
	c.deadline.Reset(ctx, start.Add(h.backend.Config().RequestTimeout))
	path, authority := originForm(c.Target, c.Host)
	c.authority = authority
	e := c.overrideMethod(path)
	if e == nil {
		e = h.refuse(c, path, authority)
	}
	if e != nil {
		c.Fail(e)
		return
	}
	if h.isMounted(path) {
		h.handleMount(c, path)
		return
	}
	h.route(c, path)
}

// MaxFromMemory is the size of the largest value that FromMemory sends: with its header it is a small response.
const MaxFromMemory = 2 << 10

// FromMemory is Handle for a read of a key whose value lies in memory: it never waits. It reports whether it has filled in the
// response; otherwise nothing has happened, and Handle does it.
func (h *Handler) FromMemory(ctx context.Context, c *RequestContext) bool {
	path, _ := originForm(c.Target, c.Host)
	_, _, keyed := keyPath(path)
	if !keyed || !c.isRead() || h.backend.Config().Tracer != nil || h.isMounted(path) || isWatch(path) || isExplain(path) {
		return false
	}
	c.memory = true
	h.Handle(ctx, c)
	return !c.elsewhere
}

// IsHit reports whether FromMemory would have answered the request.
func (h *Handler) IsHit(c *RequestContext) bool {
	return c.hit && h.backend.Config().Tracer == nil
}

// content reads the content of a request, or responds that it cannot be read. All checks of the header come before it: a
// client whose request is refused sends no content, and makes the process hold none.
func (h *Handler) content(c *RequestContext) (b []byte, ok bool) {
	if c.Content == nil {
		return nil, true
	}
	start := time.Now()
	b, e := c.Content.Read()
	c.arrival = time.Since(start)
	if e != nil {
		c.Unread = true
		c.Fail(e)
		return nil, false
	}
	if !c.deadline.Stop() {
		c.deadline = new(api.Deadline)
	}
	c.deadline.Reset(c.base, time.Now().Add(h.backend.Config().RequestTimeout))
	return b, true
}

// cover takes the bytes of the body of the response from the budget until it has been sent, because an entry lives at
// least as long as its slowest reader. It reports whether the budget has them.
func (c *RequestContext) cover(size int) bool {
	more := int64(size) - c.loan.Bytes()
	return size <= api.PrepaidResponse || c.free || c.Method == http.MethodHead || more <= 0 || c.loan.Grow(more)
}

// charge covers the response, or replaces it.
func (h *Handler) charge(c *RequestContext) {
	if !c.cover(len(c.Body)) { //guard:response-without-budget
		c.replace(h.backend.Error(kv.ErrNoMemory))
	}
}

// finish counts a request, and turns a panic into a response: one bad request must not end the sidecar.
func (h *Handler) finish(c *RequestContext, start time.Time) {
	if p := recover(); p != nil {
		c.Response = Response{}
		c.Fail(h.backend.Panic("while handling a request", p))
	}
	h.charge(c)
	if !c.Unread && !c.elsewhere {
		took := time.Since(start) - c.arrival
		h.Stats.Duration.Observe(took)
		c.span.Exemplify(&h.Stats.Duration, took)
	}
	if c.span != nil {
		h.endSpan(c)
	}
}

// endSpan says what the request was. Its strings lie in buffers: the span has copies, and of the target only the route.
func (h *Handler) endSpan(c *RequestContext) {
	method := "_OTHER" // of clients that make up methods (OpenTelemetry, Semantic Conventions for HTTP)
	for _, known := range []string{
		http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodOptions,
	} {
		if c.Method == known {
			method = known
		}
	}
	path, _ := originForm(c.Target, c.Host)
	route := h.routeOf(path)
	c.span.Rename(strings.TrimSuffix(method+" "+route, " "))
	c.span.Set("http.request.method", method)
	c.span.Set("http.route", route)
	c.span.SetInt("http.response.status_code", c.Status)
	if c.Status >= http.StatusInternalServerError {
		c.span.Fail(strconv.Itoa(c.Status))
	}
	c.span.End()
}

// routeOf returns the template of a path, without what the client has chosen in it.
func (h *Handler) routeOf(path string) string {
	rest, versioned := strings.CutPrefix(path, "/v1/")
	_, _, keyed := keyPath(path)
	_, verb := cutVerb(rest)
	switch {
	case h.isMounted(path):
		if h.Only != nil {
			return ""
		}
		return strings.TrimSuffix(mountPath, "/")
	case path == "/", path == "/openapi.json", path == "/v1/datasets":
		return strings.Clone(path)
	case isWatch(path):
		return "/v1/{dataset}:watch"
	case isExplain(path):
		return "/v1/{dataset}:explain"
	case keyed:
		return "/v1/{dataset}/{key}"
	case versioned && (verb == ":batchGet" || verb == ":batchPut" || verb == ":invalidate"):
		return "/v1/{dataset}" + strings.Clone(verb)
	case versioned && verb == "":
		return "/v1/{dataset}"
	}
	return ""
}

// refuse returns the error of a request that is wrong for every route.
func (h *Handler) refuse(c *RequestContext, path, authority string) *apierror.Error {
	switch {
	case !h.AnyHost && authority == "" && c.HTTP11:
		return apierror.New(apierror.MalformedRequest, "the Host header is missing (RFC 9112, 3.2)")
	case !h.AnyHost && authority != "" && !h.hosts.Allow(authority): //guard:page-whose-name-points-to-loopback-reads
		h.Stats.HostRefused.Add(1)
		return apierror.New(apierror.WrongHost,
			"the Host header names neither localhost nor a configured host; see `hosts` in the configuration")
	case c.fetchSite == "cross-site":
		h.Stats.HostRefused.Add(1)
		return apierror.New(apierror.CrossSite, "pages of other websites may not use this sidecar")
	case c.Content != nil && (c.isRead() || c.Method == http.MethodDelete) && !h.isPostOnly(path): //guard:content-of-a-get
		return apierror.New(apierror.MalformedRequest,
			"GET, HEAD and DELETE have no content here: send neither Content-Length nor Transfer-Encoding")
	case c.Content != nil && c.Content.Length() > int64(h.MaxBodyBytes): //guard:100-continue-for-too-large-content
		c.Unread = true
		return BodyTooLarge(h.Stats)
	case strings.ContainsAny(path, "?#") && !h.isMounted(path) && !isWatch(path) && !isExplain(path):
		return apierror.New(apierror.MalformedRequest, "a key has no query and no fragment: write ? as %3F and # as %23")
	}
	return nil
}

// isPostOnly reports whether a path has operations with POST only: a request with content and another method has the wrong
// method there, not the wrong content.
func (h *Handler) isPostOnly(path string) bool {
	if h.isMounted(path) {
		return h.mount.PostOnly(path)
	}
	_, _, keyed := keyPath(path)
	_, verb := cutVerb(path)
	_, versioned := strings.CutPrefix(path, "/v1/")
	return !keyed && (verb == ":batchGet" || verb == ":batchPut" || verb == ":invalidate" || versioned && verb == "" && path != "/v1/datasets")
}

// BodyTooLarge returns the error of a request whose content exceeds the limit, and counts it.
func BodyTooLarge(stats *api.Protocol) *apierror.Error {
	stats.BodyRefused.Add(1)
	return apierror.New(apierror.BodyTooLarge, "the body exceeds the size limit of a value; split a batch into several requests")
}

func (h *Handler) route(c *RequestContext, path string) {
	switch path {
	case "/":
		h.static(c, api.TypeText, []byte(greeting))
		return
	case "/openapi.json":
		h.static(c, api.TypeJSON, openAPI)
		return
	case "/v1/datasets":
		h.static(c, api.TypeJSON, h.listDatasets(c))
		return
	}
	rest, versioned := strings.CutPrefix(path, "/v1/")
	name, key, keyed := keyPath(path)
	collection, verb := cutVerb(rest)
	switch {
	case isWatch(path):
		if h.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead) && h.checkSameSite(c) {
			h.watch(c, path)
		}
	case isExplain(path):
		if h.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead) {
			h.explain(c, path)
		}
	case keyed:
		h.routeKey(c, name, key)
	case versioned && verb == "" && rest != "":
		h.routeDataset(c, rest)
	case versioned && verb == ":batchGet":
		if h.allow(c, http.MethodPost, http.MethodPost) {
			h.batchGet(c, collection)
		}
	case versioned && verb == ":batchPut":
		if h.allow(c, http.MethodPost, http.MethodPost) && h.checkSameSite(c) { //guard:page-of-another-origin-writes-a-batch
			h.batchPut(c, collection)
		}
	case versioned && verb == ":invalidate":
		if h.allow(c, http.MethodPost, http.MethodPost) && h.checkSameSite(c) { //guard:page-of-another-origin-invalidates
			h.invalidate(c, collection)
		}
	case !strings.HasPrefix(path, "/") && !h.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead):
		// OPTIONS * and CONNECT name no resource (RFC 9112, 3.2.3 and 3.2.4) that could be missing.
	case !versioned && h.routePath(c, path):
	default:
		c.fail(apierror.NoSuchRoute, "keys are at /v1/{dataset}/{key}; see /openapi.json")
	}
}

// routeKey handles the requests for one key.
func (h *Handler) routeKey(c *RequestContext, name, key string) {
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		h.get(c, name, key)
	case http.MethodPut, http.MethodDelete:
		if h.checkSameSite(c) { //guard:page-of-another-origin-writes
			h.write(c, name, key)
		}
	default:
		// The methods are those of any key, as the description has it: PUT and DELETE report a read-only dataset themselves.
		if _, ok := h.dataset(c, name, access.Read); ok {
			h.allow(c, allowKey)
		}
	}
}

// routeDataset handles the requests for a dataset: an append, which needs no key.
func (h *Handler) routeDataset(c *RequestContext, name string) {
	if c.Method == http.MethodPost {
		if h.checkSameSite(c) { //guard:page-of-another-origin-appends
			h.append(c, name)
		}
		return
	}
	if _, ok := h.dataset(c, name, access.Read); ok {
		h.allow(c, http.MethodPost)
	}
}

// allow reports whether the request's method is one of a route's, and responds with 405 if it is not.
func (h *Handler) allow(c *RequestContext, list string, methods ...string) bool {
	for _, m := range methods {
		if c.Method == m {
			return true
		}
	}
	c.fail(apierror.WrongMethod, "this resource supports "+list)
	c.setString("Allow", list)
	return false
}

// checkSameSite reports whether a request may do more than read, and responds with 403 if it may not: no page of another
// origin can write through a sidecar. Programs, which send neither header, may.
func (h *Handler) checkSameSite(c *RequestContext) bool {
	foreign := c.fetchSite != "" && c.fetchSite != "same-origin" && c.fetchSite != "none"
	if !foreign && (c.origin == "" || h.hosts.AllowOrigin(c.origin, c.authority)) {
		return true
	}
	h.Stats.HostRefused.Add(1)
	c.fail(apierror.CrossSite,
		"only pages of this origin, or of a host in `hosts` of the configuration, may do this through this sidecar")
	return false
}

func (h *Handler) static(c *RequestContext, contentType string, body []byte) {
	if h.allow(c, "GET, HEAD", http.MethodGet, http.MethodHead) {
		c.free = true
		c.send(contentType, body)
	}
}

// datasetEntry is one line of GET /v1/datasets.
type datasetEntry struct {
	Name        string `json:"name"`
	ContentType string `json:"contentType,omitempty"`
	// Key are the columns of a composite key.
	Key []string `json:"key,omitempty"`
}

// listDatasets lists the datasets that the caller may read.
func (h *Handler) listDatasets(c *RequestContext) []byte {
	list := struct {
		Datasets []datasetEntry `json:"datasets"`
	}{Datasets: []datasetEntry{}}
	for _, d := range h.backend.Datasets.All() {
		if !d.Gate.Permits(c.Caller, access.Read, c.authorization()) { //guard:list-shows-what-may-not-be-read
			continue
		}
		list.Datasets = append(list.Datasets, datasetEntry{d.Name(), contentType(d), d.Key})
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	return append(b, '\n')
}

// contentType returns the media type of all values; empty if each has its own.
func contentType(d api.Served) string {
	if d.JSON || d.ContentType != "" {
		return d.MediaType(origin.ContentJSON)
	}
	return ""
}

// dataset finds the dataset of an escaped name with which the caller may do o, or responds that there is none or that the
// caller may not. It sets c.who.
func (h *Handler) dataset(c *RequestContext, escaped string, o access.Operation) (api.Served, bool) {
	name, scratch, err := unescape(escaped, c.name, false)
	c.name = scratch
	if err != nil {
		c.fail(apierror.MalformedRequest, err.Error())
		return api.Served{}, false
	}
	d, e := h.backend.Dataset(name)
	if e != nil {
		c.Fail(e)
		return d, false
	}
	c.span.Set(tracing.Dataset, d.Name())
	return d, h.admit(c, d, o)
}

// admit reports whether the caller may do o with a dataset, or responds that the caller may not. It sets c.who.
func (h *Handler) admit(c *RequestContext, d api.Served, o access.Operation) bool {
	if c.who = c.Caller; o == access.Read && d.Gate.Allows(&c.who, o) { // without a look at the header
		return true
	}
	var err error
	if c.who, err = d.Gate.Authorize(c.Caller, o, c.authorization()); err != nil { //guard:denied-request-is-answered
		c.Fail(h.backend.Error(err))
		return false
	}
	return true
}

// keyOf finds the dataset and the key of a path for o, or responds with what is wrong. The key lies in memory of c.
func (h *Handler) keyOf(c *RequestContext, escapedName, escapedKey string, o access.Operation) (
	d api.Served, key string, ok bool) {
	if d, ok = h.dataset(c, escapedName, o); !ok {
		return d, "", false
	}
	key, scratch, err := unescape(escapedKey, c.key, len(d.Key) > 0)
	c.key = scratch
	return d, key, c.checkKey(key, err)
}

// checkKey reports whether a key that was decoded with err can exist, or responds with what is wrong.
func (c *RequestContext) checkKey(key string, err error) bool {
	if err == nil {
		err = kv.CheckKey(key)
	}
	switch {
	case len(key) > kv.MaxKeyBytes:
		c.fail(apierror.KeyTooLong, err.Error())
	case err != nil:
		c.Fail(api.InvalidKey(err))
	default:
		return true
	}
	return false
}
