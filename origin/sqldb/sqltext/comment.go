package sqltext

import (
	"context"
	"fmt"
	"strings"
)

type commentKey struct{}

// maxTraceparent limits what a comment says: a traceparent has 55 bytes, and those of later versions may have more.
const maxTraceparent = 128

// WithComment returns a context whose statements end with a comment that names a traceparent, in the form of sqlcommenter; ctx if
// there is none.
func WithComment(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" || len(traceparent) > maxTraceparent {
		return ctx
	}
	return context.WithValue(ctx, commentKey{}, comment(traceparent))
}

// Comment returns what to append to a statement; empty if there is no comment. A statement with one is different each time: it must not
// be kept prepared.
func Comment(ctx context.Context) string {
	text, _ := ctx.Value(commentKey{}).(string)
	return text
}

// comment begins with a new line: a query of the configuration may end in a comment of one line.
func comment(traceparent string) string {
	return "\n/*traceparent='" + escape(traceparent) + "'*/"
}

// escape percent-encodes everything but letters, digits and -: nothing in the result ends a comment, a string or a line.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-': //guard:comment-ends-early
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
