package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// CheckUnique implements origin.UniqueSource. Nothing is known about the rows of a query.
func (db *DB) CheckUnique(ctx context.Context, ds origin.Dataset, limit time.Duration) error {
	if ds.Many || ds.Table == "" {
		return nil
	}
	var unique, view bool
	err := db.onConn(ctx, func(conn *sql.Conn) error {
		indexes, err := db.uniqueIndexes(ctx, conn, ds)
		unique = indexes.Cover(ds.Key)
		if err == nil && !unique {
			view, err = db.database.Catalog.IsView(ctx, conn, ds)
		}
		return err
	})
	switch {
	case err != nil || unique:
	case view:
		err = db.checkDuplicates(ctx, ds, limit)
	default:
		err = tables.NotUnique(ds, "has no unique index") //guard:key-without-unique-index
	}
	if err != nil {
		return fmt.Errorf("origin %q, dataset %q: %w", db.name, ds.Name, err)
	}
	return nil
}

func (db *DB) uniqueIndexes(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (tables.Indexes, error) {
	indexes, err := db.database.Catalog.UniqueIndexes(ctx, conn, ds)
	if err != nil {
		err = fmt.Errorf("find a unique index of table %s: %w", ds.Table, err)
	}
	return indexes, err
}

// checkDuplicates looks for a key with two rows. What it does not find within limit says nothing.
func (db *DB) checkDuplicates(ctx context.Context, ds origin.Dataset, limit time.Duration) error {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	set := rowset.New(origin.Dataset{}, db.maxValueBytes)
	err := db.onConn(short, func(conn *sql.Conn) error {
		set.Begin(nil)
		return db.database.Reader.List(short, conn, sqltext.Duplicate(ds, db.database.Syntax), nil, set)
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	if err == nil && set.Rows() > 0 { //guard:view-with-two-rows-of-a-key
		err = tables.NotUnique(ds, "has two rows of one key")
	}
	return err
}
