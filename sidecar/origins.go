package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/cnfmetrics"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

// database is one open origin with its budget.
type database struct {
	name       string
	config     OriginConfig
	source     origin.Source
	limiter    *guard.Limiter
	breakers   []*guard.Breaker       // one a dataset
	batches    []*guard.Batch         // one a dataset
	complaints map[string]*complaints // :: dataset → what went wrong last
}

// complaints of a dataset.
type complaints struct{ loads, writes complaint }

// complaint is the latest error of its kind that nobody has logged yet.
type complaint struct{ latest atomic.Pointer[error] }

func (c *complaint) set(err error) { c.latest.Store(&err) }

// take returns the error, or nil, and forgets it.
func (c *complaint) take() error {
	if err := c.latest.Swap(nil); err != nil {
		return *err
	}
	return nil
}

func openDatabase(name string, c OriginConfig) (*database, error) {
	dsn, err := c.dsn()
	if err != nil {
		return nil, fmt.Errorf("origins.%s.dsn_file: %w", name, err)
	}
	config := origin.SourceConfig{Name: name, DSN: dsn.Reveal(), MaxConns: c.maxConns()}
	if c.DSNFile != "" {
		config.ReloadDSN = func() (string, error) {
			dsn, err := c.dsn()
			return dsn.Reveal(), err
		}
	}
	source, err := drivers.All().Open(c.Driver, config)
	if err != nil {
		return nil, err
	}
	limits := guard.LimitConfig{MaxInFlight: c.maxInFlight(), MaxQueue: c.queue()}
	return &database{
		name: name, config: c, source: source, limiter: guard.NewLimiter(limits), complaints: map[string]*complaints{},
	}, nil
}

// dataset returns the origin of one dataset within the budget of its database. The cache bounds the time of a load, so
// that a new load_timeout counts without a restart.
func (d *database) dataset(c origin.Dataset, stats *cache.Stats) (origin.Origin, error) {
	source, err := d.source.Dataset(c)
	if err != nil {
		return nil, err
	}
	d.complaints[c.Name] = &complaints{}
	breaker := guard.NewBreaker(observed{source, stats, &d.complaints[c.Name].loads}, guard.BreakerConfig{
		Failures: uint32(d.config.Breaker.failures()), Cooldown: d.config.Breaker.cooldown(),
	})
	batch := guard.NewBatch(breaker, guard.BatchConfig{
		MaxKeys: d.config.Batch.maxKeys(), MaxWait: d.config.Batch.maxWait(), Limiter: d.limiter,
	})
	d.breakers, d.batches = append(d.breakers, breaker), append(d.batches, batch)
	return batch, nil
}

// writer returns what changes the rows of a dataset, within the budget of its database; nil where it is read only.
func (d *database) writer(name string, c DatasetConfig) (origin.Writer, error) {
	if !c.Writable {
		return nil, nil
	}
	source, err := origin.Writable(d.source)
	if err != nil {
		return nil, err
	}
	w, err := source.Writer(c.rows(name))
	if err != nil {
		return nil, err
	}
	return observedWriter{d.limiter.Writer(w), &d.complaints[name].writes}, nil
}

// load is how near the database is to its bounds.
func (d *database) load() metrics.OriginLoad {
	limits := d.limiter.Stats()
	l := metrics.OriginLoad{
		InFlight: limits.InFlight, MaxInFlight: limits.MaxInFlight,
		Queued: limits.Queued, MaxQueued: limits.MaxQueue, Refused: limits.Refused, QueueTimeouts: limits.GaveUp,
	}
	for _, b := range d.breakers {
		stats := b.Stats()
		l.Refused += stats.Refused
		l.BreakerOpen = l.BreakerOpen || stats.Open
	}
	return l
}

// observed turns an origin into one whose queries are counted and whose latest failure is kept.
type observed struct {
	origin.Origin
	stats     *cache.Stats
	complaint *complaint
}

