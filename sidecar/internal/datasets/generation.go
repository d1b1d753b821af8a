package datasets

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/changes"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// generation is the datasets of one configuration. It is immutable.
type generation struct {
	config  config.Config
	origins *origins.Set
	list    []*cache.Dataset // sorted by name
	feeds   []changes.Source
	warm    map[string]origins.Warm // :: dataset → how to keep it warm, if it is to be
}

func (g *generation) lookup(name string) *cache.Dataset {
	i, found := slices.BinarySearchFunc(g.list, name, func(d *cache.Dataset, name string) int {
		return strings.Compare(d.Name(), name)
	})
	if !found {
		return nil
	}
	return g.list[i]
}

func (g *generation) feedOf(d *cache.Dataset) (changes.Source, bool) {
	i := slices.IndexFunc(g.feeds, func(s changes.Source) bool { return s.Dataset == d })
	if i < 0 {
		return changes.Source{}, false
	}
	return g.feeds[i], true
}

// Change is a configuration that is not in use yet: Apply it, or Discard it.
type Change struct {
	set       *Set
	old, next *generation
	memory    map[string]int64 // :: dataset → bytes

	// Added and Removed are the names of datasets. The rows of Replaced ones may be others than before, so that they begin
	// without entries; Changed ones keep their entries.
	Added, Removed, Replaced, Changed []string
}

// Prepare builds what is new or different in a configuration. It changes nothing in use, and connects to nothing. It must not
// be called concurrently with itself or with Apply.
func (s *Set) Prepare(next config.Config) (*Change, error) {
	old := s.current.Load()
	opened, err := old.origins.Next(next.Origins)
	if err != nil {
		return nil, err
	}
	c := &Change{
		set: s, old: old, next: &generation{config: next, origins: opened, warm: map[string]origins.Warm{}}, memory: divide(s.config.Memory, next.Datasets),
	}
	if err := c.build(); err != nil {
		c.Discard()
		return nil, err
	}
	return c, nil
}

func (c *Change) build() error {
	for _, name := range slices.Sorted(maps.Keys(c.next.config.Datasets)) {
		if err := c.buildDataset(name); err != nil {
			return err
		}
	}
	for _, d := range c.old.list {
		if _, ok := c.next.config.Datasets[d.Name()]; !ok {
			c.Removed = append(c.Removed, d.Name())
		}
	}
	return nil
}

func (c *Change) buildDataset(name string) error {
	d, held := c.next.config.Datasets[name], c.old.lookup(name)
	var err error
	switch was := c.old.config.Datasets[name]; {
	case held == nil:
		c.Added = append(c.Added, name)
		held, err = c.open(name, nil)
	case c.unchanged(name, was, d):
		c.next.origins.Keep(name, c.old.origins)
	case c.sameRows(name, was, d): //guard:changed-rows-keep-old-values
		c.Changed = append(c.Changed, name)
		held, err = c.open(name, held)
	default:
		c.Replaced = append(c.Replaced, name)
		held, err = c.open(name, nil)
	}
	if err != nil {
		return err
	}
	c.next.list = append(c.next.list, held)
	if d.Warm.Configured() {
		if c.next.warm[name], err = c.next.origins.Warm(name, d); err != nil {
			return err
		}
	}
	return c.addFeed(name, held)
}

// unchanged reports whether a dataset needs no other connections: only what can be set has changed.
func (c *Change) unchanged(name string, was, is config.Dataset) bool {
	return reflect.DeepEqual(connections(was), connections(is)) && c.next.origins.Shares(c.old.origins, is.Origin)
}

// connections returns what decides how a dataset reads, writes and stores its rows.
func connections(d config.Dataset) config.Dataset {
	d.Times, d.Allow, d.Limits, d.MemoryShare, d.Feed = config.Times{}, config.Allow{}, config.Limits{}, nil, config.ChangeFeed{}
	d.Warm = config.Warm{}
	d.HTTP, d.ContentType = config.HTTP{}, "" //guard:new-alias-drops-entries
	return d
}

