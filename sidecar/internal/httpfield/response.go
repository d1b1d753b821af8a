package httpfield

import (
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// WholeSeconds rounds down, so that no response seems fresher than it is.
func WholeSeconds(d time.Duration) int64 { return int64(d / time.Second) }

// AppendCacheStatus appends the Cache-Status of a read (RFC 9211): one list member for each cache that it passed, the one
// nearest to the origin first. timeLeft is how long the answer may be reused.
func AppendCacheStatus(b []byte, a *kv.Answer, o kv.ReadOptions, timeLeft time.Duration) []byte {
	const self = "ringside"
	if a.Source == kv.SourceHit || a.Source == kv.SourceLocalHit {
		return appendDetail(appendHit(append(b, self...), timeLeft), a.Detail)
	}
	if a.Owner != "" {
		b = appendQuoted(b, a.Owner)
		if a.Source == kv.SourcePeerHit {
			b = appendHit(b, timeLeft)
		} else {
			b = appendForward(b, o)
		}
		b = append(b, ", "...)
	}
	return appendDetail(appendForward(append(b, self...), o), a.Detail)
}

func appendHit(b []byte, left time.Duration) []byte {
	return strconv.AppendInt(append(b, "; hit; ttl="...), WholeSeconds(left), 10)
}

// appendForward appends why a cache forwarded a request: it had nothing usable, or the request demanded it.
func appendForward(b []byte, o kv.ReadOptions) []byte {
	if o.NoCache {
		return append(b, "; fwd=request"...)
	}
	return append(b, "; fwd=miss"...)
}

// AppendWriteStatus appends the Cache-Status of a write: every cache forwarded it because of its method.
func AppendWriteStatus(b []byte, a *kv.Answer) []byte {
	if a.Owner != "" {
		b = append(appendQuoted(b, a.Owner), "; fwd=method, "...)
	}
	return appendDetail(append(b, "ringside; fwd=method"...), a.Detail)
}

func appendDetail(b []byte, detail string) []byte {
	switch {
	case detail == "":
		return b
	case isToken(detail):
		return append(append(b, "; detail="...), detail...)
	}
	return appendQuoted(append(b, "; detail="...), detail)
}

// isToken reports whether s is a token of RFC 8941, 3.3.4.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || i == 0 && c == '*'
		if !letter && (i == 0 || !('0' <= c && c <= '9') && strings.IndexByte("!#$%&'*+-.^_`|~:/", c) < 0) {
			return false
		}
	}
	return s != ""
}

// appendQuoted appends a string of RFC 8941, 3.3.3, which has printable ASCII only; other bytes become "?".
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
