package postgres

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// catalog implements sqldb.Catalog.
type catalog struct{}

// ReadTable takes the types from the protocol, which resolves domains, and the rest from the catalog.
func (catalog) ReadTable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (*tables.Table, error) {
	t := &tables.Table{}
	err := session.Use(conn, func(c *pgx.Conn) error {
		sd, err := session.Of(c.PgConn()).Prepare(ctx, c.PgConn(), "", "SELECT * FROM "+sqltext.QuoteTable(syntax{}, ds.Table))
		if err != nil {
			return err
		}
		t.Columns = t.Columns[:0]
		for _, field := range sd.Fields {
			t.Columns = append(t.Columns, columnOf(field))
			t.SetKeyType(ds, field.Name, func(a, b string) bool { return a == b }, keyTypeOf(field.DataTypeOID))
		}
		return readFlags(ctx, c, ds, t)
	})
	return t, err
}

// readFlags adds what the protocol does not transmit. A default that is not a constant generates a key.
func readFlags(ctx context.Context, c *pgx.Conn, ds origin.Dataset, t *tables.Table) error {
	return session.QueryConn(ctx, c, func(rows pgx.Rows) error {
		var name string
		var notNull, generated, computed bool
		err := rows.Scan(&name, &notNull, &generated, &computed, &t.View)
		if c := t.Column(name); c != nil {
			c.NotNull, c.Generated = notNull, generated
		}
		if computed {
			t.SetGeneration(ds, name, func(a, b string) bool { return a == b }, tables.GeneratedReturned)
		}
		return err
	}, `SELECT attname, attnotnull, attgenerated <> '' OR attidentity = 'a',
		attidentity <> '' OR coalesce(pg_get_expr(adbin, adrelid) LIKE '%(%', false), relkind NOT IN ('r', 'p')
		FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class c ON c.oid = attrelid
		LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, sqltext.QuoteTable(syntax{}, ds.Table))
}

// columnOf reads type modifiers as PostgreSQL packs them (src/backend/utils/adt/numeric.c, varchar.c): with the four bytes
// of a length header, and 11 bits of scale.
func columnOf(field pgconn.FieldDescription) rowjson.Column {
	const header, scaleBits, scaleSign = 4, 0x7ff, 1024
	c := rowjson.Column{Name: field.Name}
	modifier := int(field.TypeModifier) - header
	switch field.DataTypeOID {
	case pgtype.BoolOID:
		c.Form = rowjson.FormBool
	case pgtype.Int2OID:
		c.Form, c.Bits = rowjson.FormInteger, 16
	case pgtype.Int4OID:
		c.Form, c.Bits = rowjson.FormInteger, 32
	case pgtype.Int8OID:
		c.Form, c.Bits = rowjson.FormInteger, 64
	case pgtype.OIDOID:
		c.Form, c.Bits, c.Unsigned = rowjson.FormInteger, 32, true
	case pgtype.Float4OID:
		c.Form, c.Bits = rowjson.FormFloat, 32
	case pgtype.Float8OID:
		c.Form, c.Bits = rowjson.FormFloat, 64
	case pgtype.NumericOID:
		c.Form = rowjson.FormDecimal
		if modifier >= 0 {
			c.Scale = (modifier&scaleBits ^ scaleSign) - scaleSign
			c.Digits = modifier>>16 - c.Scale
		}
	case pgtype.ByteaOID:
		c.Form = rowjson.FormBytes
	case pgtype.JSONOID, pgtype.JSONBOID:
		c.Form = rowjson.FormJSON
		c.Inexact = field.DataTypeOID == pgtype.JSONOID // which stores the blanks too
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		c.Form = rowjson.FormTimestamp
	case pgtype.VarcharOID, pgtype.BPCharOID:
		c.MaxChars = max(modifier, 0)
		c.Inexact = field.DataTypeOID == pgtype.BPCharOID && modifier < 0 // it stores the blanks, which a read removes
	}
	return c
}

func (catalog) CheckWritable(context.Context, *sql.Conn, origin.Dataset) error { return nil }

func (catalog) UniqueIndexes(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (tables.Indexes, error) {
	found := tables.Indexes{}
	err := session.Query(ctx, conn, func(rows pgx.Rows) error {
		var index, column string
		err := rows.Scan(&index, &column)
		found[index] = append(found[index], column)
		return err
	}, `SELECT i.indexrelid::text, coalesce(a.attname::text, '')
		FROM pg_catalog.pg_index i CROSS JOIN LATERAL generate_series(0, i.indnkeyatts - 1) AS at
		LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[at]
		WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL`,
		sqltext.QuoteTable(syntax{}, ds.Table))
	return found, err
}

// IsView includes the other kinds of relations that may have no index, such as foreign tables.
func (catalog) IsView(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (view bool, err error) {
	err = session.Query(ctx, conn, func(rows pgx.Rows) error { return rows.Scan(&view) },
		`SELECT relkind NOT IN ('r', 'p') FROM pg_catalog.pg_class WHERE oid = to_regclass($1)`, sqltext.QuoteTable(syntax{}, ds.Table))
	return view, err
}
