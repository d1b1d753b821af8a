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
	Peers Peers
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

	// announcing is held during SetLiveFeeds, so that an older list does not overtake a newer one. It is locked before mu. mu
	// is never held during a call of Peers, because they call LiveFeeds while they hold locks of their own.
	announcing sync.Mutex
	mu         sync.Mutex          // guards the fields below and those of feed with this comment
	feeds      []*feed             // sorted by name; a list is not modified
	members    map[string][]string // :: node id → the datasets whose feeds it reads without a gap, known ones or not
	running    context.Context     // of Run; nil while it does not run
	readers    sync.WaitGroup      // Add only under mu while running
}

// feed is one Source with its readers.
type feed struct {
	Source
	ring chan struct{}      // has room for one: the ring may have changed
	end  context.CancelFunc // guarded by mu; ends its reader; nil before that starts
	done chan struct{}      // closed when its reader has ended

	reading bool // guarded by mu; this member reads it without a gap
	live    bool // guarded by mu; the last value that the dataset got
}

// New returns Feeds of no datasets.
func New(c Config) *Feeds { return &Feeds{config: c, members: map[string][]string{}} }

// Replace makes sources, of datasets with different names, the feeds. Those that were among them before go on. The others end,
// and new ones begin with a gap.
func (f *Feeds) Replace(sources []Source) {
	f.mu.Lock()
	old := f.feeds
	next := make([]*feed, 0, len(sources))
	for _, s := range sources {
		i := slices.IndexFunc(old, func(one *feed) bool { return one.Source == s })
		if i >= 0 { //guard:reload-interrupts-every-feed
			next = append(next, old[i])
			continue
		}
		next = append(next, &feed{Source: s, ring: make(chan struct{}, 1), done: make(chan struct{})})
	}
	slices.SortFunc(next, func(a, b *feed) int { return cmp.Compare(a.Dataset.Name(), b.Dataset.Name()) })
	f.feeds = next
	f.mu.Unlock()
	for _, one := range old {
		if !slices.Contains(next, one) {
			f.remove(one)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range next {
		if one.end == nil && f.running != nil {
			f.startLocked(one)
		}
		f.settleLocked(one)
	}
}

// remove ends the reader of a feed. Nothing reports changes of its dataset any more.
func (f *Feeds) remove(one *feed) {
	f.mu.Lock()
	end := one.end
	f.mu.Unlock()
	if end != nil {
		end()
		<-one.done
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.live {
		one.live = false
		one.Dataset.SetFeedLive(false)
	}
}

// LiveFeeds takes the list of feeds that a member reads without a gap to which this one is subscribed. It replaces the
// previous list of that member.
func (f *Feeds) LiveFeeds(member string, datasets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[member] = slices.Clone(datasets)
	if len(datasets) == 0 {
		delete(f.members, member)
	}
	for _, one := range f.feeds {
		f.settleLocked(one)
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
func (f *Feeds) settleLocked(one *feed) {
	live := one.reading || f.readElsewhereLocked(one.Dataset.Name()) //guard:own-reading-does-not-count
	if live == one.live {
		return
	}
	one.live = live
	if live {
		one.Dataset.ExpireAll() //guard:entries-from-before-gap-are-fresh guard:live-feed-drops-stale-values
	}
	one.Dataset.SetFeedLive(live)
}

func (f *Feeds) readElsewhereLocked(dataset string) bool {
	for _, datasets := range f.members {
		if slices.Contains(datasets, dataset) {
			return true
		}
	}
	return false
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
	f.settleLocked(one)
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
	f.mu.Lock()
	defer f.mu.Unlock()
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
	f.mu.Lock()
	f.running = ctx
	for _, one := range f.feeds {
		f.startLocked(one)
	}
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	f.running = nil
	f.mu.Unlock()
	f.readers.Wait()
}

func (f *Feeds) startLocked(one *feed) {
	ctx, end := context.WithCancel(f.running)
	one.end = end
	f.readers.Go(func() {
		defer close(one.done)
		defer end()
		for f.awaitElection(ctx, one) {
			f.readWhileElected(ctx, one)
		}
	})
}
