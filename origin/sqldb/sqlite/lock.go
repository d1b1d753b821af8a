package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// untilFree repeats run until no other connection blocks it.
func untilFree(ctx context.Context, run func() error) error {
	for {
		err := run()
		switch {
		case !isBusy(err): //guard:sqlite-read-fails-while-locked
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("another connection has locked the database file: %w", ctx.Err())
		}
	}
}

// patientReader is a reader that waits until no other connection locks the file. SQLite reports a lock before the first row.
type patientReader struct{ reader }

func (p patientReader) Describe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (columns []rowset.ResultColumn, err error) {
	err = untilFree(ctx, func() error {
		columns, err = p.reader.Describe(ctx, conn, q)
		return err
	})
	return columns, err
}

func (p patientReader) Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error {
	return untilFree(ctx, func() error { return p.reader.Read(ctx, conn, q, keys, set) })
}

func (p patientReader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	return untilFree(ctx, func() error { return p.reader.List(ctx, conn, q, parameters, set) })
}

// patientCatalog is a catalog that waits as patientReader does.
type patientCatalog struct{ catalog }

func (p patientCatalog) ReadTable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (table *tables.Table, err error) {
	err = untilFree(ctx, func() error {
		table, err = p.catalog.ReadTable(ctx, conn, ds)
		return err
	})
	return table, err
}
