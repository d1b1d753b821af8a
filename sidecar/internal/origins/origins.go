// Package origins opens the origins of a configuration, each with its budget: the limits that all datasets of the origin
// share. Check and FeedInstaller open them for one command.
package origins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

// Set is the open origins of a sidecar, each with its budget.
type Set struct {
	byName map[string]*budgeted
	logged map[string]origin.LoggedFeed // :: dataset → its feed, if that reads a table of changes
	log    *zap.Logger
}

// budgeted is one open origin and what limits its use.
type budgeted struct {
	name     string
	config   config.Origin
	source   origin.Source
	limiter  *guard.Limiter
	breakers []*guard.Breaker       // one per dataset
	batches  []*guard.Batch         // one per dataset
	errors   map[string]*lastErrors // :: dataset → errors that are not logged yet
}

// lastErrors are the last errors of a dataset.
type lastErrors struct{ load, write lastError }

// lastError is the last error of its kind that is not logged yet.
type lastError struct{ err atomic.Pointer[error] }

func (l *lastError) set(err error) { l.err.Store(&err) }

// take returns the error and clears it; nil if there is none.
func (l *lastError) take() error {
	if err := l.err.Swap(nil); err != nil {
		return *err
	}
	return nil
}

// Open opens the origins without connecting to them. defect is called with each panic that reaches no caller of an origin, stack
// included; it may be nil.
func Open(c map[string]config.Origin, drivers origin.Drivers, defect func(error), log *zap.Logger) (*Set, error) {
	s := &Set{byName: make(map[string]*budgeted, len(c)), logged: map[string]origin.LoggedFeed{}, log: log}
	for name, one := range c {
		b, err := openOrigin(name, one, drivers, defect)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.byName[name] = b
	}
	return s, nil
}

func openOrigin(name string, c config.Origin, drivers origin.Drivers, defect func(error)) (*budgeted, error) {
	source, err := c.Open(name, drivers, defect)
	if err != nil {
		return nil, fmt.Errorf("origins.%s: %w", name, err)
	}
	limits := guard.LimitConfig{MaxInFlight: c.MaxInFlight, MaxQueue: c.Queue}
	return &budgeted{
		name: name, config: c, source: source, limiter: guard.NewLimiter(limits), errors: map[string]*lastErrors{},
	}, nil
}

// Close waits for the batches in flight and closes the connections.
func (s *Set) Close() {
	for name, b := range s.byName {
		for _, batch := range b.batches {
			batch.Wait()
		}
		if err := b.source.Close(); err != nil {
			s.log.Warn("closing an origin failed", zap.String("origin", name), zap.Error(err))
		}
	}
}

// TargetChanged returns an error that names the files of connection strings that now refer to another database. A new
// password in them takes effect without a reload.
func (s *Set) TargetChanged() error {
	var errs []error
	for _, name := range s.Names() {
		source, ok := s.byName[name].source.(origin.ReloadableSource)
		if ok && source.TargetChanged() {
			errs = append(errs, fmt.Errorf("origins.%s.dsn_file: it now refers to another database: restart to use it", name))
		}
	}
	return errors.Join(errs...)
}

// Names returns the names of the origins, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// Load returns the use of the limits of the origin of that name.
func (s *Set) Load(name string) metrics.OriginLoad {
	b := s.byName[name]
	limits := b.limiter.Stats()
	l := metrics.OriginLoad{
		InFlight: limits.InFlight, MaxInFlight: limits.MaxInFlight,
		Queued: limits.Queued, MaxQueued: limits.MaxQueue, Refused: limits.Refused, QueueTimeouts: limits.GaveUp,
	}
	for _, breaker := range b.breakers {
		stats := breaker.Stats()
		l.Refused += stats.Refused
		l.BreakerOpen = l.BreakerOpen || stats.Open
	}
	return l
}

// Lister returns the lister of a dataset's rows, within the budget of its origin.
func (s *Set) Lister(name string, c config.Dataset) (origin.Lister, error) {
	b := s.byName[c.Origin]
	source, err := origin.Listable(b.source)
	if err != nil {
		return nil, err
	}
	lister, err := source.Lister(c.Rows(name))
	if err != nil {
		return nil, err
	}
	return b.limiter.Lister(lister), nil
}

