package rowjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// checkStrict fails unless data is JSON to the strictest reader: UTF-8, and an object with distinct names.
func checkStrict(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var members map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // 1e400 is a number of JSON
	err := d.Decode(&members)
	if strict, parseErr := ParseRow(data); err != nil || parseErr != nil || !json.Valid(data) || len(strict) != len(members) {
		t.Fatalf("%q: %v, %v", data, err, parseErr)
	}
	return members
}

func FuzzEncodeRowIsJSON(f *testing.F) {
	f.Add("name", []byte("text"), uint8(String))
	f.Add("a\"b", []byte("\x00\xff\u2028<>&"), uint8(String))
	f.Add("", []byte(`{"a": [1, "\u00e9"]}`), uint8(Document))
	f.Add("x", []byte(`{"a": `), uint8(Document))
	f.Add("x", []byte("{\"\xff\": \"\xc3\"}"), uint8(Document))
	f.Add("x", []byte("\x00\xff"), uint8(Bytes))
	f.Add("x", []byte(nil), uint8(Null))
	for _, number := range hardNumbers {
		f.Add("x", []byte(number), uint8(Literal))
	}
	f.Fuzz(func(t *testing.T, name string, text []byte, k uint8) {
		c := Cell{Kind(k % 5), text}
		got := EncodeRow([]string{name, "other " + name}, []Cell{c, c})
		back := checkStrict(t, got)
		text8 := c.Kind == String && utf8.ValidString(name) && utf8.Valid(text)
		if s, ok := back[name].(string); text8 && (!ok || s != string(text)) {
			t.Fatalf("%q came back as %q", text, s)
		}
	})
}

// hardNumbers are texts that databases print for numbers, or might.
var hardNumbers = []string{
	"0", "-0", "-0.00", "00042.50", "-007", "0000.00", "+1", "1.", ".5", "-.5", "+.5e3", ".", "-", "", "e5", "1e", "1e+", "1E+400",
	"1e-99999999999", "1.e5", "NaN", "Infinity", "-Infinity", "inf", "+Inf", "$1,234.50", "12:30", "0x1f", "1_000", " 1", "1 ", "1\n", "٣",
	"18446744073709551615", "99999999999999999999999999999999999.999999999999999999999999999999", "true", "2024-00-00", "1.2.3",
}

