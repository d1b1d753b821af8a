// Package rowjson converts between the columns of a row and JSON: EncodeRow writes a row as a JSON object, the same bytes for
// the same values in every database, and ParseRow and Column.Decode read one back as parameters of a statement. It is pure.
package rowjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind says how JSON writes a cell.
type Kind uint8

// The kinds of cells.
const (
	Null     Kind = iota
	String        // a string
	Literal       // a number, true or false, unchanged
	Bytes         // bytes, as a string of base64 (RFC 4648, section 4)
	Document      // JSON, compacted
)

// Cell is one value of a row. Its text is valid until the next row.
type Cell struct {
	Kind Kind
	Text []byte
}

// EncodeRow writes a JSON object, the same bytes for the same cells.
func EncodeRow(names []string, cells []Cell) []byte {
	w := newWriter()
	for i, name := range names {
		w.buf.WriteByte("{,"[min(i, 1)])
		w.string(name)
		w.buf.WriteByte(':')
		w.cell(cells[i])
	}
	w.buf.WriteByte('}')
	return w.buf.Bytes()
}

type writer struct {
	buf     bytes.Buffer
	encoder *json.Encoder // writes to buf
}

func newWriter() *writer {
	w := &writer{}
	w.encoder = json.NewEncoder(&w.buf)
	w.encoder.SetEscapeHTML(false)
	return w
}

// string replaces what is not UTF-8 by the character U+FFFD. encoding/json would write an escape, and the value would change
// when it is written to the database and read back.
func (w *writer) string(s string) {
	_ = w.encoder.Encode(strings.ToValidUTF8(s, "\uFFFD")) // cannot fail for a string
	w.buf.Truncate(w.buf.Len() - len("\n"))
}

func (w *writer) cell(c Cell) {
	switch c.Kind {
	case Null:
		w.buf.WriteString("null")
	case Literal:
		w.buf.Write(c.Text)
	case Bytes:
		w.string(base64.StdEncoding.EncodeToString(c.Text))
	case Document:
		w.document(c.Text)
	default:
		w.string(string(c.Text))
	}
}

// document writes invalid JSON as a string: SQLite and MariaDB only check JSON on request.
func (w *writer) document(text []byte) {
	if !json.Valid(text) {
		w.string(string(text))
		return
	}
	_ = json.Compact(&w.buf, text) // only fails on invalid JSON
}

// Bool returns the cell of a boolean.
func Bool(v bool) Cell { return Cell{Literal, strconv.AppendBool(nil, v)} }

// Int returns the cell of an integer.
func Int(v int64) Cell { return Cell{Literal, strconv.AppendInt(nil, v, 10)} }

// Float writes the shortest digits that read back as v, in the notation of ECMAScript, as encoding/json does. JSON has no
// NaN and no infinities: these are strings, as PostgreSQL prints them.
func Float(v float64, bits int) Cell {
	switch {
	case math.IsNaN(v):
		return Text("NaN")
	case math.IsInf(v, 1):
		return Text("Infinity")
	case math.IsInf(v, -1):
		return Text("-Infinity")
	}
	abs := math.Abs(v)
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return Cell{Literal, shortExponent(strconv.AppendFloat(nil, v, 'e', -1, bits))}
	}
	return Cell{Literal, strconv.AppendFloat(nil, v, 'f', -1, bits)}
}

// shortExponent turns e-09 into e-9.
func shortExponent(b []byte) []byte {
	if n := len(b); n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		return append(b[:n-2], b[n-1])
	}
	return b
}

// Decimal keeps all digits, including trailing zeros; NaN and infinities are strings.
func Decimal(text []byte) Cell {
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		return Cell{String, text}
	}
	return Cell{Literal, text}
}

// Text returns the cell of a string.
func Text(s string) Cell { return Cell{String, []byte(s)} }

// The layouts of dates and times. Microseconds are the highest precision that all databases support.
const (
	DateLayout      = "2006-01-02"
	TimeLayout      = "15:04:05.000000"
	TimestampLayout = "2006-01-02T15:04:05.000000Z"
)

// Timestamp returns the cell of a point in time.
func Timestamp(t time.Time) Cell { return Text(t.UTC().Format(TimestampLayout)) }

// Reformat parses text in one of the layouts and writes it in another one. What RFC 3339 cannot express (infinity, a year
// BC, 0000-00-00, 838:59:59) stays as the database prints it.
func Reformat(text, layout string, layouts ...string) Cell {
	for _, from := range layouts {
		t, err := time.Parse(from, text)
		if err == nil {
			return Text(t.UTC().Format(layout))
		}
	}
	return Text(text)
}
