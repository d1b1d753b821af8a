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

// form says which values a column takes, and how they are written as JSON (the table of DESIGN.md).
type Form uint8

const (
	FormText Form = iota // and all else of which the database itself reads the text
	FormBool
	FormInteger
	FormFloat
	FormDecimal
	FormBytes
	FormJSON
	FormTimestamp
	FormDate // of a database that does not check it
	FormTime // the same
	FormAny  // numbers and text
)

// plain is the kind of what is given as it is, without JSON around it.
const Plain Kind = 255

// tableColumn is a column that may be written.
type Column struct {
	Name      string
	Form      Form
	Bits      int // of formInteger and formFloat; of formBool where it holds other integers too, else 0
	Unsigned  bool
	NotNull   bool
	Generated bool // by the database, which takes no value for it
	MaxChars  int  // of formText; 0 where the database says which column is too long, or where there is no bound
	Digits    int  // of formDecimal, before the point; 0 where the database says which column is out of range
	Scale     int  // of formDecimal, behind the point
	Finite    bool // formFloat and formDecimal take no NaN and no infinity
	Unchecked bool // the database takes anything for anything
}

// take turns what is given into a parameter: nil, bool, int64, uint64, float64, string or []byte.
func (c *Column) Decode(g Input) (any, error) {
	if g.Kind == Null && (c.Form != FormJSON || !c.NotNull) {
		return c.decodeNull()
	}
	switch c.Form {
	case FormBool:
		return c.decodeBool(g)
	case FormInteger:
		return c.decodeInteger(g)
	case FormFloat:
		return c.decodeFloat(g)
	case FormDecimal:
		return c.decodeDecimal(g)
	case FormBytes:
		return c.decodeBytes(g)
	case FormJSON:
		return c.decodeJSON(g)
	case FormTimestamp, FormDate, FormTime:
		return c.decodeTime(g)
	case FormAny:
		return c.decodeAny(g)
	}
	return c.decodeText(g)
}

func (c *Column) decodeNull() (any, error) {
	if c.NotNull {
		return nil, origin.InvalidValue(c.Name, "it must not be null")
	}
	return nil, nil
}

func (c *Column) wants(what string) error { return origin.InvalidValue(c.Name, "want %s", what) }

func (c *Column) decodeText(g Input) (any, error) {
	if g.Kind != String && g.Kind != Plain {
		return nil, c.wants("a string")
	}
	if !utf8.ValidString(g.Text) {
		return nil, origin.InvalidValue(c.Name, "it is not UTF-8")
	}
	if strings.Contains(g.Text, "\x00") {
		return nil, origin.InvalidValue(c.Name, "it has a NUL character, which not all databases can hold")
	}
	// Blanks beyond the end are cut off (SQL standard; PostgreSQL, 8.3).
	if n := utf8.RuneCountInString(strings.TrimRight(g.Text, " ")); c.MaxChars > 0 && n > c.MaxChars {
		return nil, origin.InvalidValue(c.Name, "it has %d characters; the column holds %d at most", n, c.MaxChars)
	}
	return g.Text, nil
}

func (c *Column) decodeBool(g Input) (any, error) {
	if v, ok := map[string]bool{"true": true, "false": false}[g.Text]; ok && g.Kind != String {
		return v, nil
	}
	if c.Bits > 0 && isNumber(g) {
		return c.decodeInteger(g)
	}
	return nil, c.wants("true or false")
}

func isNumber(g Input) bool {
	number := g.Kind == Literal && g.Text != "true" && g.Text != "false"
	return number || g.Kind == Plain && json.Valid([]byte(g.Text)) && strings.ContainsAny(g.Text[:1], "-0123456789")
}

func (c *Column) decodeInteger(g Input) (v any, err error) {
	if !isNumber(g) {
		return nil, c.wants("an integer")
	}
	if c.Unsigned {
		v, err = strconv.ParseUint(g.Text, 10, c.Bits)
	} else {
		v, err = strconv.ParseInt(g.Text, 10, c.Bits)
	}
	switch {
	case err == nil:
		return v, nil
	case strings.ContainsAny(g.Text, ".eE"):
		return nil, c.wants("an integer, without point and exponent")
	}
	return nil, origin.InvalidValue(c.Name, "it is out of range of an integer of %d bits", c.Bits)
}

