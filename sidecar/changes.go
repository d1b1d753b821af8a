package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/changes"
)

// sink passes on what other members say of the datasets. The pool has it before there are any, but calls it only once
// there are others on the ring, which is after.
type sink struct{ *process }

// Invalidate implements peer.Sink.
func (s sink) Invalidate(list []cache.Invalidation) {
	for _, i := range list {
		if d := s.dataset(i.Dataset); d != nil {
			d.ApplyInvalidation(i)
		}
	}
}

// Missed implements peer.Sink.
func (s sink) Missed(member string) {
	s.changes.Missed(member)
	for _, d := range s.datasets {
		d.ExpireFrom(member) //guard:member-missed-stays-fresh
	}
}

// LiveFeeds implements peer.Sink.
func (s sink) LiveFeeds(member string, datasets []string) { s.changes.LiveFeeds(member, datasets) }

// withFeed are the datasets that have a change feed, sorted.
func (c Config) withFeed() []string {
	without := func(name string) bool { return !c.Datasets[name].Feed.configured() }
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Datasets)), without)
}

func (f ChangeFeed) feed() origin.FeedConfig {
	return origin.FeedConfig{Kind: f.Kind, Channel: f.channel(), Table: f.table(), Interval: f.interval()}
}

// ChangesSQL returns the statements that make, and those that remove, what the change feed of a dataset needs in its
// database.
func (c Config) ChangesSQL(ctx context.Context, dataset string) (install, remove string, err error) {
	err = c.onFeed(dataset, func(source origin.FeedInstaller, ds origin.Dataset, f origin.FeedConfig) error {
		install, remove, err = source.ChangesSQL(ctx, ds, f)
		return err
	})
	return install, remove, err
}

// ApplyChanges makes what ChangesSQL shows.
func (c Config) ApplyChanges(ctx context.Context, dataset string) error {
	return c.onFeed(dataset, func(source origin.FeedInstaller, ds origin.Dataset, f origin.FeedConfig) error {
		return source.InstallChanges(ctx, ds, f)
	})
}

// RemoveChanges undoes ApplyChanges, but for the table of changes, which other datasets may use.
func (c Config) RemoveChanges(ctx context.Context, dataset string) error {
	return c.onFeed(dataset, func(source origin.FeedInstaller, ds origin.Dataset, f origin.FeedConfig) error {
		return source.RemoveChanges(ctx, ds, f)
	})
}

// onFeed opens the database of a dataset with a feed for the time of do.
func (c Config) onFeed(dataset string, do func(origin.FeedInstaller, origin.Dataset, origin.FeedConfig) error) error {
	d, ok := c.Datasets[dataset]
	switch {
	case !ok:
		return fmt.Errorf("no dataset is named %q; there is: %s", dataset,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(c.Datasets)), ", "), "none"))
	case !d.Feed.configured():
		return fmt.Errorf("dataset %s has no feed in the configuration; add feed: {kind: poll}, or notify", dataset)
	}
	database, err := openDatabase(d.Origin, c.Origins[d.Origin])
	if err != nil {
		return err
	}
	installer, err := origin.WithInstaller(database.source)
	if err == nil {
		err = do(installer, d.rows(dataset), d.Feed.feed())
	}
	return errors.Join(err, database.source.Close())
}

// openChanges makes the feeds of the datasets, which are open. Nothing is read before the task of readChanges.
func (p *process) openChanges() error {
	config := changes.Config{Peers: p.pool, OnEvent: p.changesEvent}
	for _, name := range p.config.withFeed() {
		c := p.config.Datasets[name]
		source, err := origin.WithFeed(p.origins[c.Origin].source)
		if err != nil {
			return err
		}
		feed, err := source.Feed(c.rows(name), c.Feed.feed())
		if err != nil {
			return err
		}
		feed = changes.Checked(feed, func(ctx context.Context) error { return source.CheckFeed(ctx, c.rows(name), c.Feed.feed()) })
		config.Sources = append(config.Sources, changes.Source{Dataset: p.dataset(name), Feed: feed})
	}
	p.changes = changes.New(config)
	return nil
}

func (p *process) changesEvent(dataset string, err error) {
	if err != nil {
		p.log.Warn("the change feed is broken; it is tried again", zap.String("dataset", dataset), zap.Error(err))
		return
	}
	p.log.Info("the change feed is read here", zap.String("dataset", dataset))
}

// readChanges reads the feeds that this member is elected for. It ends after this member has left the ring and others
// have taken over, but while those that follow this one still do.
func (p *process) readChanges(context.Context) error {
	p.reading = p.spawn("read change feeds", func(ctx context.Context) error {
		p.changes.Run(ctx)
		return nil
	})
	return nil
}

func (p *process) handBackChanges(context.Context) { p.reading.stop() }
