package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// gapGrace is how long a number that was passed over may take to be the number of a row. From its first moment on
	// that row is locked by its transaction, which may then take any time.
	gapGrace = 5 * time.Second
	// maxGaps bounds the ranges of numbers that are watched. Beyond it neighbours become one, whose rows are told again.
	maxGaps = 1000
	// watchedAtStart is how many numbers below the newest are looked through for gaps when a feed begins. A transaction
	// that is further behind then is not heard of.
	watchedAtStart = 100_000
	// maxProbes bounds the gaps that one read asks the locks of.
	maxProbes = 100
)

// mysqlLog reads by number, and watches the numbers that it passed over: they are those of transactions under way, or
// of ones that were rolled back. InnoDB does not say which transactions a snapshot sees, but who asks for a lock learns
// whether there is a row that nobody can see yet.
type mysqlLog struct {
	mysql *mysql
	table string // quoted
	grace time.Duration

	server string // that was read from; another one may lack what this one had
	high   int64  // highest number read
	gaps   []gap  // ascending, below high
}

// gap is a range of numbers of which no row was seen.
type gap struct {
	from, to int64 // both are in it
	since    time.Time
}

func (m *mysql) log(table string) changeLog {
	return &mysqlLog{mysql: m, table: table, grace: gapGrace}
}

func (l *mysqlLog) begin(ctx context.Context, conn *sql.Conn) error {
	b, err := readBounds(ctx, conn, l.table)
	if err != nil {
		return err
	}
	gaps, err := l.oldGaps(ctx, conn, b.high)
	if err != nil {
		return err
	}
	server, err := serverName(ctx, conn)
	if err != nil {
		return err
	}
	l.server, l.high, l.gaps = server, b.high, joinGaps(gaps, maxGaps) //guard:transaction-from-before-feed-began-missed
	return nil
}

func serverName(ctx context.Context, conn *sql.Conn) (name string, err error) {
	row := conn.QueryRowContext(ctx, "SELECT CONCAT_WS(' ', @@hostname, @@port, @@server_id)")
	return name, row.Scan(&name)
}

// oldGaps finds what may be under way now.
func (l *mysqlLog) oldGaps(ctx context.Context, conn *sql.Conn, high int64) (gaps []gap, err error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT before_it + 1, seq - 1 FROM (SELECT seq, LAG(seq) OVER "+
		"(ORDER BY seq) AS before_it FROM %s WHERE seq BETWEEN %d AND %d) AS pairs WHERE seq > before_it + 1 ORDER BY seq",
		l.table, high-watchedAtStart, high))
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

func (l *mysqlLog) next(ctx context.Context, conn *sql.Conn, limit int) (rows []recorded, lost bool, err error) {
	if lost, err = lostBefore(ctx, conn, l.table, l.high, limit); lost || err != nil {
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
	b, err := readBounds(ctx, conn, l.table)
	if err != nil {
		return nil, false, err
	}
	server, err := serverName(ctx, conn)
	if err != nil {
		return nil, false, err
	}
	lost = b.lost(l.high) || server != l.server
	for _, row := range newer {
		if row.seq > l.high+1 {
			gaps = append(gaps, gap{l.high + 1, row.seq - 1, time.Now()}) //guard:number-passed-over-forgotten
		}
		l.high = row.seq
	}
	l.gaps = joinGaps(gaps, maxGaps)
	return append(newer, late...), lost, nil
}

// late reads the rows that have come up in gaps, and returns what remains of the gaps.
func (l *mysqlLog) late(ctx context.Context, conn *sql.Conn, limit int) (rows []recorded, gaps []gap, err error) {
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
	settled, gaps, err := l.settle(ctx, conn, gaps, limit)
	return append(rows, settled...), gaps, err
}

// settle gives up the gaps that are old and hold no row under way. Those that do are asked again later.
func (l *mysqlLog) settle(ctx context.Context, conn *sql.Conn, all []gap, limit int) (rows []recorded, gaps []gap,
	err error,
) {
	probes := 0
	for _, g := range all {
		if time.Since(g.since) < l.grace || probes == maxProbes { //guard:gaps-rolled-back-transactions-stay-ever
			gaps = append(gaps, g)
			continue
		}
		probes++
		found, err := l.probe(ctx, conn, g, limit)
		switch {
		case err != nil && !lockedBySomebody(err):
			return nil, nil, err
		case err != nil:
			gaps = append(gaps, gap{g.from, g.to, time.Now()}) //guard:gap-given-up-while-row-under
		}
		rows = append(rows, found...)
	}
	return rows, gaps, nil
}

func (g gap) condition() string { return fmt.Sprintf("seq BETWEEN %d AND %d", g.from, g.to) }

func (l *mysqlLog) query(ctx context.Context, conn *sql.Conn, condition string, limit int) ([]recorded, error) {
	query, err := l.mysql.withTimeLimit(ctx, conn, fmt.Sprintf("SELECT %s FROM %s WHERE %s ORDER BY seq LIMIT %d",
		recordedColumns, l.table, condition, limit))
	if err != nil {
		return nil, err
	}
	return queryRecorded(ctx, conn, query)
}

// probe reads the rows of a gap as they will be, and fails at once where somebody is at it.
func (l *mysqlLog) probe(ctx context.Context, conn *sql.Conn, g gap, limit int) ([]recorded, error) {
	mariadb, err := l.mysql.isMariaDB(ctx, conn)
	if err != nil {
		return nil, err
	}
	lock := "FOR SHARE NOWAIT"
	if mariadb {
		lock = "LOCK IN SHARE MODE NOWAIT"
	}
	return queryRecorded(ctx, conn, fmt.Sprintf("SELECT %s FROM %s WHERE %s ORDER BY seq LIMIT %d %s",
		recordedColumns, l.table, g.condition(), limit, lock))
}

// lockedBySomebody knows 1205, lock wait timeout, which MariaDB says of NOWAIT too, 3572, NOWAIT of MySQL, and 1213,
// deadlock.
func lockedBySomebody(err error) bool {
	return slices.Contains([]uint16{1205, 3572, 1213}, errorNumber(err))
}

// without takes the numbers of rows, which ascend, out of gaps.
func without(gaps []gap, rows []recorded) (left []gap) {
	for _, g := range gaps {
		for len(rows) > 0 && rows[0].seq <= g.to {
			seq := rows[0].seq
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

// joinGaps makes of the two that are next to each other one, with the rows between them, until there are at most limit.
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
