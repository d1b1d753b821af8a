package sqldb

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// form says which values a column takes, and how they are written as JSON (the table of DESIGN.md).
type form uint8

const (
	formText form = iota // and all else of which the database itself reads the text
	formBool
	formInteger
	formFloat
	formDecimal
	formBytes
	formJSON
	formTimestamp
	formDate // of a database that does not check it
	formTime // the same
	formAny  // numbers and text
)

// plain is the kind of what is given as it is, without JSON around it.
const plain kind = 255

// tableColumn is a column that may be written.
type tableColumn struct {
	name      string
	form      form
	bits      int // of formInteger and formFloat; of formBool where it holds other integers too, else 0
	unsigned  bool
	notNull   bool
	generated bool // by the database, which takes no value for it
	maxChars  int  // of formText; 0 where the database says which column is too long, or where there is no bound
	digits    int  // of formDecimal, before the point; 0 where the database says which column is out of range
	scale     int  // of formDecimal, behind the point
	finite    bool // formFloat and formDecimal take no NaN and no infinity
	unchecked bool // the database takes anything for anything
}

// take turns what is given into a parameter: nil, bool, int64, uint64, float64, string or []byte.
func (c *tableColumn) take(g given) (any, error) {
	if g.kind == null && (c.form != formJSON || !c.notNull) {
		return c.takeNull()
	}
	switch c.form {
	case formBool:
		return c.takeBool(g)
	case formInteger:
		return c.takeInteger(g)
	case formFloat:
		return c.takeFloat(g)
	case formDecimal:
		return c.takeDecimal(g)
	case formBytes:
		return c.takeBytes(g)
	case formJSON:
		return c.takeJSON(g)
	case formTimestamp, formDate, formTime:
		return c.takeTime(g)
	case formAny:
		return c.takeAny(g)
	}
	return c.takeText(g)
}

func (c *tableColumn) takeNull() (any, error) {
	if c.notNull {
		return nil, invalid(c.name, "it must not be null")
	}
	return nil, nil
}

func (c *tableColumn) wants(what string) error { return invalid(c.name, "want %s", what) }

func (c *tableColumn) takeText(g given) (any, error) {
	if g.kind != quoted && g.kind != plain {
		return nil, c.wants("a string")
	}
	if !utf8.ValidString(g.text) {
		return nil, invalid(c.name, "it is not UTF-8")
	}
	if strings.Contains(g.text, "\x00") {
		return nil, invalid(c.name, "it has a NUL character, which not all databases can hold")
	}
	// Blanks beyond the end are cut off (SQL standard; PostgreSQL, 8.3).
	if n := utf8.RuneCountInString(strings.TrimRight(g.text, " ")); c.maxChars > 0 && n > c.maxChars {
		return nil, invalid(c.name, "it has %d characters; the column holds %d at most", n, c.maxChars)
	}
	return g.text, nil
}

func (c *tableColumn) takeBool(g given) (any, error) {
	if v, ok := map[string]bool{"true": true, "false": false}[g.text]; ok && g.kind != quoted {
		return v, nil
	}
	if c.bits > 0 && isNumber(g) {
		return c.takeInteger(g)
	}
	return nil, c.wants("true or false")
}

func isNumber(g given) bool {
	number := g.kind == bare && g.text != "true" && g.text != "false"
	return number || g.kind == plain && json.Valid([]byte(g.text)) && strings.ContainsAny(g.text[:1], "-0123456789")
}

func (c *tableColumn) takeInteger(g given) (v any, err error) {
	if !isNumber(g) {
		return nil, c.wants("an integer")
	}
	if c.unsigned {
		v, err = strconv.ParseUint(g.text, 10, c.bits)
	} else {
		v, err = strconv.ParseInt(g.text, 10, c.bits)
	}
	switch {
	case err == nil:
		return v, nil
	case strings.ContainsAny(g.text, ".eE"):
		return nil, c.wants("an integer, without point and exponent")
	}
	return nil, invalid(c.name, "it is out of range of an integer of %d bits", c.bits)
}