// Load implements origin.Origin.
func (o observed) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	o.stats.Queries.Add(1)
	o.stats.Keys.Add(int64(len(keys)))
	results, err := o.Origin.Load(ctx, keys)
	if err != nil {
		o.stats.QueryErrors.Add(1)
		o.complaint.set(err)
	}
	for _, r := range results {
		if r.Err != nil && !errors.Is(r.Err, origin.ErrNotFound) && !errors.Is(r.Err, origin.ErrInvalidKey) {
			o.complaint.set(r.Err)
		}
	}
	return results, err
}

// observedWriter turns a writer into one whose latest failure is kept.
type observedWriter struct {
	origin.Writer
	complaint *complaint
}

// Write implements origin.Writer.
func (o observedWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	value, err := o.Writer.Write(ctx, c)
	if err != nil && !isCallersFault(err) { //guard:values-callers-send-fill-log
		o.complaint.set(err)
	}
	return value, err
}

// isCallersFault reports whether a write failed because of what was to be written.
func isCallersFault(err error) bool {
	return errors.Is(err, origin.ErrConflict) || errors.Is(err, origin.ErrInvalidKey) ||
		errors.Is(err, origin.ErrInvalidValue)
}

// rows says which rows of the origin are the values of the dataset.
func (d DatasetConfig) rows(name string) origin.Dataset {
	return origin.Dataset{
		Name: name, Table: d.Table, Key: d.Key, Columns: d.Columns, Query: d.Query, Batch: d.Batch, Version: d.Version,
		Value: d.Value,
	}
}

func (p *process) openOrigins(context.Context) error {
	p.origins = make(map[string]*database, len(p.config.Origins))
	for name, c := range p.config.Origins {
		d, err := openDatabase(name, c)
		if err != nil {
			return err
		}
		p.origins[name] = d
	}
	return nil
}

func (p *process) closeOrigins(context.Context) {
	for _, d := range p.origins {
		for _, b := range d.batches {
			b.Wait()
		}
		if err := d.source.Close(); err != nil {
			p.log.Warn("close", zap.Error(err))
		}
	}
}

func (p *process) openDatasets(context.Context) error {
	parts := p.config.memoryOf(p.memory)
	for _, name := range slices.Sorted(maps.Keys(p.config.Datasets)) {
		c, stats := p.config.Datasets[name], &cache.Stats{}
		source, err := p.origins[c.Origin].dataset(c.rows(name), stats)
		if err != nil {
			return err
		}
		writer, err := p.origins[c.Origin].writer(name, c)
		if err != nil {
			return err
		}
		d, err := cache.New(cache.Config{
			Name: name, Policy: c.policy(), Origin: source, Writer: writer, Peers: p.pool, MaxBytes: parts[name],
			Eviction: c.eviction(), Stats: stats,
		})
		if err != nil {
			return err
		}
		p.datasets = append(p.datasets, d)
	}
	cnf, err := p.cnfMetrics()
	if err != nil {
		return err
	}
	p.local = local.New(local.Config{
		Hosts: p.config.Hosts, RequestTimeout: p.config.requestTimeout(), CNFMetrics: cnf, Defect: p.defect,
		MaxConns: p.conns.local, MaxRoutedConns: p.conns.routed(),
	}, p.catalog())
	return p.openChanges()
}

// cnfMetrics returns the typed service over the dataset that the configuration names; nil where it names none.
func (p *process) cnfMetrics() (local.Mount, error) {
	name := p.config.CNFMetrics
	if name == "" {
		return nil, nil
	}
	c := p.config.Datasets[name]
	database := p.origins[c.Origin]
	source, err := origin.Listable(database.source)
	if err != nil {
		return nil, err
	}
	lister, err := source.Lister(c.rows(name))
	if err != nil {
		return nil, err
	}
	p.cnf = cnfmetrics.New(cnfmetrics.Config{
		Dataset: p.dataset(name), Lister: database.limiter.Lister(lister), Defect: p.defect,
	})
	return p.cnf, nil
}

