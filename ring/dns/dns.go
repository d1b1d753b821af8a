// Package dns finds the members by a name in DNS, such as that of a headless Service of Kubernetes.
//
// DNS has addresses only. The directory asks the member at each address for its record, so that all members build the same
// ring: the one that the members describe. DESIGN.md has the rules.
package dns

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
)

const (
	// refresh is the time between two lookups, plus or minus a fifth: the TTL of the records of a headless Service.
	refresh = 5 * time.Second
	// minRound is the shortest time between two lookups, which other members may cause with Changed.
	minRound = 500 * time.Millisecond
	// lookupTimeout limits a lookup, TCP and all SRV targets included.
	lookupTimeout = 5 * time.Second
	// askTimeout limits a question to one address; concurrency limits the questions at once.
	askTimeout, concurrency = time.Second, 64
	// describedFor is how long a description of a member is used, at least, and perMember lengthens it: a member answers at most
	// ten questions a second.
	describedFor, perMember = 30 * time.Second, 100 * time.Millisecond
	// maxFailures is how many questions to a known member must fail in a row before it is no longer listed. The membership view
	// then pings it before it leaves the ring.
	maxFailures = 3
	// announceTimeout limits the announcement to all members that this one has joined or is leaving.
	announceTimeout = 2 * time.Second
)

// Peers calls other members. *peer.Pool implements it.
type Peers interface {
	// Describe asks the member at addr, which need not be on the ring, who it is. record is for package record.
	Describe(ctx context.Context, addr string) (id string, record []byte, leaving bool, err error)
	// Ping returns nil if m itself, authenticated, answers at its address and is not leaving.
	Ping(ctx context.Context, m ring.Member) error
	// Announce tells a member that the one which advertises addr has changed.
	Announce(ctx context.Context, to ring.Member, addr string) error
}

// Config configures a Directory.
type Config struct {
	// Name is looked up as A and AAAA, or as SRV if its first label begins with an underscore. Without a final dot, the search
	// domains of the host apply.
	Name string
	// Server is the ip:port of the DNS server; empty means those of /etc/resolv.conf.
	Server string
	// Self is this member. The port of its address is that of all members, unless SRV records have another.
	Self  ring.Member
	Peers Peers
	// OnEvent is called when lookups begin to fail (err says why) and when they succeed again (err is nil). It may be nil.
	OnEvent func(what string, err error)

	resolver resolver // of tests
}

// Directory is a ring.Directory in DNS. It is safe for concurrent use.
type Directory struct {
	config Config
	look   chan struct{} // has a token if a round should begin now

	mu    sync.Mutex       // guards the rest
	hosts map[string]*host // :: address → what is known of the member there
	stats Stats
	since time.Time // of the last answer of DNS, or of New
}

// host is an address in DNS.
type host struct {
	member   ring.Member // as it described itself; the zero Member before that
	asked    time.Time   // the time of the last question
	failures int         // questions since the last valid description
	changed  bool        // it announced a change
}

// Stats is a snapshot for metrics.
type Stats struct {
	// Connected: the last lookup returned addresses.
	Connected bool
	// Listed: DNS has an address of this member.
	Listed bool
	// Members is the number of members in the list, Addresses that of addresses in DNS.
	Members, Addresses int
	// Lookups counts lookups with addresses, Failures those without.
	Lookups, Failures int64
	// Rejected counts, by reason, what is in DNS and not in the list. Each lookup, question and list counts it again.
	Rejected map[string]int64
	// LastError is why the last lookup or question failed; empty if none has.
	LastError string
	// ContactAge is the time since the last lookup with addresses, or since New.
	ContactAge time.Duration
}

// The reasons of Stats.Rejected.
const (
	invalid   = "invalid"   // an address that members do not dial, or a record that cannot be on a ring
	duplicate = "duplicate" // the id, hash key or address of a member that started later
	silent    = "silent"    // no member answers there
	tooMany   = "too_many"  // beyond the limit of addresses
)

var _ ring.Directory = (*Directory)(nil)

// New returns a Directory. It sends nothing before Resolve.
func New(c Config) *Directory {
	if c.OnEvent == nil {
		c.OnEvent = func(string, error) {}
	}
	if c.resolver == nil {
		c.resolver = newResolver(c.Server)
	}
	return &Directory{
		config: c, look: make(chan struct{}, 1), hosts: make(map[string]*host), since: time.Now(),
		stats: Stats{Rejected: make(map[string]int64)},
	}
}

// Stats returns a snapshot.
func (d *Directory) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Rejected = make(map[string]int64, len(d.stats.Rejected))
	for reason, n := range d.stats.Rejected {
		s.Rejected[reason] = n
	}
	s.Addresses, s.ContactAge = len(d.hosts), time.Since(d.since)
	for _, h := range d.hosts {
		s.Listed = s.Listed || h.member.ID == d.config.Self.ID
	}
	return s
}

// Relist makes the next lookup now.
func (d *Directory) Relist() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// Changed says that the member that advertises addr has announced a change. Only a known address is asked again; another one
// causes a lookup. A caller cannot cause more than one round per minRound.
func (d *Directory) Changed(addr string) {
	d.mu.Lock()
	for at, h := range d.hosts {
		if at == addr || h.member.Addr == addr {
			h.changed = true
		}
	}
	d.mu.Unlock()
	d.Relist()
}

