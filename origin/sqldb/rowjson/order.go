package rowjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// The classes of cells, in their order.
const (
	classNull = iota + 1
	classBool
	classNumber
	classString
	classBytes
	classDocument
)

// AppendOrder appends a text to dst whose bytes compare as the values of cells do, whatever database returned them: null, false,
// true, numbers by their value, strings, bytes and compact JSON by their bytes. The texts of several cells may follow each other;
// something must follow the last one.
func AppendOrder(dst []byte, c Cell, descending bool) []byte {
	start := len(dst)
	dst = appendOrder(dst, c)
	if descending {
		complement(dst[start:])
	}
	return dst
}

func appendOrder(dst []byte, c Cell) []byte {
	switch {
	case c.Kind == Null:
		return append(dst, classNull)
	case c.Kind == Bytes:
		return appendText(append(dst, classBytes), c.Text)
	case c.Kind == Document && json.Valid(c.Text):
		var compact bytes.Buffer
		_ = json.Compact(&compact, c.Text) // it is valid
		return appendText(append(dst, classDocument), compact.Bytes())
	case c.Kind != Literal || !isLiteral(c.Text):
		return appendText(append(dst, classString), c.Text)
	case c.Text[0] == 't', c.Text[0] == 'f':
		return append(dst, classBool, c.Text[0]) // f is before t
	}
	return appendNumber(append(dst, classNumber), string(c.Text))
}

// appendText ends text with a zero byte; one inside it is followed by 0xff, which no class is.
func appendText(dst, text []byte) []byte {
	for _, b := range text {
		if dst = append(dst, b); b == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0)
}

// appendNumber writes a JSON number as its sign, its exponent, and its digits after the point of 0.ddd·10^exponent.
func appendNumber(dst []byte, number string) []byte {
	digits, negative := strings.CutPrefix(number, "-")
	digits, exponentText, _ := strings.Cut(strings.ToLower(digits), "e")
	whole, fraction, _ := strings.Cut(digits, ".")
	significant := strings.TrimLeft(whole+fraction, "0")
	exponent, _ := strconv.ParseInt(exponentText, 10, 32) // 0 without one; the nearest if it is out of range
	exponent += int64(len(whole) - (len(whole+fraction) - len(significant)))
	exponent = min(max(exponent, math.MinInt32), math.MaxInt32)
	significant = strings.TrimRight(significant, "0")
	if significant == "" {
		return append(dst, 1)
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(append(dst, 2), uint32(exponent)^1<<31)
	dst = append(append(dst, significant...), 0)
	if negative {
		dst[start] = 0
		complement(dst[start+1:])
	}
	return dst
}

func complement(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}

// EncodeCell writes one cell as JSON.
func EncodeCell(c Cell) []byte {
	w := newWriter()
	w.cell(c)
	return w.buf.Bytes()
}
