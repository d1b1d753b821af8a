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
	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
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
	feedKinds     []string
	pools         *connpool.Group
	pool          *connpool.Pool // for reads, and for writes if the database needs no other connection for them
	writes        *connpool.Pool
	failover      *failoverCheck
	maxConns      int
	maxValueBytes int
	defect        func(error)                  // origin.SourceConfig.Defect
	comment       func(context.Context) string // origin.SourceConfig.Comment
}

// Open opens a database of this kind without connecting. Its errors do not name the origin, nor those of its methods that
// do not connect the dataset: callers know the field of the configuration.
func Open(d Driver, c origin.SourceConfig) (*DB, error) {
	c = c.WithDefaults()
	database, err := d.Connect(c)
	if err != nil {
		return nil, err
	}
	db := &DB{
		name: c.Name, database: database, feedKinds: d.Feeds, maxConns: c.MaxConns, maxValueBytes: c.MaxValueBytes, defect: c.Defect,
		comment: c.Comment,
	}
	db.pools = connpool.NewGroup(database.Target)
	db.pool = db.pools.Open(func() *sql.DB { return openPool(database.Reads, db.maxConns) })
	db.writes = db.pool
	if database.Writes != nil {
		db.writes = db.pools.Open(func() *sql.DB { return openPool(database.Writes, 1) })
	}
	db.failover = newFailoverCheck(db)
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
		return nil, err
	}
	return &source{db: db, dataset: ds, query: sqltext.Load(ds, db.database.Syntax)}, nil
}

// commented returns a context whose statements have the comment of the request of ctx.
func (db *DB) commented(ctx context.Context) context.Context {
	if db.comment == nil {
		return ctx
	}
	return sqltext.WithComment(ctx, db.comment(ctx))
}

// TargetChanged implements origin.ReloadableSource.
func (db *DB) TargetChanged() bool { return db.database.Credentials.targetChanged() }

// Close implements origin.Source.
func (db *DB) Close() error {
	db.failover.close()
	if err := errors.Join(db.pool.Close(), db.writes.Close()); err != nil {
		return fmt.Errorf("origin %q: close: %w", db.name, err)
	}
	return nil
}

// onConn calls read with a connection of the pool for reads.
func (db *DB) onConn(ctx context.Context, read func(*sql.Conn) error) error {
	err := db.onConnOf(ctx, db.pool, read)
	if err == nil {
		db.failover.startIfDue()
	}
	return err
}

// onConnOf calls read with a connection of pool, and again with another one if the first turns out to be broken (after a
// restart of the database, all idle ones are), or if its statements are older than the schema. Read must start over each
// time.
func (db *DB) onConnOf(ctx context.Context, pool *connpool.Pool, read func(*sql.Conn) error) error {
	var err error
	for range db.maxConns + 1 {
		err = pool.Use(ctx, func(conn *sql.Conn) error { return db.dropUnusable(conn, read(conn)) })
		if !db.classOf(err).Retryable() || ctx.Err() != nil {
			break
		}
	}
	return db.explain(ctx, err)
}

// dropUnusable makes the pool drop the connection on which err occurred, if it must not be used again.
func (db *DB) dropUnusable(conn *sql.Conn, err error) error {
	if err == nil {
		return nil
	}
	switch db.classOf(err) {
	case errclass.Broken, errclass.Outdated, errclass.ReadOnly:
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// classOf returns the class of an error of this database.
func (db *DB) classOf(err error) errclass.Class {
	if errors.Is(err, ErrRetry) {
		return errclass.Retry
	}
	return errclass.Of(err, db.database.Errors.Class)
}

// replacePools makes reads and writes reach the server to which new connections lead.
func (db *DB) replacePools() {
	if db.database.Target == nil {
		_ = db.pools.Replace() // an error of a connection that is dropped concerns nobody
	}
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
	case db.classOf(err) == errclass.TimedOut:
		return fmt.Errorf("query ended by the database at its time limit: %w", context.DeadlineExceeded)
	}
	return fmt.Errorf("query: %w", err)
}
