package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

func (postgres) mark(n int) string { return "$" + strconv.Itoa(n) }
func (postgres) returns() bool     { return true }
func (postgres) upserts() bool     { return true }

func (postgres) exactly() string { return "" }

// firstVersion is by the clock of the database, which all sidecars share.
func (postgres) firstVersion(*draft) string {
	return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
}

// table has the types from the protocol, which sees through domains, and the rest from the catalog.
func (postgres) table(ctx context.Context, conn *sql.Conn, name, key string) (*table, error) {
	t := &table{}
	err := onPgx(conn, func(c *pgx.Conn) error {
		sd, err := c.PgConn().Prepare(ctx, "", "SELECT * FROM "+quoteTable(postgres{}, name), nil)
		if err != nil {
			return err
		}
		t.columns = t.columns[:0]
		for _, field := range sd.Fields {
			t.columns = append(t.columns, postgresColumn(field))
			if field.Name == key {
				t.key = keyTypeOf(field.DataTypeOID)
			}
		}
		return readFlags(ctx, c, quoteTable(postgres{}, name), t)
	})
	return t, err
}

func readFlags(ctx context.Context, c *pgx.Conn, quoted string, t *table) error {
	rows, err := c.Query(ctx, `SELECT attname, attnotnull, attgenerated <> '' OR attidentity = 'a'
		FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, quoted)
	if err != nil {
		return err
	}
	var name string
	var notNull, generated bool
	_, err = pgx.ForEachRow(rows, []any{&name, &notNull, &generated}, func() error {
		if c := t.column(name); c != nil {
			c.notNull, c.generated = notNull, generated
		}
		return nil
	})
	return err
}

// postgresColumn reads type modifiers as PostgreSQL packs them (src/backend/utils/adt/numeric.c, varchar.c): with the
// four bytes of a length header, and 11 bits of scale.
func postgresColumn(field pgconn.FieldDescription) tableColumn {
	const header, scaleBits, scaleSign = 4, 0x7ff, 1024
	c := tableColumn{name: field.Name}
	modifier := int(field.TypeModifier) - header
	switch field.DataTypeOID {
	case pgtype.BoolOID:
		c.form = formBool
	case pgtype.Int2OID:
		c.form, c.bits = formInteger, 16
	case pgtype.Int4OID:
		c.form, c.bits = formInteger, 32
	case pgtype.Int8OID:
		c.form, c.bits = formInteger, 64
	case pgtype.OIDOID:
		c.form, c.bits, c.unsigned = formInteger, 32, true
	case pgtype.Float4OID:
		c.form, c.bits = formFloat, 32
	case pgtype.Float8OID:
		c.form, c.bits = formFloat, 64
	case pgtype.NumericOID:
		c.form = formDecimal
		if modifier >= 0 {
			c.scale = (modifier&scaleBits ^ scaleSign) - scaleSign
			c.digits = modifier>>16 - c.scale
		}
	case pgtype.ByteaOID:
		c.form = formBytes
	case pgtype.JSONOID, pgtype.JSONBOID:
		c.form = formJSON
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		c.form = formTimestamp
	case pgtype.VarcharOID, pgtype.BPCharOID:
		c.maxChars = max(modifier, 0)
	}
	return c
}

func (postgres) change(ctx context.Context, conn *sql.Conn, e *edit) error {
	return conn.Raw(func(raw any) error {
		t := postgresTransaction{raw.(*stdlib.Conn).Conn().PgConn(), e}
		return t.run(ctx)
	})
}

// postgresTransaction makes an edit in two round trips: what opens the transaction and its statement travel together,
// and so does COMMIT, alone, so that everything before it is known not to have happened when the connection ends.
type postgresTransaction struct {
	conn *pgconn.PgConn
	edit *edit
}

func (t postgresTransaction) run(ctx context.Context) error {
	commit, err := t.steps(ctx)
	if !commit {
		t.rollback(ctx)
		return err
	}
	return t.commit(ctx)
}

func (t postgresTransaction) steps(ctx context.Context) (commit bool, err error) {
	for i, step := range t.edit.steps {
		batch, before := &pgconn.Batch{}, 0
		if i == 0 {
			before = begin(ctx, batch)
		}
		batch.ExecParams(step.sql, postgresParameters(step.args), nil, nil, nil)
		if err := t.read(t.conn.ExecBatch(ctx, batch), before); err != nil {
			return false, t.explain(err, step.args)
		}
		if t.edit.met() {
			break
		}
	}
	return t.edit.settle()
}

// begin opens a transaction that may write, in a session that may not, and returns how many results that has. The
// limits end it in the database when this side is silent in its midst.
func begin(ctx context.Context, batch *pgconn.Batch) (results int) {
	limit := []byte(strconv.FormatInt(serverTimeout(ctx).Milliseconds(), 10))
	batch.ExecParams("BEGIN READ WRITE", nil, nil, nil, nil)
	batch.ExecParams("SELECT set_config('statement_timeout', $1, true), "+
		"set_config('idle_in_transaction_session_timeout', $1, true)", [][]byte{limit}, nil, nil, nil)
	return 2
}

// read gives the rows of the result behind those before to the edit.
func (t postgresTransaction) read(results *pgconn.MultiResultReader, before int) error {
	var err error
	for i := 0; err == nil && results.NextResult(); i++ {
		if i < before {
			_, err = results.ResultReader().Close()
			continue
		}
		err = readRows(results.ResultReader(), t.edit.statement, t.edit.change.Key, t.edit.rows)
	}
	if end := results.Close(); err == nil { // else it says the same once more
		err = end
	}
	return err
}

// rollback is for the sake of the connection: what is not committed is not written.
func (t postgresTransaction) rollback(ctx context.Context) {
	if t.conn.IsClosed() || t.conn.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_ = t.conn.Exec(ctx, "ROLLBACK").Close() // else the pool finds it closed, or in a transaction, and drops it
}

// commit does not ask pgconn.SafeToRetry: to it, reading an answer that never comes is safe.
func (t postgresTransaction) commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		t.rollback(ctx)
		return err
	}
	results, err := t.conn.Exec(ctx, "COMMIT").ReadAll()
	switch {
	case err == nil && results[0].CommandTag.String() == "COMMIT":
		return nil
	case err == nil:
		return errors.New("the database answered COMMIT with " + results[0].CommandTag.String())
	case isRefusal(err):
		return t.explain(err, nil)
	}
	return unknown(err) //guard:lost-answer-commit-told-certain-postgresql
}

// isRefusal reports whether a COMMIT that failed with err is known not to have happened: an ERROR rolls back. What is
// FATAL, and what a pooler says of a lost server (class 08), may come after it.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.SeverityUnlocalized == "ERROR" && !strings.HasPrefix(e.Code, "08") && !strings.HasPrefix(e.Code, "57P") //guard:session-dies-commit-thought-rolled-back
}

// explain classifies what keeps a transaction from its COMMIT.
func (t postgresTransaction) explain(err error, args []assignment) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok && t.conn.IsClosed(), ok && strings.HasPrefix(e.Code, "57P"):
		return driver.ErrBadConn
	case !ok:
		return err
	case e.Code == "42P10": // ON CONFLICT needs a unique index
		return errNotUnique
	case e.Code == "40001" || e.Code == "40P01": // serialization failure, deadlock
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	if refused := postgresRefusal(e, args); refused != nil {
		return refused
	}
	return err
}

// columnsOfKey finds the a, b of: Key (a, b)=(1, 2) already exists.
var (
	columnsOfKey = regexp.MustCompile(`\((.*?)\)=\(`)
	parameterNo  = regexp.MustCompile(`\$(\d+)`)
)

// postgresRefusal says which column is refused why, in words that have nothing of any row's values.
func postgresRefusal(e *pgconn.PgError, args []assignment) error {
	columns := ""
	if m := columnsOfKey.FindStringSubmatch(e.Detail); m != nil {
		columns = m[1]
	}
	switch e.Code {
	case "23502":
		return invalid(e.ColumnName, "it must have a value: the column takes no null and has no default")
	case "23503":
		return invalid(columns, "foreign key %s refuses it: the row that it refers to is missing, or others refer to it",
			e.ConstraintName)
	case "23505":
		return invalid(columns, "another row has this value, and unique index %s allows it once", e.ConstraintName)
	case "428C9":
		return invalid("", "the database generates a column that is named: leave it out")
	case "P0001":
		return invalid("", "a trigger of the table refuses it: %s", e.Message)
	}
	switch {
	case strings.HasPrefix(e.Code, "23"), e.Code == "44000":
		return invalid("", "constraint %s of the table refuses it", e.ConstraintName)
	case strings.HasPrefix(e.Code, "22"):
		return invalid(columnOfParameter(e.Where, args), "%s", postgresReason(e.Code))
	}
	return nil
}

// columnOfParameter finds the column whose parameter the database could not read; it gives the number last.
func columnOfParameter(where string, args []assignment) string {
	all := parameterNo.FindAllStringSubmatch(where, -1)
	if len(all) == 0 {
		return ""
	}
	n, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil || n < 1 || n > len(args) {
		return ""
	}
	return args[n-1].column
}

// postgresReason has words for the codes of class 22 (PostgreSQL, appendix A).
func postgresReason(code string) string {
	switch code {
	case "22001":
		return "it is too long"
	case "22003":
		return "it is out of range"
	case "22007", "22008":
		return "it is no date or time of the column's type"
	case "22021", "22P05":
		return "it has a character that the database's encoding has not"
	case "22P02":
		return "it is not of the column's type"
	}
	return "the database refuses it (SQLSTATE " + code + ")"
}

// postgresParameters writes parameters as text, as PostgreSQL reads them; nil is NULL.
func postgresParameters(args []assignment) [][]byte {
	texts := make([][]byte, len(args))
	for i, a := range args {
		texts[i] = postgresText(a.value)
	}
	return texts
}

func postgresText(v any) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case bool:
		return strconv.AppendBool(nil, v)
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case uint64:
		return strconv.AppendUint(nil, v, 10)
	case float64:
		return strconv.AppendFloat(nil, v, 'g', -1, 64)
	case []byte:
		return hex.AppendEncode([]byte(`\x`), v)
	case string:
		return []byte(v) //guard:empty-text-written-null
	}
	return fmt.Append(nil, v)
}