// sameRows reports whether the entries of a dataset stay right.
func (c *Change) sameRows(name string, was, is config.Dataset) bool {
	was, is = connections(was), connections(is)
	from, to := was.Origin, is.Origin
	was.Origin, is.Origin = "", ""
	was.Writable, is.Writable = false, false
	return reflect.DeepEqual(was, is) && c.old.origins.SameDatabase(from, c.next.origins, to)
}

// open builds a dataset, with the entries of another one unless that is nil.
func (c *Change) open(name string, entries *cache.Dataset) (*cache.Dataset, error) {
	d, stats, to := c.next.config.Datasets[name], &kv.Stats{}, c.next.origins
	if held := c.old.lookup(name); held != nil {
		stats = held.Stats() // counters of a name never decrease
	}
	source, err := to.Dataset(name, d, stats)
	if err != nil {
		return nil, err
	}
	writer, err := to.Writer(name, d)
	if err != nil {
		return nil, err
	}
	of := cache.Config{
		Name: name, Policy: d.Policy(), Origin: source, Writer: writer, Peers: c.set.config.Pool, MaxBytes: c.memory[name],
		Eviction: d.Eviction, Hot: c.set.hot, Stats: stats, Calls: c.set.config.Budget.Of(budget.Calls), //guard:calls-of-datasets-take-no-memory
	}
	if entries != nil {
		return entries.With(of), nil
	}
	return cache.New(of)
}

// addFeed keeps the feed of a dataset that has not changed; another one starts with a gap.
func (c *Change) addFeed(name string, of *cache.Dataset) error {
	d := c.next.config.Datasets[name]
	if !d.Feed.Configured() {
		return nil
	}
	held, ok := c.old.feedOf(of)
	if !ok || !reflect.DeepEqual(c.old.config.Datasets[name].Feed, d.Feed) {
		feed, check, err := c.next.origins.Feed(name, d)
		if err != nil {
			return err
		}
		held = changes.Source{Dataset: of, Feed: changes.Checked(feed, check)}
	}
	c.next.feeds = append(c.next.feeds, held)
	return nil
}

// Origins returns the origins of the configuration.
func (c *Change) Origins() *origins.Set { return c.next.origins }

// Discard closes what was opened for a Change that is not applied.
func (c *Change) Discard() {
	c.closeUnless(c.next, c.old)
}

func (c *Change) closeUnless(closed, kept *generation) {
	for _, d := range closed.list {
		if !slices.Contains(kept.list, d) {
			d.Close()
		}
	}
	closed.origins.CloseExcept(kept.origins)
}

// Apply makes the configuration the one in use. Reads that have begun go on with the old one. Call Retire when nobody can find
// the old one any more.
func (c *Change) Apply() {
	c.resize(func(now, next int64) bool { return next < now }) // first: all together never have more than their memory
	c.resize(func(now, next int64) bool { return next > now })
	for _, d := range c.next.list {
		d.SetPolicy(c.next.config.Datasets[d.Name()].Policy())
	}
	c.set.current.Store(c.next)
	c.set.config.Pool.SetCopyLife(c.next.config.CopyLife())
	c.set.config.Pool.SetFeeds(c.next.config.WithFeed()) //guard:feed-of-an-added-dataset-has-no-subscribers
	c.set.feeds.Replace(c.next.feeds)
}

func (c *Change) resize(which func(now, next int64) bool) {
	for _, d := range c.next.list {
		if next := c.memory[d.Name()]; which(d.Memory().MaxBytes, next) {
			d.Resize(next)
		}
	}
}

// Retire ends the watches of what Apply has replaced, and closes it once no request that began before can be running.
func (c *Change) Retire() {
	for _, name := range slices.Concat(c.Removed, c.Replaced) {
		c.old.lookup(name).EndWatches()
	}
	if len(c.Removed)+len(c.Replaced)+len(c.Changed) == 0 {
		return
	}
	longest := c.old.config.RequestTimeout()
	c.set.retire(func(ctx context.Context) error {
		timer := time.NewTimer(longest)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		c.closeUnless(c.old, c.next)
		return nil
	})
}

func (s *Set) retire(closing func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retiring = slices.DeleteFunc(s.retiring, (*task.Task).Done)
	s.retiring = append(s.retiring, s.config.Tasks.Go("close replaced datasets", closing))
}
