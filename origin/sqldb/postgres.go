package sqldb

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/origin"
)

// postgres reads through pgconn, below the driver of database/sql: only there a statement and its time limit travel
// together, and only there values arrive as the text that PostgreSQL prints, of which no type is beyond us.
type postgres struct {
	config *pgx.ConnConfig // of connections beside the pool
	login  *login
}

// session makes each connection print values in one way, and keeps it from writing.
var session = map[string]string{
	"TimeZone":                      "UTC",
	"DateStyle":                     "ISO, MDY",
	"IntervalStyle":                 "postgres",
	"bytea_output":                  "hex",
	"extra_float_digits":            "1",
	"client_encoding":               "UTF8",
	"default_transaction_read_only": "on",
}

var errBadPostgres = errors.New("the DSN is not one of PostgreSQL, such as " +
	"postgres://user:password@host:5432/database?sslmode=verify-full " +
	"(percent-encode special characters of the password)")

func openPostgres(c origin.SourceConfig) (connectors, dialect, error) {
	config, err := pgx.ParseConfig(c.DSN)
	if c.DSN == "" || err != nil {
		return connectors{}, nil, errBadPostgres
	}
	login, err := newLogin(c, postgresAccount)
	if err != nil {
		return connectors{}, nil, err
	}
	for name, value := range session {
		config.RuntimeParams[name] = value
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "ringside"
	}
	p := postgres{config, login}
	reads := stdlib.GetConnector(*config, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		p.renew(&c.Config) //guard:rotated-password-never-picked-up-postgresql
		return nil
	}))
	return connectors{reads: plainConnector{reads}, login: login}, p, nil
}

// postgresAccount has all hosts of the DSN as the address.
func postgresAccount(dsn string) (account, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return account{}, errBadPostgres
	}
	address := fmt.Sprintf("%s %s:%d", c.Database, c.Host, c.Port)
	for _, f := range c.Fallbacks {
		address += fmt.Sprintf(" %s:%d", f.Host, f.Port)
	}
	return account{address, c.User, c.Password}, nil
}

// renew gives c, which is a copy, the user and the password of now.
func (p postgres) renew(c *pgconn.Config) {
	now := p.login.now()
	c.User, c.Password = now.user, now.password
}

// plainConnector says in one line, and once, why a connection can not be made: pgx has a line for each way it tried.
type plainConnector struct{ driver.Connector }

func (c plainConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, plainConnect(err) //guard:failed-connection-told-over-several-lines
	}
	return conn, nil
}

// plainError is an error in other words.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

func plainConnect(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	if first := strings.TrimSuffix(lines[0], ":"); len(lines) > 1 {
		slices.Sort(lines[1:])
		lines = []string{first + ": " + strings.Join(slices.Compact(lines[1:]), "; ")}
	}
	return &plainError{lines[0], err}
}

func (postgres) quote(name string) string       { return quoteWith(`"`, name) }
func (postgres) keyColumn(column string) string { return column }
func (postgres) isAny() string                  { return " = ANY($1)" }
func (postgres) parameter() string              { return "$1" }

// badKey knows the ways to say that a text is not of a type (PostgreSQL, appendix A, class 22).
func (postgres) badKey(err error) bool {
	return slices.Contains([]string{
		"22P02", // invalid text representation
		"22003", // numeric value out of range
		"22007", // invalid datetime format
		"22008", // datetime field overflow
		"22021", // character not in repertoire
	}, sqlState(err))
}

func (postgres) timedOut(err error) bool { return sqlState(err) == "57014" }

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func (postgres) describe(ctx context.Context, conn *sql.Conn, st *statement) (columns []column, err error) {
	err = onPgx(conn, func(c *pgx.Conn) error {
		sd, err := c.Prepare(ctx, st.sql, st.sql)
		if err != nil {
			return err
		}
		for _, field := range sd.Fields {
			columns = append(columns, column{field.Name, isInteger(field.DataTypeOID)})
		}
		return refusedWrite(ctx, c.PgConn(), sd)
	})
	return columns, err
}

