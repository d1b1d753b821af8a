package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/ringside-cache/ringside/origin"
)

// maxKeys bounds the keys of one statement: SQLite takes 32 766 parameters, MySQL 65 535, and a plan over more than
// this is slower than two.
const maxKeys = 1000

// source is the origin of one dataset.
type source struct {
	db        *DB
	dataset   origin.Dataset
	statement *statement
}

// Load implements origin.Origin.
func (s *source) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	c := newCollector(s.dataset, s.statement.keyed, s.db.maxValueBytes, keys)
	for chunk := range slices.Chunk(c.askable(keys), s.chunk()) {
		if err := s.load(ctx, c, chunk); err != nil {
			return nil, fmt.Errorf("origin %q, dataset %q: %w", s.db.name, s.dataset.Name, err)
		}
	}
	return c.answer(keys), nil
}

func (s *source) chunk() int {
	if s.statement.list {
		return maxKeys
	}
	return 1
}

// load reads keys with one statement. Where the database refuses all of them for the sake of one, it asks for each
// alone.
func (s *source) load(ctx context.Context, c *collector, keys []string) error {
	err := s.db.onConn(ctx, func(conn *sql.Conn) error {
		c.begin(keys)
		return s.db.dialect.read(ctx, conn, s.statement, keys, c)
	})
	if err == nil || !s.db.dialect.badKey(err) {
		return err
	}
	if len(keys) == 1 {
		c.refuse(keys[0], "the database says that it is not of the key's type")
		return nil
	}
	for key := range slices.Chunk(keys, 1) {
		if err := s.load(ctx, c, key); err != nil {
			return err
		}
	}
	return nil
}
