// Package quota limits the work that the invalidations of one member cause at another: a member that is out of order, or
// that an attacker controls, must not occupy a processor of every other member. No invalidation is lost: beyond the limit,
// they are merged into one of the whole dataset.
package quota

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// keysPerSecond and keysBurst limit invalidations of single keys, at about 1 µs each: 2 % of a processor.
	keysPerSecond, keysBurst = 20_000, 50_000
	// prefixesPerSecond and prefixesBurst limit invalidations of prefixes, each of which looks at every entry: at 5 ms for
	// 100 000 entries, 4 % of a processor.
	prefixesPerSecond, prefixesBurst = 8, 64
	// allInterval is the time between two merged invalidations of whole datasets.
	allInterval = time.Second
	// messagesPerSecond and messagesBurst limit messages, empty ones included. A member sends at most one per 100 µs and
	// subscriber (see service), and merges what it publishes while a message waits.
	messagesPerSecond, messagesBurst = 2000, 2000
	// feedChanges is how often per minute the list of live feeds may change at once: each change may expire a dataset.
	feedChanges = 30
	// gapInterval and gapBurst limit the gaps in a stream, each of which expires all copies from the member.
	gapInterval, gapBurst = time.Second, 8
)

// Member is the quota of one member. It is safe for concurrent use.
type Member struct {
	keys, prefixes, all, messages, feeds, gaps *rate.Limiter
}

// NewMember returns an unused quota.
func NewMember() *Member {
	return &Member{
		keys:     rate.NewLimiter(keysPerSecond, keysBurst),
		prefixes: rate.NewLimiter(prefixesPerSecond, prefixesBurst),
		all:      rate.NewLimiter(rate.Every(allInterval), 1),
		messages: rate.NewLimiter(messagesPerSecond, messagesBurst),
		feeds:    rate.NewLimiter(rate.Every(time.Minute/feedChanges), feedChanges),
		gaps:     rate.NewLimiter(rate.Every(gapInterval), gapBurst),
	}
}

// Message waits until the member may send another message.
func (m *Member) Message(ctx context.Context) error { return m.messages.Wait(ctx) }

// Gap waits until the stream of the member may have another gap.
func (m *Member) Gap(ctx context.Context) error { return m.gaps.Wait(ctx) }

// GapAllowed is Gap for a stream that has ended: it reports whether the member may open another one soon.
func (m *Member) GapAllowed() bool { return m.gaps.Allow() }

// FeedsChange reports whether the list of the member's live feeds may change.
func (m *Member) FeedsChange() bool { return m.feeds.Allow() }

// Admit returns the invalidations to apply instead of list: list itself, or, beyond the quota, one of each of its datasets
// as a whole. It then waits, so that these are rare. The error is that of ctx; nothing may then be applied.
func (m *Member) Admit(ctx context.Context, list []kv.Invalidation) (admitted []kv.Invalidation, merged bool, err error) {
	if m.allow(list) {
		return list, false, nil
	}
	admitted = merge(list)
	return admitted, true, m.all.Wait(ctx) //guard:merged-invalidations-without-limit
}

func (m *Member) allow(list []kv.Invalidation) bool {
	prefixes := 0
	for _, i := range list {
		if i.Prefix {
			prefixes++
		}
	}
	now := time.Now()
	return m.keys.AllowN(now, len(list)-prefixes) && m.prefixes.AllowN(now, prefixes) //guard:prefixes-of-member-without-limit
}

// merge returns one invalidation of each dataset in list, of everything that was loaded until now.
func merge(list []kv.Invalidation) []kv.Invalidation {
	seen := make(map[string]bool)
	var all []kv.Invalidation
	for _, i := range list {
		if !seen[i.Dataset] {
			seen[i.Dataset] = true
			all = append(all, kv.Invalidation{Dataset: i.Dataset, Prefix: true})
		}
	}
	return all
}

// maxMembers limits the quotas that Members remembers.
const maxMembers = 10_000

// Members has the quota of each caller. Its zero value is ready to use.
type Members struct {
	mu   sync.Mutex
	byID map[string]*used // :: id → its quota
}

type used struct {
	*Member
	calls int // running
}

// MaxCalls limits the running calls of one member.
const MaxCalls = 8

// Enter counts a running call of a member, unless it has too many. The caller calls exit at the end.
func (s *Members) Enter(id string) (m *Member, exit func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byID[id]
	if u == nil {
		s.forgetIdleLocked()
		u = &used{Member: NewMember()}
		if s.byID == nil {
			s.byID = make(map[string]*used)
		}
		s.byID[id] = u
	}
	if u.calls >= MaxCalls { //guard:calls-of-member-wait-without-limit
		return nil, nil, false
	}
	u.calls++
	return u.Member, func() { s.exit(u) }, true
}

func (s *Members) exit(u *used) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.calls--
}

// forgetIdleLocked makes room. Callers have verified ids or addresses; a caller with 10 000 of them gets new quotas.
func (s *Members) forgetIdleLocked() {
	if len(s.byID) < maxMembers {
		return
	}
	for id, u := range s.byID {
		if u.calls == 0 {
			delete(s.byID, id)
		}
	}
}
