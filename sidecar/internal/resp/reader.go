// Package resp reads the commands of the Redis protocol (RESP2 and RESP3) and writes its replies. It is strict: what is not
// exactly a command ends the connection. https://redis.io/docs/latest/develop/reference/protocol-spec/
package resp

import (
	"errors"
	"io"
	"unsafe"
)

// Malformed is what is wrong with a command. Nothing after it can be read.
type Malformed string

func (m Malformed) Error() string { return string(m) }

// Errors of Fill.
var (
	ErrTooLarge = errors.New("the command is too large")
	ErrNoMemory = errors.New("there is no memory for the command")
)

const (
	// maxInline bounds a command that a person types.
	maxInline = 1 << 10
	// prepaidArgs is the number of arguments for which a Reader has room from the start.
	prepaidArgs = 16
)

// Limits bound what a Reader holds.
type Limits struct {
	Args   int // of a command, its name included
	Bytes  int // of a command as it is sent
	Buffer int // bytes of the buffer that a Reader always has
	// Grow is asked for the bytes that a larger command takes, in steps while it arrives.
	Grow func(bytes int64) bool
}

// span is an argument, relative to the beginning of its command, which moves with the buffer.
type span struct{ from, to int32 }

// Reader reads commands from a connection.
type Reader struct {
	from   io.Reader
	limits Limits
	small  []byte // the buffer of all commands but large ones
	buf    []byte
	end    int // of what has been read

	start  int // of the command
	at     int // what of it has been parsed
	left   int // arguments of it that are missing
	begun  bool
	inline bool
	spans  []span
	own    [prepaidArgs]span
	err    error // nothing after it can be read
}

// NewReader returns a Reader of a connection.
func NewReader(from io.Reader, limits Limits) *Reader {
	r := &Reader{from: from, limits: limits, small: make([]byte, limits.Buffer)}
	r.buf, r.spans = r.small, r.own[:0]
	return r
}

// Len returns the number of arguments of the command, its name included.
func (r *Reader) Len() int { return len(r.spans) }

// Arg returns argument i. It is valid until the next Fill.
func (r *Reader) Arg(i int) []byte {
	s := r.spans[i]
	return r.buf[r.start+int(s.from) : r.start+int(s.to)]
}

