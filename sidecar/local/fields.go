package local

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// view returns b as a string without a copy: valid as long as b is not written.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// options are what the headers of a read ask for. Cache-Control is read leniently, Ringside-Min-Version is not: who
// asks for a version relies on it.
func (r *request) options() (cache.ReadOptions, error) {
	o := parseCacheControl(r.cacheControl)
	if r.minVersion == "" {
		return o, nil
	}
	var err error
	if o.MinVersion, err = parseVersion(r.minVersion); err != nil {
		return o, fmt.Errorf("Ringside-Min-Version: %w", err)
	}
	return o, nil
}

func parseCacheControl(s string) (o cache.ReadOptions) {
	for s != "" {
		var directive string
		directive, s = nextElement(s)
		applyDirective(&o, directive)
	}
	return o
}

// applyDirective takes from a directive of Cache-Control (RFC 9111, 5.2.1) what this cache honours. Everything else,
// malformed directives too, is ignored as the RFC asks; of two max-stale the stricter one counts.
func applyDirective(o *cache.ReadOptions, directive string) {
	name, argument, hasArgument := strings.Cut(directive, "=")
	switch {
	case strings.EqualFold(directive, "no-cache"):
		o.NoCache = true
	case strings.EqualFold(directive, "only-if-cached"):
		o.OnlyIfCached = true
	case strings.EqualFold(name, "max-stale"):
		limit, ok := anyStaleness, true
		if hasArgument {
			limit, ok = deltaSeconds(argument)
		}
		if ok && (!o.LimitStale || limit < o.MaxStale) {
			o.LimitStale, o.MaxStale = true, limit
		}
	}
}

// anyStaleness is the longest staleness that can be asked for: what RFC 9111, 1.2.2 says that larger numbers mean.
const anyStaleness = 1 << 31 * time.Second

// deltaSeconds reads the argument of a directive, a token or a quoted string (RFC 9111, 5.2).
func deltaSeconds(s string) (time.Duration, bool) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if !isDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > int64(anyStaleness/time.Second) {
		return anyStaleness, true
	}
	return time.Duration(n) * time.Second, true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// parseVersion reads the version of a row.
func parseVersion(s string) (int64, error) {
	s = strings.Trim(s, " \t")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !isDigits(s) {
		return 0, errors.New("a version is a whole number from 0 to 9223372036854775807")
	}
	return n, nil
}

// nextElement cuts the first element, without the white space around it, off a comma-separated list. Commas inside
// quotes do not separate.
func nextElement(list string) (element, rest string) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return strings.Trim(list[:i], " \t"), list[i+1:]
		}
	}
	return strings.Trim(list, " \t"), ""
}

// noneMatch evaluates If-None-Match (RFC 9110, 13.1.2) by weak comparison: it is false when the client holds the value
// of the given strong etag.
func noneMatch(header, etag string) bool { return !names(header, etag, true) }

// strongMatch evaluates If-Match of a read (RFC 9110, 13.1.1): a weak tag never matches.
func strongMatch(header, etag string) bool { return names(header, etag, false) }

// names reports whether a list of entity tags has the given strong one. A backslash is an ordinary byte of an entity tag
// (RFC 9110, 8.8.3), a comma may be one.
func names(header, etag string, weak bool) bool {
	header = strings.Trim(header, " \t")
	if header == "*" {
		return true
	}
	for {
		open := strings.IndexByte(header, '"')
		if open < 0 {
			return false
		}
		length := strings.IndexByte(header[open+1:], '"')
		if length < 0 {
			return false
		}
		end := open + 1 + length + 1
		if header[open:end] == etag && (weak || !strings.HasSuffix(header[:open], "W/")) {
			return true
		}
		header = header[end:]
	}
}

// appendCacheStatus writes how an answer came about (RFC 9211): one list member for each cache that it passed, the one
// nearest to the origin first.
func appendCacheStatus(b []byte, a *cache.Answer, o cache.ReadOptions) []byte {
	const self = "ringside"
	found := a.Source == cache.SourceHit || a.Source == cache.SourceLocalHit
	if found {
		return appendDetail(appendHit(append(b, self...), timeLeft(a)), a.Detail)
	}
	if a.Owner != "" {
		b = appendQuoted(b, a.Owner)
		if a.Source == cache.SourcePeerHit {
			b = appendHit(b, timeLeft(a))
		} else {
			b = appendForward(b, o)
		}
		b = append(b, ", "...)
	}
	return appendDetail(appendForward(append(b, self...), o), a.Detail)
}

func appendHit(b []byte, left time.Duration) []byte {
	return strconv.AppendInt(append(b, "; hit; ttl="...), wholeSeconds(left), 10)
}

// appendForward says why a request went on: because memory had nothing to use, or because the request asked for it.
func appendForward(b []byte, o cache.ReadOptions) []byte {
	if o.NoCache {
		return append(b, "; fwd=request"...)
	}
	return append(b, "; fwd=miss"...)
}

// appendWriteStatus writes the Cache-Status of a write: it passed every cache, because of its method.
func appendWriteStatus(b []byte, a *cache.Answer) []byte {
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

// appendQuoted writes a string of RFC 8941, 3.3.3, which can hold printable ASCII only; other bytes become "?".
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

// timeLeft is how long an answer may be used again. A stale one may not, whatever else it says.
func timeLeft(a *cache.Answer) time.Duration {
	if a.Stale {
		return 0
	}
	return max(0, a.Fresh)
}

// wholeSeconds rounds down, so that no answer seems fresher than it is.
func wholeSeconds(d time.Duration) int64 { return int64(d / time.Second) }

// hosts are the names under which this server may be addressed.
type hosts map[string]bool

const localhost = "localhost"

func newHosts(names []string) hosts {
	h := hosts{localhost: true}
	for _, name := range names {
		h[strings.ToLower(name)] = true
	}
	return h
}

// allow reports whether a Host header names localhost, a loopback address or a configured name, with any port.
func (h hosts) allow(header string) bool {
	name := hostname(header)
	if h[name] || h[strings.ToLower(name)] {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// hostname takes the port, and the brackets of an IPv6 address, off a Host header. It returns "" for what is neither.
func hostname(header string) string {
	name, port := header, ""
	if inner, ok := strings.CutPrefix(header, "["); ok {
		if name, port, ok = strings.Cut(inner, "]"); !ok || !strings.Contains(name, ":") {
			return ""
		}
	} else if i := strings.IndexByte(header, ':'); i >= 0 {
		name, port = header[:i], header[i:]
	}
	if port == "" || port == ":" || port[0] == ':' && isDigits(port[1:]) && len(port) <= 6 {
		return name
	}
	return ""
}

// allowOrigin reports whether a page of this origin (RFC 6454, 7) may change things: one that this server, addressed by
// authority, may have given itself, or one on a configured host. A page of another local port is another origin.
func (h hosts) allowOrigin(origin, authority string) bool {
	_, host, ok := strings.Cut(origin, "://")
	name := strings.ToLower(hostname(host))
	return ok && (name != localhost && h[name] || h.allow(host) && strings.EqualFold(host, authority)) //guard:page-another-local-port-writes guard:rebound-name-writes-where-any-host
}
