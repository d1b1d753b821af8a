package sqlite

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// cellOf goes by what the cell holds, and by the column's declared type where that leaves a choice.
func cellOf(_, declared string, v any) rowjson.Cell {
	base, _, _ := strings.Cut(declared, "(")
	switch v := v.(type) {
	case nil:
		return rowjson.Cell{}
	case int64:
		return integerCell(base, declared, v)
	case float64:
		return floatCell(base, declared, v)
	case string:
		return textCell(base, v)
	case []byte:
		return rowjson.Cell{Kind: rowjson.Bytes, Text: v}
	case time.Time:
		return timeCell(base, v)
	}
	return rowjson.Text(fmt.Sprint(v))
}

func integerCell(base, declared string, v int64) rowjson.Cell {
	switch base {
	case "BOOL", "BOOLEAN":
		if v == 0 || v == 1 {
			return rowjson.Bool(v == 1)
		}
	case "DATE", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		return timeCell(base, time.Unix(v, 0))
	case "DECIMAL", "NUMERIC":
		if scale := scaleOf(declared); scale > 0 {
			return rowjson.Cell{Kind: rowjson.Literal, Text: []byte(strconv.FormatInt(v, 10) + "." + strings.Repeat("0", scale))}
		}
	}
	return rowjson.Int(v)
}

// julianEpoch is 1970-01-01 as a Julian day number, the third way to hold a time (datatype3.html, 2.2).
const julianEpoch = 2440587.5

func floatCell(base, declared string, v float64) rowjson.Cell {
	switch base {
	case "DATE", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		const dayInMilliseconds = 24 * 60 * 60 * 1000
		return timeCell(base, time.UnixMilli(int64(math.Round((v-julianEpoch)*dayInMilliseconds))))
	case "DECIMAL", "NUMERIC":
		if scale := scaleOf(declared); scale > 0 {
			return rowjson.Cell{Kind: rowjson.Literal, Text: strconv.AppendFloat(nil, v, 'f', scale, 64)}
		}
	}
	return rowjson.Float(v, 64)
}

// scaleOf returns the 2 of DECIMAL(10,2); SQLite keeps the words and forgets the zeros.
func scaleOf(declared string) int {
	_, inside, _ := strings.Cut(strings.TrimSuffix(declared, ")"), ",")
	scale, err := strconv.Atoi(strings.TrimSpace(inside))
	if err != nil || scale < 0 || scale > 38 {
		return 0
	}
	return scale
}

func textCell(base, v string) rowjson.Cell {
	switch base {
	case "JSON", "JSONB":
		return rowjson.Cell{Kind: rowjson.Document, Text: []byte(v)}
	case "BLOB", "BYTEA", "BINARY", "VARBINARY":
		return rowjson.Cell{Kind: rowjson.Bytes, Text: []byte(v)}
	case "TIME":
		return rowjson.Reformat(v, rowjson.TimeLayout, "15:04:05", "15:04")
	case "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		return rowjson.Reformat(v, rowjson.TimestampLayout, "2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", time.RFC3339)
	}
	return rowjson.Text(v)
}

func timeCell(base string, t time.Time) rowjson.Cell {
	if base == "DATE" {
		return rowjson.Text(t.UTC().Format(rowjson.DateLayout))
	}
	return rowjson.Timestamp(t)
}
