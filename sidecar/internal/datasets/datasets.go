// Package datasets runs the datasets of a sidecar: it builds a cache over each dataset, reads the change feeds, applies
// invalidations of other members, and changes policies on a reload.
package datasets

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/changes"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// Config is what a Set is made of.
type Config struct {
	Config  config.Config // effective
	Origins *origins.Set
	Pool    *peer.Pool
	// Memory is the number of bytes for the entries of all datasets.
	Memory int64
	// Budget limits the bytes that clients and members make the process use.
	Budget *budget.Budget
	// Defect is called with each panic of a change feed.
	Defect func(error)
	Log    *zap.Logger
	Tasks  *task.Group
}

// Set is the datasets of a sidecar, which stay the same until it stops.
type Set struct {
	config  Config
	list    []*cache.Dataset // sorted by name
	feeds   *changes.Feeds
	reading *task.Task
}

// New builds the datasets. Nothing reads their change feeds before StartFeeds.
func New(c Config) (*Set, error) {
	s := &Set{config: c}
	parts := divide(c.Memory, c.Config.Datasets)
	for _, name := range slices.Sorted(maps.Keys(c.Config.Datasets)) {
		d, err := s.open(name, parts[name])
		if err != nil {
			s.Close()
			return nil, err
		}
		s.list = append(s.list, d)
	}
	if err := s.openFeeds(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Set) open(name string, maxBytes int64) (*cache.Dataset, error) {
	c, stats := s.config.Config.Datasets[name], &kv.Stats{}
	source, err := s.config.Origins.Dataset(name, c, stats)
	if err != nil {
		return nil, err
	}
	writer, err := s.config.Origins.Writer(name, c)
	if err != nil {
		return nil, err
	}
	return cache.New(cache.Config{
		Name: name, Policy: c.Policy(), Origin: source, Writer: writer, Peers: s.config.Pool, MaxBytes: maxBytes,
		Eviction: c.Eviction, Stats: stats, Calls: s.config.Budget.Of(budget.Calls), //guard:calls-of-datasets-take-no-memory
	})
}

func (s *Set) openFeeds() error {
	c := changes.Config{Peers: s.config.Pool, OnEvent: s.logFeed, Defect: s.config.Defect}
	for _, name := range s.config.Config.WithFeed() {
		feed, check, err := s.config.Origins.Feed(name, s.config.Config.Datasets[name])
		if err != nil {
			return err
		}
		c.Sources = append(c.Sources, changes.Source{Dataset: s.Lookup(name), Feed: changes.Checked(feed, check)})
	}
	s.feeds = changes.New(c)
	return nil
}

func (s *Set) logFeed(dataset string, err error) {
	if err != nil {
		s.config.Log.Warn("the change feed failed; retrying", zap.String("dataset", dataset), zap.Error(err))
		return
	}
	s.config.Log.Info("this member reads the change feed", zap.String("dataset", dataset))
}

// All returns the datasets, sorted by name. The caller must not modify the list.
func (s *Set) All() []*cache.Dataset { return s.list }

// Names returns the names of the datasets, sorted.
func (s *Set) Names() []string {
	names := make([]string, 0, len(s.list))
	for _, d := range s.list {
		names = append(names, d.Name())
	}
	return names
}

// Lookup returns the dataset of that name, or nil.
func (s *Set) Lookup(name string) *cache.Dataset {
	i, found := slices.BinarySearchFunc(s.list, name, func(d *cache.Dataset, name string) int {
		return strings.Compare(d.Name(), name)
	})
	if !found {
		return nil
	}
	return s.list[i]
}

// ReadsFeed reports whether this member reads the change feed of a dataset without a gap.
func (s *Set) ReadsFeed(dataset string) bool { return s.feeds.Reading(dataset) }

// RingChanged must be called after each change of the ring.
func (s *Set) RingChanged() {
	for _, d := range s.list {
		d.RingChanged() //guard:datasets-miss-new-ring
	}
	s.feeds.RingChanged()
}

// SetPolicies applies the policies of next, which has the same datasets.
func (s *Set) SetPolicies(next config.Config) {
	for _, d := range s.list {
		d.SetPolicy(next.Datasets[d.Name()].Policy())
	}
}

// StartFeeds reads the change feeds that this member is elected for.
func (s *Set) StartFeeds(context.Context) error {
	s.reading = s.config.Tasks.Go("read change feeds", func(ctx context.Context) error {
		s.feeds.Run(ctx)
		return nil
	})
	return nil
}

// StopFeeds stops reading the change feeds. Call it after this member has left the ring and others have taken over the
// feeds, while its subscribers are still connected.
func (s *Set) StopFeeds(context.Context) { s.reading.Stop() }

// Close closes the datasets.
func (s *Set) Close() {
	for _, d := range s.list {
		d.Close()
	}
}

// sweepInterval is the time between two sweeps. The LRU bounds memory without sweeps; they give the memory of dead entries
// to live ones.
const sweepInterval = 30 * time.Second

// Sweep drops dead entries at intervals until ctx is done.
func (s *Set) Sweep(ctx context.Context) error {
	return task.Every(ctx, sweepInterval, func() {
		for _, d := range s.list {
			d.Sweep()
		}
	})
}

// Sink passes messages of other members to a Set. The pool, which needs a Sink, exists before the Set, but it has no
// messages before Attach: the ring then has no other members.
type Sink struct{ set atomic.Pointer[Set] }

// Attach makes s the receiver of all further messages.
func (k *Sink) Attach(s *Set) { k.set.Store(s) }

// Invalidate implements peer.Sink.
func (k *Sink) Invalidate(list []kv.Invalidation) { k.set.Load().Invalidate(list) }

// Missed implements peer.Sink.
func (k *Sink) Missed(member string) { k.set.Load().Missed(member) }

// LiveFeeds implements peer.Sink.
func (k *Sink) LiveFeeds(member string, datasets []string) {
	k.set.Load().feeds.LiveFeeds(member, datasets)
}

// Invalidate applies invalidations of another member.
func (s *Set) Invalidate(list []kv.Invalidation) {
	for _, i := range list {
		if d := s.Lookup(i.Dataset); d != nil {
			d.ApplyInvalidation(i)
		}
	}
}

// Missed expires all copies from a member whose invalidations may have been lost.
func (s *Set) Missed(member string) {
	s.feeds.Missed(member)
	for _, d := range s.list {
		d.ExpireFrom(member) //guard:copies-stay-fresh-after-lost-invalidations
	}
}
