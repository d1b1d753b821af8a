package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

const (
	// gapGrace is how long it may take until a number that was assigned is that of a row. The transaction locks the row from
	// then on, for any time.
	gapGrace = 5 * time.Second
	// maxGaps limits the ranges of numbers that are tracked. Beyond it neighboring ranges are joined, and the rows between
	// them are reported again.
	maxGaps = 1000
	// scannedAtStart is how many numbers below the newest are searched for gaps when a feed begins. Changes of a transaction
	// that is further behind are missed.
	scannedAtStart = 100_000
	// maxProbes limits the gaps whose locks one read tests.
	maxProbes = 100
)

// changeLog reads by number, and tracks the numbers that it passed over: they belong to transactions that are still open or
// were rolled back. InnoDB does not say which transactions a snapshot sees, but a request for a lock shows whether there
// is a row that is not yet visible.
type changeLog struct {
	mysql *server
	table string // quoted
	grace time.Duration

	server string // that was read; another one may lack some of its rows
	high   int64  // highest number read
	gaps   []gap  // ascending, below high
}

// gap is a range of numbers without a visible row.
type gap struct {
	from, to int64 // inclusive
	since    time.Time
}

func (l *changeLog) Begin(ctx context.Context, conn *sql.Conn) error {
	b, err := changefeed.ReadBounds(ctx, conn, l.table)
	if err != nil {
		return err
	}
	gaps, err := l.oldGaps(ctx, conn, b.High)
	if err != nil {
		return err
	}
	server, err := serverName(ctx, conn)
	if err != nil {
		return err
	}
	l.server, l.high, l.gaps = server, b.High, joinGaps(gaps, maxGaps) //guard:earlier-transaction-missed
	return nil
}

func serverName(ctx context.Context, conn *sql.Conn) (name string, err error) {
	row := conn.QueryRowContext(ctx, "SELECT CONCAT_WS(' ', @@hostname, @@port, @@server_id)")
	return name, row.Scan(&name)
}

// oldGaps returns the numbers of transactions that may be open now.
func (l *changeLog) oldGaps(ctx context.Context, conn *sql.Conn, high int64) (gaps []gap, err error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT before_it + 1, seq - 1 FROM (SELECT seq, LAG(seq) OVER "+
		"(ORDER BY seq) AS before_it FROM %s WHERE seq BETWEEN %d AND %d) AS pairs WHERE seq > before_it + 1 ORDER BY seq",
		l.table, high-scannedAtStart, high))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		g := gap{since: time.Now()}
		if err := rows.Scan(&g.from, &g.to); err != nil {
			return nil, err
		}
		gaps = append(gaps, g)
	}
	return gaps, rows.Err()
}

func (l *changeLog) Next(ctx context.Context, conn *sql.Conn, limit int) (rows []changefeed.Recorded, lost bool, err error) {
	if lost, err = changefeed.LostBefore(ctx, conn, l.table, l.high, limit); lost || err != nil {
		return nil, lost, err
	}
	newer, err := l.query(ctx, conn, "seq > "+strconv.FormatInt(l.high, 10), limit)
	if err != nil {
		return nil, false, err
	}
	late, gaps, err := l.late(ctx, conn, limit)
	if err != nil {
		return nil, false, err
	}
	b, err := changefeed.ReadBounds(ctx, conn, l.table)
	if err != nil {
		return nil, false, err
	}
	server, err := serverName(ctx, conn)
	if err != nil {
		return nil, false, err
	}
	lost = b.Lost(l.high) || server != l.server
	for _, row := range newer {
		if row.Seq > l.high+1 {
			gaps = append(gaps, gap{l.high + 1, row.Seq - 1, time.Now()}) //guard:gap-forgotten
		}
		l.high = row.Seq
	}
	l.gaps = joinGaps(gaps, maxGaps)
	return append(newer, late...), lost, nil
}

// late returns the rows that have become visible in gaps, and what remains of the gaps.
func (l *changeLog) late(ctx context.Context, conn *sql.Conn, limit int) (rows []changefeed.Recorded, gaps []gap, err error) {
	if len(l.gaps) == 0 {
		return nil, nil, nil
	}
	ranges := make([]string, len(l.gaps))
	for i, g := range l.gaps {
		ranges[i] = g.condition()
	}
	rows, err = l.query(ctx, conn, strings.Join(ranges, " OR "), limit)
	if err != nil {
		return nil, nil, err
	}
	gaps = without(l.gaps, rows)
	found, gaps, err := l.closeGaps(ctx, conn, gaps, limit)
	return append(rows, found...), gaps, err
}

// closeGaps drops the gaps that are old and contain no locked row. The others are tested again later.
func (l *changeLog) closeGaps(ctx context.Context, conn *sql.Conn, all []gap, limit int) (rows []changefeed.Recorded, gaps []gap,
	err error,
) {
	probes := 0
	for _, g := range all {
		if time.Since(g.since) < l.grace || probes == maxProbes { //guard:gaps-of-rollbacks-kept
			gaps = append(gaps, g)
			continue
		}
		probes++
		found, err := l.probe(ctx, conn, g, limit)
		switch {
		case err != nil && !isLocked(err):
			return nil, nil, err
		case err != nil:
			gaps = append(gaps, gap{g.from, g.to, time.Now()}) //guard:locked-gap-dropped
		}
		rows = append(rows, found...)
	}
	return rows, gaps, nil
}

func (g gap) condition() string { return fmt.Sprintf("seq BETWEEN %d AND %d", g.from, g.to) }

