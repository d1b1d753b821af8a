// Package budget limits the memory that clients and other members can make the process use besides entries: connections,
// messages that arrive, responses that wait to be read, and calls that wait.
//
// Code that lets a client make something grow takes the bytes before it grows and returns them afterwards:
//
//	if !b.Take(budget.Requests, n) {
//		return kv.KindOverloaded // HTTP 429, gRPC RESOURCE_EXHAUSTED
//	}
//	defer b.Return(budget.Requests, n)
//
// A connection pays in advance for what a small read needs (its buffers, one small request and response), so that clients
// whose requests are small are served while others have used up the budget.
package budget

import "sync"

// Use is what bytes are taken for.
type Use int

// The uses. Each has bytes of its own, and may take more from what is common to all, but not all of it: no kind of attack
// takes everything.
const (
	Connections Use = iota // buffers and goroutines of accepted connections, handshakes included, and large buffers of those to members
	Requests               // bodies and messages that are arriving or being handled
	Responses              // values that are being collected, or have not been read by the client
	Calls                  // loads and peer fetches that run, with those who wait for them
	Watches                // watched keys and their state
	Subscribers            // members that receive invalidations
	uses
)

// String returns the name of a use in metrics.
func (u Use) String() string {
	return [...]string{"connections", "requests", "responses", "calls", "watches", "subscribers"}[u]
}

// own is the share in percent of the total that belongs to each use; the rest is common.
var own = [uses]int64{Connections: 20, Requests: 10, Responses: 10, Calls: 10, Watches: 5, Subscribers: 5}

// common is the share in percent of the total that is common, mostOfCommon the part in percent of it that one use may take.
const common, mostOfCommon = 40, 60

// Budget is a number of bytes, divided among uses. A nil Budget has no limit: tests and tools use it.
type Budget struct {
	total int64

	mu     sync.Mutex     // guards the fields below, and the accounts; a local hit takes nothing
	common int64          // of what is common, taken by all uses together
	by     [uses]useState // of all accounts of a use
	rest   [uses]Account  // what belongs to a use and to none of the accounts made by Account
}

type useState struct{ used, common, refused int64 }

// New returns a Budget of total bytes.
func New(total int64) *Budget {
	b := &Budget{total: total}
	for u := range uses {
		b.rest[u] = Account{budget: b, use: u, own: b.own(u), mostOfCommon: b.mostOfCommon()}
	}
	return b
}

// Total returns the bytes of the whole budget; 0 means no limit.
func (b *Budget) Total() int64 {
	if b == nil {
		return 0
	}
	return b.total
}

// Limit returns how many bytes one use can take while the others take only their own.
func (b *Budget) Limit(u Use) int64 {
	if b == nil {
		return 0
	}
	return b.own(u) + b.mostOfCommon()
}

func (b *Budget) own(u Use) int64     { return b.total * own[u] / 100 }
func (b *Budget) mostOfCommon() int64 { return b.total * common / 100 * mostOfCommon / 100 }

// Take takes n ≥ 0 bytes, or none and returns false: then the caller must refuse what would need them.
func (b *Budget) Take(u Use, n int64) bool {
	if b == nil {
		return true
	}
	return b.rest[u].Take(n)
}

// Return returns n bytes that were taken for u.
func (b *Budget) Return(u Use, n int64) {
	if b != nil {
		b.rest[u].Return(n)
	}
}

// Account is one of several that share a use, with bytes of its own, so that none can take those of another: one listener,
// of all connections. A nil Account has no limit.
type Account struct {
	budget            *Budget
	use               Use
	own, mostOfCommon int64
	used              int64
}

// Of returns the account of what belongs to u and to no other account.
func (b *Budget) Of(u Use) *Account {
	if b == nil {
		return nil
	}
	return &b.rest[u]
}

// perAccount is the part in percent that one account may take of what its use may take of the common bytes.
const perAccount = 75

// Account returns an account of u that owns part of what belongs to u, as a number from 0 to 1. The parts of all accounts
// of a use may add up to 1.
func (b *Budget) Account(u Use, part float64) *Account {
	if b == nil {
		return nil
	}
	a := b.account(u, part)
	b.mu.Lock()
	defer b.mu.Unlock()
	a.own = min(a.own, b.rest[u].own)
	b.rest[u].own -= a.own
	return a
}

func (b *Budget) account(u Use, part float64) *Account {
	return &Account{budget: b, use: u, own: int64(float64(b.own(u)) * part), mostOfCommon: b.mostOfCommon() * perAccount / 100}
}

// AccountLimit returns how many bytes an account with that part can take while all others take only their own; 0 means no
// limit.
func (b *Budget) AccountLimit(u Use, part float64) int64 {
	if b == nil {
		return 0
	}
	a := b.account(u, part)
	return a.own + a.mostOfCommon
}

// Take takes n ≥ 0 bytes, or none and returns false.
func (a *Account) Take(n int64) bool {
	if a == nil {
		return true
	}
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	of := &b.by[a.use]
	beyond := max(a.used+n-a.own, 0)
	more := beyond - max(a.used-a.own, 0)
	if beyond > a.mostOfCommon || of.common+more > b.mostOfCommon() || b.common+more > b.total*common/100 { //guard:budget-without-limit
		of.refused++
		return false
	}
	a.used += n
	of.used += n
	of.common += more
	b.common += more
	return true
}

// Return returns n bytes that were taken.
func (a *Account) Return(n int64) {
	if a == nil {
		return
	}
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > a.used {
		panic("budget: more bytes returned than taken for " + a.use.String())
	}
	less := max(a.used-a.own, 0) - max(a.used-n-a.own, 0)
	a.used -= n
	b.by[a.use].used -= n
	b.by[a.use].common -= less
	b.common -= less
}

// Usage is a snapshot of one use.
type Usage struct {
	Use     Use
	Used    int64 // bytes taken now
	Limit   int64 // bytes that this use can take at most
	Refused int64 // takes that were refused since the start
}

// Stats returns a snapshot of all uses; none without a limit.
func (b *Budget) Stats() []Usage {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Usage, uses)
	for u := range uses {
		all[u] = Usage{Use: u, Used: b.by[u].used, Limit: b.own(u) + b.mostOfCommon(), Refused: b.by[u].refused}
	}
	return all
}

// Loan is bytes that one owner takes for one use, in steps. The zero value and the nil Budget have no limit. It is not
// safe for concurrent use.
type Loan struct {
	budget *Budget
	use    Use
	bytes  int64
}

// Loan returns a Loan of no bytes yet.
func (b *Budget) Loan(u Use) Loan { return Loan{budget: b, use: u} }

// Grow takes n more bytes, or none and returns false.
func (l *Loan) Grow(n int64) bool {
	if !l.budget.Take(l.use, n) {
		return false
	}
	l.bytes += n
	return true
}

// Shrink returns what exceeds n bytes.
func (l *Loan) Shrink(n int64) {
	if l.bytes > n {
		l.budget.Return(l.use, l.bytes-n)
		l.bytes = n
	}
}

// Bytes returns how many bytes are taken.
func (l *Loan) Bytes() int64 { return l.bytes }

// Close returns all bytes. It may be called again.
func (l *Loan) Close() { l.Shrink(0) }
