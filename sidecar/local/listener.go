package local

import (
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// tooManyConnections is the answer to an HTTP connection over the bound. No request was read, so it is written by hand.
func tooManyConnections() []byte {
	refusal := &apierror.Error{Type: apierror.TooManyConnections, RetryAfter: time.Second,
		Detail: "the listener has reached its connection limit; keep connections open and reuse them"}
	body := refusal.JSON()
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"Retry-After: 1\r\nConnection: close\r\n\r\n%s", apierror.ContentType, len(body), body)
}
