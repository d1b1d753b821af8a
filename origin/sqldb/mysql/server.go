package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb"
)

// server is what the statements need to know about the server.
type server struct {
	mariadb atomic.Pointer[bool] // nil before the first query
	fastest atomic.Int64         // the shortest round trip so far, in nanoseconds; 0 before the first one
}

// timed returns how long a statement takes.
func timed(run func() error) (time.Duration, error) {
	start := time.Now()
	err := run()
	return time.Since(start), err
}

// travelled records the time of a round trip.
func (s *server) travelled(d time.Duration) {
	for {
		fastest := s.fastest.Load()
		if fastest != 0 && fastest <= int64(d) || s.fastest.CompareAndSwap(fastest, max(1, int64(d))) {
			return
		}
	}
}

var selectWord = regexp.MustCompile(`(?i)^\s*SELECT\b`)

// withTimeLimit makes the database end the statement before the caller gives up: MySQL does not notice that a client is
// gone. MySQL (not MariaDB) only supports the limit in statements that begin with SELECT.
func (s *server) withTimeLimit(ctx context.Context, conn *sql.Conn, query string) (string, error) {
	mariadb, err := s.isMariaDB(ctx, conn)
	limit := sqldb.ServerTimeout(ctx)
	switch {
	case err != nil:
		return "", err
	case limit == 0:
		return query, nil
	case mariadb:
		return fmt.Sprintf("SET STATEMENT max_statement_time=%.3f FOR %s", limit.Seconds(), query), nil
	}
	hint := fmt.Sprintf("SELECT /*+ MAX_EXECUTION_TIME(%d) */", limit/time.Millisecond)
	return selectWord.ReplaceAllLiteralString(query, hint), nil
}

func (s *server) isMariaDB(ctx context.Context, conn *sql.Conn) (bool, error) {
	if known := s.mariadb.Load(); known != nil {
		return *known, nil
	}
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return false, err
	}
	mariadb := strings.Contains(version, "MariaDB")
	s.mariadb.Store(&mariadb)
	return mariadb, nil
}