func (c *tableColumn) takeFloat(g given) (any, error) {
	if !isNumber(g) {
		return c.takeNotFinite(g)
	}
	v, err := strconv.ParseFloat(g.text, c.bits)
	if err != nil {
		return nil, invalid(c.name, "it is out of range of a floating-point number of %d bits", c.bits)
	}
	return v, nil
}

func (c *tableColumn) takeNotFinite(g given) (any, error) {
	v, ok := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[g.text]
	switch {
	case !ok:
		return nil, c.wants("a number")
	case c.finite, c.unchecked && math.IsNaN(v):
		return nil, invalid(c.name, "the database can not hold %s", g.text)
	case c.form == formDecimal:
		return g.text, nil
	}
	return v, nil
}

func (c *tableColumn) takeDecimal(g given) (any, error) {
	if !isNumber(g) {
		return c.takeNotFinite(g)
	}
	if c.digits > 0 && digitsBefore(g.text) > c.digits {
		return nil, invalid(c.name, "it is out of range: the column holds %d digits before the point", c.digits)
	}
	if c.unchecked {
		return c.takeDouble(g)
	}
	return g.text, nil
}

// doubleDigits is how many digits of any decimal a double keeps.
const doubleDigits = 15

// takeDouble rounds a decimal to the column's scale, where the database holds it as a double.
func (c *tableColumn) takeDouble(g given) (any, error) {
	if max(digitsBefore(g.text), 0)+c.scale > doubleDigits {
		return nil, invalid(c.name, "it has more than %d digits, and the database holds doubles", doubleDigits)
	}
	v, err := strconv.ParseFloat(g.text, 64)
	if err != nil {
		return nil, invalid(c.name, "it is out of range")
	}
	return strconv.ParseFloat(strconv.FormatFloat(v, 'f', c.scale, 64), 64)
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

func (c *tableColumn) takeBytes(g given) (any, error) {
	switch g.kind {
	case plain:
		return []byte(g.text), nil
	case quoted:
		if b, err := base64.StdEncoding.Strict().DecodeString(g.text); err == nil {
			return b, nil
		}
	}
	return nil, c.wants("bytes, as a string of base64 with padding (RFC 4648, section 4)")
}

func (c *tableColumn) takeJSON(g given) (any, error) {
	if g.kind == plain && !json.Valid([]byte(g.text)) {
		return nil, c.wants("JSON")
	}
	if g.kind == plain {
		return g.text, nil
	}
	return g.raw, nil
}

// databaseTime is how all of the databases read a time; each connection's zone is UTC.
const databaseTime = "2006-01-02 15:04:05.000000"

// takeTime leaves what RFC 3339 can not say (infinity, a year BC) to a database that checks it.
func (c *tableColumn) takeTime(g given) (any, error) {
	if g.kind != quoted && g.kind != plain {
		return nil, c.wants("a string: " + c.timeForm())
	}
	if t, err := time.Parse(time.RFC3339, g.text); err == nil && c.form == formTimestamp { //guard:zone-time-ignored
		return t.UTC().Format(databaseTime), nil
	}
	layouts := map[form][]string{
		formTimestamp: {"2006-01-02 15:04:05"}, formDate: {"2006-01-02"}, formTime: {"15:04:05", "15:04"},
	}[c.form]
	if !c.unchecked {
		return c.takeText(g)
	}
	for _, layout := range layouts {
		if _, err := time.Parse(layout, g.text); err == nil {
			return g.text, nil
		}
	}
	return nil, c.wants(c.timeForm())
}

func (c *tableColumn) timeForm() string {
	return map[form]string{
		formTimestamp: "a time as 2006-01-02T15:04:05.123456Z (RFC 3339)",
		formDate:      "a date as 2006-01-02", formTime: "a time of the day as 15:04:05.123456",
	}[c.form]
}

func (c *tableColumn) takeAny(g given) (any, error) {
	if !isNumber(g) || g.kind == plain {
		return c.takeText(g)
	}
	if v, err := strconv.ParseInt(g.text, 10, 64); err == nil {
		return v, nil
	}
	v, err := strconv.ParseFloat(g.text, 64)
	if err != nil {
		return nil, invalid(c.name, "it is out of range")
	}
	return v, nil
}