// Dataset returns the origin of one dataset within the budget. The cache bounds the duration of loads, so that a reload
// can change load_timeout.
func (s *Set) Dataset(name string, c config.Dataset, stats *kv.Stats) (origin.Origin, error) {
	b, ds := s.byName[c.Origin], c.Rows(name)
	source, err := b.source.Dataset(ds)
	if err != nil {
		return nil, err
	}
	b.errors[name] = &lastErrors{}
	breaker := guard.NewBreaker(observed{source, stats, &b.errors[name].load}, guard.BreakerConfig{
		Failures: uint32(b.config.Breaker.Failures), Cooldown: *b.config.Breaker.Cooldown,
	})
	batch := guard.NewBatch(breaker, guard.BatchConfig{
		MaxKeys: b.config.Batch.MaxKeys, MaxWait: *b.config.Batch.MaxWait, Limiter: b.limiter,
	})
	b.breakers, b.batches = append(b.breakers, breaker), append(b.batches, batch)
	return batch, nil
}

// Writer returns the writer of a dataset's rows within the budget; nil if the dataset is read-only. Call it after Dataset.
func (s *Set) Writer(name string, c config.Dataset) (origin.Writer, error) {
	if !c.Writable {
		return nil, nil
	}
	b := s.byName[c.Origin]
	source, err := origin.Writable(b.source)
	if err != nil {
		return nil, err
	}
	w, err := source.Writer(c.Rows(name))
	if err != nil {
		return nil, err
	}
	return observedWriter{b.limiter.Writer(w), &b.errors[name].write}, nil
}

// Feed returns the change feed of a dataset, and a check of what the feed needs in the database.
func (s *Set) Feed(name string, c config.Dataset) (feed origin.Feed, check func(context.Context) error, err error) {
	source, err := origin.WithFeed(s.byName[c.Origin].source)
	if err != nil {
		return nil, nil, err
	}
	feed, err = source.Feed(c.Rows(name), c.Feed.Config())
	if logged, ok := feed.(origin.LoggedFeed); ok {
		s.logged[name] = logged
	}
	return feed, func(ctx context.Context) error { return source.CheckFeed(ctx, c.Rows(name), c.Feed.Config()) }, err
}

// LogStats returns what this member knows of the table of changes of a dataset; nothing if it does not poll one.
func (s *Set) LogStats(dataset string) (l origin.LogStats) {
	if feed := s.logged[dataset]; feed != nil {
		l = feed.LogStats()
	}
	return l
}

// TakeErrors returns the last errors of the loads and writes of a dataset since the previous call; nil if there are none.
func (s *Set) TakeErrors(name string, c config.Dataset) (load, write error) {
	last := s.byName[c.Origin].errors[name]
	return last.load.take(), last.write.take()
}

// observed turns an origin into one that counts queries and keeps the last error.
type observed struct {
	origin.Origin
	stats *kv.Stats
	last  *lastError
}

// Load implements origin.Origin.
func (o observed) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, o, keys)
}

// LoadEach implements origin.Streamer.
func (o observed) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	o.stats.Queries.Add(1)
	o.stats.Keys.Add(int64(len(keys)))
	err := origin.LoadEach(ctx, o.Origin, keys, func(i int, r origin.Result) {
		if r.Err != nil && !errors.Is(r.Err, origin.ErrNotFound) && !errors.Is(r.Err, origin.ErrInvalidKey) {
			o.last.set(r.Err)
		}
		yield(i, r)
	})
	if err != nil {
		o.stats.QueryErrors.Add(1)
		o.last.set(err)
	}
	return err
}

// observedWriter turns a writer into one that keeps the last error.
type observedWriter struct {
	origin.Writer
	last *lastError
}

// Write implements origin.Writer.
func (o observedWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	value, err := o.Writer.Write(ctx, c)
	if err != nil && !isCallersFault(err) { //guard:invalid-writes-of-callers-fill-log
		o.last.set(err)
	}
	return value, err
}

// isCallersFault reports whether a write failed because of its key, value or condition.
func isCallersFault(err error) bool {
	return errors.Is(err, origin.ErrConflict) || errors.Is(err, origin.ErrInvalidKey) ||
		errors.Is(err, origin.ErrInvalidValue)
}
