package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/ringside-cache/ringside/origin"
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
	for chunk := range slices.Chunk(valid, s.chunk()) {
		if err := s.load(ctx, set, chunk); err != nil {
			return fmt.Errorf("origin %q, dataset %q: %w", s.db.name, s.dataset.Name, err)
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

// load reads keys with one statement. If the database rejects all of them because of one, it reads each separately.
func (s *source) load(ctx context.Context, set *rowset.Set, keys []string) error {
	err := s.db.onConn(ctx, func(conn *sql.Conn) error {
		set.Begin(keys)
		return s.db.database.Reader.Read(ctx, conn, s.query, keys, set)
	})
	if err == nil || !s.db.database.Errors.InvalidKey(err) {
		return err
	}
	if len(keys) == 1 {
		set.Reject(keys[0], "the database rejects it as a value of the key column")
		return nil
	}
	for key := range slices.Chunk(keys, 1) {
		if err := s.load(ctx, set, key); err != nil {
			return err
		}
	}
	return nil
}
