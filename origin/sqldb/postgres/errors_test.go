package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
)

// PgBouncer ends a session with 08P01 if it has lost the server's. The same code while connecting says that the pooler does
// not serve this database or account.
func TestProtocolViolationBreaksOnlyAnOpenConnection(t *testing.T) {
	lost := &pgconn.PgError{Severity: "FATAL", Code: "08P01"}
	if got := (errorClasses{}).Class(lost); got != errclass.Broken {
		t.Errorf("on an open connection: class %v", got)
	}
	if got := (errorClasses{}).Class(errors.Join(&pgconn.ConnectError{}, lost)); got != errclass.Origin {
		t.Errorf("while connecting: class %v", got)
	}
}
