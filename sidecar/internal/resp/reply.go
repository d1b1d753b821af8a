package resp

import "strconv"

// Version is a version of the protocol, which a client chooses with HELLO.
type Version int

// The versions.
const (
	RESP2 Version = 2
	RESP3 Version = 3
)

// AppendSimple appends a status. It has neither CR nor LF.
func AppendSimple(b []byte, s string) []byte { return line(append(b, '+'), s) }

// AppendError appends an error: a prefix in capital letters, by which programs tell errors apart, and a text for people.
func AppendError(b []byte, prefix, text string) []byte {
	b = append(append(append(b, '-'), prefix...), ' ')
	for i := range len(text) {
		c := text[i]
		if c < ' ' || c == 0x7f {
			c = ' ' //guard:error-text-is-another-reply
		}
		b = append(b, c)
	}
	return append(b, "\r\n"...)
}

// AppendInt appends an integer.
func AppendInt(b []byte, n int64) []byte { return number(b, ':', n) }

// AppendBulk appends a string of any bytes.
func AppendBulk(b []byte, s string) []byte {
	return line(AppendBulkSize(b, len(s)), s)
}

// AppendBulkSize appends what precedes a string of n bytes. The string and CRLF follow.
func AppendBulkSize(b []byte, n int) []byte { return number(b, '$', int64(n)) }

// AppendArray appends what precedes n elements.
func AppendArray(b []byte, n int) []byte { return number(b, '*', int64(n)) }

// AppendPush appends what precedes the n elements of a message that answers no command. Only RESP3 has them.
func AppendPush(b []byte, n int) []byte { return number(b, '>', int64(n)) }

// AppendMap appends what precedes n pairs: in RESP2 they are an array.
func (v Version) AppendMap(b []byte, n int) []byte {
	if v == RESP2 {
		return AppendArray(b, 2*n)
	}
	return number(b, '%', int64(n))
}

// AppendNull appends the absence of a value.
func (v Version) AppendNull(b []byte) []byte {
	if v == RESP2 {
		return append(b, "$-1\r\n"...)
	}
	return append(b, "_\r\n"...)
}

func number(b []byte, kind byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, kind), n, 10), "\r\n"...)
}

func line(b []byte, s string) []byte { return append(append(b, s...), "\r\n"...) }
