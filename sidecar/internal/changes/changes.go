// Package changes keeps datasets in step with their change feeds. It reads the feeds that this member is elected for,
// tells the members that follow it, and knows of each dataset whether somebody hears of all changes for it. It starts no
// connection and writes no log.
package changes

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Dataset is a dataset with a feed. *cache.Dataset is one.
type Dataset interface {
	Name() string
	ApplyInvalidation(i cache.Invalidation)
	ExpireAll()
	SetFeedLive(live bool)
}

// Peers are the other members.
type Peers interface {
	// Elected reports whether this member is to read the feed of a dataset.
	Elected(dataset string) bool
	// Publish tells the members that follow this one. It never blocks.
	Publish(i cache.Invalidation)
	// SetLiveFeeds tells them the datasets, sorted, whose feeds this member reads without a gap.
	SetLiveFeeds(datasets []string)
}

// Source is a dataset and where its changes are heard of.
type Source struct {
	Dataset Dataset
	Feed    origin.Feed
}

// Config is what Feeds are made of.
type Config struct {
	Peers   Peers
	Sources []Source // of datasets with different names
	// OnEvent is called when a feed that this member reads breaks, with the reason, and with nil when it is live: once an
	// outage, not once an attempt.
	OnEvent func(dataset string, err error)
}

// Feeds are the change feeds of one sidecar. A dataset's feed is live as long as this member, or one that it follows,
// reads it without a gap.
type Feeds struct {
	config Config
	feeds  []*feed // sorted by name

	// announcing is held while the others are told which feeds are live here, so that no older list overtakes a newer one.
	// It is locked before mu, and mu never while Peers are called: they call LiveFeeds with locks of their own.
	announcing sync.Mutex
	mu         sync.Mutex // guards the fields of each feed that say so
}

// feed is one Source and who reads it.
type feed struct {
	Source
	ring chan struct{} // has room for one: the ring may have changed

	reading bool            // guarded by mu; this member reads it without a gap
	members map[string]bool // guarded by mu; node ids of others that do
	live    bool            // guarded by mu; what the dataset was told last
}

// New returns Feeds of which none is live.
func New(c Config) *Feeds {
	f := &Feeds{config: c}
	for _, s := range c.Sources {
		f.feeds = append(f.feeds, &feed{Source: s, ring: make(chan struct{}, 1), members: map[string]bool{}})
	}
	slices.SortFunc(f.feeds, func(a, b *feed) int { return cmp.Compare(a.Dataset.Name(), b.Dataset.Name()) })
	return f
}

// LiveFeeds takes the list of feeds that another member reads without a gap, which this one follows. What it told before
// does not count any more.
func (f *Feeds) LiveFeeds(member string, datasets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.feeds {
		if slices.Contains(datasets, one.Dataset.Name()) {
			one.members[member] = true
		} else {
			delete(one.members, member)
		}
		one.settleLocked()
	}
}

// Missed says that a member may have told of changes that did not arrive.
func (f *Feeds) Missed(member string) { f.LiveFeeds(member, nil) }

// Reading reports whether this member reads the feed of a dataset without a gap.
func (f *Feeds) Reading(dataset string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.readLocked(), dataset)
}

func (f *Feeds) readLocked() []string {
	var names []string
	for _, one := range f.feeds {
		if one.reading {
			names = append(names, one.Dataset.Name())
		}
	}
	return names
}

// settleLocked tells the dataset when its feed breaks or is live again. What it holds from the gap nobody vouches for.
func (one *feed) settleLocked() {
	live := one.reading || len(one.members) > 0 //guard:own-reading-feed-does-count
	if live == one.live {
		return
	}
	one.live = live
	if live {
		one.Dataset.ExpireAll() //guard:after-gap-held-from-before-used guard:feed-back-leaves-no-stale-answer
	}
	one.Dataset.SetFeedLive(live)
}

func everything(dataset string) cache.Invalidation {
	return cache.Invalidation{Dataset: dataset, Prefix: true}
}

func (f *Feeds) setReading(one *feed, reading bool) {
	f.announcing.Lock()
	defer f.announcing.Unlock()
	f.mu.Lock()
	changed := one.reading != reading
	one.reading = reading
	one.settleLocked()
	names := f.readLocked()
	f.mu.Unlock()
	if changed {
		f.config.Peers.SetLiveFeeds(names)
	}
}

// handle passes changes on. Those that were missed before this member was live are no loss to anybody: who relied on
// another member goes on to, and who relied on none ends everything when this one is live.
func (f *Feeds) handle(one *feed, c origin.Changes) {
	name := one.Dataset.Name()
	if c.Missed && f.Reading(name) { //guard:missed-before-start-published
		f.tell(one, everything(name))
	}
	for _, row := range c.Rows {
		f.tell(one, cache.Invalidation{Dataset: name, Key: row.Key, Version: row.Version})
	}
	f.setReading(one, true)
}

func (f *Feeds) tell(one *feed, i cache.Invalidation) {
	one.Dataset.ApplyInvalidation(i)
	f.config.Peers.Publish(i)
}

// RingChanged says that other members may be elected now.
func (f *Feeds) RingChanged() {
	for _, one := range f.feeds {
		select {
		case one.ring <- struct{}{}:
		default: // it has not looked since the last change
		}
	}
}

// Run reads the feeds that this member is elected for, until ctx is done. Then none is live here, and the others know.
func (f *Feeds) Run(ctx context.Context) {
	var readers sync.WaitGroup
	for _, one := range f.feeds {
		readers.Go(func() {
			for f.awaitElection(ctx, one) {
				f.serve(ctx, one)
			}
		})
	}
	readers.Wait()
}
