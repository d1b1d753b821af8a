package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Tokens are the tokens in the files of the configuration. Each line of a file is one token, so that an old and a new one
// are valid together while clients change over. Its zero value has none.
type Tokens struct {
	current atomic.Pointer[[]token]

	mu    sync.Mutex // guards the fields below
	files map[string]string
	read  map[string][]token // :: name → the tokens of its file, as they were last read
}

// token is a token as it is compared: by its hash, so that the time of a comparison says nothing about the token.
type token struct {
	name string
	hash [sha256.Size]byte
}

// The limits of a file of tokens. Each request with a token compares it with all.
const (
	maxTokenBytes = 1 << 10
	maxTokens     = 16
	maxTokenFile  = maxTokens * (maxTokenBytes + 2)
)

// Find returns the name of the token in an Authorization header (RFC 6750, 2.1).
func (t *Tokens) Find(authorization string) (name string, ok bool) {
	const scheme = "bearer "
	if len(authorization) < len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return "", false
	}
	known := t.current.Load()
	if known == nil {
		return "", false
	}
	var sent [maxTokenBytes]byte
	text := strings.TrimSpace(authorization[len(scheme):])
	if text == "" || len(text) > len(sent) {
		return "", false
	}
	hash := sha256.Sum256(sent[:copy(sent[:], text)])
	for i := range *known {
		if one := &(*known)[i]; subtle.ConstantTimeCompare(hash[:], one.hash[:]) == 1 {
			name, ok = one.name, true // no break: the time must not depend on which one matches
		}
	}
	return name, ok
}

// SetFiles makes the tokens of files, by name, the valid ones. It returns why some of them cannot be read; these have none.
func (t *Tokens) SetFiles(files map[string]string) error {
	t.mu.Lock()
	t.files = maps.Clone(files)
	t.mu.Unlock()
	return t.Reload()
}

// Reload reads the files again. A file that no longer exists or is empty has no valid token. One that cannot be read for
// another reason, such as too many open files, keeps those that it had. The error names all files that failed.
func (t *Tokens) Reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	next, all := make(map[string][]token, len(t.files)), []token(nil)
	for _, name := range slices.Sorted(maps.Keys(t.files)) {
		list, err := readTokens(name, t.files[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("token %s: %w", name, err))
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoToken) { //guard:removed-token-stays-valid
				list = t.read[name]
			}
		}
		next[name], all = list, append(all, list...)
	}
	t.read = next
	t.current.Store(&all)
	return errors.Join(errs...)
}

var errNoToken = errors.New("the file has no token; want one on a line of its own")

// CheckTokenFile returns an error unless the file has at least one token.
func CheckTokenFile(file string) error {
	_, err := readTokens("", file)
	return err
}

func readTokens(name, file string) ([]token, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, hidePath(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	switch {
	case err != nil:
		return nil, hidePath(err)
	case len(text) > maxTokenFile:
		return nil, fmt.Errorf("the file has more than %d bytes", maxTokenFile)
	}
	var list []token
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > maxTokenBytes {
			return nil, fmt.Errorf("the file has a token of %d bytes; at most %d are allowed", len(line), maxTokenBytes)
		}
		if len(line) > 0 { //guard:empty-token-is-valid
			list = append(list, token{name, sha256.Sum256(line)})
		}
	}
	switch {
	case len(list) == 0:
		return nil, errNoToken
	case len(list) > maxTokens:
		return nil, fmt.Errorf("the file has %d tokens; at most %d are allowed", len(list), maxTokens)
	}
	return list, nil
}

// hidePath removes the path from an error: the token itself may have been written in its place.
func hidePath(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return fmt.Errorf("the file cannot be read: %w", failed.Err)
	}
	return err
}
