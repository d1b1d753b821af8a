package local

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// objectReader reads a small JSON object token by token: encoding/json alone would take "KEYS", the last of two lists,
// null for a key, and make another key of bytes or escapes that are no character. After the first error it reads no more.
type objectReader struct {
	decoder *json.Decoder
	shape   error // what the object must look like; begins what is said of another one
	err     error
}

func newObjectReader(body []byte, shape error) *objectReader {
	r := &objectReader{decoder: json.NewDecoder(bytes.NewReader(body)), shape: shape}
	switch {
	case !utf8.Valid(body):
		r.err = fmt.Errorf("%w: it is not UTF-8", shape)
	case !origin.WholeSurrogates(body): //guard:escape-no-character-becomes-another-key
		r.err = fmt.Errorf("%w: it has half of a surrogate pair, which is no character", shape)
	}
	return r
}

func (r *objectReader) token() json.Token {
	if r.err != nil {
		return nil
	}
	token, err := r.decoder.Token()
	if err != nil {
		r.err = fmt.Errorf("%w: %w", r.shape, err)
	}
	return token
}

func (r *objectReader) expect(want json.Token) {
	if got := r.token(); r.err == nil && got != want {
		r.err = fmt.Errorf("%w: %s at byte %d, not %s", r.shape, shown(got), r.decoder.InputOffset(), shown(want))
	}
}

func (r *objectReader) string() string {
	token := r.token()
	s, ok := token.(string)
	if r.err == nil && !ok {
		r.err = fmt.Errorf("%w: %s at byte %d is not a string", r.shape, shown(token), r.decoder.InputOffset())
	}
	return s
}

// shown is a token as JSON writes it.
func shown(token json.Token) string {
	if delim, ok := token.(json.Delim); ok {
		return delim.String()
	}
	b, err := json.Marshal(token)
	if err != nil {
		return "something" // the decoder gives nothing that can not be written
	}
	return string(b)
}

// keys reads a list of at most MaxBatchKeys strings.
func (r *objectReader) keys() []string {
	r.expect(json.Delim('['))
	keys := []string{}
	for r.err == nil {
		token := r.token()
		key, ok := token.(string)
		switch {
		case r.err != nil || token == json.Delim(']'):
			return keys
		case !ok:
			r.err = fmt.Errorf("%w: key %d is not a string", r.shape, len(keys))
		case len(keys) == MaxBatchKeys:
			r.err = fmt.Errorf("at most %d keys fit into one request; send several", MaxBatchKeys)
		default:
			keys = append(keys, key)
		}
	}
	return nil
}

// end expects the end of the object, and nothing after it. It returns what was wrong with the body, if anything.
func (r *objectReader) end() error {
	r.expect(json.Delim('}'))
	if r.err != nil {
		return r.err
	}
	if _, err := r.decoder.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows the object", r.shape)
	}
	return nil
}
