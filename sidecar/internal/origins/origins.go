// Package origins opens the origins of a configuration, each with its budget: the limits that all datasets of the origin
// share. Check and FeedInstaller open them for one command.
package origins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

// Set is the open origins of a configuration, each with its budget, and what each dataset uses of them. It does not change
// after the datasets are built: Next makes the Set of another configuration.
type Set struct {
	byName   map[string]*budgeted
	datasets map[string]*use // :: dataset → its use
	config   Config
}

// Config is what a Set is made of.
type Config struct {
	Drivers origin.Drivers
	// Defect is called with each panic that reaches no caller of an origin, stack included; may be nil.
	Defect func(error)
	Log    *zap.Logger
}

// budgeted is one open origin and what limits its use.
type budgeted struct {
	name    string
	config  config.Origin
	source  origin.Source
	limiter *guard.Limiter
}

// use is what one dataset uses of its origin.
type use struct {
	of      *budgeted
	rows    origin.Origin // without a limit
	perTurn int           // keys of one load that nobody waits for
	breaker *guard.Breaker
	batch   *guard.Batch
	errors  lastErrors        // that are not logged yet
	logged  origin.LoggedFeed // its feed, if that reads a table of changes
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

// Open opens the origins without connecting to them.
func Open(origins map[string]config.Origin, c Config) (*Set, error) {
	return (&Set{config: c}).Next(origins)
}

// Next returns the Set of another configuration, without datasets. It opens the origins that are new or have changed, without
// connecting to them, and shares the others with s. Close what is not used any more with CloseExcept.
func (s *Set) Next(origins map[string]config.Origin) (*Set, error) {
	next := &Set{byName: make(map[string]*budgeted, len(origins)), datasets: map[string]*use{}, config: s.config}
	for name, one := range origins {
		b := s.byName[name]
		if b == nil || !reflect.DeepEqual(b.config, one) || b.targetChanged() { //guard:reload-ignores-changed-database
			var err error
			if b, err = openOrigin(name, one, s.config); err != nil {
				next.CloseExcept(s)
				return nil, err
			}
		}
		next.byName[name] = b
	}
	return next, nil
}

func openOrigin(name string, c config.Origin, with Config) (*budgeted, error) {
	source, err := c.Open(name, with.Drivers, with.Defect, traceparent)
	if err != nil {
		return nil, fmt.Errorf("origins.%s: %w", name, err)
	}
	limits := guard.LimitConfig{MaxInFlight: c.MaxInFlight, MaxQueue: c.Queue}
	return &budgeted{name: name, config: c, source: source, limiter: guard.NewLimiter(limits)}, nil
}

// targetChanged reports whether the file of the connection string now refers to another database. A new password in it takes
// effect without a reload.
func (b *budgeted) targetChanged() bool {
	source, ok := b.source.(origin.ReloadableSource)
	return ok && source.TargetChanged()
}

// sameDatabase reports whether two origins have the same rows.
func (b *budgeted) sameDatabase(other *budgeted) bool {
	return b.config.Driver == other.config.Driver && b.config.DSN.Reveal() == other.config.DSN.Reveal() &&
		b.config.DSNFile == other.config.DSNFile && !b.targetChanged()
}

// Shares reports whether s and other use the same open origin of a name.
func (s *Set) Shares(other *Set, name string) bool {
	return s.byName[name] != nil && s.byName[name] == other.byName[name]
}

// SameDatabase reports whether the origin of a name in s has the rows of the one of a name in other.
func (s *Set) SameDatabase(name string, other *Set, otherName string) bool {
	a, b := s.byName[name], other.byName[otherName]
	return a == b || a.sameDatabase(b) && !b.targetChanged()
}

// Keep makes a dataset use its origin as in other, which shares the origin.
func (s *Set) Keep(dataset string, other *Set) { s.datasets[dataset] = other.datasets[dataset] }

// Close waits for the batches in flight and closes the connections.
func (s *Set) Close() { s.CloseExcept(&Set{}) }

// CloseExcept is Close for what other does not use.
func (s *Set) CloseExcept(other *Set) {
	for name, u := range s.datasets {
		if other.datasets[name] != u {
			u.batch.Wait()
		}
	}
	for name, b := range s.byName {
		if other.byName[name] == b {
			continue
		}
		if err := b.source.Close(); err != nil {
			s.config.Log.Warn("closing an origin failed", zap.String("origin", name), zap.Error(err))
		}
	}
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
	for _, u := range s.datasets {
		if u.of != b {
			continue
		}
		stats := u.breaker.Stats()
		l.Refused += stats.Refused
		l.BreakerOpen = l.BreakerOpen || stats.Open
	}
	return l
}

// Use returns the name of the origin of a dataset, whether the breaker of the dataset is open, and the loads of all datasets that
// wait for a statement of the origin.
func (s *Set) Use(dataset string) (origin string, breakerOpen bool, queued int64) {
	u := s.datasets[dataset]
	if u == nil {
		return "", false, 0
	}
	return u.of.name, u.breaker.Stats().Open, u.of.limiter.Stats().Queued
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
	source = withLists(b.source, source, name, c)
	u := &use{of: b, rows: source, perTurn: b.config.Batch.MaxKeys}
	if c.Table == "" && c.Batch == "" && c.Prefix == "" {
		u.perTurn = min(u.perTurn, queriesPerTurn)
	}
	u.breaker = guard.NewBreaker(observed{source, stats, &u.errors.load}, guard.BreakerConfig{
		Failures: uint32(b.config.Breaker.Failures), Cooldown: *b.config.Breaker.Cooldown,
	})
	u.batch = guard.NewBatch(u.breaker, guard.BatchConfig{
		MaxKeys: b.config.Batch.MaxKeys, Limiter: b.limiter, Tracer: statements{name, b.config.Driver},
	})
	s.datasets[name] = u
	return u.batch, nil
}

// withLists adds the lists of the keys of a dataset to its rows.
func withLists(from origin.Source, rows origin.Origin, name string, c config.Dataset) origin.Origin {
	source, err := origin.KeyListable(from)
	if err != nil {
		return keylist.New(rows, nil, errors.New("origins of this kind cannot list them"))
	}
	if c.Query != "" && c.List == "" {
		return keylist.New(rows, nil, errors.New("it has a query; set list to a query that selects the keys"))
	}
	keys, err := source.KeyLister(c.Rows(name), c.List)
	return keylist.New(rows, keys, err)
}

// Warm is how a dataset is kept warm.
type Warm struct {
	Origin origin.Origin    // loads keys
	Keys   origin.KeyLister // lists them
	// Turn waits for a turn that no read needs; one statement may follow.
	Turn  func(context.Context) (leave func(), err error)
	Batch int // keys of one load
}

// Warm returns how to keep a dataset warm. Call it after Dataset.
func (s *Set) Warm(name string, c config.Dataset) (Warm, error) {
	b := s.byName[c.Origin]
	source, err := origin.KeyListable(b.source)
	if err != nil {
		return Warm{}, err
	}
	keys, err := source.KeyLister(c.Rows(name), c.Warm.Query())
	if err != nil {
		return Warm{}, fmt.Errorf("datasets.%s.warm: %w", name, err)
	}
	u := s.datasets[name]
	return Warm{Origin: u.breaker, Keys: keys, Turn: b.limiter.EnterIdle, Batch: u.perTurn}, nil
}

// queriesPerTurn is how many keys are loaded in one turn that no read needs, if each costs a query.
const queriesPerTurn = 10

// Rows is how the rows of a dataset are read to compare them with what is cached.
type Rows struct {
	// Origin loads keys. Its failures do not open the breaker: no read waits for them.
	Origin origin.Origin
	// Turn waits for a turn that no read needs; one statement may follow.
	Turn  func(context.Context) (leave func(), err error)
	Batch int // keys of one load
	// Healthy reports whether the breaker of the dataset is closed.
	Healthy func() bool
}

// Rows returns how to read the rows of a dataset; false if there is no such dataset.
func (s *Set) Rows(dataset string) (Rows, bool) {
	u := s.datasets[dataset]
	if u == nil {
		return Rows{}, false
	}
	return Rows{u.rows, u.of.limiter.EnterIdle, u.perTurn, func() bool { return u.breaker.Stats().Closed }}, true
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
	return observedWriter{b.limiter.Writer(w), &s.datasets[name].errors.write}, nil
}

// Feed returns the change feed of a dataset, and a check of what the feed needs in the database. Call it after Dataset.
func (s *Set) Feed(name string, c config.Dataset) (feed origin.Feed, check func(context.Context) error, err error) {
	source, err := origin.WithFeed(s.byName[c.Origin].source)
	if err != nil {
		return nil, nil, err
	}
	feed, err = source.Feed(c.Rows(name), c.Feed.Config())
	if logged, ok := feed.(origin.LoggedFeed); ok {
		s.datasets[name].logged = logged
	}
	return feed, func(ctx context.Context) error { return source.CheckFeed(ctx, c.Rows(name), c.Feed.Config()) }, err
}

// LogStats returns what this member knows of the table of changes of a dataset; nothing if it does not poll one.
func (s *Set) LogStats(dataset string) (l origin.LogStats) {
	if u := s.datasets[dataset]; u != nil && u.logged != nil {
		l = u.logged.LogStats()
	}
	return l
}

// TakeErrors returns the last errors of the loads and writes of a dataset since the previous call; nil if there are none.
func (s *Set) TakeErrors(dataset string) (load, write error) {
	u := s.datasets[dataset]
	return u.errors.load.take(), u.errors.write.take()
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
		if !r.IsAnswer() && !errors.Is(r.Err, origin.ErrInvalidKey) {
			o.last.set(traced(ctx, r.Err))
		}
		yield(i, r)
	})
	if err != nil {
		o.stats.QueryErrors.Add(1)
		o.last.set(traced(ctx, err))
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
		o.last.set(traced(ctx, err))
	}
	return value, err
}

// Append implements origin.Writer.
func (o observedWriter) Append(ctx context.Context, data []byte) (origin.Row, error) {
	row, err := o.Writer.Append(ctx, data)
	if err != nil && !isCallersFault(err) {
		o.last.set(traced(ctx, err))
	}
	return row, err
}

// isCallersFault reports whether a write failed because of its key, value or condition.
func isCallersFault(err error) bool {
	_, cannotAppend := errors.AsType[*origin.AppendError](err)
	return cannotAppend || errors.Is(err, origin.ErrConflict) || errors.Is(err, origin.ErrInvalidKey) ||
		errors.Is(err, origin.ErrInvalidValue)
}
