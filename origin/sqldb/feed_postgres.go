package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// postgresLog reads by snapshots: the rows of transactions that the snapshot before did not see and this one does.
// Their numbers would not do, as they are taken in another order than transactions end in.
type postgresLog struct {
	table    string // quoted
	timeline string // of the server's history; another one may lack what this one had
	snapshot string // up to which all is read, as pg_snapshot prints it
	high     int64  // highest number in it
}

func (postgres) log(table string) changeLog { return &postgresLog{table: table} }

var errStandby = errors.New("the server is a standby, on which transactions under way can not be seen: " +
	"connect to the primary (target_session_attrs=read-write)")

// The beginning of the name of the file is the timeline (PostgreSQL, 26.3.5). A standby has none to write to.
const timelineNow = `CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END`

func (l *postgresLog) begin(ctx context.Context, conn *sql.Conn) error {
	err := limited(ctx, conn, func(rows pgx.Rows) error {
		return rows.Scan(&l.snapshot, &l.timeline, &l.high)
	}, "SELECT pg_current_snapshot()::text, "+timelineNow+", (SELECT COALESCE(max(seq), 0) FROM "+l.table+")")
	if err == nil && l.timeline == "" {
		return errStandby
	}
	return err
}

// next asks with one statement, which sees one snapshot: its own name, the bounds and the rows belong together.
// pg_visible_in_snapshot is written out, so that the index on xid is used. A number above the highest one says the same
// again, and also of a transaction whose xid was another's before the server crashed.
func (l *postgresLog) next(ctx context.Context, conn *sql.Conn, limit int) (rows []recorded, lost bool, err error) {
	const before = "$1::text::pg_snapshot"
	statement := "SELECT pg_current_snapshot()::text, pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(" +
		before + "), " + timelineNow + ", (SELECT COALESCE(min(seq), 0) FROM " + l.table + "), " +
		"(SELECT COALESCE(max(seq), 0) FROM " + l.table + "), c.* FROM (SELECT) AS now LEFT JOIN LATERAL (" +
		"SELECT " + recordedColumns + " FROM " + l.table + " WHERE xid >= pg_snapshot_xmax(" + before + ") " +
		"OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(" + before + "))) OR seq > $2 LIMIT " + strconv.Itoa(limit) + //guard:poll-goes-numbers-misses-transaction-ends guard:xid-crash-gave-out-again-passed
		") AS c ON true"
	var now, timeline string
	var rewound bool
	var b bounds
	err = limited(ctx, conn, func(result pgx.Rows) error {
		var seq, version sql.NullInt64
		var dataset, key sql.NullString
		err := result.Scan(&now, &rewound, &timeline, &b.low, &b.high, &seq, &dataset, &key, &version)
		if seq.Valid {
			rows = append(rows, recorded{seq.Int64, dataset.String, key, version.Int64})
		}
		return err
	}, statement, l.snapshot, l.high)
	if err != nil {
		return nil, false, err
	}
	lost = rewound || timeline != l.timeline || b.lost(l.high) //guard:promoted-standby-gone
	l.snapshot, l.high = now, b.high
	return rows, lost, nil
}

// limited runs a statement with a time limit in the server; both are one round trip.
func limited(ctx context.Context, conn *sql.Conn, each func(pgx.Rows) error, statement string, args ...any) error {
	return onPgx(conn, func(c *pgx.Conn) (err error) {
		batch := &pgx.Batch{}
		limit := strconv.FormatInt(serverTimeout(ctx).Milliseconds(), 10)
		batch.Queue("SELECT set_config('statement_timeout', $1, true)", limit)
		batch.Queue(statement, args...)
		results := c.SendBatch(ctx, batch)
		defer func() { err = cmp.Or(err, results.Close()) }() // which says the same again
		if _, err := results.Exec(); err != nil {
			return err
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := each(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
