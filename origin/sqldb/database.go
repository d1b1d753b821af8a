package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Driver is an origin.Driver of one kind of database.
type Driver struct {
	Kind  string   // the name of the driver
	Feeds []string // the kinds of change feeds
	// Connect checks the DSN and returns how to use the database, without connecting. Its errors contain no part of the
	// DSN, not even what the driver says about it: drivers quote the DSN with the password.
	Connect func(origin.SourceConfig) (*Database, error)
	// Unencrypted implements origin.ClearTextDriver; nil for a database without passwords.
	Unencrypted func(dsn string, isLocal func(host string) bool) string
}

// ClearText implements origin.ClearTextDriver.
func (d Driver) ClearText(dsn string, isLocal func(host string) bool) string {
	if d.Unencrypted == nil {
		return ""
	}
	return d.Unencrypted(dsn, isLocal)
}

// Name implements origin.Driver.
func (d Driver) Name() string { return d.Kind }

// FeedKinds implements origin.Driver.
func (d Driver) FeedKinds() []string { return d.Feeds }

// Open implements origin.Driver.
func (d Driver) Open(c origin.SourceConfig) (origin.Source, error) {
	db, err := Open(d, c)
	if err != nil {
		return nil, err // not a nil *DB
	}
	return db, nil
}

// Database is everything in which one kind of database differs from the others.
type Database struct {
	// Reads makes the connections that read; they cannot write outside of an explicit read-write transaction. Writes makes the one
	// connection that writes, if those of Reads cannot; otherwise it is nil.
	Reads, Writes driver.Connector
	ReadsOnly     error        // why this DSN cannot be that of a writable dataset; nil if it can
	Credentials   *Credentials // of both
	// Target identifies what new connections would lead to, or says why there is nothing; nil if only the server knows.
	Target func() (string, error)
	// IsReadOnly reports whether the server accepts no writes, so that a pool can be replaced after a failover; nil if the
	// database has no servers.
	IsReadOnly func(ctx context.Context, conn *sql.Conn) (bool, error)

	Syntax   sqltext.Syntax
	Reader   Reader
	Catalog  Catalog
	Writer   Writer
	Errors   ErrorClasses
	Triggers changefeed.Triggers
	// IntegerTimes says that columns of times may hold integers (origin.Dataset).
	IntegerTimes bool
	// Notify returns the feed of origin.FeedNotify; nil if the database has no notifications.
	Notify func(changefeed.NotifyConfig) changefeed.Feed
	// Logical has the feeds of origin.FeedLogical; nil if the database has none.
	Logical changefeed.Logical
}

// Reader runs the statements that read.
type Reader interface {
	// Describe returns the columns of a query without reading its rows.
	Describe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) ([]rowset.ResultColumn, error)
	// Read runs a query for keys and adds its rows to set.
	Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error
	// Probe runs a query for the key NULL, which no row has, and returns its error.
	Probe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) error
	// List runs a query whose first column is the key, and adds its rows to set.
	List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error
	// ListKeys runs a query without parameters, and passes on its rows, as the database prints them, until yield returns false.
	// A row with NULL has no key.
	ListKeys(ctx context.Context, conn *sql.Conn, text string, yield rowset.YieldKey) error
}

// Catalog reads the database's catalog.
type Catalog interface {
	// ReadTable returns the columns of a dataset's table and the type of its key column. A table that does not exist, or that
	// the account may not see, has no columns.
	ReadTable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (*tables.Table, error)
	// UniqueIndexes returns the unique indexes of a dataset's table.
	UniqueIndexes(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (tables.Indexes, error)
	// IsView reports whether the table of a dataset is a view, or something else that has no indexes of its own.
	IsView(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (bool, error)
	// CheckWritable returns why the rows of a table with a unique key cannot be written safely.
	CheckWritable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error
}

// Writer runs write transactions.
type Writer interface {
	// Use calls use with a session on conn, and returns its error.
	Use(conn *sql.Conn, use func(WriteSession) error) error
	// Rehearsal returns the statement that begins a transaction which will be rolled back, and the prefix of a statement
	// that makes the database check it there.
	Rehearsal() (begin, prefix string)
}

// WriteSession runs one write transaction.
type WriteSession interface {
	// Begin begins the transaction, perhaps with the first statement only.
	Begin(ctx context.Context) error
	// Apply makes a change, and reports whether to keep it. Without an error it may be that there is nothing to keep.
	Apply(ctx context.Context, tx *rowwrite.Transaction) (keep bool, err error)
	// Exec runs a statement without result, such as SAVEPOINT.
	Exec(ctx context.Context, statement string) error
	// Commit ends the transaction. An error that wraps origin.ErrUnknown means that COMMIT was sent. All other errors mean that
	// nothing was written.
	Commit(ctx context.Context) error
	// Rollback ends the transaction without changes. It makes conn usable again, or drops it.
	Rollback(ctx context.Context)
}

// Pipelined is a WriteSession that can send statements before the results of earlier ones arrive.
type Pipelined interface {
	// Send begins the transaction with the statements of several changes, at least one, in few round trips; Apply then returns the
	// outcome of each. An error is that of one of the changes, or of the session.
	Send(ctx context.Context, txs []*rowwrite.Transaction) error
}

// ErrorClasses classifies the database's errors.
type ErrorClasses interface {
	// Class returns the class of an error that the driver has returned.
	Class(err error) errclass.Class
	// Code returns the error's code with its kind, such as "SQLSTATE 22P02"; it contains no value of any row.
	Code(err error) string
}
