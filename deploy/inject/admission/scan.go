package admission

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is the deepest nesting of values. A pod has about 15 levels, with the fields that its managers own.
const maxDepth = 64

// maxKey is how much of a field's name is kept: a prefix of 253 bytes, a slash and a name of 63. The names of fields that are
// used are shorter, so that a cut one is an unknown field.
const maxKey = 320

// maxNumber is the longest number: the 64-bit integers of a pod have 20 characters.
const maxNumber = 64

// scanner reads JSON (RFC 8259) as it arrives and keeps nothing that its caller does not ask for: json.Decoder would hold a
// whole string, which is as long as its sender likes. Every method consumes one value; null is the zero value of each type.
type scanner struct {
	r     *bufio.Reader
	depth int
	text  []byte // of the last string or number
}

var errSyntax = errors.New("invalid JSON")

// peek returns the first byte of the next token.
func (s *scanner) peek() (byte, error) {
	for {
		b, err := s.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		case b != ' ' && b != '\t' && b != '\n' && b != '\r':
			return b, s.r.UnreadByte()
		}
	}
}

// take consumes the next token if it is b.
func (s *scanner) take(b byte) (bool, error) {
	next, err := s.peek()
	if err != nil || next != b {
		return false, err
	}
	_, err = s.r.ReadByte()
	return true, err
}

func (s *scanner) want(b byte) error {
	ok, err := s.take(b)
	if err == nil && !ok {
		return fmt.Errorf("%w: want %q", errSyntax, b)
	}
	return err
}

// literal consumes the rest of a literal such as null.
func (s *scanner) literal(text string) error {
	for i := range len(text) {
		b, err := s.byte()
		if err != nil {
			return err
		}
		if b != text[i] {
			return fmt.Errorf("%w: want %s", errSyntax, text)
		}
	}
	return nil
}

// null consumes null, if it is the next value.
func (s *scanner) null() (bool, error) {
	b, err := s.peek()
	if err != nil || b != 'n' {
		return false, err
	}
	return true, s.literal("null")
}

