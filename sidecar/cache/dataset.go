// Package cache is the whole read and write path of a dataset: memory, the owner, the origin. It opens no socket, writes no log
// and starts no timer but the bounds of its flights.
package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/internal/lru"
)

// MaxKeyBytes bounds a key.
const MaxKeyBytes = 1024

// Config is what a Dataset is made of.
type Config struct {
	// Name is the dataset's name; it is the first part of its route keys.
	Name string
	// Policy is how fresh its answers are.
	Policy Policy
	// Origin holds the truth.
	Origin origin.Origin
	// Writer changes it; nil for a dataset that is read only.
	Writer origin.Writer
	// Peers says which members answer for a key; nil means that this one is alone.
	Peers Peers
	// MaxBytes bounds the memory of its entries, overhead included.
	MaxBytes int64
	// Eviction says which entries go first when MaxBytes is reached: "lru" (also when empty) or "slru".
	Eviction string
	// Stats is where to count, so that what is behind Origin can count there, too; nil makes one.
	Stats *Stats
}

// Dataset answers reads of one dataset. It is safe for concurrent use.
type Dataset struct {
	name   string
	policy atomic.Pointer[Policy]
	// freshLife is how long what is older than a floor may be fresh somewhere, staleLife how long it may be given, under any
	// policy that there was: entries outlive theirs. Nanoseconds; SetPolicy alone changes them.
	freshLife, staleLife atomic.Int64
	origin               origin.Origin
	writer               origin.Writer // nil: read only
	peers                Peers
	start                time.Time

	store   *lru.Cache[*entry]
	fences  fences
	floors  *floors
	watches watches

	// cautious says that fresh entries are to be looked at twice: the ring has changed lately, or the feed is broken.
	cautious    atomic.Bool
	ringChanged atomic.Int64 // when the ring changed last
	feedLive    atomic.Bool  // all changes are told; without a feed nobody asks

	copiesEnded atomic.Uint64 // how often copies were ended; loads made here go on, unlike with the fences
	// Loads and hops are merged apart: with one map, two members whose rings disagree would wait for each other. So are the
	// writes of applications, which may be sent on, and the commits made here, which are not.
	loads, hops     *flight.Group[found]
	writes, commits *flight.Group[found]
	unnamed         atomic.Int64 // writes without an ID
	done            done
	teller          *teller
	// fallbacks holds a token for each load that is made here although another member owns the key.
	fallbacks chan struct{}

	stats *Stats
}

// New returns a Dataset that holds nothing yet.
func New(c Config) (*Dataset, error) {
	if c.Policy.MaxFlights <= 0 {
		c.Policy.MaxFlights = DefaultPolicy().MaxFlights
	}
	store, err := lru.New[*entry](lru.Config{
		MaxBytes: c.MaxBytes, Policy: lru.Policy(c.Eviction), EntryOverhead: entryOverhead,
	})
	if err != nil {
		return nil, fmt.Errorf("dataset %s: %w", c.Name, err)
	}
	d := &Dataset{
		name:      c.Name,
		origin:    c.Origin,
		writer:    c.Writer,
		peers:     c.Peers,
		start:     time.Now().Add(-1), // so that 0 is before everything
		store:     store,
		fences:    fences{seed: maphash.MakeSeed()},
		floors:    newFloors(c.MaxBytes),
		done:      done{maxBytes: int(min(c.MaxBytes/doneShare, maxDoneBytes))},
		loads:     flight.New[found](c.Policy.MaxFlights),
		hops:      flight.New[found](c.Policy.MaxFlights),
		writes:    flight.New[found](c.Policy.MaxFlights),
		commits:   flight.New[found](c.Policy.MaxFlights),
		fallbacks: make(chan struct{}, maxFallbacks), //guard:loads-stead-dead-members-without-bound
		stats:     c.Stats,
	}
	if d.stats == nil {
		d.stats = &Stats{}
	}
	if d.peers == nil {
		d.peers = NoPeers{}
	}
	d.teller = newTeller(d.tellAll)
	d.SetPolicy(c.Policy)
	d.cautious.Store(d.inGap(d.Policy())) // until the feed says that it is live
	store.OnEvict(d.evicted)
	return d, nil
}

