package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// reader implements sqldb.Reader.
type reader struct{}

func (reader) Describe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (columns []rowset.ResultColumn, err error) {
	err = session.Use(conn, func(c *pgx.Conn) error {
		sd, err := session.Of(c.PgConn()).Statement(ctx, c.PgConn(), q.SQL)
		if err != nil {
			return err
		}
		for _, field := range sd.Fields {
			columns = append(columns, rowset.ResultColumn{Name: field.Name, Integer: isInteger(field.DataTypeOID)})
		}
		return checkReadOnly(ctx, c.PgConn(), sd)
	})
	return columns, err
}

// checkReadOnly runs a statement for the key NULL: PostgreSQL only then reports that it writes. Other errors are about that
// key.
func checkReadOnly(ctx context.Context, conn *pgconn.PgConn, sd *pgconn.StatementDescription) error {
	err := execWithNull(ctx, conn, sd)
	//guard:check-accepts-writing-query
	if session.SQLState(err) == "25006" { // read-only transaction
		return fmt.Errorf("it writes, but a read must not: %w", err)
	}
	if (errorClasses{}).Class(err) == errclass.Denied { //guard:check-accepts-unreadable-table
		return err
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return nil
	}
	return err
}

func isInteger(oid uint32) bool {
	return oid == pgtype.Int8OID || oid == pgtype.Int4OID || oid == pgtype.Int2OID
}

func (reader) Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error {
	if len(keys) == 1 && q.One != nil { //guard:one-key-is-planned-for-each-load
		q = q.One
	}
	return session.Use(conn, func(c *pgx.Conn) error {
		conn := c.PgConn()
		sd, err := session.Of(conn).StatementFor(ctx, conn, q.SQL, func(oids []uint32) bool {
			return len(oids) != q.Width() || keyTypesOf(oids).Fit(keys, q.Key)
		})
		if err != nil {
			return err
		}
		if len(sd.ParamOIDs) != q.Width() {
			return fmt.Errorf("the statement has %d parameters: it must have one for each column of the key, $1 to $%d",
				len(sd.ParamOIDs), q.Width())
		}
		keys, _ := set.OfType(keyTypesOf(sd.ParamOIDs), keys)
		if len(keys) == 0 {
			return nil
		}
		if err = readKeys(ctx, conn, q, sd, keys, set); err != nil {
			session.Of(conn).Failed(q.SQL, err)
		}
		return err
	})
}

// Probe runs a query for the key NULL.
func (reader) Probe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) error {
	return session.Use(conn, func(c *pgx.Conn) error {
		sd, err := session.Of(c.PgConn()).Statement(ctx, c.PgConn(), q.SQL)
		if err != nil {
			return err
		}
		return execWithNull(ctx, c.PgConn(), sd)
	})
}

func execWithNull(ctx context.Context, conn *pgconn.PgConn, sd *pgconn.StatementDescription) error {
	batch := &pgconn.Batch{}
	session.Of(conn).AddSettings(ctx, batch)
	session.AddStatement(batch, sd, make([][]byte, len(sd.ParamOIDs))...)
	n, results := 0, conn.ExecBatch(ctx, batch)
	for ; results.NextResult(); n++ {
		_, _ = results.ResultReader().Close() // the reader of all results returns the same error
	}
	return session.WantResults(n, 2, results.Close())
}

// readKeys reads the rows of keys.
func readKeys(ctx context.Context, conn *pgconn.PgConn, q *sqltext.Query, sd *pgconn.StatementDescription,
	keys []string, set *rowset.Set,
) error {
	parameters, err := keyParameters(q, keys)
	if err != nil {
		return err
	}
	if text := sqltext.Comment(ctx); text != "" { //guard:commented-statement-stays-prepared
		sd = &pgconn.StatementDescription{SQL: sd.SQL + text, ParamOIDs: sd.ParamOIDs}
	}
	return readLimited(ctx, conn, q, keys[0], set, func(b *pgconn.Batch) { session.AddStatement(b, sd, parameters...) })
}

// keyParameters returns the parameters of a query: for each column of the keys the component, or an array of components.
func keyParameters(q *sqltext.Query, keys []string) ([][]byte, error) {
	columns := make([][]string, q.Width())
	for _, key := range keys {
		components, err := origin.SplitKey(key, q.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
		}
		for i, c := range components {
			columns[i] = append(columns[i], c)
		}
	}
	parameters := make([][]byte, len(columns))
	for i, components := range columns {
		parameters[i] = []byte(components[0])
		if q.List {
			parameters[i] = []byte(arrayOf(components))
		}
	}
	return parameters, nil
}

func (reader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	return session.Use(conn, func(conn *pgx.Conn) error {
		return readLimited(ctx, conn.PgConn(), q, "", set, func(b *pgconn.Batch) {
			b.ExecParams(q.SQL, textParameters(parameters), nil, nil, nil)
		})
	})
}

