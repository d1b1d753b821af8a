package rowjson

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// Form says which values a column accepts, and how JSON writes them (the table in DESIGN.md of sqldb).
type Form uint8

// The forms of columns.
const (
	FormText Form = iota // also every other type whose text the database parses
	FormBool
	FormInteger
	FormFloat
	FormDecimal
	FormBytes
	FormJSON
	FormTimestamp
	FormDate
	FormTime // in a database that does not check times
	FormAny  // numbers and text
)

// Plain is the kind of an Input that is not JSON.
const Plain Kind = 255

// Column is a column that can be written.
type Column struct {
	Name      string
	Form      Form
	Bits      int // of FormInteger and FormFloat; of FormBool if the column also holds other integers, otherwise 0
	Unsigned  bool
	NotNull   bool
	Generated bool // by the database, which accepts no value
	MaxChars  int  // of FormText; 0 if there is no limit, or if the database names the column that is too long
	Digits    int  // of FormDecimal, before the point; 0 if the database names the column that is out of range
	Scale     int  // of FormDecimal, after the point
	Finite    bool // FormFloat and FormDecimal accept no NaN and no infinity
	Unchecked bool // the database stores any value in any column
	// Inexact says that a read does not return everything that is stored: the blanks in JSON, the padding of a bpchar.
	Inexact bool
	Enum    bool // FormText of a list of values, which may also hold an invalid one, read as an empty text
	// AutoUpdate says that the database changes the column with each update that does not assign it.
	AutoUpdate bool
	// Epoch makes FormTimestamp and FormDate store a time as an integer that counts these since 1970.
	Epoch time.Duration
}

// Decode turns in into a parameter: nil, bool, int64, uint64, float64, string or []byte. Its errors are *origin.ValueError.
func (c *Column) Decode(in Input) (any, error) {
	if in.Kind == Null && (c.Form != FormJSON || !c.NotNull) {
		return c.decodeNull()
	}
	switch c.Form {
	case FormBool:
		return c.decodeBool(in)
	case FormInteger:
		return c.decodeInteger(in)
	case FormFloat:
		return c.decodeFloat(in)
	case FormDecimal:
		return c.decodeDecimal(in)
	case FormBytes:
		return c.decodeBytes(in)
	case FormJSON:
		return c.decodeJSON(in)
	case FormTimestamp, FormDate, FormTime:
		return c.decodeTime(in)
	case FormAny:
		return c.decodeAny(in)
	}
	return c.decodeText(in)
}

// Ambiguous reports whether the column may hold several values that are read as in, so that to write it may change the one
// that is stored.
func (c *Column) Ambiguous(in Input) bool {
	switch {
	case c.Unchecked, c.Generated, c.Inexact:
		return true
	case in.Kind == Null:
		return c.Form == FormJSON // the database's NULL, or JSON's null
	case c.Form == FormTimestamp, c.Form == FormDate:
		return !isRegularTime(in.Text) // 2024-00-00, which MySQL stores or rejects by its mode
	case c.Enum && in.Text == "":
		return true
	}
	return strings.Contains(in.Text, "\uFFFD") // bytes that are not UTF-8
}

func isRegularTime(text string) bool {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if _, err := time.Parse(layout, text); err == nil {
			return true
		}
	}
	return false
}

func (c *Column) decodeNull() (any, error) {
	if c.NotNull {
		return nil, origin.InvalidValue(c.Name, "it must not be null")
	}
	return nil, nil
}

func (c *Column) wants(what string) error { return origin.InvalidValue(c.Name, "want %s", what) }

