package httporigin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxSeconds is the largest delta-seconds (RFC 9111, section 1.2.2); larger ones mean the same.
const maxSeconds = 1 << 31

// lifetime is what the header of a response says about the life of its value. nil: nothing.
type lifetime struct {
	fresh *time.Duration // from the time of the request
	stale *time.Duration // after that, while the origin fails
}

// lifetimeOf reads Cache-Control, Age, Expires and Date as a shared cache does (RFC 9111, RFC 5861). Where they contradict each other,
// the shortest life counts. private has no effect: all readers share the credentials of the sidecar.
func lifetimeOf(h http.Header, now time.Time) (l lifetime) {
	var maxAge, sMaxAge *time.Duration
	for name, value := range directives(h.Values("Cache-Control")) {
		switch name {
		case "max-age":
			shorten(&maxAge, seconds(value))
		case "s-maxage":
			shorten(&sMaxAge, seconds(value))
		case "no-store", "no-cache":
			shorten(&l.fresh, 0)
			shorten(&l.stale, 0)
		case "must-revalidate", "proxy-revalidate":
			shorten(&l.stale, 0)
		case "stale-if-error":
			shorten(&l.stale, seconds(value))
		}
	}
	switch {
	case sMaxAge != nil:
		shorten(&l.fresh, *sMaxAge)
	case maxAge != nil:
		shorten(&l.fresh, *maxAge)
	case h.Get("Expires") != "":
		shorten(&l.fresh, untilExpires(h, now))
	}
	if age := h.Get("Age"); l.fresh != nil && isDigits(age) {
		*l.fresh = max(0, *l.fresh-seconds(age)) //guard:age-is-ignored
	}
	return l
}

func shorten(to **time.Duration, d time.Duration) {
	if *to == nil || d < **to {
		*to = &d
	}
}

// untilExpires returns the lifetime that Expires gives, on the clock of the server; 0 if it is not a time.
func untilExpires(h http.Header, now time.Time) time.Duration {
	expires, err := http.ParseTime(h.Get("Expires"))
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(0, expires.Sub(now))
}

// directives yields the directives of Cache-Control in lower case, each with its argument without quotes.
func directives(lines []string) func(func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for _, line := range lines {
			for line != "" {
				var directive string
				directive, line = cutDirective(line)
				name, value, _ := strings.Cut(directive, "=")
				value = strings.Trim(strings.TrimSpace(value), `"`)
				if name = strings.ToLower(strings.TrimSpace(name)); name != "" && !yield(name, value) {
					return
				}
			}
		}
	}
}

// cutDirective cuts line at its first comma outside of quotes.
func cutDirective(line string) (directive, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return line[:i], line[i+1:]
		}
	}
	return line, ""
}

// seconds returns delta-seconds; what is none is 0 (RFC 9111, section 4.2.1).
func seconds(text string) time.Duration {
	if !isDigits(text) {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxSeconds {
		n = maxSeconds
	}
	return time.Duration(n) * time.Second
}

func isDigits(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// retryAfter returns how long a server asks not to send the next request (RFC 9110, section 10.2.3), at most maxRetryAfter; 0 if it
// does not ask.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	wait := seconds(text)
	if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// maxRetryAfter limits Retry-After: a wrong one must not keep a dataset stale for a day.
const maxRetryAfter = time.Minute
