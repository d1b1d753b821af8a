package origins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cnfmetrics"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// Check connects to each origin and prepares the statements of each dataset. The error has all failures; fields of
// the configuration that contradict the database are in a *config.Error.
func Check(ctx context.Context, c config.Config, drivers origin.Drivers) error {
	k := checker{Config: c, ctx: ctx}
	for _, name := range slices.Sorted(maps.Keys(c.Origins)) {
		source, err := c.Origins[name].Open(name, drivers, nil, traceparent)
		if err != nil {
			k.errs = append(k.errs, fmt.Errorf("origins.%s: %w", name, err))
			continue
		}
		k.origin(name, source)
		k.errs = append(k.errs, source.Close())
	}
	if len(k.problems) > 0 {
		k.errs = append(k.errs, &config.Error{Problems: k.problems})
	}
	return errors.Join(k.errs...)
}

// checker compares a configuration with the databases.
type checker struct {
	config.Config
	ctx      context.Context
	problems []config.Problem // of fields
	errs     []error          // all others
}

func (k *checker) origin(origin string, source origin.Source) {
	for _, name := range slices.Sorted(maps.Keys(k.Datasets)) {
		if d := k.Datasets[name]; d.Origin == origin {
			if k.dataset(name, d, source) {
				k.cnfMetrics(name, source)
			}
		}
	}
}

// cnfMetrics checks that the dataset of the typed service has the columns of a metric.
func (k *checker) cnfMetrics(name string, source origin.Source) {
	if k.CNFMetrics != name {
		return
	}
	ds := k.Datasets[name].Rows(name)
	ds.Columns, ds.Value = cnfmetrics.Columns(), ""
	err := source.Check(k.ctx, ds)
	wrong := origin.FieldErrors(err)
	for _, e := range wrong {
		if e.Field == "columns" { // the other fields are those of the dataset, which dataset has checked
			k.problems = append(k.problems, k.Problem("cnf_metrics", "%v; deploy/schema has the table", e.Err))
		}
	}
	if err != nil && wrong == nil {
		k.errs = append(k.errs, fmt.Errorf("cnf_metrics: %w", err))
	}
}

// dataset checks reads, and if they work also writes and the change feed. It reports whether the database has answered: each
// further check would only repeat why it has not.
func (k *checker) dataset(name string, d config.Dataset, source origin.Source) (answered bool) {
	err := source.Check(k.ctx, d.Rows(name))
	if unique, ok := source.(origin.UniqueSource); ok && err == nil && !d.Writable { // writes need more, which CheckWritable checks
		err = unique.CheckUnique(k.ctx, d.Rows(name), d.Policy().LoadTimeout)
	}
	wrong := origin.FieldErrors(err) //guard:contradiction-of-database-has-no-place
	for _, e := range wrong {
		k.problems = append(k.problems, k.Problem("datasets."+name+"."+e.Field, "%v", e.Err))
	}
	if err != nil && wrong == nil {
		k.errs = append(k.errs, err)
	}
	if err == nil && d.Writable {
		k.errs = append(k.errs, checkWritable(k.ctx, source, d.Rows(name)))
	}
	if err == nil && d.Feed.Configured() {
		k.errs = append(k.errs, checkFeed(k.ctx, source, d.Rows(name), d.Feed.Config()))
	}
	return err == nil || wrong != nil //guard:failed-connection-reported-twice
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

// FeedInstaller installs in a database what the change feed of a dataset needs.
type FeedInstaller struct {
	Config  config.Config
	Drivers origin.Drivers
	Dataset string
}

// SQL returns the statements of Install, and those of Remove.
func (f FeedInstaller) SQL(ctx context.Context) (install, remove string, err error) {
	err = f.open(func(source origin.FeedInstaller, ds origin.Dataset, c origin.FeedConfig) error {
		install, remove, err = source.ChangesSQL(ctx, ds, c)
		return err
	})
	return install, remove, err
}

// Install runs the statements that install the feed.
func (f FeedInstaller) Install(ctx context.Context) error {
	return f.open(func(source origin.FeedInstaller, ds origin.Dataset, c origin.FeedConfig) error {
		return source.InstallChanges(ctx, ds, c)
	})
}

// Remove undoes Install, except for the table of changes, which other datasets may use.
func (f FeedInstaller) Remove(ctx context.Context) error {
	return f.open(func(source origin.FeedInstaller, ds origin.Dataset, c origin.FeedConfig) error {
		return source.RemoveChanges(ctx, ds, c)
	})
}

// open calls do with the open origin of the dataset.
func (f FeedInstaller) open(do func(origin.FeedInstaller, origin.Dataset, origin.FeedConfig) error) error {
	d, ok := f.Config.Datasets[f.Dataset]
	switch {
	case !ok:
		return fmt.Errorf("no dataset is named %q; the datasets are: %s", f.Dataset,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(f.Config.Datasets)), ", "), "none"))
	case !d.Feed.Configured():
		return fmt.Errorf("dataset %s has no feed in the configuration; add feed: {kind: poll}, or notify", f.Dataset)
	}
	source, err := f.Config.Origins[d.Origin].Open(d.Origin, f.Drivers, nil, traceparent)
	if err != nil {
		return fmt.Errorf("origins.%s: %w", d.Origin, err)
	}
	installer, err := origin.WithInstaller(source)
	if err == nil {
		err = do(installer, d.Rows(f.Dataset), d.Feed.Config())
	}
	return errors.Join(err, source.Close())
}
