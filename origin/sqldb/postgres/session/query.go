package session

import (
	"cmp"
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
)

// Use calls read with the connection of pgx. It reports it as broken if it ended without an error of the server.
func Use(conn *sql.Conn, read func(*pgx.Conn) error) error {
	return conn.Raw(func(raw any) error {
		c := raw.(*stdlib.Conn).Conn()
		err := read(c)
		if err != nil && c.IsClosed() && SQLState(err) == "" {
			return errclass.DropConn(err)
		}
		return err
	})
}

// Query runs a statement with the settings, in one round trip, and calls each for each row.
func Query(ctx context.Context, conn *sql.Conn, each func(pgx.Rows) error, statement string, args ...any) error {
	return Use(conn, func(c *pgx.Conn) error { return QueryConn(ctx, c, each, statement, args...) })
}

// QueryConn is Query for a connection that Use has passed.
func QueryConn(ctx context.Context, c *pgx.Conn, each func(pgx.Rows) error, statement string, args ...any) (err error) {
	batch := &pgx.Batch{}
	batch.Queue(Of(c.PgConn()).settings.read, string(limitOf(ctx)))
	batch.Queue(statement, args...)
	results := c.SendBatch(ctx, batch)
	defer func() { err = cmp.Or(err, results.Close()) }() // Close returns the same error
	if err := CheckSettings(results.Exec()); err != nil {
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	if len(rows.FieldDescriptions()) == 0 {
		rows.Close()
		return cmp.Or(rows.Err(), ErrOutOfStep)
	}
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// SQLState returns the code of an error of the server; nothing for other errors.
func SQLState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}
