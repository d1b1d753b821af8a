package origin

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// WholeSurrogates reports whether each \u escape in valid JSON is a character, alone or with the next one (RFC 8259, 7).
// encoding/json would replace the others, which results in another key or text.
func WholeSurrogates(s []byte) bool {
	const escape = len(`\u0000`)
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		unit := unitOf(s[i:])
		i++ // the escaped character may be a backslash
		if !utf16.IsSurrogate(unit) {
			continue
		}
		if utf16.DecodeRune(unit, unitOf(s[i-1+escape:])) == utf8.RuneError {
			return false
		}
		i += 2*escape - len(`\u`)
	}
	return true
}

// unitOf returns the UTF-16 code unit of the \u0000 escape at the beginning of s, or -1.
func unitOf(s []byte) rune {
	hex, ok := bytes.CutPrefix(s, []byte(`\u`))
	if !ok || len(hex) < 4 {
		return -1
	}
	unit, err := strconv.ParseUint(string(hex[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}
