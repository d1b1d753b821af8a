package postgres

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// cellOf turns the text that PostgreSQL prints into a cell. Types that are not listed here remain text.
func cellOf(oid uint32, text []byte) rowjson.Cell {
	if text == nil {
		return rowjson.Cell{}
	}
	switch oid {
	case pgtype.BoolOID:
		return rowjson.Bool(string(text) == "t")
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.NumericOID:
		return rowjson.Number(text)
	case pgtype.Float4OID:
		return floatText(text, 32)
	case pgtype.Float8OID:
		return floatText(text, 64)
	case pgtype.ByteaOID:
		return byteaCell(text)
	case pgtype.JSONOID, pgtype.JSONBOID:
		return rowjson.Cell{Kind: rowjson.Document, Text: text}
	case pgtype.TimestampOID:
		return rowjson.TimestampText(string(text), "2006-01-02 15:04:05")
	case pgtype.TimestamptzOID:
		return rowjson.TimestampText(string(text), "2006-01-02 15:04:05Z07")
	case pgtype.TimeOID:
		return rowjson.TimeText(string(text), "15:04:05")
	case pgtype.BPCharOID:
		return rowjson.Padded(text) //guard:char-padding-printed
	}
	return rowjson.Cell{Kind: rowjson.String, Text: text}
}

func floatText(text []byte, bits int) rowjson.Cell {
	v, err := strconv.ParseFloat(string(text), bits)
	if err != nil {
		return rowjson.Cell{Kind: rowjson.String, Text: text}
	}
	return rowjson.Float(v, bits)
}

// byteaCell reads the hex format (PostgreSQL, 8.4.1).
func byteaCell(text []byte) rowjson.Cell {
	b, err := hex.AppendDecode(nil, bytes.TrimPrefix(text, []byte(`\x`)))
	if err != nil {
		return rowjson.Cell{Kind: rowjson.String, Text: text}
	}
	return rowjson.Cell{Kind: rowjson.Bytes, Text: b}
}

// textParameters writes parameters as text, as PostgreSQL reads them; nil is NULL.
func textParameters(args []sqltext.Parameter) [][]byte {
	texts := make([][]byte, len(args))
	for i, a := range args {
		texts[i] = parameterText(a.Value)
	}
	return texts
}

func parameterText(v any) []byte {
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
		return []byte(v) //guard:empty-text-written-as-null
	}
	return fmt.Append(nil, v)
}
