package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"
)

// RollbackTimeout is how long a connection may take to roll back before it is dropped.
const RollbackTimeout = time.Second

// Rollback reports whether there was a transaction to end. It drops a connection that cannot end its transaction.
func Rollback(ctx context.Context, conn *sql.Conn) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RollbackTimeout)
	defer cancel()
	_, err := conn.ExecContext(ctx, "ROLLBACK")
	if err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err == nil
}