func (c *Column) decodeText(in Input) (any, error) {
	if in.Kind != String && in.Kind != Plain {
		return nil, c.wants("a string")
	}
	if !utf8.ValidString(in.Text) {
		return nil, origin.InvalidValue(c.Name, "it is not UTF-8")
	}
	if strings.Contains(in.Text, "\x00") {
		return nil, origin.InvalidValue(c.Name, "it has a NUL character, which not all databases can store")
	}
	// Databases remove blanks beyond the limit (SQL standard; PostgreSQL, 8.3).
	if n := utf8.RuneCountInString(strings.TrimRight(in.Text, " ")); c.MaxChars > 0 && n > c.MaxChars {
		return nil, origin.InvalidValue(c.Name, "it has %d characters; the column can store at most %d", n, c.MaxChars)
	}
	return in.Text, nil
}

func (c *Column) decodeBool(in Input) (any, error) {
	if v, ok := map[string]bool{"true": true, "false": false}[in.Text]; ok && in.Kind != String {
		return v, nil
	}
	if c.Bits > 0 && isNumber(in) {
		return c.decodeInteger(in)
	}
	return nil, c.wants("true or false")
}

func isNumber(in Input) bool {
	number := in.Kind == Literal && in.Text != "true" && in.Text != "false"
	return number || in.Kind == Plain && json.Valid([]byte(in.Text)) && strings.ContainsAny(in.Text[:1], "-0123456789")
}

func (c *Column) decodeInteger(in Input) (v any, err error) {
	if !isNumber(in) {
		return nil, c.wants("an integer")
	}
	if c.Unsigned {
		v, err = strconv.ParseUint(in.Text, 10, c.Bits)
	} else {
		v, err = strconv.ParseInt(in.Text, 10, c.Bits)
	}
	switch {
	case err == nil:
		return v, nil
	case strings.ContainsAny(in.Text, ".eE"):
		return nil, c.wants("an integer, without a decimal point or exponent")
	}
	return nil, origin.InvalidValue(c.Name, "it is out of range of an integer of %d bits", c.Bits)
}

func (c *Column) decodeFloat(in Input) (any, error) {
	if !isNumber(in) {
		return c.decodeNotFinite(in)
	}
	v, err := strconv.ParseFloat(in.Text, c.Bits)
	if err != nil {
		return nil, origin.InvalidValue(c.Name, "it is out of range of a floating-point number of %d bits", c.Bits)
	}
	return v, nil
}

func (c *Column) decodeNotFinite(in Input) (any, error) {
	v, ok := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[in.Text]
	switch {
	case !ok:
		return nil, c.wants("a number")
	case c.Finite, c.Unchecked && math.IsNaN(v):
		return nil, origin.InvalidValue(c.Name, "the database cannot store %s", in.Text)
	case c.Form == FormDecimal:
		return in.Text, nil
	}
	return v, nil
}

func (c *Column) decodeDecimal(in Input) (any, error) {
	if !isNumber(in) {
		return c.decodeNotFinite(in)
	}
	if c.Digits > 0 && digitsBefore(in.Text) > c.Digits {
		return nil, origin.InvalidValue(c.Name, "it is out of range: the column can store %d digits before the point", c.Digits)
	}
	if c.Unchecked {
		return c.decodeDouble(in)
	}
	return in.Text, nil
}

// doubleDigits is how many digits of any decimal a double preserves.
const doubleDigits = 15

// decodeDouble rounds a decimal to the column's scale, for a database that stores doubles.
func (c *Column) decodeDouble(in Input) (any, error) {
	if max(digitsBefore(in.Text), 0)+c.Scale > doubleDigits {
		return nil, origin.InvalidValue(c.Name, "it has more than %d digits, and the database stores doubles", doubleDigits)
	}
	v, err := strconv.ParseFloat(in.Text, 64)
	if err != nil {
		return nil, origin.InvalidValue(c.Name, "it is out of range")
	}
	return strconv.ParseFloat(strconv.FormatFloat(v, 'f', c.Scale, 64), 64)
}

