// Package headerlimit limits the headers of requests over HTTP/2 without an effect on other requests of the connection.
package headerlimit

// ParsedBytes is the largest header list that a server reads. All headers of a connection share the state of their
// compression (RFC 7541, 2.2): if the parser rejects one of them, it must close the connection, with all its requests. So
// the parser accepts more than a request may have.
const ParsedBytes = 128 << 10
