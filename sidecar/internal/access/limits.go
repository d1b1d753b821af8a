package access

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// Kind is what a rate limit counts.
type Kind uint8

// The kinds of limits.
const (
	NoCache       Kind = iota // keys that are read with no-cache, each of which is a query
	Watches                   // watches that begin
	Writes                    // PUT and DELETE
	Invalidations             // requests of :invalidate, of any number of keys
	limitKinds
)

// String returns the name of the kind in the configuration and in metrics.
func (k Kind) String() string { return [...]string{"no_cache", "watch", "write", "invalidate"}[k] }

// text is what the kind counts, for people.
func (k Kind) text() string {
	return [...]string{"keys read with no-cache", "watches begun", "writes", "invalidations"}[k]
}

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{NoCache, Watches, Writes, Invalidations} }

// Rate is a number of requests per time, such as 100/s; or off, for no limit. The zero value is not set.
type Rate struct {
	Count int
	Per   time.Duration
	Off   bool
}

// The default limits are for one client and one dataset, and far above what applications do. CONFIG.md has the reasons.
var defaultRates = [limitKinds]Rate{
	NoCache:       {Count: 500, Per: time.Second},
	Watches:       {Count: 300, Per: time.Second},
	Writes:        {Count: 2000, Per: time.Second},
	Invalidations: {Count: 100, Per: time.Second},
}

// DefaultRate returns the default limit of a kind.
func DefaultRate(k Kind) Rate { return defaultRates[k] }

// units are the times of a Rate.
var units = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// maxCount bounds the number of a Rate.
const maxCount = 1_000_000

// UnmarshalText reads a rate: 100/s, 10/m, 1/h or off.
func (r *Rate) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if t == "off" {
		*r = Rate{Off: true}
		return nil
	}
	number, unit, _ := strings.Cut(t, "/")
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 31)
	per := units[strings.TrimSpace(unit)]
	if err != nil || n < 1 || n > maxCount || per == 0 {
		return fmt.Errorf("want a rate of 1 to %d per s, m or h, such as 100/s, or off; got %q", maxCount, t)
	}
	*r = Rate{Count: int(n), Per: per}
	return nil
}

// Form is the JSON schema of the text of a rate.
func (Rate) Form() map[string]any {
	return map[string]any{
		"type": []string{"string", "null"}, "pattern": `^\s*(off|0*([1-9][0-9]{0,5}|1000000)\s*/\s*[smh])\s*$`,
	}
}

// MarshalText writes the rate as UnmarshalText reads it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) String() string {
	switch {
	case r.Off:
		return "off"
	case r == Rate{}:
		return ""
	}
	for name, unit := range units {
		if unit == r.Per {
			return fmt.Sprintf("%d/%s", r.Count, name)
		}
	}
	return fmt.Sprintf("%d/%s", r.Count, r.Per)
}

func (r Rate) perSecond() rate.Limit { return rate.Limit(float64(r.Count) / r.Per.Seconds()) }

// burst is what a client that was idle may do at once: what it may do in a second, and at least one.
func (r Rate) burst() int { return max(1, int(float64(r.Count)/r.Per.Seconds())) }

// Limits are the rate limits of one client and one dataset; a zero Rate means the default.
type Limits struct{ NoCache, Watch, Write, Invalidate Rate }

// Of returns the limit of a kind.
func (l Limits) Of(k Kind) Rate {
	return cmp.Or([...]Rate{l.NoCache, l.Watch, l.Write, l.Invalidate}[k], defaultRates[k])
}

// maxClients bounds the clients of a dataset whose use of a limit is tracked, by kind. Further ones share one limit.
const maxClients = 1024

// limiter limits what each client does with a dataset. Its zero value has no limits.
type limiter struct {
	refused [limitKinds]atomic.Int64

	mu      sync.Mutex // guards the fields below
	rates   [limitKinds]Rate
	clients [limitKinds]map[string]*rate.Limiter // :: client → its use
	others  [limitKinds]*rate.Limiter            // of all clients beyond maxClients
	swept   [limitKinds]time.Time
}

// set changes the limits. A limit that has changed begins with its whole burst.
func (l *limiter) set(limits Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range Kinds() {
		if r := limits.Of(k); r != l.rates[k] {
			l.rates[k], l.clients[k], l.others[k] = r, map[string]*rate.Limiter{}, newLimiter(r)
		}
	}
}

func newLimiter(r Rate) *rate.Limiter {
	if r.Off {
		return nil
	}
	return rate.NewLimiter(r.perSecond(), r.burst())
}

// take takes n units for c, at most a burst, or returns how long it takes until they are there.
func (l *limiter) take(c *caller.Caller, k Kind, n int) (wait time.Duration, r Rate, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r = l.rates[k]
	if r.Off || r.Count == 0 || n < 1 {
		return 0, r, true
	}
	now := time.Now()
	client := l.clientLocked(c, k, now)
	n = min(n, r.burst()) // a batch that is larger than the burst could never be read
	if client.AllowN(now, n) {
		return 0, r, true
	}
	l.refused[k].Add(1)
	missing := float64(n) - client.TokensAt(now)
	return time.Duration(missing / float64(r.perSecond()) * float64(time.Second)), r, false
}

func (l *limiter) clientLocked(c *caller.Caller, k Kind, now time.Time) *rate.Limiter {
	id := clientID(c)
	if one := l.clients[k][id]; one != nil {
		return one
	}
	if len(l.clients[k]) >= maxClients {
		l.sweepLocked(k, now)
	}
	if len(l.clients[k]) >= maxClients { //guard:tracked-clients-without-bound
		return l.others[k]
	}
	one := newLimiter(l.rates[k])
	l.clients[k][id] = one
	return one
}

// sweepLocked forgets the clients whose limit is as good as new, at most once per second.
func (l *limiter) sweepLocked(k Kind, now time.Time) {
	if now.Sub(l.swept[k]) < time.Second {
		return
	}
	l.swept[k] = now
	for id, one := range l.clients[k] {
		if one.TokensAt(now) >= float64(one.Burst()) {
			delete(l.clients[k], id)
		}
	}
}

// clientID identifies the client that a limit is for: a certificate, a token, a user of the unix socket, this host, or
// another host. Loopback connections do not show which process has opened them.
func clientID(c *caller.Caller) string {
	switch c.Kind {
	case caller.Unix:
		return "unix:" + strconv.FormatUint(uint64(c.UID), 10)
	case caller.Unknown:
		host, _, err := net.SplitHostPort(c.Addr)
		if err != nil {
			host = c.Addr
		}
		return "network:" + host
	}
	return c.Kind.String() + ":" + c.ID
}
