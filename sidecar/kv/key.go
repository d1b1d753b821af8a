package kv

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin/keylist"
)

// MaxKeyBytes bounds a key.
const MaxKeyBytes = 1024

// CheckKey returns an error of KindInvalidKey unless key can be the key of an entry: 1 to MaxKeyBytes of UTF-8 without NUL.
func CheckKey(key string) error {
	switch {
	case key == "":
		return invalidKey("the key is empty")
	case len(key) > MaxKeyBytes:
		return invalidKey(fmt.Sprintf("the key has %d bytes; at most %d are allowed", len(key), MaxKeyBytes))
	case !utf8.ValidString(key):
		return invalidKey("the key is not UTF-8")
	case strings.IndexByte(key, 0) >= 0:
		return invalidKey("the key contains a NUL byte")
	}
	return nil
}

// CheckEntryKey is CheckKey for what members read from each other: it may also be a list of keys.
func CheckEntryKey(key string) error {
	if _, ok := keylist.Parse(key); ok {
		return nil
	}
	return CheckKey(key)
}

func invalidKey(why string) error { return &Error{Kind: KindInvalidKey, Err: errors.New(why)} }
