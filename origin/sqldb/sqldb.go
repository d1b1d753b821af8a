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
)

// Defaults of Config.
const (
	DefaultMaxConns      = 4
	DefaultMaxValueBytes = 1 << 20
)

const (
	connLifetime = 30 * time.Minute // so that a database behind a balancer gets its share of connections back
	connIdle     = 5 * time.Minute
)

// Config says how to reach one database.
type Config struct {
	// Name is the origin's name in the configuration; errors name the database by it.
	Name string
	// Driver is postgres, mysql (which is MariaDB too) or sqlite.
	Driver string
	// DSN is a secret. For postgres it is a URL or key=value pairs (libpq), for mysql the form of go-sql-driver,
	// user:password@tcp(host:port)/database, for sqlite a path or a file: URI.
	DSN string
	// Reread returns the DSN as it is now. It is called whenever a connection is made, which then takes user and password
	// from it; nil means that they do not change.
	Reread func() (string, error)
	// MaxConns bounds the connections, and so the simultaneous statements; 0 means DefaultMaxConns.
	MaxConns int
	// MaxValueBytes bounds one value. A row that makes a larger one is an error of its key alone; 0 means
	// DefaultMaxValueBytes.
	MaxValueBytes int
}

// String leaves the DSN out.
func (c Config) String() string { return fmt.Sprintf("origin %q (%s)", c.Name, c.Driver) }

// GoString leaves the DSN out.
func (c Config) GoString() string { return c.String() }

func (c Config) maxConns() int {
	if c.MaxConns <= 0 {
		return DefaultMaxConns
	}
	return c.MaxConns
}

func (c Config) maxValueBytes() int {
	if c.MaxValueBytes <= 0 {
		return DefaultMaxValueBytes
	}
	return c.MaxValueBytes
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

// Open checks the DSN but does not connect: a database that is away must not keep the sidecar from starting. Its
// errors never hold any part of the DSN, not even what the driver says about it.
func Open(c Config) (*DB, error) {
	open, ok := map[string]func(Config) (connectors, dialect, error){
		"postgres": openPostgres, "mysql": openMySQL, "sqlite": openSQLite,
	}[c.Driver]
	if !ok {
		return nil, fmt.Errorf("origin %q: driver %q is not known: use postgres, mysql or sqlite", c.Name, c.Driver)
	}
	connectors, dialect, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", c.Name, err)
	}
	db := &DB{
		name: c.Name, dialect: dialect, login: connectors.login, reads: connectors.reads, maxConns: c.maxConns(),
		maxValueBytes: c.maxValueBytes(),
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

// Moved reports whether Config.Reread returns the DSN of another database than the one that is connected to, which stays
// in use.
func (db *DB) Moved() bool { return db.login.moved() }

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
