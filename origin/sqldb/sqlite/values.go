package sqlite

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// cells turns values of the driver into cells. It goes by what a value holds, and by the column's declared type where that
// leaves a choice.
type cells struct {
	integerTimes string // what an integer in a column of times counts; see origin.Dataset
}

func (c cells) cell(_, declared string, v any) rowjson.Cell {
	base := baseType(declared)
	switch v := v.(type) {
	case nil:
		return rowjson.Cell{}
	case int64:
		return c.integer(base, declared, v)
	case float64:
		return c.float(base, declared, v)
	case string:
		return textCell(base, v)
	case []byte:
		return rowjson.Cell{Kind: rowjson.Bytes, Text: v}
	}
	return rowjson.Text(fmt.Sprint(v))
}

// baseType returns the DECIMAL of DECIMAL(10, 2), and the TIMESTAMP of TIMESTAMP WITHOUT TIME ZONE.
func baseType(declared string) string {
	base, _, _ := strings.Cut(declared, "(")
	base, _, _ = strings.Cut(base, " WITH")
	return strings.TrimSpace(base)
}

// isTime reports whether a column holds points in time.
func isTime(base string) bool {
	switch base {
	case "DATE", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		return true
	}
	return false
}

func (c cells) integer(base, declared string, v int64) rowjson.Cell {
	switch base {
	case "BOOL", "BOOLEAN":
		if v == 0 || v == 1 {
			return rowjson.Bool(v == 1)
		}
	case "DECIMAL", "NUMERIC":
		if scale := scaleOf(declared); scale > 0 {
			return rowjson.Number([]byte(strconv.FormatInt(v, 10) + "." + strings.Repeat("0", scale)))
		}
	}
	if t, ok := c.epoch(v); ok && isTime(base) {
		return timeOr(base, t, rowjson.Int(v))
	}
	return rowjson.Int(v)
}

// epoch returns the time that an integer counts. By default it counts nothing: seconds and milliseconds are equally common,
// and the wrong one is a wrong time.
func (c cells) epoch(v int64) (t time.Time, ok bool) {
	switch c.integerTimes {
	case origin.IntegerSeconds:
		return time.Unix(v, 0), math.Abs(float64(v)) < maxSeconds
	case origin.IntegerMilliseconds:
		return time.UnixMilli(v), math.Abs(float64(v)) < maxSeconds*1000
	}
	return time.Time{}, false
}

// maxSeconds is after the year 9999, and far from an overflow of time.Time.
const maxSeconds = 1 << 40

// A real number in a column of times is a Julian day number, the third way to hold a time (datatype3.html, 2.2), in the
// range that SQLite's own functions accept.
const (
	julianEpoch = 2440587.5 // 1970-01-01
	julianMax   = 5373484.5 // 10000-01-01
)

func (c cells) float(base, declared string, v float64) rowjson.Cell {
	switch {
	case isTime(base) && 0 <= v && v < julianMax:
		const dayInMilliseconds = 24 * 60 * 60 * 1000
		t := time.UnixMilli(int64(math.Round((v - julianEpoch) * dayInMilliseconds)))
		return timeOr(base, t, rowjson.Float(v, 64))
	case base == "DECIMAL", base == "NUMERIC":
		return decimalCell(v, scaleOf(declared))
	}
	return rowjson.Float(v, 64)
}

// decimalCell writes the digits of the scale, unless the number has more.
func decimalCell(v float64, scale int) rowjson.Cell {
	text := strconv.AppendFloat(nil, v, 'f', scale, 64)
	if same, err := strconv.ParseFloat(string(text), 64); scale == 0 || err != nil || same != v || math.IsInf(v, 0) {
		return rowjson.Float(v, 64)
	}
	return rowjson.Number(text)
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
		return rowjson.TimeText(v, "15:04:05", "15:04")
	case "DATE":
		return dateText(v)
	case "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		return rowjson.TimestampText(withoutMonotonic(v), timeLayouts...)
	}
	return rowjson.Text(v)
}

// timeLayouts are the forms in which libraries store times as text: those of SQLite's functions, RFC 3339, and Time.String
// of Go, the default of two drivers.
var timeLayouts = []string{
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", time.RFC3339, "2006-01-02T15:04:05",
	"2006-01-02 15:04Z07:00", "2006-01-02 15:04", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", time.DateOnly,
	"2006-01-02 15:04:05 -0700 MST",
}

func withoutMonotonic(text string) string {
	text, _, _ = strings.Cut(text, " m=")
	return text
}

// dateText returns the day as it is written: the time of a zone must not change it.
func dateText(v string) rowjson.Cell {
	for _, layout := range timeLayouts {
		if _, err := time.Parse(layout, withoutMonotonic(v)); err == nil {
			return rowjson.Text(v[:len(time.DateOnly)]) //guard:zone-changes-day
		}
	}
	return rowjson.Text(v)
}

// timeOr returns otherwise for a time that RFC 3339 cannot express.
func timeOr(base string, t time.Time, otherwise rowjson.Cell) rowjson.Cell {
	c, ok := rowjson.Timestamp(t)
	switch {
	case !ok:
		return otherwise
	case base == "DATE":
		return rowjson.Text(t.UTC().Format(rowjson.DateLayout))
	}
	return c
}
