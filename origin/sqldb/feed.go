package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Feed implements origin.FeedSource; the feed needs what ChangesSQL installs. A Changed has the key as Load takes it, and
// version 0 if the row was deleted or its version did not grow with the change.
func (db *DB) Feed(ds origin.Dataset, c origin.FeedConfig) (origin.Feed, error) {
	return db.feed(ds, c.WithDefaults())
}

func (db *DB) feed(ds origin.Dataset, c origin.FeedConfig) (changefeed.Feed, error) {
	if err := db.checkFeedConfig(ds, c); err != nil {
		return nil, err
	}
	switch c.Kind {
	case origin.FeedNotify:
		return db.notify(ds, c), nil
	case origin.FeedLogical:
		return db.database.Logical.Feed(db.logical(ds, c)), nil
	}
	table := changefeed.TableOf(ds, c)
	return changefeed.NewPoll(changefeed.PollConfig{
		Origin: db.name, Dataset: ds.Name, Interval: c.Interval,
		Retention: changefeed.Retention{Age: c.Keep, Rows: int64(c.KeepRows), Grace: changefeed.DefaultGrace},
		Log:       db.database.Triggers.Log(sqltext.QuoteTable(db.database.Syntax, table)),
		OpenPool:  db.openFeedPool, //guard:loads-starve-feed
		OnConn:    db.onConnOf,
		Lost:      db.replacePools,
		Explain:   func(err error) error { return db.explainUnreadable(err, table, ds.Name) },
		Unpruned:  func(err error) error { return db.explainUnpruned(err, table) },
	}), nil
}

func (db *DB) notify(ds origin.Dataset, c origin.FeedConfig) changefeed.Feed {
	table := changefeed.ChannelTableOf(ds, c)
	return db.database.Notify(changefeed.NotifyConfig{
		Origin: db.name, Dataset: ds.Name, Channel: c.Channel, Table: sqltext.QuoteTable(db.database.Syntax, table),
		Explain: func(err error) error { return db.explainUnreadable(err, table, ds.Name) },
	})
}

func (db *DB) logical(ds origin.Dataset, c origin.FeedConfig) changefeed.LogicalConfig {
	return changefeed.LogicalConfig{
		Origin: db.name, Dataset: ds, Sources: changefeed.Sources(ds, c), Publication: changefeed.PublicationOf(ds, c), MaxWAL: c.MaxWAL,
	}
}

// feedConnLifetime is how soon a feed that polls follows a name that leads to another server.
const feedConnLifetime = 10 * time.Second

func (db *DB) openFeedPool() *connpool.Pool {
	return db.pools.Open(func() *sql.DB {
		pool := openPool(db.database.Reads, 1)
		pool.SetConnMaxLifetime(feedConnLifetime)
		return pool
	})
}

func (db *DB) checkFeedConfig(ds origin.Dataset, c origin.FeedConfig) error {
	err := sqltext.Check(ds, db.database.Syntax)
	if err == nil {
		err = changefeed.CheckConfig(ds, c, db.feedKinds)
	}
	if err != nil {
		return err
	}
	return nil
}

// explainUnreadable says what prevents a table of changes from being read, and what to do.
func (db *DB) explainUnreadable(err error, table, dataset string) error {
	switch {
	case err == nil:
		return nil
	case db.classOf(err) == errclass.Denied:
		return fmt.Errorf("%w: the account of the DSN may not read %s: GRANT SELECT on it: %w", origin.ErrFeedUnavailable, table, err)
	case db.classOf(err) == errclass.NoTable:
		return fmt.Errorf("%w: %s does not exist: run `ringside changes apply %s`: %w", origin.ErrFeedUnavailable, table, dataset, err)
	}
	return fmt.Errorf("read %s: %w", table, err)
}

// explainUnpruned says what prevents old rows of a table of changes from being deleted, and what to do.
func (db *DB) explainUnpruned(err error, table string) error {
	if err != nil && db.classOf(err) == errclass.Denied {
		err = fmt.Errorf("the account of the DSN may not delete rows: GRANT DELETE on it, or delete old rows regularly: %w", err)
	}
	if err != nil {
		err = fmt.Errorf("delete old rows of %s: %w", table, err)
	}
	return err
}

// ChangesSQL implements origin.FeedInstaller. Install creates the triggers, and the table of FeedPoll; it can be run again.
// Remove keeps the table, which other datasets may use. It connects, to name the schema of each object and to check the
// columns: a wrong trigger makes the application's writes fail.
func (db *DB) ChangesSQL(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) (install, remove string, err error) {
	scripts, err := db.changes(ctx, ds, c.WithDefaults())
	var texts [2][]string
	for _, s := range scripts {
		texts[0], texts[1] = append(texts[0], s.warning()+s.install), append(texts[1], s.remove)
	}
	return strings.Join(texts[0], "\n"), strings.Join(texts[1], "\n"), err
}

// changeScript is the statements for one table of a feed.
type changeScript struct {
	install, remove string
	refused         error // why the statements must not be installed; they can be removed
}

// warning returns a comment that says why the statements must not be installed; empty if they can be.
func (s changeScript) warning() string {
	if s.refused == nil {
		return ""
	}
	return "-- WARNING: " + strings.ReplaceAll(s.refused.Error(), "\n", " ") + "\n"
}

