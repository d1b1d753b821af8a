package session

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

const (
	// maxKept is how many statements a connection keeps prepared. A server allows 16 382 for all its clients, unless
	// max_prepared_stmt_count says otherwise: 4000 connections, of as many as 1000 sidecars.
	maxKept = 4
	// maxKeptParameters limits the parameters of a statement that is kept, for which the server holds memory. One with more
	// takes much longer than a round trip.
	maxKeptParameters = 64
	// keepsNothing is how long no statement is kept after the server had too many.
	keepsNothing = time.Minute
)

const tooManyPrepared = 1461

// preparing is a connection of the driver.
type preparing interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// prepared is a statement of the driver.
type prepared interface {
	driver.Stmt
	driver.NamedValueChecker
	driver.StmtQueryContext
}

type keep struct{}

// Keep returns a context in which a statement that reads stays prepared for the next use of the connection with the same types of
// parameters. Others are closed after use.
func Keep(ctx context.Context, types string) context.Context {
	return context.WithValue(ctx, keep{}, types)
}

// conn is a connection that keeps the statements of loads that it used last: to prepare one takes a round trip. The server prepares
// a statement again when a table has changed.
type conn struct {
	preparing
	kept []*statement  // not in use; the one that was used last is the last
	full *atomic.Int64 // of the connector: when the server had too many statements, in nanoseconds since 1970
}

// statement returns to its connection when it is closed.
type statement struct {
	prepared
	conn        *conn
	text, types string
	used        bool // before
	failed      bool
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *conn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	types, ok := ctx.Value(keep{}).(string)
	if !ok {
		return c.prepare(ctx, text)
	}
	if i := slices.IndexFunc(c.kept, func(s *statement) bool { return s.text == text && s.types == types }); i >= 0 {
		s := c.kept[i]
		c.kept = slices.Delete(c.kept, i, i+1)
		s.used = true
		return s, nil
	}
	s, err := c.prepare(ctx, text)
	if err != nil {
		return nil, err
	}
	return &statement{prepared: s.(prepared), conn: c, text: text, types: types}, nil
}

func (c *conn) prepare(ctx context.Context, text string) (driver.Stmt, error) {
	s, err := c.preparing.PrepareContext(ctx, text)
	if e, ok := errors.AsType[*mysqldriver.MySQLError](err); ok && e.Number == tooManyPrepared {
		c.full.Store(time.Now().UnixNano())
		if c.release(0) {
			s, err = c.preparing.PrepareContext(ctx, text) //guard:mysql-kept-statements-use-up-the-last
		}
	}
	return s, err
}

// release closes all but the last n of the kept statements, for which the server sends no answer, and reports whether there was one.
func (c *conn) release(n int) bool {
	old := max(0, len(c.kept)-n)
	for _, s := range c.kept[:old] {
		_ = s.prepared.Close() // fails only if the connection is broken
	}
	c.kept = slices.Delete(c.kept, 0, old)
	return old > 0
}

// ResetSession implements driver.SessionResetter.
func (c *conn) ResetSession(ctx context.Context) error {
	if len(c.kept) > 0 && c.isFull() {
		c.release(0)
	}
	return c.preparing.ResetSession(ctx)
}

func (c *conn) isFull() bool {
	return time.Since(time.Unix(0, c.full.Load())) < keepsNothing
}

// Close implements driver.Stmt.
func (s *statement) Close() error {
	if s.failed || s.NumInput() > maxKeptParameters || s.conn.isFull() { //guard:mysql-statements-kept-on-a-full-server
		return s.prepared.Close()
	}
	s.conn.kept = append(s.conn.kept, s)
	s.conn.release(maxKept) //guard:mysql-statements-kept-without-limit
	return nil
}

// QueryContext implements driver.StmtQueryContext. A server converts parameters to the types that columns had when the statement was
// prepared, before it finds out that these have changed: a statement that was used before is prepared again for a second attempt.
func (s *statement) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.prepared.QueryContext(ctx, args)
	if s.used && isRejection(err) { //guard:mysql-statement-of-former-types-fails
		_ = s.prepared.Close() // fails only if the connection is broken
		again, err := s.conn.prepare(ctx, s.text)
		if err != nil {
			return nil, err
		}
		s.prepared, s.used = again.(prepared), false
		return s.QueryContext(ctx, args)
	}
	s.failed = s.failed || err != nil
	return rows, err
}

// timeLimits are the numbers of errors after which a second attempt would take as long again.
var timeLimits = []uint16{1205, 1317, 1969, 3024}

// isRejection reports whether the server has rejected a statement at once.
func isRejection(err error) bool {
	e, ok := errors.AsType[*mysqldriver.MySQLError](err)
	return ok && !slices.Contains(timeLimits, e.Number)
}
