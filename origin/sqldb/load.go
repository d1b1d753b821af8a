package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// maxKeys limits the keys of one statement: SQLite accepts 32 766 parameters, MySQL 65 535, and a plan over more keys than
// this is slower than two plans.
const maxKeys = 1000

// source is the origin of one dataset.
type source struct {
	db      *DB
	dataset origin.Dataset
	query   *sqltext.Query
	worked  atomic.Int64 // when the query last succeeded, in nanoseconds since 1970
}

// Load implements origin.Origin.
func (s *source) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, s, keys)
}

// LoadEach implements origin.Streamer.
func (s *source) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	at := make(map[string]int, len(keys)) // :: key → index in keys
	for i, key := range keys {
		at[key] = i
	}
	set := rowset.New(s.dataset, s.db.maxValueBytes)
	set.DeliverTo(func(key string, r origin.Result) {
		if i, ok := at[key]; ok { // the database may consider other keys equal to those requested
			yield(i, r)
		}
	})
	valid := set.ValidKeys(keys)
	set.Deliver(keys) // the others
	ctx = s.db.commented(ctx)
	for chunk := range slices.Chunk(valid, s.chunk()) {
		if err := s.load(ctx, set, chunk); err != nil {
			return fmt.Errorf("origin %q: %w", s.db.name, withAdvice(err))
		}
		set.Deliver(chunk)
	}
	return nil
}

// chunk is how many keys one statement reads.
func (s *source) chunk() int {
	if s.query.List {
		return maxKeys
	}
	return 1
}

// load reads keys with one statement. If the database rejects it because of a key, or the rows are too many to be held, the halves are read separately: one such
// key among n costs at most 2·log2(n) more statements.
func (s *source) load(ctx context.Context, set *rowset.Set, keys []string) error {
	err := s.read(ctx, set, keys)
	if err == nil || !set.Full() && !s.db.classOf(err).OfKeys() {
		return err
	}
	if half := len(keys) / 2; half > 0 {
		if err := s.load(ctx, set, keys[:half]); err != nil {
			return err
		}
		return s.load(ctx, set, keys[half:])
	}
	if err := s.checkWorks(ctx); err != nil {
		return err
	}
	s.reject(set, keys[0], err)
	return nil
}

func (s *source) read(ctx context.Context, set *rowset.Set, keys []string) error {
	err := s.db.onConn(ctx, func(conn *sql.Conn) error {
		set.Begin(keys)
		return s.db.database.Reader.Read(ctx, conn, s.query, keys, set)
	})
	if err == nil && set.Full() {
		return errFull
	}
	if err == nil {
		set.Deliver(keys)
		s.worked.Store(time.Now().UnixNano())
	}
	return err
}

// errFull makes load read the keys in halves.
var errFull = errors.New("the rows of the statement are too large together")

// reject makes err, without the database's message, which may contain values of rows, the result of a key.
func (s *source) reject(set *rowset.Set, key string, err error) {
	code := s.db.database.Errors.Code(err)
	if s.db.classOf(err) == errclass.Row {
		set.Fail(key, fmt.Errorf("the database cannot read the row (%s): check the database for damage", code))
		return
	}
	set.Reject(key, "the database rejects the query for this key ("+code+")")
}

// worksFor is how long a query that has succeeded is known to work: callers with keys that the database rejects must not
// double the statements.
const worksFor = time.Second

// checkWorks returns an error if the query fails for every key: then it must not be attributed to a key.
func (s *source) checkWorks(ctx context.Context) error {
	if time.Since(time.Unix(0, s.worked.Load())) < worksFor {
		return nil
	}
	err := s.db.onConn(ctx, func(conn *sql.Conn) error { return s.db.database.Reader.Probe(ctx, conn, s.query) })
	if err != nil {
		return fmt.Errorf("the query fails for every key: %w", errclass.Keyless(err)) //guard:broken-query-blamed-on-key
	}
	s.worked.Store(time.Now().UnixNano())
	return nil
}
