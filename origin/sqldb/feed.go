package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
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
	if c.Kind == origin.FeedNotify {
		return db.notify(ds, c), nil
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
	table := changefeed.ChannelTableOf(ds)
	return db.database.Notify(changefeed.NotifyConfig{
		Origin: db.name, Dataset: ds.Name, Channel: c.Channel, Table: sqltext.QuoteTable(db.database.Syntax, table),
		Explain: func(err error) error { return db.explainUnreadable(err, table, ds.Name) },
	})
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
		err = changefeed.CheckConfig(ds, c, db.database.Notify != nil)
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
	c = c.WithDefaults()
	if err := db.checkFeedConfig(ds, c); err != nil {
		return "", "", err
	}
	if err := db.Check(ctx, ds); err != nil { //guard:trigger-of-missing-column
		return "", "", err
	}
	var at changefeed.Table
	err = db.onConn(ctx, func(conn *sql.Conn) (err error) {
		at, err = db.database.Triggers.Locate(ctx, conn, ds)
		return err
	})
	if err == nil {
		install, remove, err = changefeed.Script(ds, c, db.database.Syntax, db.database.Triggers, at)
	}
	if err != nil {
		return "", "", fmt.Errorf("origin %q, dataset %q: table %s: %w", db.name, ds.Name, ds.Table, err)
	}
	return install, remove, nil
}

// InstallChanges implements origin.FeedInstaller. It needs an account that may create triggers.
func (db *DB) InstallChanges(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	install, _, err := db.ChangesSQL(ctx, ds, c)
	if err != nil {
		return err
	}
	return db.applyChanges(ctx, ds, install)
}

// RemoveChanges implements origin.FeedInstaller.
func (db *DB) RemoveChanges(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	_, remove, err := db.ChangesSQL(ctx, ds, c)
	if err != nil {
		return err
	}
	return db.applyChanges(ctx, ds, remove)
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
	err = feed.Check(ctx)
	if err == nil {
		err = db.checkTriggers(ctx, ds, c)
	}
	if err != nil {
		return fmt.Errorf("origin %q, dataset %q: feed: %w", db.name, ds.Name, err)
	}
	return nil
}

func (db *DB) checkTriggers(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	var missing []string
	err := db.onConn(ctx, func(conn *sql.Conn) (err error) {
		missing, err = db.database.Triggers.MissingEvents(ctx, conn, ds, changefeed.Marks(ds, c))
		return err
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: no trigger of table %s reports %s: run `ringside changes apply %s`", origin.ErrFeedUnavailable, ds.Table,
			strings.Join(missing, ", "), ds.Name)
	}
	return err
}
