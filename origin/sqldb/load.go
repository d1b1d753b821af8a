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

// maxKeys bounds the keys of one statement: SQLite takes 32 766 parameters, MySQL 65 535, and a plan over more than
// this is slower than two.
const maxKeys = 1000

// source is the origin of one dataset.
type source struct {
	db      *DB
	dataset origin.Dataset
	query   *sqltext.Query
}

// Load implements origin.Origin.
func (s *source) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	c := rowset.New(s.dataset, s.query.Keyed, s.db.maxValueBytes, keys)
	for chunk := range slices.Chunk(c.ValidKeys(keys), s.chunk()) {
		if err := s.load(ctx, c, chunk); err != nil {
			return nil, fmt.Errorf("origin %q, dataset %q: %w", s.db.name, s.dataset.Name, err)
		}
	}
	return c.Results(keys), nil
}

func (s *source) chunk() int {
	if s.query.List {
		return maxKeys
	}
	return 1
}

// load reads keys with one statement. Where the database refuses all of them for the sake of one, it asks for each
// alone.
func (s *source) load(ctx context.Context, c *rowset.Set, keys []string) error {
	err := s.db.onConn(ctx, func(conn *sql.Conn) error {
		c.Begin(keys)
		return s.db.database.Reader.Read(ctx, conn, s.query, keys, c)
	})
	if err == nil || !s.db.database.Errors.InvalidKey(err) {
		return err
	}
	if len(keys) == 1 {
		c.Refuse(keys[0], "the database says that it is not of the key's type")
		return nil
	}
	for key := range slices.Chunk(keys, 1) {
		if err := s.load(ctx, c, key); err != nil {
			return err
		}
	}
	return nil
}
