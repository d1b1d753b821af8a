package decode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
)

const hidden = "[hidden]"

// Secret is text that no printer shows: fmt, JSON, YAML, zap and slog print "[hidden]", or nothing if it is empty. The text
// is behind a pointer, because fmt prints the fields of unexported structs without calling their methods.
type Secret struct{ text *string }

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal returns the text. The caller must not print it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns "[hidden]", or "" for an empty secret.
func (s Secret) String() string {
	if s.Reveal() == "" {
		return ""
	}
	return hidden
}

// Format implements fmt.Formatter, because verbs such as %x bypass String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) } //guard:printer-shows-secret

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON, YAML and zap use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// connection matches parts of a connection string that paths do not have: ://, user:password@, or password=.
var connection = regexp.MustCompile(`://|:.*@|password\s*=`)

// ErrNoPath means that the path of a secret's file is itself a connection string.
var ErrNoPath = errors.New("contains a connection string, not a path: put it into a file")

// ReadSecret returns the content of a secret's file. Its errors omit the path, because the secret itself may have been
// written in its place.
func ReadSecret(file, what string) (string, error) {
	text, err := os.ReadFile(file)
	switch failed, ok := errors.AsType[*fs.PathError](err); {
	case err != nil && connection.MatchString(file):
		return "", ErrNoPath
	case ok:
		return "", fmt.Errorf("cannot be read: %w; want the path of a file that contains the %s", failed.Err, what) //guard:secret-in-field-of-file-is-printed
	}
	return string(text), err
}
