// Package sqldb reads rows of PostgreSQL, MySQL, MariaDB and SQLite as values. A row gives the same bytes whichever of
// them holds it; DESIGN.md has the table of types.
package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

const (
	connLifetime = 30 * time.Minute // so that a database behind a balancer gets its share of connections back
	connIdle     = 5 * time.Minute
)

// database is one kind of database.
type database struct {
	name      string
	feedKinds []string
	open      func(origin.SourceConfig) (connectors, dialect, error)
}

// Postgres returns the driver of PostgreSQL.
func Postgres() origin.Driver {
	return database{"postgres", []string{origin.FeedNotify, origin.FeedPoll}, openPostgres}
}

// MySQL returns the driver of MySQL and MariaDB.
func MySQL() origin.Driver { return database{"mysql", []string{origin.FeedPoll}, openMySQL} }

// SQLite returns the driver of SQLite.
func SQLite() origin.Driver { return database{"sqlite", []string{origin.FeedPoll}, openSQLite} }

// Name implements origin.Driver.
func (d database) Name() string { return d.name }

// FeedKinds implements origin.Driver.
func (d database) FeedKinds() []string { return d.feedKinds }

// Open implements origin.Driver.
func (d database) Open(c origin.SourceConfig) (origin.Source, error) {
	db, err := open(d, c)
	if err != nil {
		return nil, err // not a nil *DB
	}
	return db, nil
}

// DB is the pool of connections to one database, shared by its datasets. It is safe for concurrent use.
type DB struct {
	name          string
	dialect       dialect
	login         *login
	reads         driver.Connector
	pool          *sql.DB // for reads, and where it is the same for writes
	writes        *sql.DB
	maxConns      int
	maxValueBytes int
}

func open(d database, c origin.SourceConfig) (*DB, error) {
	c = c.WithDefaults()
	connectors, dialect, err := d.open(c)
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", c.Name, err)
	}
	db := &DB{
		name: c.Name, dialect: dialect, login: connectors.login, reads: connectors.reads, maxConns: c.MaxConns,
		maxValueBytes: c.MaxValueBytes,
	}
	db.pool = openPool(db.reads, db.maxConns)
	db.writes = db.pool
	if connectors.writes != nil {
		db.writes = openPool(connectors.writes, 1)
	}
	return db, nil
}

// openPool does not connect.
func openPool(c driver.Connector, maxConns int) *sql.DB {
	pool := sql.OpenDB(c)
	pool.SetMaxOpenConns(maxConns)
	pool.SetMaxIdleConns(maxConns)
	pool.SetConnMaxLifetime(connLifetime)
	pool.SetConnMaxIdleTime(connIdle)
	return pool
}

// TargetChanged implements origin.ReloadableSource.
func (db *DB) TargetChanged() bool { return db.login.targetChanged() }

// Stats returns the pool's bound, use and waits, for metrics.
func (db *DB) Stats() sql.DBStats { return db.pool.Stats() }

// Close closes the connections, after the statements under way.
func (db *DB) Close() error {
	if err := errors.Join(db.pool.Close(), db.writes.Close()); err != nil {
		return fmt.Errorf("origin %q: close: %w", db.name, err)
	}
	return nil
}

// onConn calls read with a connection of the pool.
func (db *DB) onConn(ctx context.Context, read func(*sql.Conn) error) error {
	return db.onConnOf(ctx, db.pool, read)
}

// onConnOf calls read with a connection of pool, and again with another where the connection turns out to be broken:
// after a restart of the database all idle ones are. Read must begin anew each time.
func (db *DB) onConnOf(ctx context.Context, pool *sql.DB, read func(*sql.Conn) error) error {
	var err error
	for range db.maxConns + 1 {
		err = onOneConn(ctx, pool, read)
		if !errors.Is(err, driver.ErrBadConn) || ctx.Err() != nil {
			break
		}
	}
	return db.explain(ctx, err)
}

func onOneConn(ctx context.Context, pool *sql.DB, read func(*sql.Conn) error) error {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // returns it to the pool; says only that it was broken, as read has said before
	return read(conn)
}

// explain makes of a driver's error one that callers can classify: what the database ended because of its time is
// context.DeadlineExceeded, whether the database or this side noticed first.
func (db *DB) explain(ctx context.Context, err error) error {
	silent, unanswered := errors.AsType[*silentError](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && unanswered:
		return silent
	case ctx.Err() != nil:
		return fmt.Errorf("query: %w", ctx.Err())
	case db.dialect.timedOut(err):
		return fmt.Errorf("query ended by the database at its time limit: %w", context.DeadlineExceeded)
	}
	return fmt.Errorf("query: %w", err)
}

// serverTimeout is how long the database may work on a statement: a little less than the caller waits, so that it has
// ended there before it is given up here. It is 0 without a deadline, and at least a millisecond otherwise.
func serverTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline)*9/10, time.Millisecond).Truncate(time.Millisecond)
}
