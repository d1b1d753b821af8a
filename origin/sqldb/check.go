package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Check implements origin.Source. It prepares the queries of the dataset. MySQL and SQLite run them, for the key "0", as they
// report the columns only then.
func (db *DB) Check(ctx context.Context, ds origin.Dataset) error {
	if _, err := db.source(ds); err != nil {
		return err
	}
	err := db.onConn(ctx, func(conn *sql.Conn) error {
		if ds.Table != "" {
			return db.checkTable(ctx, conn, ds)
		}
		return db.checkQueries(ctx, conn, ds)
	})
	if err != nil {
		return fmt.Errorf("origin %q, dataset %q: %w", db.name, ds.Name, withAdvice(err))
	}
	return nil
}

// checkTable reads the columns before it prepares the query, so that it can name every missing column.
func (db *DB) checkTable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error {
	t, err := db.database.Catalog.ReadTable(ctx, conn, ds)
	if err == nil && len(t.Columns) == 0 {
		err = tables.ErrNoTable
	}
	if err != nil {
		return &origin.FieldError{Field: "table", Err: fmt.Errorf("%s: %w", ds.Table, err)}
	}
	if err := t.CheckNames(ds); err != nil {
		return fmt.Errorf("table %s: %w", ds.Table, err)
	}
	return db.checkQuery(ctx, conn, ds, sqltext.Load(ds, db.database.Syntax))
}

func (db *DB) checkQueries(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error {
	single := ds
	single.Batch = ""
	if err := db.checkQuery(ctx, conn, ds, sqltext.Load(single, db.database.Syntax)); err != nil {
		return &origin.FieldError{Field: "query", Err: err}
	}
	if ds.Batch == "" {
		return nil
	}
	if err := db.checkQuery(ctx, conn, ds, sqltext.Load(ds, db.database.Syntax)); err != nil {
		return &origin.FieldError{Field: "batch", Err: err}
	}
	return nil
}

func (db *DB) checkQuery(ctx context.Context, conn *sql.Conn, ds origin.Dataset, q *sqltext.Query) error {
	columns, err := db.database.Reader.Describe(ctx, conn, q)
	if err != nil {
		return err
	}
	names := make([]string, len(columns))
	for i, column := range columns {
		names[i] = column.Name
	}
	set := rowset.New(ds, db.maxValueBytes)
	result, err := set.ColumnsOfResult(q, names)
	if err != nil {
		return err
	}
	if columns = columns[result.Skip:]; len(columns) == 0 {
		return errors.New("it has no columns besides the key")
	}
	if set.VersionIndex >= 0 && !columns[set.VersionIndex].Integer {
		err := fmt.Errorf("column %q is not an integer: use one that grows by one with each write", ds.Version)
		return &origin.FieldError{Field: "version", Err: err}
	}
	return nil
}
