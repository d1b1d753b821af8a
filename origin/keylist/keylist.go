// Package keylist turns the lists of the keys of a dataset into values of keys that no row can have, so that whatever caches and
// shares the rows of a dataset does the same with its lists: one member queries the database, and the others fetch from it.
package keylist

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

const (
	// MaxPrefixBytes is the size of the longest prefix whose keys can be listed.
	MaxPrefixBytes = 1000
	// MaxParts is the number of parts of the longest list. Numbers of parts are powers of 4.
	MaxParts = 64
	// MaxPartBytes is the size of the longest value of a part: half of what one message between members holds of a value.
	MaxPartBytes = 512 << 10
)

// Part is one of several parts of the keys that begin with Prefix: those whose hash leaves N when divided by Of. So a key is always
// in the same part, whichever other keys come and go while the parts are read.
type Part struct {
	Prefix string
	N, Of  int
}

// mark begins the keys of parts. No row has a key with NUL.
const mark = "\x00keys/"

// IsPart reports whether key is that of a part. It does not check the rest of it.
func IsPart(key string) bool { return strings.HasPrefix(key, mark) }

// Key returns the key whose value is the list of p.
func (p Part) Key() string { return fmt.Sprintf("%s%d/%d/%s", mark, p.Of, p.N, p.Prefix) }

// Parts returns all parts of the keys that begin with prefix.
func Parts(prefix string, of int) []string {
	keys := make([]string, of)
	for n := range keys {
		keys[n] = Part{prefix, n, of}.Key()
	}
	return keys
}

// Parse is the inverse of Key. It accepts no other spelling.
func Parse(key string) (Part, bool) {
	rest, ok := strings.CutPrefix(key, mark)
	fields := strings.SplitN(rest, "/", 3)
	if !ok || len(fields) != 3 {
		return Part{}, false
	}
	of, errOf := strconv.Atoi(fields[0])
	n, errN := strconv.Atoi(fields[1])
	p := Part{fields[2], n, of}
	valid := errOf == nil && errN == nil && slices.Contains([]int{1, 4, 16, MaxParts}, of) && 0 <= n && n < of &&
		len(p.Prefix) <= MaxPrefixBytes && utf8.ValidString(p.Prefix) && !strings.Contains(p.Prefix, "\x00")
	return p, valid && p.Key() == key
}

func (p Part) has(key string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return h.Sum32()%uint32(p.Of) == uint32(p.N)
}

// Split returns the keys in the value of a part, sorted.
func Split(value []byte) []string {
	if len(value) == 0 {
		return nil
	}
	return strings.Split(string(value), "\x00")
}

// errTooLong is the result of a part that must be divided.
var errTooLong = origin.NewDataError(origin.TooLarge, "the list of keys has more than %d KiB: read it in more parts", MaxPartBytes>>10)

// New returns an origin whose Load returns the rows of rows, and the lists of keys. Unlistable is why there are no lists; nil if keys
// lists them.
func New(rows origin.Origin, keys origin.KeyLister, unlistable error) origin.Origin {
	return &lists{rows, keys, unlistable}
}

type lists struct {
	rows       origin.Origin
	keys       origin.KeyLister
	unlistable error
}

// Load implements origin.Origin.
func (l *lists) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, l, keys)
}

// LoadEach implements origin.Streamer.
func (l *lists) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	if !slices.ContainsFunc(keys, IsPart) {
		return origin.LoadEach(ctx, l.rows, keys, yield)
	}
	var rows []string
	var at []int                     // the places of rows in keys
	parts := map[string][]*growing{} // :: prefix → parts
	for i, key := range keys {
		switch p, ok := Parse(key); {
		case ok && l.unlistable == nil:
			parts[p.Prefix] = append(parts[p.Prefix], &growing{Part: p, at: i})
		case ok:
			yield(i, origin.Result{Err: fmt.Errorf("%w: the keys of this dataset cannot be listed: %w", origin.ErrInvalidKey, l.unlistable)})
		default:
			rows, at = append(rows, key), append(at, i)
		}
	}
	if len(rows) > 0 {
		err := origin.LoadEach(ctx, l.rows, rows, func(i int, r origin.Result) { yield(at[i], r) })
		if err != nil {
			return err
		}
	}
	for prefix, of := range parts {
		if err := l.list(ctx, prefix, of); err != nil {
			return err
		}
		for _, p := range of {
			yield(p.at, p.result())
		}
	}
	return nil
}

// list lists all parts of a prefix with one statement.
func (l *lists) list(ctx context.Context, prefix string, parts []*growing) error {
	open := len(parts)
	return l.keys.ListKeys(ctx, prefix, func(key string) bool {
		for _, p := range parts {
			if p.full || !p.has(key) {
				continue
			}
			if p.add(key); p.full {
				open--
			}
		}
		return open > 0
	})
}

// growing is a part while it is read.
type growing struct {
	Part
	at   int
	keys []string
	size int
	full bool
}

func (g *growing) add(key string) {
	if strings.Contains(key, "\x00") || !utf8.ValidString(key) {
		return // nobody can read it
	}
	g.keys = append(g.keys, key)
	if g.size += len(key) + 1; g.size > 2*MaxPartBytes { // some keys may be in the list twice
		g.compact()
	}
}

func (g *growing) compact() {
	slices.Sort(g.keys)
	g.keys, g.size = slices.Compact(g.keys), 0
	for _, key := range g.keys {
		g.size += len(key) + 1
	}
	if g.full = g.size > MaxPartBytes; g.full { //guard:list-of-keys-is-cut-off-silently
		g.keys = nil
	}
}

func (g *growing) result() origin.Result {
	if !g.full {
		g.compact()
	}
	if g.full {
		return origin.Result{Err: errTooLong}
	}
	var b bytes.Buffer
	for i, key := range g.keys {
		if i > 0 {
			b.WriteByte(0)
		}
		b.WriteString(key)
	}
	return origin.Result{Value: origin.Value{Data: b.Bytes(), Content: origin.ContentBytes}}
}
