package localtest

import "strings"

// StrictCase is a request that two servers could understand differently, with the status of the response.
type StrictCase struct {
	Name, Request string
	Status        int
}

// StrictCases are for every server of HTTP/1: none of them may be accepted, nor what follows one on the same connection.
var StrictCases = []StrictCase{
	{"Transfer-Encoding: identity", batchWith("Transfer-Encoding: identity"), 400},
	{"an unknown coding", batchWith("Transfer-Encoding: gzip, chunked"), 400},
	{"chunked twice in a line", batchWith("Transfer-Encoding: chunked, chunked"), 400},
	{"chunked in two lines", batchWith("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400},
	{"a coding without a value", batchWith("Transfer-Encoding:"), 400},
	{"a tab before the coding's name ends", batchWith("Transfer-Encoding\t: chunked"), 400},
	{"both framings", batchWith("Content-Length: 5\r\nTransfer-Encoding: chunked") + oneChunk, 400},
	{"both framings in the other order", batchWith("Transfer-Encoding: chunked\r\nContent-Length: 5") + oneChunk, 400},
	{"a coding in HTTP/1.0", "POST /v1/blobs:batchGet HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"two lengths", batchWith("Content-Length: 5\r\nContent-Length: 6"), 400},
	{"the same length twice", batchWith("Content-Length: 14\r\nContent-Length: 14") + `{"keys":["a"]}`, 400},
	{"a list of lengths", batchWith("Content-Length: 2, 2") + "{}", 400},
	{"a length with a plus sign", batchWith("Content-Length: +2") + "{}", 400},
	{"a negative length", batchWith("Content-Length: -2"), 400},
	{"a length with a space", batchWith("Content-Length: 2 2"), 400},
	{"a hexadecimal length", batchWith("Content-Length: 0x2"), 400},
	{"a length that overflows", batchWith("Content-Length: 99999999999999999999"), 400},
	{"an empty length", batchWith("Content-Length:"), 400},
	{"a space before the colon", getWith("X : y"), 400},
	{"a space in a name", getWith("X y: z"), 400},
	{"a control character in a name", getWith("X\x01y: z"), 400},
	{"an empty name", getWith(": z"), 400},
	{"a line without a colon", getWith("X"), 400},
	{"a folded line", getWith("X: y\r\n z"), 400},
	{"a folded line first", "GET /v1/blobs/a HTTP/1.1\r\n Host: localhost\r\n\r\n", 400},
	{"NUL in a value", getWith("X: a\x00b"), 400},
	{"CR in a value", getWith("X: a\rb"), 400},
	{"DEL in a value", getWith("X: a\x7fb"), 400},
	{"bare LF after the request line", "GET /v1/blobs/a HTTP/1.1\nHost: localhost\r\n\r\n", 400},
	{"bare LF after a field", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\n\r\n", 400},
	{"bare LF at the end", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\n", 400},
	{"bare CR as line end", "GET /v1/blobs/a HTTP/1.1\rHost: localhost\r\r\n\r\n", 400},
	{"no Host", "GET /v1/blobs/a HTTP/1.1\r\n\r\n", 400},
	{"two Hosts", getWith("Host: localhost"), 400},
	{"a Host with a space", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost evil\r\n\r\n", 400},
	{"two spaces before the target", "GET  /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
	{"two spaces after the target", "GET /v1/blobs/a  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
	{"a tab in the request line", "GET\t/v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
	{"a space at the end of the request line", "GET /v1/blobs/a HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400},
	{"HTTP/0.9", "GET /v1/blobs/a\r\n\r\n", 400},
	{"a version that is not one", "GET /v1/blobs/a HTTP/11\r\nHost: localhost\r\n\r\n", 400},
	{"a version in lower case", "GET /v1/blobs/a http/1.1\r\nHost: localhost\r\n\r\n", 400},
	{"a later version", "GET /v1/blobs/a HTTP/3.0\r\nHost: localhost\r\n\r\n", 505},
	{"a relative target", "GET v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
	{"a space before a chunk extension", chunked("2 ;x\r\n{}\r\n0\r\n\r\n"), 400},
	{"a chunk size with a sign", chunked("+2\r\n{}\r\n0\r\n\r\n"), 400},
	{"a chunk size with a prefix", chunked("0x2\r\n{}\r\n0\r\n\r\n"), 400},
	{"an empty chunk size", chunked("\r\n{}\r\n0\r\n\r\n"), 400},
	{"a chunk size that overflows", chunked("10000000000000002\r\n{}"), 400},
	{"a chunk that is longer than its size", chunked("2\r\n{} \r\n0\r\n\r\n"), 400},
	{"bare LF after a chunk size", chunked("2\n{}\r\n0\r\n\r\n"), 400},
	{"a long chunk extension", chunked("2;" + strings.Repeat("x", 5000) + "\r\n{}\r\n0\r\n\r\n"), 400},
	{"many chunk extensions", chunked(strings.Repeat("1;"+strings.Repeat("x", 240)+"\r\n{\r\n", 200) + "0\r\n\r\n"), 400},
	{"a large trailer section", chunked("2\r\n{}\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 500)+"\r\n", 100) + "\r\n"), 400},
	{"a malformed trailer", strings.TrimSuffix(chunked(oneChunk), "\r\n") + "X : y\r\n\r\n", 400},
}

const oneChunk = "e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n"

func batchWith(field string) string {
	return "POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\n" + field + "\r\n\r\n"
}

func getWith(field string) string {
	return "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n" + field + "\r\n\r\n"
}

func chunked(content string) string { return batchWith("Transfer-Encoding: chunked") + content }
