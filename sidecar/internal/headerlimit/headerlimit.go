// Package headerlimit limits the headers of requests over HTTP/2 without an effect on other requests of the connection.
package headerlimit

import (
	"context"
	"net/http"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// ParsedBytes is the largest header list that a server reads. All headers of a connection share the state of their
// compression (RFC 7541, 2.2): if the parser rejects one of them, it must close the connection, with all its requests. So
// the parser accepts more than a request may have.
const ParsedBytes = 128 << 10

// Exceeds reports whether a header has more than limit bytes, counted as in RFC 9113, 6.5.2.
func Exceeds(header map[string][]string, limit int) bool {
	bytes := 0
	for name, values := range header {
		for _, value := range values {
			bytes += len(name) + len(value) + 32
		}
	}
	return bytes > limit
}

// RejectCall answers a gRPC call to an http.Handler whose header is too large.
func RejectCall(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", strconv.Itoa(int(codes.ResourceExhausted)))
	w.Header().Set("Grpc-Message", "the header of the call exceeds the limit of this listener")
}

// Options returns options of a gRPC server that rejects calls whose header has more than limit bytes.
func Options(limit int) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxHeaderListSize(uint32(max(limit, ParsedBytes))), //guard:large-header-closes-the-connection
		grpc.InTapHandle(func(ctx context.Context, call *tap.Info) (context.Context, error) {
			if Exceeds(call.Header, limit) { //guard:calls-without-header-limit
				return nil, status.Errorf(codes.ResourceExhausted, "the header of the call has more than %d bytes", limit)
			}
			return ctx, nil
		}),
	}
}
