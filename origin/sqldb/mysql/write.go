package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// writer implements sqldb.Writer.
type writer struct{ *reader }

func (w writer) Use(conn *sql.Conn, use func(sqldb.WriteSession) error) error {
	return use(writeSession{w, conn})
}

// writeSession implements sqldb.WriteSession.
type writeSession struct {
	writer
	conn *sql.Conn
}

// Apply reads the row back with the query of Load: neither MySQL nor MariaDB supports UPDATE … RETURNING. The session's
// isolation level, READ COMMITTED, avoids locks on gaps between rows.
func (w writeSession) Apply(ctx context.Context, tx *rowwrite.Transaction) (keep bool, err error) {
	locked := *tx.Query
	locked.SQL += " FOR UPDATE"
	s := &rowwrite.Stepwise{Transaction: tx}
	s.Read = func(ctx context.Context) error {
		return refusal(w.read(ctx, w.conn, &locked, []string{tx.Change.Key}, tx.Rows, keepNot), tx)
	}
	s.Exec = func(ctx context.Context, step sqltext.Step) (int64, error) {
		n, took, err := w.execute(ctx, w.conn, step)
		switch {
		case errorNumber(err) == duplicateKey:
			return 0, duplicate(ctx, s, err)
		case err == nil && n > 0 && tx.Waited(step, took):
			return n, w.renew(ctx, w.conn, tx)
		}
		return n, refusal(err, tx)
	}
	s.Insert = func(ctx context.Context, step sqltext.Step) (string, error) {
		key, err := w.insert(ctx, w.conn, step, tx.Appends)
		return key, refusal(err, tx)
	}
	return s.Apply(ctx)
}

func (w writeSession) Begin(ctx context.Context) error { return w.begin(ctx, w.conn) }

func (w writeSession) Exec(ctx context.Context, statement string) error {
	_, err := w.conn.ExecContext(ctx, statement)
	return err
}

func (w writeSession) Commit(ctx context.Context) error { return commit(ctx, w.conn) }

func (w writeSession) Rollback(ctx context.Context) { sqldb.Rollback(ctx, w.conn) }

// Rehearsal runs the statements: only then does MySQL report that a server is read-only.
func (writer) Rehearsal() (begin, prefix string) { return "START TRANSACTION READ WRITE", "" }

// begin opens a transaction that may write, in a session that may not. MySQL only limits the time of SELECT; other
// statements may wait long for a lock, whose limit has whole seconds.
func (w writer) begin(ctx context.Context, conn *sql.Conn) error {
	mariadb, err := w.isMariaDB(ctx, conn)
	if limit := sqldb.ServerTimeout(ctx); err == nil && !mariadb && limit > 0 {
		_, err = conn.ExecContext(ctx, "SET SESSION innodb_lock_wait_timeout = "+
			strconv.Itoa(int(math.Ceil(limit.Seconds()))))
	}
	if err == nil {
		var trip time.Duration
		trip, err = timed(func() error { _, err := conn.ExecContext(ctx, "START TRANSACTION READ WRITE"); return err })
		if err == nil {
			w.travelled(trip)
		}
	}
	return errclass.Keyless(err)
}

// execute returns the number of matched rows, and how long the statement took in the server, at most.
func (w writer) execute(ctx context.Context, conn *sql.Conn, step sqltext.Step) (rows int64, took time.Duration, err error) {
	text, err := w.withTimeLimit(ctx, conn, step.SQL+sqltext.Comment(ctx))
	if err != nil {
		return 0, 0, err
	}
	statement, err := conn.PrepareContext(ctx, text) // as the driver would do
	if err != nil {
		return 0, 0, err
	}
	defer statement.Close() // the connection is dropped if it is broken
	var result sql.Result
	took, err = timed(func() error { result, err = statement.ExecContext(ctx, step.Values()...); return err })
	if err != nil {
		return 0, 0, err
	}
	rows, err = result.RowsAffected() // matched rows, changed or not: connect sets ClientFoundRows
	return rows, took - time.Duration(w.fastest.Load()), err
}

// insert returns the key that the server has generated for the row of a statement: the insert id of the answer to it, which no
// trigger and no other session changes, or what it returns.
func (w writer) insert(ctx context.Context, conn *sql.Conn, step sqltext.Step, g tables.Generation) (key string, err error) {
	text, err := w.withTimeLimit(ctx, conn, step.SQL+sqltext.Comment(ctx))
	if err != nil {
		return "", err
	}
	if g == tables.GeneratedReturned {
		err = conn.QueryRowContext(ctx, text, step.Values()...).Scan(&key)
		return key, err
	}
	result, err := conn.ExecContext(ctx, text, step.Values()...)
	if err != nil {
		return "", err
	}
	id, err := result.LastInsertId()
	if err != nil || id == 0 {
		return "", err
	}
	return strconv.FormatUint(uint64(id), 10), nil // a BIGINT UNSIGNED may exceed an int64
}

func (w writer) renew(ctx context.Context, conn *sql.Conn, tx *rowwrite.Transaction) error {
	n, _, err := w.execute(ctx, conn, tx.Renew())
	if err = refusal(err, tx); tx.NotRenewed(int(n), err) {
		return sqldb.ErrNotRenewed
	}
	return err
}

// duplicate distinguishes the row of the key, which may have been inserted between an UPDATE that did not match it and our
// INSERT, from another row with the same value in another unique index.
func duplicate(ctx context.Context, s *rowwrite.Stepwise, err error) error {
	if err := s.Read(ctx); err != nil {
		return err
	}
	switch {
	case !s.Transaction.Matched():
		return refusal(err, s.Transaction)
	case s.Transaction.Change.If.Absent:
		return s.Transaction.NotMatched()
	}
	return sqldb.ErrRetry
}

// commit knows the few errors after which a transaction is certainly rolled back: a deadlock (which a cluster may report
// as late as this) and a server that has become read-only.
func commit(ctx context.Context, conn *sql.Conn) error {
	if err := ctx.Err(); err != nil {
		sqldb.Rollback(ctx, conn)
		return err
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	switch {
	case err == nil, errors.Is(err, driver.ErrBadConn): // nothing was sent
		return err
	case slices.Contains([]uint16{1205, 1213, 1290, 1792, 1836, 3101}, errorNumber(err)):
		return err
	}
	return sqldb.Unknown(err) //guard:mariadb-lost-commit-answer-retried
}
