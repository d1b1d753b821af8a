// Package origin says what a source of truth is. The adapters beside it (sqldb) are sources; guard decorates them;
// origintest holds the conformance test that every source passes.
package origin

import (
	"context"
	"errors"
)

// Value is one immutable value as an origin holds it.
type Value struct {
	// Data is never modified after Load has returned it.
	Data []byte
	// Version is the row's version column, which grows with each write; 0 where there is none.
	Version int64
}

// Result answers one key of a Load.
type Result struct {
	Value Value
	// Err is nil, ErrNotFound, an error that wraps ErrInvalidKey, or one that says why the key's row can not be a value
	// (too large, not the only one): what is wrong with one key is no reason to fail the others that share its query.
	Err error
}

// Origin is the source of truth of one dataset. It is safe for concurrent use.
type Origin interface {
	// Load reads keys, which are distinct and not empty, in as few queries as it can. results[i] answers keys[i].
	// An error means that the origin could not answer at all; it wraps ErrOverloaded where the query was never made
	// because a bound was reached. The result never says that a key is absent when the origin could not tell.
	// Load returns soon after ctx is done, and leaves no query behind in the origin.
	Load(ctx context.Context, keys []string) (results []Result, err error)
}

var (
	// ErrNotFound says that the origin answered, and that it has no such key.
	ErrNotFound = errors.New("no such key")
	// ErrInvalidKey says that no such key can exist: it is not of the key column's type, or too long for it.
	ErrInvalidKey = errors.New("invalid key")
	// ErrOverloaded says that a bound (queue, statements in flight) refused the load before it began.
	ErrOverloaded = errors.New("origin overloaded")
)
