package h2

import (
	"context"
	"io"
	"net/http"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// request returns the request of a stream as net/http has it. Called without mu; the header does not change any more.
func (s *stream) request(ctx context.Context) (*http.Request, error) {
	h := &s.head
	target, err := h.Target()
	if err != nil {
		return nil, err
	}
	b := &requestBody{stream: s, announced: h.Expect}
	b.request = (&http.Request{
		Method: h.Method, URL: target, Host: h.Host, RequestURI: h.Path, Header: h.HTTP(), ContentLength: h.Length, Body: b,
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: s.conn.nc.RemoteAddr().String(), TLS: s.conn.tls,
	}).WithContext(ctx)
	if s.empty {
		b.request.ContentLength, b.request.Body = 0, http.NoBody
	}
	return b.request, nil
}

// requestBody is the body of a request as net/http has it.
type requestBody struct {
	stream    *stream
	request   *http.Request
	announced bool // the client waits for 100 (Continue)
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.announced {
		b.announced = false
		b.stream.SendInformation(http.StatusContinue)
	}
	n, err := b.stream.read(p)
	if err == io.EOF && b.stream.recv.trailer != nil {
		trailer := header.Head{Fields: b.stream.recv.trailer}
		b.request.Trailer = trailer.HTTP()
	}
	return n, err
}

// Close implements io.Closer.
func (b *requestBody) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.stream.recv.body.Close()
	b.stream.wake.Broadcast()
	return nil
}
