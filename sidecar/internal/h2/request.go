package h2

import (
	"context"
	"net/http"
)

// request returns the request of a stream as net/http has it. Called without mu; the header does not change any more.
func (s *stream) request(ctx context.Context) (*http.Request, error) {
	h := &s.head
	target, err := h.Target()
	if err != nil {
		return nil, err
	}
	b := &body{stream: s, announced: h.Expect}
	b.request = (&http.Request{
		Method: h.Method, URL: target, Host: h.Host, RequestURI: h.Path, Header: h.HTTP(), ContentLength: h.Length, Body: b,
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: s.conn.nc.RemoteAddr().String(), TLS: s.conn.tls,
	}).WithContext(ctx)
	if s.empty {
		b.request.ContentLength, b.request.Body = 0, http.NoBody
	}
	return b.request, nil
}