// refusedWrite runs a statement for the key NULL, as PostgreSQL judges only then whether it writes. What else it says
// is of that key.
func refusedWrite(ctx context.Context, conn *pgconn.PgConn, sd *pgconn.StatementDescription) error {
	batch := &pgconn.Batch{}
	batch.ExecParams("SELECT set_config('statement_timeout', $1, true)",
		[][]byte{strconv.AppendInt(nil, serverTimeout(ctx).Milliseconds(), 10)}, nil, nil, nil)
	batch.ExecPrepared(sd.Name, make([][]byte, len(sd.ParamOIDs)), nil, nil)
	err := conn.ExecBatch(ctx, batch).Close()
	//guard:validate-accepts-query-writes
	if sqlState(err) == "25006" { // read-only transaction
		return fmt.Errorf("it writes, which a read must not: %w", err)
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return nil
	}
	return err
}

func isInteger(oid uint32) bool {
	return oid == pgtype.Int8OID || oid == pgtype.Int4OID || oid == pgtype.Int2OID
}

func (postgres) read(ctx context.Context, conn *sql.Conn, st *statement, keys []string, c *collector) error {
	return onPgx(conn, func(conn *pgx.Conn) error {
		sd, err := conn.Prepare(ctx, st.sql, st.sql) // once per connection
		if err != nil {
			return err
		}
		if len(sd.ParamOIDs) != 1 {
			return fmt.Errorf("the statement has %d parameters: it must have one, $1", len(sd.ParamOIDs))
		}
		keys := c.ofType(keyTypeOf(sd.ParamOIDs[0]), keys)
		if len(keys) == 0 {
			return nil
		}
		return readPrepared(ctx, conn.PgConn(), st, sd, keys, c)
	})
}

// onPgx reports a connection that ended, or whose prepared statements the database has dropped or outgrown, as broken,
// so that the statement is tried on another one.
func onPgx(conn *sql.Conn, read func(*pgx.Conn) error) error {
	return conn.Raw(func(raw any) error {
		c := raw.(*stdlib.Conn).Conn()
		err := read(c)
		switch state := sqlState(err); {
		case err == nil:
			return nil
		case state == "0A000" || state == "26000": // cached plan must not change result type; no such statement
			_ = c.Close(context.Background()) // it is given up either way
			return driver.ErrBadConn
		case c.IsClosed() && state == "" || strings.HasPrefix(state, "57P"): // the server stops, or has stopped
			return driver.ErrBadConn
		}
		return err
	})
}

// readPrepared reads the rows of keys.
func readPrepared(ctx context.Context, conn *pgconn.PgConn, st *statement, sd *pgconn.StatementDescription,
	keys []string, c *collector,
) error {
	parameter := keys[0]
	if st.list {
		parameter = arrayOf(keys)
	}
	return readLimited(ctx, conn, st, keys[0], c, func(b *pgconn.Batch) {
		b.ExecPrepared(sd.Name, [][]byte{[]byte(parameter)}, nil, nil)
	})
}

func (postgres) list(ctx context.Context, conn *sql.Conn, st *statement, args []assignment, c *collector) error {
	return onPgx(conn, func(conn *pgx.Conn) error {
		return readLimited(ctx, conn.PgConn(), st, "", c, func(b *pgconn.Batch) {
			b.ExecParams(st.sql, postgresParameters(args), nil, nil, nil)
		})
	})
}

// readLimited sends the time limit and the statement that query adds together: one round trip, one implicit
// transaction, which the limit is local to.
func readLimited(ctx context.Context, conn *pgconn.PgConn, st *statement, key string, c *collector,
	query func(*pgconn.Batch),
) error {
	limit := strconv.FormatInt(serverTimeout(ctx).Milliseconds(), 10)
	batch := &pgconn.Batch{}
	batch.ExecParams("SELECT set_config('statement_timeout', $1, true)", [][]byte{[]byte(limit)}, nil, nil, nil)
	query(batch)
	results := conn.ExecBatch(ctx, batch)
	err := readResults(results, st, key, c)
	return cmp.Or(err, results.Close()) // which says the same again
}

