package sqlite

import (
	"context"
	"database/sql"
	"strconv"

	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

// changeLog reads by number: SQLite has one writer at a time, so that numbers are in the order of commits.
type changeLog struct {
	table string // quoted
	high  int64  // highest number read
}

func (l *changeLog) Begin(ctx context.Context, conn *sql.Conn) error {
	b, err := changefeed.ReadBounds(ctx, conn, l.table)
	if err == nil {
		l.high = b.High
	}
	return err
}

func (l *changeLog) Next(ctx context.Context, conn *sql.Conn, limit int) (rows []changefeed.Recorded, lost bool, err error) {
	if lost, err = changefeed.LostBefore(ctx, conn, l.table, l.high, limit); lost || err != nil {
		return nil, lost, err
	}
	rows, err = changefeed.QueryRecorded(ctx, conn, "SELECT "+changefeed.RecordedColumns+" FROM "+l.table+
		" WHERE seq > ? ORDER BY seq LIMIT "+strconv.Itoa(limit), l.high)
	if err != nil {
		return nil, false, err
	}
	b, err := changefeed.ReadBounds(ctx, conn, l.table)
	if err != nil {
		return nil, false, err
	}
	lost = b.Lost(l.high)
	if len(rows) > 0 {
		l.high = rows[len(rows)-1].Seq
	}
	return rows, lost, nil
}

func (l *changeLog) Bounds(ctx context.Context, conn *sql.Conn) (changefeed.Bounds, error) {
	return changefeed.ReadBounds(ctx, conn, l.table)
}

func (l *changeLog) Mark() any { return l.high }

// Prune deletes nothing: a trigger keeps the newest rows, as only a writer may open the file for writing.
func (l *changeLog) Prune(context.Context, *sql.Conn, any, changefeed.Retention, int) (int64, error) {
	return 0, nil
}