// View returns argument i as a string in the memory of the Reader: it is valid as Arg is.
func (r *Reader) View(i int) string {
	b := r.Arg(i)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Inline reports whether the command is one line of words, as a person types it.
func (r *Reader) Inline() bool { return r.inline }

// Partial reports whether a part of the next command has been read.
func (r *Reader) Partial() bool { return r.end > r.start }

// Next goes to the next command. It reports false if that has not been read completely: then call Fill. Commands without
// arguments are skipped, as Redis does.
func (r *Reader) Next() (ok bool, err error) {
	for {
		if !r.begun {
			r.start, r.begun, r.inline, r.left = r.at, true, false, -1
			r.spans = r.own[:0]
		}
		if r.err != nil {
			return false, r.err
		}
		var done bool
		if done, r.err = r.parse(); r.err != nil || !done {
			return false, r.err
		}
		r.begun = false
		if len(r.spans) > 0 {
			return true, nil
		}
	}
}

// Unread goes back before the command: the next Next returns it again.
func (r *Reader) Unread() { r.at, r.begun = r.start, false }

// Release ends the use of the command. It reports whether the Reader holds no more than it always has.
func (r *Reader) Release() (small bool) {
	if !r.begun {
		r.start, r.spans = r.at, r.own[:0]
	}
	rest := r.end - r.start
	if len(r.buf) > len(r.small) && rest <= len(r.small) { //guard:large-command-keeps-its-memory
		r.end = copy(r.small, r.buf[r.start:r.end])
		r.buf, r.at, r.start = r.small, r.at-r.start, 0
	}
	if rest == 0 {
		r.at, r.start, r.end = 0, 0, 0
	}
	return len(r.buf) == len(r.small) && cap(r.spans) == prepaidArgs
}

// Fill reads more. It may move what has been read.
func (r *Reader) Fill() error {
	if r.end == len(r.buf) {
		if err := r.makeRoom(); err != nil {
			return err
		}
	}
	n, err := r.from.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// makeRoom moves the command to the beginning of the buffer, or doubles the buffer. What a client announces takes no memory.
func (r *Reader) makeRoom() error {
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.at -= r.start
		r.start = 0
		return nil
	}
	if len(r.buf) >= r.limits.Bytes { //guard:command-without-limit
		return ErrTooLarge
	}
	size := min(2*len(r.buf), r.limits.Bytes)
	if !r.grow(size, cap(r.spans)) { //guard:large-command-without-budget
		return ErrNoMemory
	}
	larger := make([]byte, size)
	copy(larger, r.buf[:r.end])
	r.buf = larger
	return nil
}

// grow asks for what a buffer of a size and room for a number of arguments take.
func (r *Reader) grow(size, args int) bool {
	bytes := int64(0)
	if size > len(r.small) {
		bytes += int64(size)
	}
	if args > prepaidArgs {
		bytes += int64(args) * int64(unsafe.Sizeof(span{}))
	}
	return bytes == 0 || r.limits.Grow == nil || r.limits.Grow(bytes)
}

// parse goes on with the command as far as it has been read.
func (r *Reader) parse() (done bool, err error) {
	if r.left < 0 {
		if r.at == r.end {
			return false, nil
		}
		if r.buf[r.at] != '*' {
			return r.parseInline()
		}
		n, ok, err := r.length(r.limits.Args)
		if err != nil || !ok {
			return false, err
		}
		r.left = n
	}
	for r.left > 0 {
		if ok, err := r.parseArg(); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (r *Reader) parseArg() (ok bool, err error) {
	begin := r.at
	if r.at < r.end && r.buf[r.at] != '$' {
		return false, Malformed("expected '$' before an argument")
	}
	n, ok, err := r.length(r.limits.Bytes)
	if err != nil || !ok {
		return false, err
	}
	if r.end-r.at < n+2 {
		r.at = begin // the line is read again: it is short
		return false, nil
	}
	if r.buf[r.at+n] != '\r' || r.buf[r.at+n+1] != '\n' { //guard:argument-of-wrong-length
		return false, Malformed("an argument is not as long as announced")
	}
	if err := r.addSpan(r.at, r.at+n); err != nil {
		return false, err
	}
	r.at += n + 2
	r.left--
	return true, nil
}

func (r *Reader) addSpan(from, to int) error {
	if len(r.spans) == cap(r.spans) {
		if !r.grow(len(r.buf), 2*cap(r.spans)) { //guard:arguments-without-budget
			return ErrNoMemory
		}
		r.spans = append(make([]span, 0, 2*cap(r.spans)), r.spans...)
	}
	r.spans = append(r.spans, span{int32(from - r.start), int32(to - r.start)})
	return nil
}

// length parses a line of a type, which the caller has checked, and a number of at most most.
func (r *Reader) length(most int) (n int, ok bool, err error) {
	i, digits := r.at+1, 0
	for ; i < r.end && r.buf[i] >= '0' && r.buf[i] <= '9'; i++ {
		n = 10*n + int(r.buf[i]-'0')
		if digits++; n > most || digits > 1 && r.buf[r.at+1] == '0' { //guard:length-without-limit
			return 0, false, Malformed("a length is not a number, or above the limit")
		}
	}
	switch {
	case i >= r.end, i+1 >= r.end && r.buf[i] == '\r' && digits > 0:
		return 0, false, nil
	case digits == 0 || r.buf[i] != '\r' || r.buf[i+1] != '\n':
		return 0, false, Malformed("a length is not a number, or above the limit")
	}
	r.at = i + 2
	return n, true, nil
}

// parseInline parses a line of words. It has no quotes.
func (r *Reader) parseInline() (done bool, err error) {
	r.inline = true
	r.spans = r.spans[:0]
	word := r.at
	for i := r.at; i < r.end; i++ {
		switch c := r.buf[i]; {
		case i-r.start >= maxInline:
			return false, Malformed("a line is too long for a command")
		case c == ' ' || c == '\n' || c == '\r':
			if i > word {
				if err := r.addSpan(word, i); err != nil {
					return false, err
				}
			}
			word = i + 1
			if c == '\n' {
				r.at = i + 1
				return true, nil
			}
		case c < ' ' || c == '"' || c == '\'' || c > '~':
			return false, Malformed("a line has other characters than those of plain words")
		}
	}
	return false, nil
}