func readResults(results *pgconn.MultiResultReader, st *statement, key string, c *collector) error {
	if !results.NextResult() {
		return nil // Close says why
	}
	if _, err := results.ResultReader().Close(); err != nil || !results.NextResult() {
		return err
	}
	return readRows(results.ResultReader(), st, key, c)
}

func readRows(rows *pgconn.ResultReader, st *statement, key string, c *collector) error {
	fields := rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i, field := range fields {
		names[i] = field.Name
	}
	skip := 0
	if st.keyed {
		skip = 1
	}
	if err := c.columns(names[min(skip, len(names)):]); err != nil {
		return err
	}
	cells := make([]cell, len(names)-skip)
	for rows.NextRow() {
		values := rows.Values()
		if st.keyed {
			key = strings.TrimRight(string(values[0]), padding(fields[0].DataTypeOID))
		}
		for i := range cells {
			cells[i] = postgresCell(fields[i+skip].DataTypeOID, values[i+skip])
		}
		c.row(key, cells)
	}
	_, err := rows.Close()
	return err
}

// padding is what char(n) adds to its values, which is no part of them (PostgreSQL, 8.3).
func padding(oid uint32) string {
	if oid == pgtype.BPCharOID {
		return " "
	}
	return ""
}

// keyTypeOf returns what a parameter, or each element of it, is compared as.
func keyTypeOf(oid uint32) keyType {
	switch oid {
	case pgtype.Int2OID, pgtype.Int2ArrayOID:
		return keyType{bits: 16}
	case pgtype.Int4OID, pgtype.Int4ArrayOID:
		return keyType{bits: 32}
	case pgtype.Int8OID, pgtype.Int8ArrayOID:
		return keyType{bits: 64}
	case pgtype.UUIDOID, pgtype.UUIDArrayOID:
		return keyType{uuid: true}
	}
	return keyType{}
}

// arrayOf writes a one-dimensional array as PostgreSQL reads it (8.15.6), each element quoted.
func arrayOf(keys []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	for i, key := range keys {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteByte('"')
		_, _ = escape.WriteString(&b, key) // a Builder takes everything
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// postgresCell turns what PostgreSQL prints into a cell. A type that is not named here is its text.
func postgresCell(oid uint32, text []byte) cell {
	if text == nil {
		return cell{}
	}
	switch oid {
	case pgtype.BoolOID:
		return boolCell(string(text) == "t")
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		return cell{bare, text}
	case pgtype.NumericOID:
		return decimalCell(text)
	case pgtype.Float4OID:
		return floatText(text, 32)
	case pgtype.Float8OID:
		return floatText(text, 64)
	case pgtype.ByteaOID:
		return byteaCell(text)
	case pgtype.JSONOID, pgtype.JSONBOID:
		return cell{document, text}
	case pgtype.TimestampOID:
		return reform(string(text), timestampForm, "2006-01-02 15:04:05")
	case pgtype.TimestamptzOID:
		return reform(string(text), timestampForm, "2006-01-02 15:04:05Z07")
	case pgtype.TimeOID:
		return reform(string(text), timeForm, "15:04:05")
	}
	return cell{quoted, text}
}

func floatText(text []byte, bits int) cell {
	v, err := strconv.ParseFloat(string(text), bits)
	if err != nil {
		return cell{quoted, text}
	}
	return floatCell(v, bits)
}

// byteaCell reads the hex format (PostgreSQL, 8.4.1).
func byteaCell(text []byte) cell {
	b, err := hex.AppendDecode(nil, bytes.TrimPrefix(text, []byte(`\x`)))
	if err != nil {
		return cell{quoted, text}
	}
	return cell{binary, b}
}