// digitsBefore returns how many digits a JSON number has before its point if written without exponent; less than 1 for a
// number below 1.
func digitsBefore(number string) int {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(number, "-")), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	significant := strings.TrimLeft(digits, "0")
	if significant == "" {
		return 0
	}
	shift, err := strconv.Atoi(exponent)
	if err != nil && exponent != "" {
		shift = math.MaxInt32
		if exponent[0] == '-' {
			shift = math.MinInt32
		}
	}
	return len(whole) - (len(digits) - len(significant)) + shift
}

func (c *Column) decodeBytes(in Input) (any, error) {
	switch in.Kind {
	case Plain:
		return []byte(in.Text), nil
	case String:
		if b, err := base64.StdEncoding.Strict().DecodeString(in.Text); err == nil {
			return b, nil
		}
	}
	return nil, c.wants("bytes, as a string of base64 with padding (RFC 4648, section 4)")
}

func (c *Column) decodeJSON(in Input) (any, error) {
	if in.Kind == Plain && !json.Valid([]byte(in.Text)) {
		return nil, c.wants("JSON")
	}
	if in.Kind == Plain {
		return in.Text, nil
	}
	return in.Raw, nil
}

// databaseTime is a layout that all databases parse; each connection's zone is UTC.
const databaseTime = "2006-01-02 15:04:05.000000"

// decodeTime leaves what RFC 3339 cannot express (infinity, a year BC) to a database that checks it.
func (c *Column) decodeTime(in Input) (any, error) {
	switch {
	case c.Unchecked && c.Form != FormTime && isNumber(in): // as it is read
		return c.decodeAny(Input{Kind: Literal, Text: in.Text})
	case in.Kind != String && in.Kind != Plain:
		return nil, c.wants("a string: " + c.timeFormat())
	}
	if t, err := time.Parse(time.RFC3339, in.Text); err == nil && c.Form == FormTimestamp { //guard:time-zone-ignored
		return c.stored(t, t.UTC().Format(databaseTime))
	}
	switch {
	case !c.Unchecked && c.Form == FormDate && strings.ContainsAny(in.Text, "T:"): // MySQL 8 would convert its zone
		return nil, c.wants(c.timeFormat())
	case !c.Unchecked:
		return c.decodeText(in)
	}
	for _, layout := range checkedLayouts[c.Form] {
		if t, err := time.Parse(layout, in.Text); err == nil {
			return c.stored(t, in.Text)
		}
	}
	return nil, c.wants(c.timeFormat())
}

// checkedLayouts are accepted for a database that does not check times.
var checkedLayouts = map[Form][]string{
	FormTimestamp: {"2006-01-02 15:04:05"}, FormDate: {"2006-01-02"}, FormTime: {"15:04:05", "15:04"},
}

// stored returns a time as the column stores it.
func (c *Column) stored(t time.Time, text string) (any, error) {
	switch {
	case c.Unchecked && (t.UTC().Year() < 0 || t.UTC().Year() > 9999):
		return nil, c.wants("a year from 0 to 9999 in UTC")
	case c.Epoch == time.Second && c.Form != FormTime:
		return t.Unix(), nil
	case c.Epoch == time.Millisecond && c.Form != FormTime:
		return t.UnixMilli(), nil
	}
	return text, nil
}

func (c *Column) timeFormat() string {
	return map[Form]string{
		FormTimestamp: "a time as 2006-01-02T15:04:05.123456Z (RFC 3339)",
		FormDate:      "a date as 2006-01-02", FormTime: "a time of the day as 15:04:05.123456",
	}[c.Form]
}

func (c *Column) decodeAny(in Input) (any, error) {
	if !isNumber(in) || in.Kind == Plain {
		return c.decodeText(in)
	}
	if v, err := strconv.ParseInt(in.Text, 10, 64); err == nil {
		return v, nil
	}
	v, err := strconv.ParseFloat(in.Text, 64)
	if err != nil {
		return nil, origin.InvalidValue(c.Name, "it is out of range")
	}
	return v, nil
}
