package mysql

import (
	"fmt"
	"math/big"
	"strconv"

	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// cell turns a value of the driver into a cell.
func (t *tableTypes) cell(name, typeName string, v any) rowjson.Cell {
	switch v := v.(type) {
	case nil:
		return rowjson.Cell{}
	case int64:
		if t.bool[name] && (v == 0 || v == 1) {
			return rowjson.Bool(v == 1)
		}
		return rowjson.Int(v)
	case uint64:
		return rowjson.Number(strconv.AppendUint(nil, v, 10))
	case float32:
		return rowjson.Float(float64(v), 32)
	case float64:
		return rowjson.Float(v, 64)
	case []byte:
		if t.json[name] {
			return rowjson.Cell{Kind: rowjson.Document, Text: v}
		}
		return textCell(typeName, v)
	}
	return rowjson.Text(fmt.Sprint(v))
}

func textCell(typeName string, text []byte) rowjson.Cell {
	switch typeName {
	case "DECIMAL", "UNSIGNED BIGINT": // the driver returns what exceeds int64 as text
		return rowjson.Number(text) //guard:zerofill-is-not-json
	case "CHAR":
		return rowjson.Padded(text)
	case "DATETIME", "TIMESTAMP":
		return rowjson.TimestampText(string(text), "2006-01-02 15:04:05")
	case "TIME":
		return rowjson.TimeText(string(text), "15:04:05")
	case "JSON":
		return rowjson.Cell{Kind: rowjson.Document, Text: text}
	case "BIT":
		return rowjson.Number(new(big.Int).SetBytes(text).Append(nil, 10))
	case "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "GEOMETRY", "VECTOR":
		return rowjson.Cell{Kind: rowjson.Bytes, Text: text}
	}
	return rowjson.Cell{Kind: rowjson.String, Text: text}
}
