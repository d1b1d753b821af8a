package servers

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// prepaidResponse is what a connection has paid for: enough for the probes.
	prepaidResponse = 4 << 10
	// responseShare is the part of the budget for responses that a listener for operators has for itself, so that scrapes work
	// while applications are attacked.
	responseShare = 0.15
	// maxRunning is how many responses are made at once.
	maxRunning = 4
	// acceptTimeout is the time in which a client must accept a response.
	acceptTimeout = 10 * time.Second
	// memoryTries is how often a response asks for memory while slow clients are disconnected, memoryWait apart.
	memoryTries, memoryWait = 300, 10 * time.Millisecond
)

// guarded turns the handler of a listener for operators into one whose clients cannot exhaust the process. Requests have no
// content. A response is made as a whole, in turn and within the budget, and then sent, so that slow clients hold only its
// bytes; where there are none left, the client that has been slowest is disconnected. Profiles are excepted: one at a time.
type guarded struct {
	next      http.Handler
	memory    *budget.Account
	turns     chan struct{}
	makeRoom  func() // disconnects a slow client
	profiling atomic.Bool
	largest   atomic.Int64 // response so far
}

func newGuarded(next http.Handler, memory *budget.Account, makeRoom func()) *guarded {
	return &guarded{next: next, memory: memory, turns: make(chan struct{}, maxRunning), makeRoom: makeRoom}
}

// ServeHTTP implements http.Handler.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) { // net/http ignores its Transfer-Encoding: what follows may be content
		w.Header().Set("Connection", "close") //guard:content-of-old-request-becomes-request
	}
	switch {
	case r.ContentLength != 0: //guard:operators-may-send-content
		w.Header().Set("Connection", "close")
		apierror.New(apierror.MalformedRequest, "requests to this listener have no content").Write(w)
	case strings.HasPrefix(r.URL.Path, "/debug/pprof/"):
		g.profile(w, r)
	default:
		g.respond(w, r)
	}
}

func (g *guarded) profile(w http.ResponseWriter, r *http.Request) {
	if !g.profiling.CompareAndSwap(false, true) { //guard:many-profiles-at-once
		overloaded("another profile is being made; one is made at a time").Write(w)
		return
	}
	defer g.profiling.Store(false)
	g.next.ServeHTTP(&stalling{w, listen.PlaceIn(r.Context())}, r)
}

func (g *guarded) respond(w http.ResponseWriter, r *http.Request) {
	b := &buffered{header: w.Header(), guard: g, ctx: r.Context()}
	defer b.release()
	if !g.await(r) {
		overloaded("other requests to this listener take too long").Write(w)
		return
	}
	// All of it at once: responses that each had a part of the memory would wait for each other.
	if isProbe(r) || b.take(g.largest.Load()) {
		g.next.ServeHTTP(b, r)
	}
	b.shrink()
	g.done(r)
	if b.failed {
		clear(w.Header())
		overloaded("other responses of this listener use up its memory (client_memory in the configuration)").Write(w)
		return
	}
	b.send(w)
}

// isProbe reports whether a request is one of the kubelet's: it is answered without waiting for others.
func isProbe(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "z") }

func (g *guarded) await(r *http.Request) bool {
	if isProbe(r) { //guard:probe-waits-for-other-requests
		return true
	}
	ctx, cancel := context.WithTimeout(r.Context(), acceptTimeout)
	defer cancel()
	place := listen.PlaceIn(ctx)
	place.Queue() // a client that waits for others must not keep a probe out
	defer place.Work()
	select {
	case g.turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *guarded) done(r *http.Request) {
	if !isProbe(r) {
		<-g.turns
	}
}

// take takes n bytes. Where there are none, it disconnects slow clients, whose bytes are returned soon.
func (g *guarded) take(ctx context.Context, n int64) bool {
	for range memoryTries {
		if g.memory.Take(n) {
			return true
		}
		g.makeRoom()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(memoryWait):
		}
	}
	return false
}

func overloaded(detail string) *apierror.Error {
	return &apierror.Error{Type: apierror.TypeOf(kv.KindOverloaded), Detail: detail, RetryAfter: time.Second}
}

// buffered is a response that has not been sent.
type buffered struct {
	header http.Header
	guard  *guarded
	ctx    context.Context
	status int
	body   []byte
	taken  int64
	failed bool // there was no memory
}

// Header implements http.ResponseWriter.
func (b *buffered) Header() http.Header { return b.header }

// WriteHeader implements http.ResponseWriter.
func (b *buffered) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

// Write implements http.ResponseWriter.
func (b *buffered) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	if need := len(b.body) + len(p); need > cap(b.body) && !b.grow(max(need, 2*cap(b.body), prepaidResponse)) {
		return 0, kv.ErrNoMemory
	}
	b.body = append(b.body, p...)
	return len(p), nil
}

// grow takes the bytes of a larger buffer before it makes one.
func (b *buffered) grow(size int) bool {
	if b.failed || !b.take(int64(size)) {
		return false
	}
	b.body = append(make([]byte, 0, size), b.body...)
	return true
}

// take takes bytes until there are those of a buffer of that size.
func (b *buffered) take(size int64) bool {
	if more := size - prepaidResponse - b.taken; more > 0 {
		if b.failed = !b.guard.take(b.ctx, more); b.failed { //guard:response-to-operators-without-budget
			return false
		}
		b.taken += more
	}
	return true
}

// shrink returns what the response does not need.
func (b *buffered) shrink() {
	size := int64(cap(b.body))
	if size > b.guard.largest.Load() {
		b.guard.largest.Store(size) // one of two that do so at once is enough
	}
	if needed := max(size-prepaidResponse, 0); needed < b.taken {
		b.guard.memory.Return(b.taken - needed)
		b.taken = needed
	}
}

func (b *buffered) send(w http.ResponseWriter) {
	b.WriteHeader(http.StatusOK)
	if b.status != http.StatusNoContent && b.status != http.StatusNotModified {
		b.header.Set("Content-Length", strconv.Itoa(len(b.body)))
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(acceptTimeout)) // the server has a longer one
	w.WriteHeader(b.status)
	s := stalling{w, listen.PlaceIn(b.ctx)}
	_, _ = s.Write(b.body) // fails only if the client has gone
}

func (b *buffered) release() { b.guard.memory.Return(b.taken) }

// stalling is a response whose client may be slow: its connection may lose its place meanwhile.
type stalling struct {
	http.ResponseWriter
	place *listen.Place
}

// Write implements http.ResponseWriter.
func (s *stalling) Write(p []byte) (int, error) {
	s.place.Stall()
	defer s.place.Work()
	return s.ResponseWriter.Write(p)
}
