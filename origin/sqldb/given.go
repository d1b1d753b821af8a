package sqldb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// given is what a caller wants a column to hold.
type given struct {
	kind kind   // null, quoted, bare or document; plain where it is no JSON
	text string // of a string without quotes and escapes, of all else as it was written
	raw  string // as it was written
}

// member is a member of a JSON object.
type member struct {
	name  string
	given given
}

func invalid(column, format string, args ...any) *origin.ValueError {
	return &origin.ValueError{Column: column, Reason: fmt.Sprintf(format, args...)}
}

// parseRow reads a JSON object strictly (RFC 8259, 4 and 8): no name twice, nothing behind it, UTF-8 without half
// surrogates. What is inside of a member that is an object or an array is left to the database.
func parseRow(data []byte) ([]member, error) {
	if !utf8.Valid(data) {
		return nil, invalid("", "the value is not UTF-8")
	}
	if !json.Valid(data) {
		return nil, notJSON(data)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, invalid("", "the value is JSON but no object: write a row as {\"column\": value, …}")
	}
	var members []member
	seen := map[string]bool{}
	for d.More() {
		m, err := parseMember(d)
		if err != nil {
			return nil, err
		}
		if seen[m.name] { //guard:last-two-members-one-name-written
			return nil, invalid(m.name, "it is there twice")
		}
		seen[m.name] = true
		members = append(members, m)
	}
	return members, nil
}

func notJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	var all json.RawMessage
	var wrong *json.SyntaxError
	switch err := d.Decode(&all); {
	case errors.Is(err, io.EOF):
		return invalid("", "the value is empty: write a row as {\"column\": value, …}")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("", "the value is not JSON: it ends too early")
	case errors.As(err, &wrong):
		return invalid("", "the value is not JSON, at byte %d: %v", wrong.Offset, wrong)
	}
	if _, err := d.Token(); err != io.EOF {
		return invalid("", "something is behind the JSON object, from byte %d on", d.InputOffset())
	}
	return invalid("", "the value is not JSON")
}

func parseMember(d *json.Decoder) (member, error) {
	name, err := d.Token()
	if err != nil {
		return member{}, invalid("", "the value is not JSON")
	}
	m := member{name: name.(string)} // json.Valid has seen that it is
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return member{}, invalid(m.name, "it is not JSON")
	}
	m.given, err = parseGiven(m.name, raw)
	return m, err
}

func parseGiven(column string, raw json.RawMessage) (given, error) {
	g := given{kind: bare, text: string(raw), raw: string(raw)}
	switch raw[0] {
	case 'n':
		g.kind = null
	case '{', '[':
		g.kind = document
	case '"':
		g.kind = quoted
		if !origin.WholeSurrogates(raw) { //guard:half-surrogate-pair-written-ufffd
			return given{}, invalid(column, "it has half of a surrogate pair, which is no character")
		}
		if err := json.Unmarshal(raw, &g.text); err != nil {
			return given{}, invalid(column, "it is not JSON")
		}
	}
	return g, nil
}
