// Package cache is the whole read and write path of a dataset: memory, the owner, the origin. It opens no socket, writes no
// log and starts no timer except the timeouts of its flights.
package cache

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/sidecar/internal/coalesce"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/internal/idempotency"
	"github.com/ringside-cache/ringside/sidecar/internal/lru"
	"github.com/ringside-cache/ringside/sidecar/internal/stability"
	"github.com/ringside-cache/ringside/sidecar/internal/warm"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Config is the configuration of a Dataset.
type Config struct {
	// Name is the dataset's name; it is the first part of its route keys.
	Name string
	// Policy is how fresh its answers are.
	Policy kv.Policy
	// Origin holds the rows.
	Origin origin.Origin
	// Writer changes them; nil for a read-only dataset.
	Writer origin.Writer
	// Peers routes keys to members; nil means that this member is alone.
	Peers kv.Peers
	// MaxBytes bounds the memory of the entries, overhead included.
	MaxBytes int64
	// Eviction decides which entries are evicted first when MaxBytes is reached: "lru" (also when empty) or "slru".
	Eviction string
	// Calls is where loads, peer fetches and writes take the memory that they use while they run; nil means no limit.
	Calls flight.Memory
	// Hot counts the fetches of other members, of all datasets; nil means that no key is hot.
	Hot *hotkeys.Tracker
	// Stats has the counters, so that the origin can count there as well; nil creates them.
	Stats *kv.Stats
}

// Dataset answers reads and writes of one dataset. It is safe for concurrent use.
type Dataset struct {
	*core
	fetcher     *fetcher
	invalidator *invalidator
	writer      *writer
}

// core is what all parts of a Dataset share.
type core struct {
	name   string
	policy atomic.Pointer[kv.Policy]
	former atomic.Pointer[formerPolicy] // nil while the policy has not changed
	start  time.Time
	store  *entries.Store
	peers  kv.Peers
	stats  *kv.Stats
	warm   *warm.Work
	// hot counts the fetches of other members, and reported has what their owners say of keys that this one fetches.
	hot      *hotkeys.Tracker // may be nil
	reported hotkeys.Reported
	// settled is whether ring and feed are. While they are not, hits are checked twice.
	settled stability.State
}

// New returns an empty Dataset.
func New(c Config) (*Dataset, error) {
	if c.Policy.MaxFlights <= 0 {
		c.Policy.MaxFlights = kv.DefaultPolicy().MaxFlights
	}
	shared := &core{
		name:  c.Name,
		start: startOfClock(),
		peers: c.Peers,
		stats: c.Stats,
		warm:  warm.NewWork(),
		hot:   c.Hot,
	}
	if shared.peers == nil {
		shared.peers = kv.NoPeers{}
	}
	if shared.stats == nil {
		shared.stats = &kv.Stats{}
	}
	watching := &watches.Set{}
	store, err := entries.New(entries.Config{
		MaxBytes: c.MaxBytes, Eviction: c.Eviction, Now: shared.now, Changed: watching.Note,
		Replaced:  watching.NoteInRanges,
		Discarded: &shared.stats.LoadsDiscarded, BoundsEvicted: &shared.stats.BoundsEvicted,
	})
	if err != nil {
		return nil, fmt.Errorf("dataset %s: %w", c.Name, err)
	}
	shared.store = store
	shared.settled.Awake = shared.peers.Awake
	shared.SetPolicy(c.Policy)
	shared.settled.Start(shared.Policy())
	return assemble(shared, watching, idempotency.New[result](c.MaxBytes), newObservations(c.MaxBytes), c), nil
}

func assemble(shared *core, watching *watches.Set, outcomes *idempotency.Cache[result], seen *observations, c Config) *Dataset {
	d := &Dataset{core: shared, fetcher: newFetcher(shared, c)}
	d.invalidator = &invalidator{core: shared, fetcher: d.fetcher, watches: watching}
	d.invalidator.broadcasts = coalesce.New(d.invalidator.everywhere)
	d.writer = newWriter(d.invalidator, outcomes, seen, c)
	return d
}

// With returns a Dataset of the same rows that loads and writes them through the Origin and the Writer of c, within its Calls.
// It shares everything else with d, entries, read bounds and watches included: what either stores, both return. Close d when
// nobody uses it any more. The policy and the size are those of d until SetPolicy and Resize.
func (d *Dataset) With(c Config) *Dataset {
	c.Name, c.Policy = d.name, d.Policy()
	return assemble(d.core, d.invalidator.watches, d.writer.outcomes, d.writer.observations, c)
}

// Resize changes the bound of the memory of the entries.
func (d *Dataset) Resize(maxBytes int64) { d.store.Resize(maxBytes) }

// EndWatches ends all watches, and those that begin later: the dataset is not in use any more.
func (d *Dataset) EndWatches() { d.invalidator.watches.End() }

// Name returns the dataset's name.
func (d *Dataset) Name() string { return d.name }

// Stats returns the live counters.
func (d *Dataset) Stats() *kv.Stats { return d.stats }

// Memory returns the memory of the dataset's entries.
func (d *Dataset) Memory() lru.Stats { return d.store.Stats() }

