package changes

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
)

// changeLog reads by snapshots: the rows of transactions that the previous snapshot did not see and this one does. Numbers
// would not do, as transactions take them in another order than they commit in.
type changeLog struct {
	table    string // quoted
	timeline string // of the server's history; another timeline may lack some of its rows
	snapshot string // up to which everything is read, as pg_snapshot prints it
	high     int64  // highest number in it
}

var errStandby = errors.New("the server is a standby, on which open transactions are not visible: " +
	"connect to the primary (target_session_attrs=read-write)")

// The file name begins with the timeline (PostgreSQL, 26.3.5). A standby has no file to write to.
const timelineNow = `CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END`

func (l *changeLog) Begin(ctx context.Context, conn *sql.Conn) error {
	err := session.Query(ctx, conn, func(rows pgx.Rows) error {
		return rows.Scan(&l.snapshot, &l.timeline, &l.high)
	}, "SELECT pg_current_snapshot()::text, "+timelineNow+", (SELECT COALESCE(max(seq), 0) FROM "+l.table+")")
	if err == nil && l.timeline == "" {
		return errStandby
	}
	return err
}

// Next uses one statement, which sees one snapshot: the snapshot, the bounds and the rows belong together. The condition is
// pg_visible_in_snapshot written out, so that the index on xid is used. The condition on the number also finds a
// transaction whose xid belonged to another one before the server crashed.
func (l *changeLog) Next(ctx context.Context, conn *sql.Conn, limit int) (rows []changefeed.Recorded, lost bool, err error) {
	const before = "$1::text::pg_snapshot"
	statement := "SELECT pg_current_snapshot()::text, pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(" +
		before + "), " + timelineNow + ", (SELECT COALESCE(min(seq), 0) FROM " + l.table + "), " +
		"(SELECT COALESCE(max(seq), 0) FROM " + l.table + "), c.* FROM (SELECT) AS now LEFT JOIN LATERAL (" +
		"SELECT " + changefeed.RecordedColumns + " FROM " + l.table + " WHERE xid >= pg_snapshot_xmax(" + before + ") " +
		"OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(" + before + "))) OR seq > $2 LIMIT " + strconv.Itoa(limit) + //guard:overlapping-transaction-missed guard:reused-xid-missed
		") AS c ON true"
	var now, timeline string
	var rewound bool
	var b changefeed.Bounds
	err = session.Query(ctx, conn, func(result pgx.Rows) error {
		var seq, version sql.NullInt64
		var dataset, key sql.NullString
		err := result.Scan(&now, &rewound, &timeline, &b.Low, &b.High, &seq, &dataset, &key, &version)
		if seq.Valid {
			rows = append(rows, changefeed.Recorded{Seq: seq.Int64, Dataset: dataset.String, Key: key, Version: version.Int64})
		}
		return err
	}, statement, l.snapshot, l.high)
	if err != nil {
		return nil, false, err
	}
	lost = rewound || timeline != l.timeline || b.Lost(l.high) //guard:promoted-standby-not-noticed
	l.snapshot, l.high = now, b.High
	return rows, lost, nil
}

func (l *changeLog) Bounds(ctx context.Context, conn *sql.Conn) (b changefeed.Bounds, err error) {
	err = session.Query(ctx, conn, func(rows pgx.Rows) error { return rows.Scan(&b.Low, &b.High) },
		"SELECT (SELECT COALESCE(min(seq), 0) FROM "+l.table+"), (SELECT COALESCE(max(seq), 0) FROM "+l.table+")")
	return b, err
}

// Mark returns the snapshot up to which everything is read.
func (l *changeLog) Mark() any { return l.snapshot }

// Prune opens a transaction that may write, in a session that may not.
func (l *changeLog) Prune(ctx context.Context, conn *sql.Conn, mark any, r changefeed.Retention, limit int) (n int64, err error) {
	statement := fmt.Sprintf("DELETE FROM %[1]s WHERE seq = ANY (ARRAY(SELECT o.seq FROM (SELECT seq, xid, changed_at FROM %[1]s "+
		"ORDER BY seq LIMIT %[2]d) AS o, (SELECT max(seq) AS high FROM %[1]s) AS newest WHERE o.seq < high AND "+
		"pg_visible_in_snapshot(o.xid, $1::text::pg_snapshot) AND "+
		"(o.changed_at < now() - interval '%[3]d milliseconds' OR o.seq <= high - %[4]d)))", l.table, limit, r.Age.Milliseconds(), r.Rows)
	err = session.Use(conn, func(c *pgx.Conn) error {
		n, err = deleteRows(ctx, c.PgConn(), statement, mark.(string))
		return err
	})
	return n, err
}

func deleteRows(ctx context.Context, conn *pgconn.PgConn, statement, snapshot string) (rows int64, err error) {
	batch := &pgconn.Batch{}
	session.Of(conn).AddBegin(ctx, batch)
	batch.ExecParams(statement, [][]byte{[]byte(snapshot)}, nil, nil, nil)
	batch.ExecParams("COMMIT", nil, nil, nil, nil)
	results, err := conn.ExecBatch(ctx, batch).ReadAll()
	if err != nil && !conn.IsClosed() {
		_, end := conn.Exec(ctx, "ROLLBACK").ReadAll()
		return 0, errors.Join(err, end)
	}
	for _, r := range results {
		if r.CommandTag.Delete() {
			rows = r.CommandTag.RowsAffected()
		}
	}
	return rows, session.WantResults(len(results), 4, err)
}
