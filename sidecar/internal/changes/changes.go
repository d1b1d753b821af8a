// Package changes keeps datasets up to date with their change feeds. It reads the feeds that this member is elected for,
// publishes changes to the subscribed members, and knows for each dataset whether its feed is live. It opens no connection
// and writes no log.
package changes

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Dataset is a dataset with a feed. *cache.Dataset is one.
type Dataset interface {
	Name() string
	ApplyInvalidation(i kv.Invalidation)
	ExpireAll()
	SetFeedLive(live bool)
}

// Peers are the other members.
type Peers interface {
	// Elected reports whether this member is to read the feed of a dataset.
	Elected(dataset string) bool
	// Publish sends i to the subscribed members. It never blocks.
	Publish(i kv.Invalidation)
	// SetLiveFeeds sends to them the datasets, sorted, whose feeds this member reads without a gap.
	SetLiveFeeds(datasets []string)
}

// Source is a dataset and its change feed.
type Source struct {
	Dataset Dataset
	Feed    origin.Feed
}

// Config is what Feeds are made of.
type Config struct {
	Peers   Peers
	Sources []Source // of datasets with different names
	// OnEvent is called when a feed that this member reads breaks, with the reason, and with nil when it is live: once per
	// outage, not per attempt.
	OnEvent func(dataset string, err error)
	// Defect is called with each panic of a feed, whose PanicStack method returns the stack.
	Defect func(error)
}

// Feeds are the change feeds of one sidecar. A dataset's feed is live while this member, or one that it subscribes to, reads
// it without a gap.
type Feeds struct {
	config Config
	feeds  []*feed // sorted by name

	// announcing is held during SetLiveFeeds, so that an older list does not overtake a newer one. It is locked before mu. mu
	// is never held during a call of Peers, because they call LiveFeeds while they hold locks of their own.
	announcing sync.Mutex
	mu         sync.Mutex // guards the fields of feed with this comment
}

// feed is one Source with its readers.
type feed struct {
	Source
	ring chan struct{} // has room for one: the ring may have changed

	reading bool            // guarded by mu; this member reads it without a gap
	members map[string]bool // guarded by mu; node ids of others that do
	live    bool            // guarded by mu; the last value that the dataset got
}

// New returns Feeds; none of them is live.
func New(c Config) *Feeds {
	f := &Feeds{config: c}
	for _, s := range c.Sources {
		f.feeds = append(f.feeds, &feed{Source: s, ring: make(chan struct{}, 1), members: map[string]bool{}})
	}
	slices.SortFunc(f.feeds, func(a, b *feed) int { return cmp.Compare(a.Dataset.Name(), b.Dataset.Name()) })
	return f
}

// LiveFeeds takes the list of feeds that a member reads without a gap to which this one is subscribed. It replaces the
// previous list of that member.
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

// Missed must be called when changes from a member may have been lost.
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

// settleLocked updates the dataset when its feed breaks or becomes live. Entries from before a gap expire then: changes in
// the gap are unknown.
func (one *feed) settleLocked() {
	live := one.reading || len(one.members) > 0 //guard:own-reading-does-not-count
	if live == one.live {
		return
	}
	one.live = live
	if live {
		one.Dataset.ExpireAll() //guard:entries-from-before-gap-are-fresh guard:live-feed-drops-stale-values
	}
	one.Dataset.SetFeedLive(live)
}

func everything(dataset string) kv.Invalidation {
	return kv.Invalidation{Dataset: dataset, Prefix: true}
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

// handle applies and publishes changes. It does not publish that changes were missed before this member was live: members
// that rely on another reader missed nothing, and the rest expire everything when this feed becomes live.
func (f *Feeds) handle(one *feed, c origin.Changes) {
	name := one.Dataset.Name()
	if c.Missed && f.Reading(name) { //guard:changes-before-start-are-published
		f.publish(one, everything(name))
	}
	for _, row := range c.Rows {
		f.publish(one, kv.Invalidation{Dataset: name, Key: row.Key, Version: row.Version})
	}
	f.setReading(one, true)
}

func (f *Feeds) publish(one *feed, i kv.Invalidation) {
	one.Dataset.ApplyInvalidation(i)
	f.config.Peers.Publish(i)
}

// RingChanged must be called when other members may be elected.
func (f *Feeds) RingChanged() {
	for _, one := range f.feeds {
		select {
		case one.ring <- struct{}{}:
		default: // it has not handled the previous change yet
		}
	}
}

// Run reads the feeds that this member is elected for until ctx is done. Then this member reads none, and the subscribed
// members know it.
func (f *Feeds) Run(ctx context.Context) {
	var readers sync.WaitGroup
	for _, one := range f.feeds {
		readers.Go(func() {
			for f.awaitElection(ctx, one) {
				f.readWhileElected(ctx, one)
			}
		})
	}
	readers.Wait()
}
