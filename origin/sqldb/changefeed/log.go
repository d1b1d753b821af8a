package changefeed

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
)

// changeLog reads a table of changes, of all datasets, so that it reaches every row, even one whose transaction began
// before and ended after those of rows read long ago.
type Log interface {
	// Begin makes the present the position: Next will return what is committed later.
	Begin(ctx context.Context, conn *sql.Conn) error
	// Next returns at most limit of the rows that were committed since the position, and advances it unless it returns an
	// error. Lost means that some of the rows no longer exist.
	Next(ctx context.Context, conn *sql.Conn, limit int) (rows []Recorded, lost bool, err error)
	// Mark returns the position for Prune: the rows that Next has returned or Begin has passed over.
	Mark() any
	// Prune deletes the rows among the limit oldest that were visible at mark and that r does not keep, but never the newest.
	Prune(ctx context.Context, conn *sql.Conn, mark any, r Retention, limit int) (rows int64, err error)
	// Bounds returns the lowest and the highest number in the table.
	Bounds(ctx context.Context, conn *sql.Conn) (Bounds, error)
}

// Recorded is one row of a table of changes.
type Recorded struct {
	Seq     int64
	Dataset string
	Key     sql.NullString // NULL: any row may have changed
	Version int64
}

// RecordedColumns are the columns of a table of changes. A key that is too long for any key need not be read to its end.
var RecordedColumns = fmt.Sprintf("seq, dataset, substring(row_key, 1, %d), COALESCE(row_version, 0)", rowset.MaxKeyBytes+1)

// Bounds are the lowest and the highest number in a table of changes; both are 0 when it is empty.
type Bounds struct{ Low, High int64 }

// Lost reports whether rows above seq, the highest number read, are gone: the table was pruned beyond it, emptied, or
// created again. Pruning keeps the newest row, so that this can be detected.
func (b Bounds) Lost(seq int64) bool { return b.High < seq || b.Low > seq+1 } //guard:pruned-changes-lost

// ReadBounds queries each bound separately: SQLite scans the table for both together (optoverview.html, 16).
func ReadBounds(ctx context.Context, conn *sql.Conn, table string) (b Bounds, err error) {
	row := conn.QueryRowContext(ctx, "SELECT (SELECT COALESCE(MIN(seq), 0) FROM "+table+
		"), (SELECT COALESCE(MAX(seq), 0) FROM "+table+")")
	return b, row.Scan(&b.Low, &b.High)
}

// LostBefore reports whether reading on from seq is useless: a read that takes too long once would do so each time.
func LostBefore(ctx context.Context, conn *sql.Conn, table string, seq int64, limit int) (bool, error) {
	b, err := ReadBounds(ctx, conn, table)
	return b.Lost(seq) || b.High-seq >= int64(limit), err
}

// QueryRecorded returns the rows of a query for recordedColumns.
func QueryRecorded(ctx context.Context, conn *sql.Conn, query string, args ...any) (list []Recorded, err error) {
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Recorded
		if err := rows.Scan(&r.Seq, &r.Dataset, &r.Key, &r.Version); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}
