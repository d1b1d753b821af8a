package rowjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// Input is the requested value of a column.
type Input struct {
	Kind Kind   // Null, String, Literal or Document; Plain if it is not JSON
	Text string // a string without quotes and escapes; everything else as written
	Raw  string // as written
}

// PlainInput returns an Input that is not JSON.
func PlainInput(text string) Input { return Input{Kind: Plain, Text: text} }

// Equal reports whether in and other are the same JSON, apart from escapes and from blanks.
func (in Input) Equal(other Input) bool {
	if in.Kind == Document && other.Kind == Document {
		return in.Raw == other.Raw || compact(in.Raw) == compact(other.Raw)
	}
	return in.Kind == other.Kind && in.Text == other.Text
}

func compact(raw string) string {
	var b bytes.Buffer
	_ = json.Compact(&b, []byte(raw)) // ParseRow has checked it
	return b.String()
}

// Member is a member of a JSON object.
type Member struct {
	Name  string
	Input Input
}

// ParseRow reads a JSON object strictly (RFC 8259, 4 and 8): no duplicate names, nothing after it, UTF-8 without half
// surrogates. The database checks the inside of members that are objects or arrays. Errors are *origin.ValueError.
func ParseRow(data []byte) ([]Member, error) {
	if !utf8.Valid(data) {
		return nil, origin.InvalidValue("", "the value is not UTF-8")
	}
	if !json.Valid(data) {
		return nil, notJSON(data)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, origin.InvalidValue("", "the value is JSON but not an object: write a row as {\"column\": value, …}")
	}
	var members []Member
	seen := map[string]bool{}
	for d.More() {
		m, err := parseMember(d)
		if err != nil {
			return nil, err
		}
		if seen[m.Name] { //guard:duplicate-member-written
			return nil, origin.InvalidValue(m.Name, "it occurs twice")
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
		return origin.InvalidValue("", "unexpected data after the JSON object, from byte %d", d.InputOffset())
	}
	return origin.InvalidValue("", "the value is not JSON")
}

func parseMember(d *json.Decoder) (Member, error) {
	name, err := d.Token()
	if err != nil {
		return Member{}, origin.InvalidValue("", "the value is not JSON")
	}
	m := Member{Name: name.(string)} // checked by json.Valid
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return Member{}, origin.InvalidValue(m.Name, "it is not JSON")
	}
	m.Input, err = parseInput(m.Name, raw)
	return m, err
}

func parseInput(column string, raw json.RawMessage) (Input, error) {
	in := Input{Kind: Literal, Text: string(raw), Raw: string(raw)}
	switch raw[0] {
	case 'n':
		in.Kind = Null
	case '{', '[':
		in.Kind = Document
	case '"':
		in.Kind = String
		if !origin.WholeSurrogates(raw) { //guard:half-surrogate-pair-written
			return Input{}, origin.InvalidValue(column, "it has half of a surrogate pair, which is not a character")
		}
		if err := json.Unmarshal(raw, &in.Text); err != nil {
			return Input{}, origin.InvalidValue(column, "it is not JSON")
		}
	}
	return in, nil
}