func (reader) ListKeys(ctx context.Context, conn *sql.Conn, text string, yield rowset.YieldKey) error {
	return session.Use(conn, func(conn *pgx.Conn) error {
		batch, s := &pgconn.Batch{}, session.Of(conn.PgConn())
		s.AddSettings(ctx, batch)
		batch.ExecParams(text, nil, nil, nil, nil)
		results := conn.PgConn().ExecBatch(ctx, batch)
		n, err := 0, error(nil)
		for ; err == nil && results.NextResult(); n++ {
			if n == 0 {
				err = s.CheckSettings(results.ResultReader())
			} else {
				err = yieldKeys(results.ResultReader(), yield)
			}
		}
		err = cmp.Or(err, results.Close())
		return session.WantResults(n, 2, err)
	})
}

// yieldKeys passes on rows, and skips the rest of them: without that, the connection would be lost.
func yieldKeys(rows *pgconn.ResultReader, yield rowset.YieldKey) error {
	fields := rows.FieldDescriptions()
	components := make([]string, len(fields))
	for more := true; rows.NextRow(); {
		values := rows.Values()
		if !more || slices.ContainsFunc(values, func(v []byte) bool { return v == nil }) {
			continue
		}
		for i, v := range values {
			components[i] = strings.TrimRight(string(v), padding(fields[i].DataTypeOID))
		}
		more = yield(components)
	}
	_, err := rows.Close()
	return err
}

// readLimited sends the settings together with the statement that add adds: one round trip, and one implicit transaction,
// to which the settings are local.
func readLimited(ctx context.Context, conn *pgconn.PgConn, q *sqltext.Query, key string, set *rowset.Set,
	add func(*pgconn.Batch),
) error {
	batch := &pgconn.Batch{}
	s := session.Of(conn)
	s.AddSettings(ctx, batch)
	add(batch)
	return readResults(conn.ExecBatch(ctx, batch), s, q, key, set)
}

// readResults reads the results of the settings and of a statement.
func readResults(results *pgconn.MultiResultReader, s *session.Session, q *sqltext.Query, key string, set *rowset.Set) (err error) {
	n := 0
	for ; err == nil && results.NextResult(); n++ {
		switch n {
		case 0:
			err = s.CheckSettings(results.ResultReader())
		case 1:
			err = readRows(results.ResultReader(), q, key, set)
		default:
			_, err = results.ResultReader().Close()
		}
	}
	err = cmp.Or(err, results.Close())    // Close returns the same error
	return session.WantResults(n, 2, err) //guard:missing-result-read-as-no-rows
}

func readRows(rows *pgconn.ResultReader, q *sqltext.Query, key string, set *rowset.Set) error {
	fields := rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i, field := range fields {
		names[i] = field.Name
	}
	if q.Keyed && len(names) < q.Width() {
		return session.ErrOutOfStep
	}
	columns, err := set.ColumnsOfResult(q, names)
	if err != nil {
		return err
	}
	cells, skip := make([]rowjson.Cell, len(names)-columns.Skip), columns.Skip
	for rows.NextRow() {
		values := rows.Values()
		rowKey, ok := columns.Key(key, func(i int) (string, bool) {
			return strings.TrimRight(string(values[i]), padding(fields[i].DataTypeOID)), values[i] != nil
		})
		if !ok {
			continue
		}
		for i := range cells {
			cells[i] = cellOf(fields[i+skip].DataTypeOID, values[i+skip])
		}
		set.Row(rowKey, cells)
	}
	_, err = rows.Close()
	return err
}

// padding is what char(n) adds to its values, and which is not part of them (PostgreSQL, 8.3).
func padding(oid uint32) string {
	if oid == pgtype.BPCharOID {
		return " "
	}
	return ""
}

// keyTypeOf returns the type as which a parameter, or each element of it, is compared.
func keyTypeOf(oid uint32) rowset.KeyType {
	switch oid {
	case pgtype.Int2OID, pgtype.Int2ArrayOID:
		return rowset.KeyType{Bits: 16}
	case pgtype.Int4OID, pgtype.Int4ArrayOID:
		return rowset.KeyType{Bits: 32}
	case pgtype.Int8OID, pgtype.Int8ArrayOID:
		return rowset.KeyType{Bits: 64}
	case pgtype.UUIDOID, pgtype.UUIDArrayOID:
		return rowset.KeyType{UUID: true}
	}
	return rowset.KeyType{}
}

func keyTypesOf(oids []uint32) rowset.KeyTypes {
	kt := make(rowset.KeyTypes, len(oids))
	for i, oid := range oids {
		kt[i] = keyTypeOf(oid)
	}
	return kt
}

// arrayOf writes a one-dimensional array as PostgreSQL reads it (8.15.6), each element quoted.
func arrayOf(keys []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	for i, key := range keys {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteByte('"')
		_, _ = escape.WriteString(&b, key) // a Builder never fails
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
