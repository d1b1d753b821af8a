package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// objectReader parses a small JSON object token by token. Unmarshal would accept "KEYS", the last of two lists, and null
// for a key, and would turn invalid UTF-8 and half surrogate pairs into another key. After the first error the methods
// return zero values.
type objectReader struct {
	decoder *json.Decoder
	shape   error // what the object must look like; begins every error
	err     error
}

func newObjectReader(body []byte, shape error) *objectReader {
	r := &objectReader{decoder: json.NewDecoder(bytes.NewReader(body)), shape: shape}
	switch {
	case !utf8.Valid(body):
		r.err = fmt.Errorf("%w: it is not UTF-8", shape)
	case !origin.WholeSurrogates(body): //guard:half-surrogate-becomes-another-key
		r.err = fmt.Errorf("%w: it has half of a surrogate pair", shape)
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

// fail makes a text the error, unless there is one.
func (r *objectReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", r.shape, fmt.Sprintf(format, args...))
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

// shown returns a token as JSON has it.
func shown(token json.Token) string {
	if delim, ok := token.(json.Delim); ok {
		return delim.String()
	}
	b, err := json.Marshal(token)
	if err != nil {
		return "something" // the decoder returns only tokens that can be marshaled
	}
	return string(b)
}

// keys parses a list of at most api.MaxBatchKeys strings.
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
		case len(keys) == api.MaxBatchKeys:
			r.err = fmt.Errorf("one request has at most %d keys; send several", api.MaxBatchKeys)
		default:
			keys = append(keys, key)
		}
	}
	return nil
}

// end expects the end of the object, and nothing after it. It returns the first error of all methods.
func (r *objectReader) end() error {
	r.expect(json.Delim('}'))
	if r.err != nil {
		return r.err
	}
	if _, err := r.decoder.Token(); err != io.EOF {
		return fmt.Errorf("%w: there is something after the object", r.shape)
	}
	return nil
}
