package rowjson

import (
	"bytes"
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// compareOrder compares two cells by their texts of AppendOrder, with another cell after each.
func compareOrder(a, b Cell, descending bool) int {
	next := Cell{Bytes, []byte("\x00\xff")}
	return bytes.Compare(AppendOrder(AppendOrder(nil, a, descending), next, false), AppendOrder(AppendOrder(nil, b, descending), next, false))
}

func literals(texts ...string) (cells []Cell) {
	for _, text := range texts {
		cells = append(cells, Cell{Literal, []byte(text)})
	}
	return cells
}

func TestOrderOfCells(t *testing.T) {
	ordered := slices.Concat([]Cell{{}}, literals("false", "true", "-1e300", "-10", "-9.5", "-9", "-0.001", "0", "1e-300", "0.5",
		"0.50000000000000000000001", "9", "10", "18446744073709551615", "123456789012345678901234567890.10", "1e+300"),
		[]Cell{Text(""), Text("\x00"), Text("\x00\x00"), Text("\x00a"), Text("\x01"), Text("A"), Text("AB"), Text("B"), Text("a"), Text("é"),
			{Bytes, nil}, {Bytes, []byte{0}}, {Bytes, []byte{0, 0xff}}, {Bytes, []byte{0xff}},
			{Document, []byte(`[1]`)}, {Document, []byte(`{ "a":1}`)}, {Document, []byte(`{"b": 1}`)}})
	for i, a := range ordered {
		for j, b := range ordered {
			if got := compareOrder(a, b, false); got != cmp.Compare(i, j) {
				t.Errorf("%v %q and %v %q: got %d, want %d", a.Kind, a.Text, b.Kind, b.Text, got, cmp.Compare(i, j))
			}
			if got := compareOrder(a, b, true); got != cmp.Compare(j, i) {
				t.Errorf("descending, %v %q and %v %q: got %d, want %d", a.Kind, a.Text, b.Kind, b.Text, got, cmp.Compare(j, i))
			}
		}
	}
}

func TestEqualNumbersHaveTheSameOrder(t *testing.T) {
	for _, equal := range [][]Cell{literals("0", "-0", "0.00", "0e5", "-0.0e-7"), literals("12.5", "12.50", "1.25e1", "125e-1", "0.125E+2")} {
		for _, c := range equal {
			if got := compareOrder(equal[0], c, false); got != 0 {
				t.Errorf("%q and %q: got %d, want 0", equal[0].Text, c.Text, got)
			}
		}
	}
}

// FuzzOrder compares numbers as big.Rat does, and texts as their bytes.
func FuzzOrder(f *testing.F) {
	f.Add("1.5", "-2e3", true)
	f.Add("007", "\x00\xff", false)
	f.Add("1e5", "100000.0", false)
	f.Fuzz(func(t *testing.T, a, b string, descending bool) {
		want := strings.Compare(a, b)
		if got := compareOrder(Text(a), Text(b), descending); got != signed(want, descending) {
			t.Errorf("%q and %q as text: got %d, want %d", a, b, got, signed(want, descending))
		}
		x, y := Cell{Literal, []byte(a)}, Cell{Literal, []byte(b)}
		if !isNumberText(a) || !isNumberText(b) {
			compareOrder(x, y, descending) // must not panic
			return
		}
		p, q := new(big.Rat), new(big.Rat)
		if _, err := fmt.Sscan(a+" "+b, p, q); err != nil {
			t.Skip(err)
		}
		if got := compareOrder(x, y, descending); got != signed(p.Cmp(q), descending) {
			t.Errorf("%s and %s: got %d, want %d", a, b, got, signed(p.Cmp(q), descending))
		}
	})
}

func signed(order int, descending bool) int {
	if descending {
		return -order
	}
	return order
}

// isNumberText reports whether big.Rat can compute with a number in little time.
func isNumberText(s string) bool {
	_, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	return isLiteral([]byte(s)) && strings.ContainsAny(s[:1], "-0123456789") && len(strings.TrimLeft(exponent, "+-0")) < 4
}
