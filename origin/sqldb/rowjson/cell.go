// Package rowjson converts between the columns of a row and JSON: EncodeRow writes a row as a JSON object, the same bytes for
// the same values in every database, and ParseRow and Column.Decode read one back as parameters of a statement. It is pure.
package rowjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// Kind says how JSON writes a cell.
type Kind uint8

// The kinds of cells.
const (
	Null     Kind = iota
	String        // a string
	Literal       // a number, true or false
	Bytes         // bytes, as a string of base64 (RFC 4648, section 4)
	Document      // JSON, compacted
)

// Cell is one value of a row. Its text is valid until the next row.
type Cell struct {
	Kind Kind
	Text []byte
}

// Content returns what the text of c is. A database that does not check its columns must not make a client parse what is no
// JSON, or is not UTF-8.
func (c Cell) Content() origin.Content {
	switch {
	case c.Kind == Document && json.Valid(c.Text): //guard:invalid-document-sent-as-json
		return origin.ContentJSON
	case c.Kind == Bytes, !utf8.Valid(c.Text): //guard:bytes-sent-as-text
		return origin.ContentBytes
	}
	return origin.ContentText
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
		w.literal(c.Text)
	case Bytes:
		w.string(base64.StdEncoding.EncodeToString(c.Text))
	case Document:
		w.document(c.Text)
	default:
		w.string(string(c.Text))
	}
}

// literal writes as a string what is no number: one value must not make its row, and each answer that contains it, invalid.
func (w *writer) literal(text []byte) {
	if !isLiteral(text) { //guard:invalid-number-written
		w.string(string(text))
		return
	}
	w.buf.Write(text)
}

// document writes invalid JSON as a string: SQLite and MariaDB only check JSON on request. json.Valid accepts strings that
// are not UTF-8.
func (w *writer) document(text []byte) {
	if !json.Valid(text) {
		w.string(string(text))
		return
	}
	_ = json.Compact(&w.buf, bytes.ToValidUTF8(text, []byte("\uFFFD"))) //guard:document-not-utf8
}

// Text returns the cell of a string.
func Text(s string) Cell { return Cell{String, []byte(s)} }

// Padded returns the cell of a char(n), without the blanks that fill it up to its length. MySQL removes them (unless
// PAD_CHAR_TO_FULL_LENGTH is set), PostgreSQL prints them and ignores them in comparisons (8.3).
func Padded(text []byte) Cell { return Cell{String, bytes.TrimRight(text, " ")} }

// The layouts of dates and times. Microseconds are the highest precision that all databases support.
const (
	DateLayout      = "2006-01-02"
	TimeLayout      = "15:04:05.000000"
	TimestampLayout = "2006-01-02T15:04:05.000000Z"

	nanosecondLayout = "2006-01-02T15:04:05.000000000Z"
)

// Timestamp returns the cell of a point in time. RFC 3339 has the years 0 to 9999: outside of them, ok is false.
func Timestamp(t time.Time) (c Cell, ok bool) {
	t = t.UTC()
	layout := TimestampLayout
	if t.Nanosecond()%int(time.Microsecond) != 0 { // only SQLite stores it, as text
		layout = nanosecondLayout
	}
	return Text(t.Format(layout)), 0 <= t.Year() && t.Year() <= 9999
}

// TimestampText parses text in one of the layouts. What RFC 3339 cannot express (infinity, a year BC, 0000-00-00) stays as
// the database prints it.
func TimestampText(text string, layouts ...string) Cell {
	for _, layout := range layouts {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		if c, ok := Timestamp(t); ok {
			return c
		}
	}
	return Text(text)
}

// TimeText parses a time of the day in one of the layouts. What is none (24:00:00, 838:59:59) stays as the database prints it.
func TimeText(text string, layouts ...string) Cell {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil && t.Nanosecond()%int(time.Microsecond) == 0 {
			return Text(t.Format(TimeLayout))
		}
	}
	return Text(text)
}
