// Package printable makes text and numbers of other programs safe to show: a name, an error or a counter of a member, of an
// etcd client or of a database may hold escape sequences that control a terminal, forge lines of a log, or break JSON.
package printable

import (
	"math"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText limits each text in bytes.
const MaxText = 512

// Text returns s as one line of at most MaxText bytes. Each character that is not printable becomes a space: controls, line
// ends, and marks that change the direction of text.
func Text(s string) string { return text(s, MaxText, "") }

// Block is Text for a text of many lines, which it does not truncate: it keeps line ends and tabs.
func Block(s string) string { return text(s, len(s), "\n\t") }

func text(s string, most int, keep string) string {
	if len(s) <= most && plain(s) {
		return s
	}
	if len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != utf8.RuneError || strings.ContainsRune(keep, r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
}

// plain reports whether s has only printable ASCII, as most text has.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Number returns f, or 0 for NaN and the infinities, which JSON cannot encode.
func Number(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// Clean applies Text and Number to everything that v, a pointer, refers to: the decoded message of another program.
func Clean(v any) { clean(reflect.ValueOf(v)) }

func clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			clean(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				clean(v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			clean(v.Index(i))
		}
	case reflect.String:
		v.SetString(Text(v.String()))
	case reflect.Float64, reflect.Float32:
		v.SetFloat(Number(v.Float()))
	}
}
