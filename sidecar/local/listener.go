package local

import (
	"fmt"
	"time"
)

// tooManyConnections is the answer to an HTTP connection over the bound. No request was read, so it is written by hand.
func tooManyConnections() []byte {
	body := failure{problem: problemConns, retry: time.Second,
		detail: "the listener has as many connections as it may; keep connections open and use them again"}.json()
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"Retry-After: 1\r\nConnection: close\r\n\r\n%s", typeProblem, len(body), body)
}
