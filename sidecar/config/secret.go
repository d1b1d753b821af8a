package config

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

// Secret is a text that no printer shows: fmt, JSON, YAML, zap and slog all see "[hidden]", or nothing where it is
// empty. It sits behind a pointer, because fmt reads the fields of unexported structs without asking their methods.
type Secret struct{ text *string }

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal returns the text itself. What receives it must not print it.
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

// Format implements fmt.Formatter, for verbs such as %x that would go around String.
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

// connection is what a connection string has and a path does not: ://, user:password@, or password=.
var connection = regexp.MustCompile(`://|:.*@|password\s*=`)

var errNoPath = errors.New("holds a connection string, not a path: put it into a file")

// readSecret returns what the file of a secret holds. Its errors do not have the name of the file, because a secret
// itself may have been written in its place.
func readSecret(file, what string) (string, error) {
	text, err := os.ReadFile(file)
	switch failed, ok := errors.AsType[*fs.PathError](err); {
	case err != nil && connection.MatchString(file):
		return "", errNoPath
	case ok:
		return "", fmt.Errorf("cannot be read: %w; want the path of a file that holds the %s", failed.Err, what) //guard:secret-in-field-of-file-is-printed
	}
	return string(text), err
}
