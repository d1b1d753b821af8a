// Package sqldb reads and writes the rows of SQL databases as values. It is the same for all of them: the packages below
// it that are named after a database implement what differs (Database). A row has the same bytes in whichever database it
// is stored; DESIGN.md has the table of types.
package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

const (
	connLifetime = 30 * time.Minute // so that a database behind a load balancer gets its share of connections back
	connIdle     = 5 * time.Minute
)

// DB is the pool of connections to one database, which its datasets share. It is safe for concurrent use. It implements
// origin.Source and all optional interfaces of it.
type DB struct {
	name          string
	database      *Database
	pool          *sql.DB // for reads, and for writes if the database needs no other connection for them
	writes        *sql.DB
	maxConns      int
	maxValueBytes int
}

// Open opens a database of this kind without connecting.
func Open(d Driver, c origin.SourceConfig) (*DB, error) {
	c = c.WithDefaults()
	database, err := d.Connect(c)
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", c.Name, err)
	}
	db := &DB{name: c.Name, database: database, maxConns: c.MaxConns, maxValueBytes: c.MaxValueBytes}
	db.pool = openPool(database.Reads, db.maxConns)
	db.writes = db.pool
	if database.Writes != nil {
		db.writes = openPool(database.Writes, 1)
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

var errNoIntegerTimes = errors.New("this database has types for times, and stores no integers in them: remove it")

// Dataset implements origin.Source.
func (db *DB) Dataset(ds origin.Dataset) (origin.Origin, error) {
	s, err := db.source(ds)
	if err != nil {
		return nil, err // not a nil *source
	}
	return s, nil
}

func (db *DB) source(ds origin.Dataset) (*source, error) {
	err := sqltext.Check(ds, db.database.Syntax)
	if err == nil && ds.IntegerTimes != "" && !db.database.IntegerTimes {
		err = &origin.FieldError{Field: "integer_times", Err: errNoIntegerTimes}
	}
	if err != nil {
		return nil, fmt.Errorf("dataset %q: %w", ds.Name, err)
	}
	return &source{db: db, dataset: ds, query: sqltext.Load(ds, db.database.Syntax)}, nil
}

// TargetChanged implements origin.ReloadableSource.
func (db *DB) TargetChanged() bool { return db.database.Credentials.targetChanged() }

// Close implements origin.Source.
func (db *DB) Close() error {
	if err := errors.Join(db.pool.Close(), db.writes.Close()); err != nil {
		return fmt.Errorf("origin %q: close: %w", db.name, err)
	}
	return nil
}

// onConn calls read with a connection of the pool for reads.
func (db *DB) onConn(ctx context.Context, read func(*sql.Conn) error) error {
	return db.onConnOf(ctx, db.pool, read)
}

// onConnOf calls read with a connection of pool, and again with another one if the first turns out to be broken: after a
// restart of the database, all idle ones are. Read must start over each time.
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
	defer conn.Close() // returns it to the pool; fails only if it was broken, as read has reported
	return read(conn)
}

// explain turns a driver's error into one that callers can classify: a statement that ran out of time is
// context.DeadlineExceeded, whether the database or this side noticed first.
func (db *DB) explain(ctx context.Context, err error) error {
	noAnswer, ok := errors.AsType[*NoAnswerError](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && ok:
		return noAnswer
	case ctx.Err() != nil:
		return fmt.Errorf("query: %w", ctx.Err())
	case db.database.Errors.TimedOut(err):
		return fmt.Errorf("query ended by the database at its time limit: %w", context.DeadlineExceeded)
	}
	return fmt.Errorf("query: %w", err)
}
