package session

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
)

// ErrOutOfStep is the error of a connection on which results arrive that are not those of the statements that were sent. They are
// those of other statements, perhaps of another client of a pooler: nothing that arrives later can be trusted either.
var ErrOutOfStep = errclass.DropConn(errors.New("the server, or a pooler in front of it, has not sent the results of the statements " +
	"of this connection: the connection is dropped"))

// WantResults checks the number of results that statements have had; err is their error.
func WantResults(got, want int, err error) error {
	if err == nil && got != want {
		return ErrOutOfStep
	}
	return err
}

// OnlyRow returns the row of a result that has one; otherwise nil.
func OnlyRow(r *pgconn.Result) [][]byte {
	if len(r.Rows) != 1 {
		return nil
	}
	return r.Rows[0]
}

// CheckSettings checks the tag of the result of the settings, which has one row; err is their error.
func CheckSettings(tag pgconn.CommandTag, err error) error {
	if err == nil && (!tag.Select() || tag.RowsAffected() != 1) { //guard:result-of-another-statement-read
		return ErrOutOfStep
	}
	return err
}

// CheckSettings reads the result of AddSettings.
func (s *Session) CheckSettings(rows *pgconn.ResultReader) error {
	kept := true
	for rows.NextRow() {
		kept = string(rows.Values()[0]) == "t"
	}
	err := CheckSettings(rows.Close())
	if err == nil && s.verifies && !kept { //guard:session-without-its-settings-is-read
		s.settings.changed.Store(true)
		return errSettingsChanged
	}
	return err
}

var errSettingsChanged = errclass.DropConn(errors.New("something has changed the settings of the session: the connection is dropped"))