// Resolve implements ring.Directory. It applies nothing before the first answer of DNS, and keeps the last addresses when a
// lookup fails or finds none.
func (d *Directory) Resolve(ctx context.Context, apply func([]ring.Member)) error {
	var applied []ring.Member
	answered := false
	update := func() {
		d.ask(ctx)
		if list := d.list(); ctx.Err() == nil && answered && (applied == nil || !slices.Equal(list, applied)) {
			applied = list
			apply(slices.Clone(list))
		}
	}
	for {
		if answered { // what members have announced does not wait for DNS
			update()
		}
		began := time.Now()
		answered = d.lookup(ctx) || answered
		update()
		if ctx.Err() != nil {
			return nil
		}
		d.wait(ctx, began)
	}
}

// wait returns when the next round is due.
func (d *Directory) wait(ctx context.Context, began time.Time) {
	timer := time.NewTimer(refresh*4/5 + rand.N(refresh*2/5))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-d.look:
		backoff.Sleep(ctx, time.Until(began.Add(minRound))) //guard:members-cause-lookups-without-limit
	}
}

// lookup updates the addresses. It reports whether DNS has answered, with addresses or that there are none.
func (d *Directory) lookup(ctx context.Context) (answered bool) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := d.addresses(ctx)
	if len(found) == 0 { //guard:empty-answer-empties-the-list
		none := err == nil || isNotFound(err)
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.failed(cmp.Or(err, errNone))
		}
		return none
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr := range d.hosts {
		if _, still := slices.BinarySearch(found, addr); !still {
			delete(d.hosts, addr)
		}
	}
	for _, addr := range found {
		if d.hosts[addr] == nil {
			d.hosts[addr] = &host{}
		}
	}
	d.since = time.Now()
	d.stats.Lookups++
	if !d.stats.Connected {
		d.stats.Connected = true
		d.config.OnEvent("found addresses of members", nil)
	}
	return true
}

func (d *Directory) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Failures++
	d.stats.LastError = err.Error()
	if d.stats.Connected || d.stats.Failures == 1 {
		d.config.OnEvent("no addresses of members; the last ones stay in use", err)
	}
	d.stats.Connected = false
}

// ask asks the addresses whose members are not known, may have changed, or were asked long ago.
func (d *Directory) ask(ctx context.Context) {
	var questions errgroup.Group
	questions.SetLimit(concurrency)
	for addr, known := range d.due() {
		questions.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			m, err := d.describe(ctx, addr, known)
			d.note(addr, m, err)
			return nil
		})
	}
	_ = questions.Wait() // no question returns an error
}

// due returns the addresses to ask, with what is known of them.
func (d *Directory) due() map[string]ring.Member {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := make(map[string]ring.Member)
	valid := max(describedFor, time.Duration(len(d.hosts))*perMember)
	for addr, h := range d.hosts {
		if addr == d.config.Self.Addr {
			h.member = d.config.Self // it may not serve yet
			continue
		}
		waited := time.Since(h.asked)
		if h.changed || h.asked.IsZero() || waited >= valid || waited >= refresh/2 && (h.failures > 0 || h.member.Leaving) {
			due[addr] = h.member
			h.asked, h.changed = time.Now(), false
		}
	}
	return due
}

// note records the answer to a question. A member that answers no longer stays listed until maxFailures.
func (d *Directory) note(addr string, m ring.Member, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[addr]
	switch {
	case h == nil: // only Resolve removes hosts, and it is waiting for this
	case err == nil:
		h.member, h.failures = m, 0
	case errors.Is(err, errClient): // it may become a member, and then announces itself
		h.member, h.failures = ring.Member{}, 0
	default:
		h.failures++
		d.stats.LastError = err.Error()
		reason := silent
		if errors.Is(err, errInvalid) {
			reason = invalid
		}
		d.stats.Rejected[reason]++
	}
}

// list returns the members that have described themselves, sorted by id. Of two with the same id, hash key or address, the
// one that started later is listed: a new pod gets the address of a dead one. All members choose the same one.
func (d *Directory) list() []ring.Member {
	d.mu.Lock()
	defer d.mu.Unlock()
	var latestFirst []ring.Member
	for _, h := range d.hosts {
		if h.member.ID != "" && h.failures < maxFailures {
			latestFirst = append(latestFirst, h.member)
		}
	}
	slices.SortFunc(latestFirst, func(a, b ring.Member) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.ID, b.ID))
	})
	ids, keys, addrs := map[string]ring.Member{}, map[string]bool{}, map[string]bool{}
	listed := []ring.Member{}
	for _, m := range latestFirst {
		switch {
		case ids[m.ID] == m: // one member with several addresses, such as IPv4 and IPv6
		case ids[m.ID].ID != "" || !m.Leaving && (keys[m.Key()] || addrs[m.Addr]): //guard:duplicate-in-dns-is-listed
			d.stats.Rejected[duplicate]++
		default:
			ids[m.ID] = m
			listed = append(listed, m)
			if !m.Leaving {
				keys[m.Key()], addrs[m.Addr] = true, true
			}
		}
	}
	slices.SortFunc(listed, func(a, b ring.Member) int { return cmp.Compare(a.ID, b.ID) })
	d.stats.Members = len(listed)
	return listed
}
