package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	testArgs, testBytes, testBuffer = 100, 4 << 10, 64
)

// readAll returns the commands that a Reader reads, in quotes, and how it ends. taken is what it holds of the budget at most, and
// at the end.
func readAll(from io.Reader) (list []string, most, rest int64, err error) {
	taken := int64(0)
	r := NewReader(from, Limits{Args: testArgs, Bytes: testBytes, Buffer: testBuffer, Grow: func(n int64) bool {
		taken = n
		most = max(most, n)
		return true
	}})
	for {
		ok, err := r.Next()
		if err == nil && !ok {
			if r.Release() {
				taken = 0
			}
			err = r.Fill()
		}
		if err != nil {
			return list, most, taken, err
		}
		if ok {
			text := ""
			for i := range r.Len() {
				if string(r.Arg(i)) != r.View(i) {
					return list, most, taken, errors.New("Arg and View differ")
				}
				text += fmt.Sprintf("%q ", r.Arg(i))
			}
			list = append(list, text)
		}
	}
}

func TestReader(t *testing.T) {
	big := strings.Repeat("v", 3000)
	many := "*50\r\n" + strings.Repeat("$1\r\nx\r\n", 50)
	for raw, want := range map[string]string{
		"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n": `["GET" "a"  "PING" ] EOF`,
		"*0\r\n\r\n*1\r\n$0\r\n\r\n":                         `["" ] EOF`,
		"PING\r\n get  a \nx":                                `["PING"  "get" "a" ] EOF`,
		"*1\r\n$2\r\n\r\n\r\n":                               `["\r\n" ] EOF`,
		"*1\r\n$3000\r\n" + big + "\r\nPING\r\n":             `["` + big + `"  "PING" ] EOF`,
		many + "PING\r\n":                                    "[" + strings.Repeat(`"x" `, 50) + ` "PING" ] EOF`,
		"*1\r\n$1\r\nab\r\n":                                 "[] an argument is not as long as announced",
		"*1\r\n$2\r\na\r\n":                                  "[] EOF",
		"*1\r\n:1\r\n":                                       "[] expected '$' before an argument",
		"*101\r\n":                                           "[] a length is not a number, or above the limit",
		"*1\r\n$4097\r\n":                                    "[] a length is not a number, or above the limit",
		"*1\r\n$4000\r\n" + strings.Repeat("x", 4000) + "\r\n*2\r\n$4090\r\n" + strings.Repeat("x", 4090) + "\r\n$90\r\n": `["` + strings.Repeat("x", 4000) + `" ] the command is too large`,
		"*01\r\n":                    "[] a length is not a number, or above the limit",
		"*-1\r\n":                    "[] a length is not a number, or above the limit",
		"*+1\r\n":                    "[] a length is not a number, or above the limit",
		"*1\n":                       "[] a length is not a number, or above the limit",
		"*\r\n":                      "[] a length is not a number, or above the limit",
		"\x16\x03\x01":               "[] a line has other characters than those of plain words",
		"get \"a\"\r\n":              "[] a line has other characters than those of plain words",
		strings.Repeat("x", 1025):    "[] a line is too long for a command",
		"PING\r\n*1\r\nxPING\r\n":    `["PING" ] expected '$' before an argument`,
		"*1\r\n$1\r\nxx\r\n$1\r\n\r": "[] an argument is not as long as announced",
	} {
		for name, from := range map[string]io.Reader{"whole": strings.NewReader(raw), "by bytes": iotest.OneByteReader(strings.NewReader(raw))} {
			list, _, rest, err := readAll(from)
			if got := fmt.Sprint(list, " ", err); got != want {
				t.Errorf("%.60q, %s: got %.200s, want %.200s", raw, name, got, want)
			}
			if err == io.EOF && rest != 0 {
				t.Errorf("%.60q, %s: %d bytes are taken at the end, want 0", raw, name, rest)
			}
		}
	}
}

func TestReaderAsksForMemory(t *testing.T) {
	for _, raw := range []string{"*1\r\n$3000\r\n" + strings.Repeat("x", 3000) + "\r\n", "*50\r\n" + strings.Repeat("$0\r\n\r\n", 50)} {
		r := NewReader(strings.NewReader(raw), Limits{Args: testArgs, Bytes: testBytes, Buffer: 1 << 9, Grow: func(int64) bool { return false }})
		err := error(nil)
		for ok := false; err == nil && !ok; {
			if ok, err = r.Next(); err == nil && !ok {
				err = r.Fill()
			}
		}
		if err != ErrNoMemory {
			t.Errorf("%.20q: got %v, want ErrNoMemory", raw, err)
		}
	}
	// An announcement takes nothing.
	if _, most, _, _ := readAll(strings.NewReader("*100\r\n$4000\r\nx")); most != 0 {
		t.Errorf("an announced argument has taken %d bytes, want 0", most)
	}
}

func TestUnreadCommandIsReadAgain(t *testing.T) {
	r := NewReader(strings.NewReader("PING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nQUIT\r\n"), Limits{Args: 9, Bytes: 99, Buffer: 64})
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range 5 {
		if ok, err := r.Next(); !ok || err != nil {
			t.Fatal(ok, err)
		}
		got = append(got, r.View(0))
		if i == 1 || i == 2 {
			r.Unread()
		}
	}
	if want := "[PING GET GET GET QUIT]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestReplies(t *testing.T) {
	for want, got := range map[string][]byte{
		"+OK\r\n":       AppendSimple(nil, "OK"),
		"-ERR a  b\r\n": AppendError(nil, "ERR", "a\r\nb"),
		":-5\r\n":       AppendInt(nil, -5),
		"$1\r\na\r\n":   AppendBulk(nil, "a"),
		"$-1\r\n":       RESP2.AppendNull(nil),
		"_\r\n":         RESP3.AppendNull(nil),
		"*4\r\n":        RESP2.AppendMap(nil, 2),
		"%2\r\n":        RESP3.AppendMap(nil, 2),
		">2\r\n":        AppendPush(nil, 2),
	} {
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// However the bytes arrive, the commands are the same, and within the limits.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "PING\r\n", "*0\r\n*1\r\n$0\r\n\r\n", "*50\r\n" + strings.Repeat("$1\r\nx\r\n", 50),
		"*1\r\n$300\r\n" + strings.Repeat("x", 300) + "\r\n", "*1\r\n$1\r\nab\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, most, _, err := readAll(bytes.NewReader(raw))
		again, _, _, errAgain := readAll(iotest.OneByteReader(bytes.NewReader(raw)))
		if fmt.Sprint(list, err) != fmt.Sprint(again, errAgain) {
			t.Errorf("%q: got %v, %v; byte by byte %v, %v", raw, list, err, again, errAgain)
		}
		if most > testBytes+16*testArgs {
			t.Errorf("%q: %d bytes are taken", raw, most)
		}
	})
}
