package local

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// netHTTP is the entrance behind net/http instead of fasthttp: the other half of the comparison in DESIGN.md.
type netHTTP struct {
	entrance *entrance
	calls    sync.Pool // of *call
}

func (s *netHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.calls.Get().(*call)
	c.method, c.target, c.host, c.http11 = r.Method, r.RequestURI, r.Host, r.ProtoAtLeast(1, 1)
	c.read(netHeader(r.Header))
	if r.Method == http.MethodPost {
		c.content, _ = io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	}
	s.entrance.answer(r.Context(), c)
	h := w.Header()
	for _, f := range c.fields {
		h[f.name] = []string{string(f.value)}
	}
	h["Content-Type"] = []string{c.contentType}
	w.WriteHeader(c.status)
	_, _ = w.Write(c.response.body)
	c.recycle()
	s.calls.Put(c)
}

// serveNetHTTP serves e with the bounds that the production server has.
func serveNetHTTP(tb testing.TB, e *entrance) (address string) {
	config := e.server.config
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{
		Handler:        &netHTTP{entrance: e, calls: sync.Pool{New: func() any { return newCall() }}},
		ReadTimeout:    config.ReadTimeout,
		WriteTimeout:   config.WriteTimeout,
		IdleTimeout:    config.IdleTimeout,
		MaxHeaderBytes: config.MaxHeaderBytes,
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(e.server.bounded(ln, e.stats, nil)) })
	tb.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		serving.Wait()
	})
	return ln.Addr().String()
}
