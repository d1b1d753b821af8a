package printable

import (
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	long := strings.Repeat("ä", MaxText)
	for in, want := range map[string]string{
		"": "", "node-1": "node-1", "Zürich 東": "Zürich 東", "a\x1b[2Jb": "a [2Jb", "a\r\nb\tc": "a  b c", "a\x7f\x00\u009bb": "a   b",
		"\u202eabc\u2066": " abc ", "\xff\xfea": "?a", "a\u200bb\ufeff": "a b ", long: long[:MaxText],
		"x" + long: "x" + long[:MaxText-2],
	} {
		if got := Text(in); got != want {
			t.Errorf("%.40q: got %.40q, want %.40q", in, got, want)
		}
	}
	if got, want := Block("a\n\tb\x1b[0m\r"+long), "a\n\tb [0m "+long; got != want {
		t.Errorf("got %.40q, want %.40q", got, want)
	}
}

func TestClean(t *testing.T) {
	type inner struct {
		Name  string
		Share float64
	}
	v := struct {
		A    string
		List []inner
		Next *inner
		Two  [2]float64
		N    int64
		No   *inner
	}{"a\x1b", []inner{{"b\n", math.NaN()}}, &inner{"c\x07", math.Inf(-1)}, [2]float64{math.Inf(1), 0.5}, -1, nil}
	Clean(&v)
	if v.A != "a " || v.List[0] != (inner{"b ", 0}) || *v.Next != (inner{"c ", 0}) || v.Two != [2]float64{0, 0.5} || v.N != -1 {
		t.Errorf("got %+v, %+v", v, v.Next)
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "a", "\x1b]0;title\x07", "\u202e", "\xff", strings.Repeat("\xe4", 600), "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		hidden := func(r rune) bool { return !unicode.IsPrint(r) }
		if len(got) > MaxText || !utf8.ValidString(got) || strings.ContainsFunc(got, hidden) {
			t.Errorf("%q: got %q", s, got)
		}
		if again := Text(got); again != got {
			t.Errorf("%q became %q, then %q", s, got, again)
		}
		block := Block(s)
		if !utf8.ValidString(block) || strings.ContainsFunc(block, func(r rune) bool { return r != '\n' && r != '\t' && hidden(r) }) {
			t.Errorf("block %q: got %q", s, block)
		}
	})
}