// changes returns the statements for each table of a feed.
func (db *DB) changes(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) (all []changeScript, err error) {
	if err := db.checkFeedConfig(ds, c); err != nil {
		return nil, err
	}
	if err := db.Check(ctx, ds); err != nil { //guard:trigger-of-missing-column
		return nil, err
	}
	if c.Kind == origin.FeedLogical {
		return db.publish(ctx, ds, c)
	}
	for _, of := range changefeed.Sources(ds, c) {
		at, err := db.locate(ctx, of)
		if err != nil {
			return nil, err
		}
		var s changeScript
		s.install, s.remove, err = changefeed.Script(of, c, db.database.Syntax, db.database.Triggers, at)
		if err != nil {
			return nil, db.tableError(of, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// publish returns the statements for all tables of a feed of origin.FeedLogical.
func (db *DB) publish(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) ([]changeScript, error) {
	var located []changefeed.Table
	for _, of := range changefeed.Sources(ds, c) {
		at, err := db.locate(ctx, of)
		if err != nil {
			return nil, err
		}
		located = append(located, at)
	}
	var s changeScript
	s.install, s.remove = db.database.Logical.Script(db.logical(ds, c), located)
	s.refused = db.database.Logical.CheckTables(ctx, db.logical(ds, c))
	if s.refused != nil && !errors.Is(s.refused, origin.ErrFeedUnavailable) {
		return nil, s.refused
	}
	return []changeScript{s}, nil
}

// locate returns a table of a feed as the catalog has it, or an error if it cannot have the triggers.
func (db *DB) locate(ctx context.Context, of changefeed.Source) (at changefeed.Table, err error) {
	err = db.onConn(ctx, func(conn *sql.Conn) (err error) {
		if of.Several {
			err = db.checkKey(ctx, conn, of.Dataset)
		}
		if err == nil {
			at, err = db.database.Triggers.Locate(ctx, conn, of.Dataset)
		}
		return err
	})
	if err != nil {
		err = db.tableError(of, err)
	}
	return at, err
}

// checkKey returns an error if a table of feed.tables or its key columns do not exist.
func (db *DB) checkKey(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error {
	t, err := db.database.Catalog.ReadTable(ctx, conn, ds)
	if err == nil && len(t.Columns) == 0 {
		err = tables.ErrNoTable
	}
	if err != nil {
		return err
	}
	for _, name := range ds.Key {
		if t.Column(name) == nil {
			return fmt.Errorf("there is no column %q: it has %s", name, tables.Names(t.Columns))
		}
	}
	return nil
}

func (db *DB) tableError(of changefeed.Source, err error) error {
	return fmt.Errorf("origin %q, dataset %q: feed: table %s: %w", db.name, of.Dataset.Name, of.Dataset.Table, err)
}

// InstallChanges implements origin.FeedInstaller. It needs an account that may create triggers.
func (db *DB) InstallChanges(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	scripts, err := db.changes(ctx, ds, c.WithDefaults())
	for i := 0; err == nil && i < len(scripts); i++ {
		if err = scripts[i].refused; err != nil {
			return fmt.Errorf("origin %q, dataset %q: feed: %w", db.name, ds.Name, err)
		}
		err = db.applyChanges(ctx, ds, scripts[i].install)
	}
	return err
}

// RemoveChanges implements origin.FeedInstaller.
func (db *DB) RemoveChanges(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	scripts, err := db.changes(ctx, ds, c.WithDefaults())
	for i := 0; err == nil && i < len(scripts); i++ {
		err = db.applyChanges(ctx, ds, scripts[i].remove)
	}
	return err
}

func (db *DB) applyChanges(ctx context.Context, ds origin.Dataset, script string) error {
	err := db.writes.Use(ctx, func(conn *sql.Conn) error { return db.database.Triggers.Apply(ctx, conn, script) })
	switch {
	case err == nil:
		return nil
	case db.classOf(err) == errclass.Denied:
		err = fmt.Errorf("the account of the DSN may not do this: use an account that may run what "+
			"`ringside changes sql %s` prints: %w", ds.Name, err)
	}
	return fmt.Errorf("origin %q, dataset %q: %w", db.name, ds.Name, err)
}

// CheckFeed implements origin.FeedSource: it checks that this account can read the feed, and that there are triggers, of
// ChangesSQL or others, that name its channel or table, and the dataset.
func (db *DB) CheckFeed(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	c = c.WithDefaults()
	feed, err := db.feed(ds, c)
	if err != nil {
		return err
	}
	for _, of := range changefeed.Sources(ds, c) { // first: no table of changes helps a view
		if _, err := db.locate(ctx, of); err != nil {
			return err
		}
	}
	err = feed.Check(ctx)
	for _, of := range changefeed.Sources(ds, c) {
		if err == nil && c.Kind != origin.FeedLogical {
			err = db.checkTriggers(ctx, of.Dataset, c)
		}
	}
	if err != nil {
		return fmt.Errorf("origin %q, dataset %q: feed: %w", db.name, ds.Name, err)
	}
	return nil
}

func (db *DB) checkTriggers(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	var missing []string
	marks := changefeed.Marks(ds, c)
	err := db.onConn(ctx, func(conn *sql.Conn) (err error) {
		missing, err = db.database.Triggers.MissingEvents(ctx, conn, ds, marks)
		return err
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: no trigger of table %s reports %s: run `ringside changes apply %s`", origin.ErrFeedUnavailable, ds.Table,
			strings.Join(missing, ", "), ds.Name)
	}
	return err
}
