package rowjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// given is what a caller wants a column to hold.
type Input struct {
	Kind Kind   // null, quoted, bare or document; plain where it is no JSON
	Text string // of a string without quotes and escapes, of all else as it was written
	Raw  string // as it was written
}

// plainGiven is text as it is, without JSON around it.
func PlainInput(text string) Input { return Input{Kind: Plain, Text: text} }

// member is a member of a JSON object.
type Member struct {
	Name  string
	Input Input
}

// parseRow reads a JSON object strictly (RFC 8259, 4 and 8): no name twice, nothing behind it, UTF-8 without half
// surrogates. What is inside of a member that is an object or an array is left to the database.
func ParseRow(data []byte) ([]Member, error) {
	if !utf8.Valid(data) {
		return nil, origin.InvalidValue("", "the value is not UTF-8")
	}
	if !json.Valid(data) {
		return nil, notJSON(data)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, origin.InvalidValue("", "the value is JSON but no object: write a row as {\"column\": value, …}")
	}
	var members []Member
	seen := map[string]bool{}
	for d.More() {
		m, err := parseMember(d)
		if err != nil {
			return nil, err
		}
		if seen[m.Name] { //guard:duplicate-member-written
			return nil, origin.InvalidValue(m.Name, "it is there twice")
		}
		seen[m.Name] = true
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
		return origin.InvalidValue("", "the value is empty: write a row as {\"column\": value, …}")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return origin.InvalidValue("", "the value is not JSON: it ends too early")
	case errors.As(err, &wrong):
		return origin.InvalidValue("", "the value is not JSON, at byte %d: %v", wrong.Offset, wrong)
	}
	if _, err := d.Token(); err != io.EOF {
		return origin.InvalidValue("", "something is behind the JSON object, from byte %d on", d.InputOffset())
	}
	return origin.InvalidValue("", "the value is not JSON")
}

func parseMember(d *json.Decoder) (Member, error) {
	name, err := d.Token()
	if err != nil {
		return Member{}, origin.InvalidValue("", "the value is not JSON")
	}
	m := Member{Name: name.(string)} // json.Valid has seen that it is
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return Member{}, origin.InvalidValue(m.Name, "it is not JSON")
	}
	m.Input, err = parseInput(m.Name, raw)
	return m, err
}

func parseInput(column string, raw json.RawMessage) (Input, error) {
	g := Input{Kind: Literal, Text: string(raw), Raw: string(raw)}
	switch raw[0] {
	case 'n':
		g.Kind = Null
	case '{', '[':
		g.Kind = Document
	case '"':
		g.Kind = String
		if !origin.WholeSurrogates(raw) { //guard:half-surrogate-pair-written
			return Input{}, origin.InvalidValue(column, "it has half of a surrogate pair, which is no character")
		}
		if err := json.Unmarshal(raw, &g.Text); err != nil {
			return Input{}, origin.InvalidValue(column, "it is not JSON")
		}
	}
	return g, nil
}
