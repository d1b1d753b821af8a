// Package datasets runs the datasets of a sidecar: it opens the origins, builds a cache over each dataset, reads the change
// feeds, applies invalidations of other members, and replaces what a reload changes.
package datasets

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/changes"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// Config is what a Set is made of.
type Config struct {
	Config  config.Config // effective
	Origins origins.Config
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

// Set is the datasets of a sidecar, and their origins. A reload replaces all of them at once; see Change.
type Set struct {
	config  Config
	current atomic.Pointer[generation]
	feeds   *changes.Feeds
	reading *task.Task
	hot     *hotkeys.Tracker

	mu       sync.Mutex // guards retiring
	retiring []*task.Task
}

// New builds the datasets. Nothing reads their change feeds before StartFeeds.
func New(c Config) (*Set, error) {
	s := &Set{config: c, hot: hotkeys.New()}
	s.feeds = changes.New(changes.Config{Peers: c.Pool, OnEvent: s.logFeed, Defect: c.Defect})
	opened, err := origins.Open(nil, c.Origins)
	if err != nil {
		return nil, err
	}
	s.current.Store(&generation{origins: opened})
	change, err := s.Prepare(c.Config)
	if err != nil {
		return nil, err
	}
	change.Apply()
	return s, nil
}

func (s *Set) logFeed(dataset string, err error) {
	if err != nil {
		s.config.Log.Warn("the change feed failed; retrying", zap.String("dataset", dataset), zap.Error(err))
		return
	}
	s.config.Log.Info("this member reads the change feed", zap.String("dataset", dataset))
}

// Config returns the configuration in use.
func (s *Set) Config() config.Config { return s.current.Load().config }

// Origins returns the origins in use.
func (s *Set) Origins() *origins.Set { return s.current.Load().origins }

// All returns the datasets, sorted by name. The caller must not modify the list.
func (s *Set) All() []*cache.Dataset { return s.current.Load().list }

// Names returns the names of the datasets, sorted.
func (s *Set) Names() []string {
	var names []string
	for _, d := range s.All() {
		names = append(names, d.Name())
	}
	return names
}

// Lookup returns the dataset of that name, or nil.
func (s *Set) Lookup(name string) *cache.Dataset { return s.current.Load().lookup(name) }

// HotKeys returns the given number of keys at most that other members fetch most often from this one.
func (s *Set) HotKeys(most int) []hotkeys.Key { return s.hot.Hot(most) }

// ReadsFeed reports whether this member reads the change feed of a dataset without a gap.
func (s *Set) ReadsFeed(dataset string) bool { return s.feeds.Reading(dataset) }

// RingChanged must be called after each change of the ring.
func (s *Set) RingChanged() {
	for _, d := range s.All() {
		d.RingChanged() //guard:datasets-miss-new-ring
	}
	s.feeds.RingChanged()
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

// Close closes the datasets and the origins, those that a reload has replaced as well.
func (s *Set) Close() {
	s.mu.Lock()
	task.StopAll(s.retiring)
	s.mu.Unlock()
	now := s.current.Load()
	for _, d := range now.list {
		d.Close()
	}
	now.origins.Close()
}

// sweepInterval is the time between two sweeps. The LRU bounds memory without sweeps; they give the memory of dead entries
// to live ones.
const sweepInterval = 30 * time.Second

// Sweep drops dead entries at intervals until ctx is done.
func (s *Set) Sweep(ctx context.Context) error {
	return task.Every(ctx, sweepInterval, func() {
		for _, d := range s.All() {
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
	for _, d := range s.All() {
		d.ExpireFrom(member) //guard:copies-stay-fresh-after-lost-invalidations
	}
}