// Name returns the dataset's name.
func (d *Dataset) Name() string { return d.name }

// Stats returns the live counters.
func (d *Dataset) Stats() *Stats { return d.stats }

// Memory returns what the dataset's entries take.
func (d *Dataset) Memory() lru.Stats { return d.store.Stats() }

// Flights returns how many loads and hops are under way.
func (d *Dataset) Flights() (loads, hops int) { return d.loads.Len(), d.hops.Len() }

// Policy returns the policy in force.
func (d *Dataset) Policy() Policy { return *d.policy.Load() }

// SetPolicy applies to what is loaded from now on; entries that are held keep their times. MaxFlights cannot change. It
// must not be called twice at once.
func (d *Dataset) SetPolicy(p Policy) {
	p = p.bounded() //guard:longest-durations-end-past
	fresh := max(p.TTL, p.NegativeTTL) + p.LoadTimeout
	stale := fresh + max(p.StaleIfError, p.StaleWhileRevalidate) //guard:outage-deleted-comes-back
	d.freshLife.Store(max(d.freshLife.Load(), int64(fresh)))
	d.staleLife.Store(max(d.staleLife.Load(), int64(stale))) //guard:floors-forgotten-before-loaded-under-longer
	d.policy.Store(&p)
}

// Close cancels what is under way and waits for it. Reads fail from then on, but for hits.
func (d *Dataset) Close() {
	d.writes.Close()
	d.commits.Close()
	d.hops.Close()
	d.loads.Close()
	d.teller.close()
}

// Sweep drops the entries that no read can use any more. Its caller decides how often it is worth the work.
func (d *Dataset) Sweep() (dropped int) {
	now := d.now()
	return d.store.RemoveIf(func(key string, e *entry) bool {
		if !e.dead(now) { //guard:expired-entries-hold-memory-ever
			return false
		}
		d.evicted(key, e)
		return true
	})
}

// now is the dataset's monotonic clock.
func (d *Dataset) now() int64 { return int64(time.Since(d.start)) }

// CheckKey returns an error of KindInvalidKey unless key can be the key of an entry: 1 to MaxKeyBytes of UTF-8 without NUL.
func CheckKey(key string) error {
	switch {
	case key == "":
		return invalidKey("the key is empty")
	case len(key) > MaxKeyBytes:
		return invalidKey(fmt.Sprintf("the key has %d bytes; at most %d are allowed", len(key), MaxKeyBytes))
	case !utf8.ValidString(key):
		return invalidKey("the key is not UTF-8")
	case strings.IndexByte(key, 0) >= 0:
		return invalidKey("the key holds a NUL byte")
	}
	return nil
}

func invalidKey(why string) error { return &Error{Kind: KindInvalidKey, Err: errors.New(why)} }

// retryAfter is what callers are told when the origin failed or a bound was reached.
const retryAfter = time.Second

// classify gives an error of the origin, of a flight or of a peer its kind. Errors that have one keep it.
func (d *Dataset) classify(err error) error {
	var known *Error
	var panicked *flight.PanicError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &panicked):
		return &Error{Kind: KindInternal, Err: fmt.Errorf("dataset %s: %w", d.name, err)}
	case errors.Is(err, origin.ErrInvalidKey):
		return &Error{Kind: KindInvalidKey, Err: fmt.Errorf("dataset %s: %w", d.name, err)}
	case errors.Is(err, origin.ErrOverloaded), errors.Is(err, flight.ErrFull):
		return &Error{Kind: KindOverloaded, RetryAfter: retryAfter, Err: fmt.Errorf("dataset %s: %w", d.name, err)}
	case errors.Is(err, context.DeadlineExceeded):
		return d.unavailable(fmt.Errorf("no answer within %v: %w", d.Policy().LoadTimeout, err))
	}
	return d.unavailable(err)
}

func (d *Dataset) unavailable(err error) error {
	return &Error{Kind: KindUnavailable, RetryAfter: retryAfter, Err: fmt.Errorf("dataset %s: %w", d.name, err)}
}