func (c *Column) decodeFloat(g Input) (any, error) {
	if !isNumber(g) {
		return c.decodeNotFinite(g)
	}
	v, err := strconv.ParseFloat(g.Text, c.Bits)
	if err != nil {
		return nil, origin.InvalidValue(c.Name, "it is out of range of a floating-point number of %d bits", c.Bits)
	}
	return v, nil
}

func (c *Column) decodeNotFinite(g Input) (any, error) {
	v, ok := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[g.Text]
	switch {
	case !ok:
		return nil, c.wants("a number")
	case c.Finite, c.Unchecked && math.IsNaN(v):
		return nil, origin.InvalidValue(c.Name, "the database can not hold %s", g.Text)
	case c.Form == FormDecimal:
		return g.Text, nil
	}
	return v, nil
}

func (c *Column) decodeDecimal(g Input) (any, error) {
	if !isNumber(g) {
		return c.decodeNotFinite(g)
	}
	if c.Digits > 0 && digitsBefore(g.Text) > c.Digits {
		return nil, origin.InvalidValue(c.Name, "it is out of range: the column holds %d digits before the point", c.Digits)
	}
	if c.Unchecked {
		return c.decodeDouble(g)
	}
	return g.Text, nil
}

// doubleDigits is how many digits of any decimal a double keeps.
const doubleDigits = 15

// takeDouble rounds a decimal to the column's scale, where the database holds it as a double.
func (c *Column) decodeDouble(g Input) (any, error) {
	if max(digitsBefore(g.Text), 0)+c.Scale > doubleDigits {
		return nil, origin.InvalidValue(c.Name, "it has more than %d digits, and the database holds doubles", doubleDigits)
	}
	v, err := strconv.ParseFloat(g.Text, 64)
	if err != nil {
		return nil, origin.InvalidValue(c.Name, "it is out of range")
	}
	return strconv.ParseFloat(strconv.FormatFloat(v, 'f', c.Scale, 64), 64)
}

// digitsBefore returns how many digits a JSON number has before its point when it is written without exponent; less
// than 1 for what is below 1.
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

func (c *Column) decodeBytes(g Input) (any, error) {
	switch g.Kind {
	case Plain:
		return []byte(g.Text), nil
	case String:
		if b, err := base64.StdEncoding.Strict().DecodeString(g.Text); err == nil {
			return b, nil
		}
	}
	return nil, c.wants("bytes, as a string of base64 with padding (RFC 4648, section 4)")
}

func (c *Column) decodeJSON(g Input) (any, error) {
	if g.Kind == Plain && !json.Valid([]byte(g.Text)) {
		return nil, c.wants("JSON")
	}
	if g.Kind == Plain {
		return g.Text, nil
	}
	return g.Raw, nil
}

// databaseTime is how all of the databases read a time; each connection's zone is UTC.
const databaseTime = "2006-01-02 15:04:05.000000"

// takeTime leaves what RFC 3339 can not say (infinity, a year BC) to a database that checks it.
func (c *Column) decodeTime(g Input) (any, error) {
	if g.Kind != String && g.Kind != Plain {
		return nil, c.wants("a string: " + c.timeFormat())
	}
	if t, err := time.Parse(time.RFC3339, g.Text); err == nil && c.Form == FormTimestamp { //guard:time-zone-ignored
		return t.UTC().Format(databaseTime), nil
	}
	layouts := map[Form][]string{
		FormTimestamp: {"2006-01-02 15:04:05"}, FormDate: {"2006-01-02"}, FormTime: {"15:04:05", "15:04"},
	}[c.Form]
	if !c.Unchecked {
		return c.decodeText(g)
	}
	for _, layout := range layouts {
		if _, err := time.Parse(layout, g.Text); err == nil {
			return g.Text, nil
		}
	}
	return nil, c.wants(c.timeFormat())
}

func (c *Column) timeFormat() string {
	return map[Form]string{
		FormTimestamp: "a time as 2006-01-02T15:04:05.123456Z (RFC 3339)",
		FormDate:      "a date as 2006-01-02", FormTime: "a time of the day as 15:04:05.123456",
	}[c.Form]
}

func (c *Column) decodeAny(g Input) (any, error) {
	if !isNumber(g) || g.Kind == Plain {
		return c.decodeText(g)
	}
	if v, err := strconv.ParseInt(g.Text, 10, 64); err == nil {
		return v, nil
	}
	v, err := strconv.ParseFloat(g.Text, 64)
	if err != nil {
		return nil, origin.InvalidValue(c.Name, "it is out of range")
	}
	return v, nil
}