func (l *changeLog) query(ctx context.Context, conn *sql.Conn, condition string, limit int) ([]changefeed.Recorded, error) {
	query, err := l.mysql.withTimeLimit(ctx, conn, fmt.Sprintf("SELECT %s FROM %s WHERE %s ORDER BY seq LIMIT %d",
		changefeed.RecordedColumns, l.table, condition, limit))
	if err != nil {
		return nil, err
	}
	return changefeed.QueryRecorded(ctx, conn, query)
}

// probe reads the latest rows of a gap, and fails at once if a transaction holds a lock in it.
func (l *changeLog) probe(ctx context.Context, conn *sql.Conn, g gap, limit int) ([]changefeed.Recorded, error) {
	mariadb, err := l.mysql.isMariaDB(ctx, conn)
	if err != nil {
		return nil, err
	}
	lock := "FOR SHARE NOWAIT"
	if mariadb {
		lock = "LOCK IN SHARE MODE NOWAIT"
	}
	return changefeed.QueryRecorded(ctx, conn, fmt.Sprintf("SELECT %s FROM %s WHERE %s ORDER BY seq LIMIT %d %s",
		changefeed.RecordedColumns, l.table, g.condition(), limit, lock))
}

// isLocked knows 1205, lock wait timeout, which MariaDB also returns for NOWAIT, 3572, NOWAIT of MySQL, and 1213, deadlock.
func isLocked(err error) bool {
	return slices.Contains([]uint16{1205, 3572, 1213}, errorNumber(err))
}

func (l *changeLog) Bounds(ctx context.Context, conn *sql.Conn) (changefeed.Bounds, error) {
	return changefeed.ReadBounds(ctx, conn, l.table)
}

// mark is a position: all rows up to high are read, except those in gaps.
type mark struct {
	high int64
	gaps []gap
}

func (l *changeLog) Mark() any { return mark{l.high, slices.Clone(l.gaps)} }

// maxRuns limits the statements of one Prune.
const maxRuns = 100

// Prune finds the rows by a query, which sees committed ones only, and deletes them in runs between gaps. With ORDER BY and LIMIT
// the server visits no row in or after a run that it would have to wait for, because its transaction is open.
func (l *changeLog) Prune(ctx context.Context, conn *sql.Conn, at any, r changefeed.Retention, limit int) (rows int64, err error) {
	old, err := l.old(ctx, conn, at.(mark), r, limit)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	if _, err := conn.ExecContext(ctx, "START TRANSACTION READ WRITE"); err != nil {
		return 0, err
	}
	for _, run := range old[:min(maxRuns, len(old))] {
		_, err := conn.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE seq BETWEEN %d AND %d ORDER BY seq LIMIT %d", //guard:prune-waits-for-transaction
			l.table, run.from, run.to, run.rows))
		if err != nil {
			sqldb.Rollback(ctx, conn)
			return 0, err
		}
		rows += run.rows
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return rows, err
}

// run is a range of numbers in which all rows may be deleted.
type run struct{ from, to, rows int64 }

// old returns the runs among the limit oldest rows that may be deleted.
func (l *changeLog) old(ctx context.Context, conn *sql.Conn, m mark, r changefeed.Retention, limit int) (runs []run, err error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT o.seq, o.seq < high AND (o.changed_at < NOW() - INTERVAL %[4]d SECOND OR "+
		"o.seq <= CAST(high AS SIGNED) - %[5]d) FROM (SELECT seq, changed_at FROM %[1]s WHERE seq <= %[3]d ORDER BY seq LIMIT %[2]d) AS o, "+
		"(SELECT MAX(seq) AS high FROM %[1]s) AS newest ORDER BY o.seq",
		l.table, limit, m.high, int(r.Age.Seconds()), r.Rows))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	current := false // the last of runs can be continued
	for rows.Next() {
		var seq int64
		var old bool
		if err := rows.Scan(&seq, &old); err != nil {
			return nil, err
		}
		if !old || m.hides(seq, seq) { //guard:late-change-pruned
			current = false
			continue
		}
		if !current || m.hides(runs[len(runs)-1].to, seq) {
			runs, current = append(runs, run{from: seq}), true
		}
		last := &runs[len(runs)-1]
		last.to, last.rows = seq, last.rows+1
	}
	return runs, rows.Err()
}

// hides reports whether a transaction that was open at the mark may have a number in a range.
func (m mark) hides(from, to int64) bool {
	return slices.ContainsFunc(m.gaps, func(g gap) bool { return g.from <= to && from <= g.to })
}

// without removes the numbers of rows, which ascend, from gaps.
func without(gaps []gap, rows []changefeed.Recorded) (left []gap) {
	for _, g := range gaps {
		for len(rows) > 0 && rows[0].Seq <= g.to {
			seq := rows[0].Seq
			if seq > g.from {
				left = append(left, gap{g.from, seq - 1, g.since})
			}
			g.from, rows = max(g.from, seq+1), rows[1:]
		}
		if g.from <= g.to {
			left = append(left, g)
		}
	}
	return left
}

// joinGaps joins the two gaps closest to each other, with the rows between them, until there are at most limit.
func joinGaps(gaps []gap, limit int) []gap {
	for len(gaps) > limit {
		closest := 1
		for i := 2; i < len(gaps); i++ {
			if gaps[i].from-gaps[i-1].to < gaps[closest].from-gaps[closest-1].to {
				closest = i
			}
		}
		gaps[closest-1].to, gaps[closest-1].since = gaps[closest].to, gaps[closest].since
		gaps = slices.Delete(gaps, closest, closest+1)
	}
	return gaps
}
