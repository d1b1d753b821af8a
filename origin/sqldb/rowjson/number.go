package rowjson

import (
	"math"
	"strconv"
	"strings"
)

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

// Number returns the cell of a number that a database prints. It keeps all digits, also zeros at the end, and removes what
// JSON does not allow: zeros at the beginning (ZEROFILL), a plus sign, a point without digits. What is no decimal number
// (NaN, Infinity, an amount with a currency) is a string, as the database prints it.
func Number(text []byte) Cell {
	n, ok := parseNumber(string(text))
	switch {
	case !ok:
		return Cell{String, text}
	case n.isJSON():
		return Cell{Literal, text}
	}
	return Cell{Literal, []byte(n.json())}
}

// isLiteral reports whether text is true, false or a number of JSON.
func isLiteral(text []byte) bool {
	n, ok := parseNumber(string(text))
	return ok && n.isJSON() || string(text) == "true" || string(text) == "false"
}

// number is a decimal number in its parts: sign, digits, a point, digits, an exponent with its e and sign.
type number struct {
	sign, whole, point, fraction, exponent string
}

// parseNumber accepts more than JSON does.
func parseNumber(text string) (n number, ok bool) {
	n.sign, text = leading(text, "+-", 1)
	n.whole, text = leading(text, digits, len(text))
	n.point, text = leading(text, ".", 1)
	if n.point != "" {
		n.fraction, text = leading(text, digits, len(text))
	}
	n.exponent = text
	return n, n.whole+n.fraction != "" && isExponent(text)
}

const digits = "0123456789"

// leading splits text after its first characters that are in chars, at most limit.
func leading(text, chars string, limit int) (first, rest string) {
	n := 0
	for n < min(limit, len(text)) && strings.IndexByte(chars, text[n]) >= 0 {
		n++
	}
	return text[:n], text[n:]
}

func isExponent(text string) bool {
	if text == "" {
		return true
	}
	e, rest := leading(text, "eE", 1)
	_, rest = leading(rest, "+-", 1)
	power, rest := leading(rest, digits, len(rest))
	return e != "" && power != "" && rest == ""
}

// isJSON reports whether JSON allows the number as it is (RFC 8259, 6).
func (n number) isJSON() bool {
	return n.sign != "+" && (n.whole == "0" || n.whole != "" && n.whole[0] != '0') && (n.point == "" || n.fraction != "")
}

// json returns the number as JSON allows it, with the same value and the same digits after the point.
func (n number) json() string {
	whole := strings.TrimLeft(n.whole, "0")
	if whole == "" {
		whole = "0"
	}
	if n.fraction != "" {
		whole += "." + n.fraction
	}
	return strings.TrimPrefix(n.sign, "+") + whole + n.exponent
}
