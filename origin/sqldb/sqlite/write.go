package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// writer implements sqldb.Writer.
type writer struct{}

func (writer) Write(ctx context.Context, conn *sql.Conn, tx *rowwrite.Transaction) error {
	s := &rowwrite.Stepwise{Transaction: tx, TriggersDecide: true}
	s.Begin = func(ctx context.Context) error { return begin(ctx, conn) }
	s.Exec = func(ctx context.Context, step sqltext.Step) (int64, error) {
		result, err := conn.ExecContext(ctx, step.SQL, step.Values()...)
		if err != nil {
			return 0, refusal(err)
		}
		return result.RowsAffected()
	}
	s.Insert = func(ctx context.Context, step sqltext.Step) (key string, err error) {
		err = conn.QueryRowContext(ctx, step.SQL, step.Values()...).Scan(&key)
		if errors.Is(err, sql.ErrNoRows) {
			return "", nil
		}
		return key, refusal(err)
	}
	s.Read = func(ctx context.Context) error {
		return reader{}.Read(ctx, conn, tx.Query, []string{tx.Change.Key}, tx.Rows)
	}
	s.Rollback = func(ctx context.Context) { sqldb.Rollback(ctx, conn) }
	s.Commit = func(ctx context.Context) error { return commit(ctx, conn) }
	return s.Run(ctx)
}

func (writer) Rehearsal() (begin, prefix string) { return "BEGIN IMMEDIATE", "" }

func begin(ctx context.Context, conn *sql.Conn) error {
	return untilFree(ctx, func() error {
		_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		return err
	})
}

// commit does not let the context interrupt COMMIT, which waits only for readers, in slices of busySlice. A COMMIT that
// fails leaves the transaction open: if it can be rolled back, nothing was written.
func commit(ctx context.Context, conn *sql.Conn) error {
	err := ctx.Err()
	for err == nil {
		_, err = conn.ExecContext(context.WithoutCancel(ctx), "COMMIT")
		if err == nil {
			return nil
		}
		if isBusy(err) {
			err = ctx.Err()
		}
	}
	if sqldb.Rollback(ctx, conn) {
		return refusal(err)
	}
	return sqldb.Unknown(err)
}
