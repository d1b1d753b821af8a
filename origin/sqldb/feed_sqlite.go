package sqldb

import (
	"context"
	"database/sql"
	"strconv"
)

// sqliteLog reads by number: SQLite has one writer at a time, so that numbers are taken in the order of commits.
type sqliteLog struct {
	table string // quoted
	high  int64  // up to which all is read
}

func (sqlite) log(table string) changeLog { return &sqliteLog{table: table} }

func (l *sqliteLog) begin(ctx context.Context, conn *sql.Conn) error {
	b, err := readBounds(ctx, conn, l.table)
	if err == nil {
		l.high = b.high
	}
	return err
}

func (l *sqliteLog) next(ctx context.Context, conn *sql.Conn, limit int) (rows []recorded, lost bool, err error) {
	if lost, err = lostBefore(ctx, conn, l.table, l.high, limit); lost || err != nil {
		return nil, lost, err
	}
	rows, err = queryRecorded(ctx, conn, "SELECT "+recordedColumns+" FROM "+l.table+
		" WHERE seq > ? ORDER BY seq LIMIT "+strconv.Itoa(limit), l.high)
	if err != nil {
		return nil, false, err
	}
	b, err := readBounds(ctx, conn, l.table)
	if err != nil {
		return nil, false, err
	}
	lost = b.lost(l.high)
	if len(rows) > 0 {
		l.high = rows[len(rows)-1].seq
	}
	return rows, lost, nil
}