// Flights returns how many loads and peer fetches are running.
func (d *Dataset) Flights() (loads, fetches int) {
	return d.fetcher.loads.Len(), d.fetcher.fetches.Len() + d.fetcher.through.Len() + d.fetcher.relays.Len()
}

// Close cancels the flights and waits for them. Later reads fail, except hits.
func (d *Dataset) Close() {
	d.writer.observed.Close()
	d.writer.writes.Close()
	d.writer.commits.Close()
	d.fetcher.through.Close()
	d.fetcher.fetches.Close()
	d.fetcher.relays.Close()
	d.fetcher.loads.Close()
	d.writer.broadcaster.Close()
	d.invalidator.broadcasts.Close()
}

// Sweep removes the entries that no read can use any more. The caller decides how often that is worth the work.
func (d *Dataset) Sweep() (removed int) { return d.store.Sweep() }

// Bounds returns how many keys have a read bound without an entry, and how many can have one.
func (d *Dataset) Bounds() (n, most int) { return d.store.Bounds() }

// AllKeys is CachedKeys with the keys of all entries, also of those that no read gets.
func (d *Dataset) AllKeys(part int) (keys []string, parts int) { return d.store.AllKeys(part) }

// CachedKeys returns the keys with a value, fresh or stale, in one part of the memory, in no order, and how many parts there
// are. Each key is always in the same part.
func (d *Dataset) CachedKeys(part int) (keys []string, parts int) {
	keys, parts = d.store.Keys(part)
	return slices.DeleteFunc(keys, keylist.IsPart), parts
}

// Watch begins to note changes of keys. Close it.
func (d *Dataset) Watch(keys []string) *watches.Watch { return d.invalidator.watches.Watch(keys) }

// WatchRange begins to note changes of the keys that begin with prefix. Close it.
func (d *Dataset) WatchRange(prefix string) *watches.Range {
	return d.invalidator.watches.WatchRange(prefix)
}

// RingChanged records that keys may have other owners now.
func (d *Dataset) RingChanged() {
	d.settled.RingChanged(d.now())
	d.warm.Everything() // this member may own other keys
}

// SetFeedLive records whether a feed reports all changes. While it does not, entries live for Policy.GapTTL at most.
func (d *Dataset) SetFeedLive(live bool) {
	if gap := d.settled.SetFeedLive(live); gap {
		d.stats.FeedGaps.Add(1)
	}
}

// Sleep makes the next read of an entry that depends on other members' invalidations call Prove of the Peers, of which Awake is
// false from now on.
func (d *Dataset) Sleep() { d.settled.Sleep() }

// Watched reports whether clients watch keys.
func (d *Dataset) Watched() bool { return d.invalidator.watches.Any() }

// FeedLive reports whether the dataset's feed is live, and whether it has one.
func (d *Dataset) FeedLive() (live, has bool) { return d.settled.FeedLive(), d.Policy().GapTTL > 0 }

// trusts reports whether an entry may be sent as a fresh answer.
func (c *core) trusts(key string, e *entries.Entry, now int64) bool {
	return e.Fresh(now) && (!c.settled.Unsettled() || now < c.freshUntil(key, e, now))
}

// freshUntil is for an unsettled state.
func (c *core) freshUntil(key string, e *entries.Entry, now int64) int64 {
	return c.settled.FreshUntil(e, now, c.Policy(), func() bool { return c.peers.Route(c.name, key).Owner == nil })
}

// revalidates reports whether a stale entry may be sent at once while it is loaded.
func (c *core) revalidates(key string, e *entries.Entry, now int64) bool {
	until := e.FreshUntil
	if c.settled.Unsettled() {
		until = c.freshUntil(key, e, now)
	}
	return e.Revalidates(now, until)
}

// answer is the answer of an entry that trusts allows.
func (c *core) answer(key string, e *entries.Entry, now int64, source kv.Source) kv.Answer {
	a := e.Answer(now, source)
	if c.settled.Unsettled() {
		a.Fresh = time.Duration(c.freshUntil(key, e, now) - now) //guard:max-age-in-a-gap-is-that-of-the-ttl
	}
	return a
}

// now is the dataset's monotonic clock.
func (c *core) now() int64 { return int64(time.Since(c.start)) }

// Policy returns the current policy.
func (c *core) Policy() kv.Policy { return *c.policy.Load() }

// SetPolicy applies to what is loaded from now on; cached entries keep their times. MaxFlights cannot change. It must not
// be called concurrently.
func (c *core) SetPolicy(p kv.Policy) {
	p = p.Bounded() //guard:longest-durations-overflow
	fresh := max(p.TTL, p.NegativeTTL) + p.LoadTimeout
	c.store.SetLifetimes(fresh, fresh+max(p.StaleIfError, p.StaleWhileRevalidate, p.NegativeStaleIfError)) //guard:deleted-row-returns-in-an-outage
	if old := c.policy.Swap(&p); old != nil && *old != p {
		c.rememberPolicy(*old, c.now())
	}
	if c.settled.InGap(p) { // it has just got a feed
		c.settled.Start(p)
	}
}