// A number keeps its value and the digits after its point, whatever JSON does not allow of its form.
func FuzzNumberIsJSON(f *testing.F) {
	for _, number := range hardNumbers {
		f.Add(number)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Number([]byte(text))
		row := EncodeRow([]string{"n"}, []Cell{c})
		checkStrict(t, row)
		if c.Kind == String {
			if string(c.Text) != text {
				t.Fatalf("%q became %q", text, c.Text)
			}
			return
		}
		if string(row) != `{"n":`+string(c.Text)+`}` {
			t.Fatalf("%q was written as %s", c.Text, row)
		}
		if n, _ := parseNumber(text); len(n.exponent) > len("e+999") {
			return // big.Rat would fill the memory
		}
		want, ok := new(big.Rat).SetString(text)
		got, same := new(big.Rat).SetString(string(c.Text))
		if ok && (!same || got.Cmp(want) != 0) {
			t.Fatalf("%q became %q", text, c.Text)
		}
		if _, fraction, _ := strings.Cut(text, "."); fraction != "" && fraction[0] <= '9' && !strings.HasSuffix(string(c.Text), "."+fraction) {
			t.Fatalf("%q lost digits: %q", text, c.Text)
		}
	})
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"00042.50": "42.50", "-007": "-7", "+1": "1", "1.": "1", ".5": "0.5", "-.5": "-0.5", "-0": "-0", "000": "0", "00.00": "0.00",
		"1e400": "1e400", "007E+5": "7E+5", "NaN": `"NaN"`, "$1.00": `"$1.00"`, "": `""`, "-": `"-"`, ".": `"."`, "1e": `"1e"`,
		"18446744073709551615": "18446744073709551615",
	} {
		if got := string(EncodeRow([]string{"n"}, []Cell{Number([]byte(text))})); got != `{"n":`+want+`}` {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// A row that parses has the same members as in encoding/json, which accepts duplicate names and replaces half characters.
func FuzzParseRow(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":"x","c":null,"d":{"a":[]},"e":true}`, `{"a":1,"a":2}`, `{"a":1} `, `{"a":1}{}`, `{}`, `[]`, ``, `{"a":}`,
		`{"\ud83d\ude00":"\\ud800"}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00\ud800"}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := ParseRow(data)
		if err != nil {
			if _, ok := errors.AsType[*origin.ValueError](err); !ok {
				t.Fatalf("%q: got %v, want a ValueError", data, err)
			}
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(want) != len(members) {
			t.Fatalf("%q: %d members, want %d, %v", data, len(members), len(want), err)
		}
		for _, m := range members {
			if string(want[m.Name]) != m.Input.Raw {
				t.Fatalf("%q: %q is %q, want %q", data, m.Name, m.Input.Raw, want[m.Name])
			}
			if m.Input.Kind == String && strings.Count(m.Input.Text, "\uFFFD") >
				strings.Count(m.Input.Raw, "\uFFFD")+strings.Count(strings.ToLower(m.Input.Raw), `\ufffd`) {
				t.Fatalf("%q: %q has half a character", data, m.Input.Raw)
			}
		}
	})
}

func FuzzDigitsBefore(f *testing.F) {
	for _, seed := range []string{"0", "-0.001", "123.45", "1e3", "12.5e-3", "0.00e99999999999999999999", "1E+400"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, number string) {
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !json.Valid([]byte(number)) || number[0] != '-' && (number[0] < '0' || number[0] > '9') {
			return
		}
		digits := digitsBefore(number)
		if v != 0 && math.Abs(v) > 1e-300 && (math.Abs(v) < math.Pow10(digits-1)*0.999999 ||
			math.Abs(v) > math.Pow10(digits)*1.000001) {
			t.Fatalf("%s has %d digits before the point", number, digits)
		}
	})
}

func FuzzFloatCellReadsBack(f *testing.F) {
	for _, seed := range []float64{0, 1.1, -5, 1e-7, 1e21, 5e-324, 1.7976931348623157e308} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		c := Float(v, 64)
		if c.Kind != Literal {
			return
		}
		var back float64
		if err := json.Unmarshal(c.Text, &back); err != nil || back != v {
			t.Fatalf("%v is written %s, which reads as %v, %v", v, c.Text, back, err)
		}
		if same, err := json.Marshal(v); err != nil || string(same) != string(c.Text) {
			t.Fatalf("%s, but encoding/json writes %s", c.Text, same)
		}
	})
}

func BenchmarkEncodeRow(b *testing.B) {
	names := []string{"cnf_id", "ts", "metric_type", "value", "unit", "status", "ver"}
	cells := []Cell{Text("CNF-001"), Text("2024-02-29T12:34:56.123456Z"), Text("cpu"), Float(0.42, 64),
		Text("ratio"), Text("ok"), Int(7)}
	b.ReportAllocs()
	for b.Loop() {
		EncodeRow(names, cells)
	}
}

// A text or bytes that EncodeRow writes is decoded to the same value.
func FuzzDecodeReadsBackWhatEncodeWrites(f *testing.F) {
	for _, seed := range []string{"", "text", "é😀\u2028<&>\"\\\n", "\x01", `{"a":1}`, "AP8="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return // no text of a database
		}
		row := EncodeRow([]string{"t", "b"}, []Cell{Text(text), {Bytes, []byte(text)}})
		members, err := ParseRow(row)
		if err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		if v, err := (&Column{Form: FormText}).Decode(members[0].Input); err != nil || v != text {
			t.Fatalf("text %q: got %q, %v", text, v, err)
		}
		if v, err := (&Column{Form: FormBytes}).Decode(members[1].Input); err != nil || string(v.([]byte)) != text {
			t.Fatalf("bytes %q: got %q, %v", text, v, err)
		}
	})
}