func (p *process) catalog() *local.Catalog {
	list := make([]local.Served, 0, len(p.datasets))
	for _, d := range p.datasets {
		c := p.config.Datasets[d.Name()]
		list = append(list, local.Served{Dataset: d, JSON: c.Value == "", ReadOnly: !c.Writable})
	}
	return local.NewCatalog(list...)
}

func (p *process) closeDatasets(context.Context) {
	for _, d := range p.datasets {
		d.Close()
	}
}

func (p *process) datasetNames() []string {
	names := make([]string, 0, len(p.datasets))
	for _, d := range p.datasets {
		names = append(names, d.Name())
	}
	return names
}

// CheckOrigins connects to each origin and prepares the statements of each dataset. The error has all that failed; what
// the databases contradict in the configuration is a *ConfigError.
func (c Config) CheckOrigins(ctx context.Context) error {
	k := connected{Config: c, ctx: ctx}
	for _, name := range slices.Sorted(maps.Keys(c.Origins)) {
		d, err := openDatabase(name, c.Origins[name])
		if err != nil {
			k.errs = append(k.errs, err)
			continue
		}
		k.origin(d)
		k.errs = append(k.errs, d.source.Close())
	}
	if len(k.problems) > 0 {
		k.errs = append(k.errs, &ConfigError{Problems: k.problems})
	}
	return errors.Join(k.errs...)
}

// connected looks for what the databases say is wrong with a configuration.
type connected struct {
	Config
	ctx      context.Context
	problems []Problem // with fields
	errs     []error   // of everything else
}

func (k *connected) origin(d *database) {
	for _, name := range slices.Sorted(maps.Keys(k.Datasets)) {
		if dataset := k.Datasets[name]; dataset.Origin == d.name {
			k.dataset(name, dataset, d.source)
			k.cnfMetrics(name, d.source)
		}
	}
}

// cnfMetrics asks whether the dataset of the typed service has the columns of a metric.
func (k *connected) cnfMetrics(name string, source origin.Source) {
	if k.CNFMetrics != name {
		return
	}
	ds := k.Datasets[name].rows(name)
	ds.Columns, ds.Value = cnfmetrics.Columns(), ""
	err := source.Check(k.ctx, ds)
	if origin.FieldErrors(err) != nil {
		k.problems = append(k.problems, k.places.problem("cnf_metrics", "%v; deploy/schema has the table", err))
	} else if err != nil {
		k.errs = append(k.errs, fmt.Errorf("cnf_metrics: %w", err))
	}
}

// dataset asks the database about all that the dataset does there. What cannot be read is not asked about further.
func (k *connected) dataset(name string, d DatasetConfig, source origin.Source) {
	err := source.Check(k.ctx, d.rows(name))
	wrong := origin.FieldErrors(err) //guard:database-contradicts-no-place-file
	for _, e := range wrong {
		k.problems = append(k.problems, k.places.problem("datasets."+name+"."+e.Field, "%v", e.Err))
	}
	if err != nil && wrong == nil {
		k.errs = append(k.errs, err)
	}
	if err == nil && d.Writable {
		k.errs = append(k.errs, checkWritable(k.ctx, source, d.rows(name)))
	}
	if err == nil && d.Feed.configured() {
		k.errs = append(k.errs, checkFeed(k.ctx, source, d.rows(name), d.Feed.feed()))
	}
}

func checkWritable(ctx context.Context, source origin.Source, ds origin.Dataset) error {
	w, err := origin.Writable(source)
	if err != nil {
		return err
	}
	return w.CheckWritable(ctx, ds)
}

func checkFeed(ctx context.Context, source origin.Source, ds origin.Dataset, c origin.FeedConfig) error {
	f, err := origin.WithFeed(source)
	if err != nil {
		return err
	}
	return f.CheckFeed(ctx, ds, c)
}