func (s *scanner) byte() (byte, error) {
	b, err := s.r.ReadByte()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// list reads the elements between two brackets.
func (s *scanner) list(open, end byte, element func() error) error {
	if null, err := s.null(); null || err != nil {
		return err
	}
	if err := s.want(open); err != nil {
		return err
	}
	if s.depth++; s.depth > maxDepth { //guard:nesting-is-unbounded
		return fmt.Errorf("%w: more than %d levels of nesting", errSyntax, maxDepth)
	}
	defer func() { s.depth-- }()
	if done, err := s.take(end); done || err != nil {
		return err
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if done, err := s.take(end); done || err != nil {
			return err
		}
		if err := s.want(','); err != nil {
			return err
		}
	}
}

// array calls element for each element, which must consume it.
func (s *scanner) array(element func() error) error { return s.list('[', ']', element) }

// object calls field for each field, which must consume the value.
func (s *scanner) object(field func(name string) error) error {
	return s.list('{', '}', func() error {
		if _, err := s.chars(maxKey); err != nil {
			return err
		}
		name := string(s.text)
		if err := s.want(':'); err != nil {
			return err
		}
		return field(name)
	})
}

// string returns a string of at most limit bytes. A longer one is an error that names it as what.
func (s *scanner) string(what string, limit int) (string, error) {
	if null, err := s.null(); null || err != nil {
		return "", err
	}
	fits, err := s.chars(limit)
	switch {
	case err != nil:
		return "", err
	case !fits: //guard:strings-are-unbounded
		return "", rejectf("%s has more than %d bytes", what, limit)
	}
	return strings.ToValidUTF8(string(s.text), "\uFFFD"), nil
}

// chars consumes a string and leaves its first bytes, up to limit, in s.text. It reports whether these are all.
func (s *scanner) chars(limit int) (all bool, err error) {
	s.text = s.text[:0]
	if err := s.want('"'); err != nil {
		return false, err
	}
	all = true
	for {
		run := s.run()
		if all = all && len(s.text)+len(run) <= limit; all {
			s.text = append(s.text, run...)
		}
		_, _ = s.r.Discard(len(run)) // they are buffered
		b, err := s.byte()
		switch {
		case err != nil:
			return false, err
		case b == '"':
			return all, nil
		case b < ' ':
			return false, fmt.Errorf("%w: control character in a string", errSyntax)
		}
		char := [utf8.UTFMax]byte{b}
		part := char[:1]
		if b == '\\' {
			if part, err = s.escape(char[:0]); err != nil {
				return false, err
			}
		}
		if all = all && len(s.text)+len(part) <= limit; all {
			s.text = append(s.text, part...)
		}
	}
}

// run returns the characters that have arrived, up to the first one with a special meaning.
func (s *scanner) run() []byte {
	arrived, _ := s.r.Peek(s.r.Buffered())
	for i, b := range arrived {
		if b < ' ' || b == '"' || b == '\\' {
			return arrived[:i]
		}
	}
	return arrived
}

const escaped, meaning = `"\/bfnrt`, "\"\\/\b\f\n\r\t"

// escape appends the character of an escape sequence to part.
func (s *scanner) escape(part []byte) ([]byte, error) {
	b, err := s.byte()
	if err != nil {
		return nil, err
	}
	if i := strings.IndexByte(escaped, b); i >= 0 {
		return append(part, meaning[i]), nil
	}
	if b != 'u' {
		return nil, fmt.Errorf("%w: unknown escape sequence in a string", errSyntax)
	}
	var digits [4]byte
	if _, err := io.ReadFull(s.r, digits[:]); err != nil {
		return nil, err
	}
	unit, err := hex(digits[:])
	if err != nil || !utf16.IsSurrogate(unit) {
		return utf8.AppendRune(part, unit), err
	}
	if next, _ := s.r.Peek(6); len(next) == 6 && next[0] == '\\' && next[1] == 'u' {
		low, err := hex(next[2:])
		if pair := utf16.DecodeRune(unit, low); err == nil && pair != utf8.RuneError {
			_, _ = s.r.Discard(6) // Peek has read them
			return utf8.AppendRune(part, pair), nil
		}
	}
	return utf8.AppendRune(part, utf8.RuneError), nil
}

func hex(digits []byte) (rune, error) {
	n, err := strconv.ParseUint(string(digits), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: invalid escape sequence in a string", errSyntax)
	}
	return rune(n), nil
}

func (s *scanner) bool() (bool, error) {
	b, err := s.peek()
	switch {
	case err != nil:
		return false, err
	case b == 't':
		return true, s.literal("true")
	case b == 'f':
		return false, s.literal("false")
	}
	return false, s.literal("null")
}

func (s *scanner) integer(bits int) (int64, error) {
	if null, err := s.null(); null || err != nil {
		return 0, err
	}
	if err := s.number(); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(s.text), 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%w: want an integer of %d bits", errSyntax, bits)
	}
	return n, nil
}

// number consumes a number and leaves it in s.text.
func (s *scanner) number() error {
	if _, err := s.peek(); err != nil {
		return err
	}
	s.text = s.text[:0]
	for {
		b, err := s.byte()
		if err != nil {
			return err
		}
		if !bytes.ContainsRune([]byte("+-.eE0123456789"), rune(b)) {
			break
		}
		if s.text = append(s.text, b); len(s.text) > maxNumber {
			return fmt.Errorf("%w: a number has more than %d characters", errSyntax, maxNumber)
		}
	}
	if !json.Valid(s.text) {
		return fmt.Errorf("%w: want a value", errSyntax)
	}
	return s.r.UnreadByte()
}

// skip consumes a value of any type.
func (s *scanner) skip() error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	switch b {
	case '{':
		return s.object(func(string) error { return s.skip() })
	case '[':
		return s.array(s.skip)
	case '"':
		_, err := s.chars(0)
		return err
	case 't', 'f', 'n':
		_, err := s.bool()
		return err
	}
	return s.number()
}
