package api

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Dataset is what the APIs need from a cache.Dataset.
type Dataset interface {
	Name() string
	// Get may be called with a key in memory that the caller reuses after Get has returned.
	Get(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error)
	// Cached returns the answer to Get if a fresh value in memory is it; key is as for Get. It never waits, and does not count
	// the read: a caller that uses the answer does, in Stats.
	Cached(key string, o kv.ReadOptions) (kv.Answer, bool)
	Stats() *kv.Stats
	// GetMany answers reads of many keys, in their order, with as few loads and peer fetches as possible. The values are
	// limited; keys beyond get kv.ErrBatchBytes.
	GetMany(ctx context.Context, keys []string, o kv.ReadOptions, limit kv.BatchLimit) []kv.Result
	// Write may be called with a key and a value in memory that the caller reuses after Write has returned.
	Write(ctx context.Context, c kv.Change) (kv.Answer, error)
	// WriteMany makes changes of distinct keys, with one transaction of each owner, and returns their results in their order, without
	// values. Its arguments are as those of Write.
	WriteMany(ctx context.Context, cs []kv.Change) []kv.Result
	// Append inserts a row whose key the database generates; value is as for Write, and id is kv.Change.ID.
	Append(ctx context.Context, value []byte, id string) (kv.Appended, error)
	Invalidate(ctx context.Context, s kv.Scope) (kv.InvalidateResult, error)
	// CachedKeys returns the keys with a value in one part of the memory, and how many parts there are.
	CachedKeys(part int) (keys []string, parts int)
	// Watch marks changes of keys until it is closed.
	Watch(keys []string) *watches.Watch
	// WatchRange marks changes of all keys that begin with a prefix until it is closed.
	WatchRange(prefix string) *watches.Range
	// FeedLive reports whether changes are reported without a gap, and whether the dataset has a feed.
	FeedLive() (live, has bool)
	Policy() kv.Policy
}

// Served is a dataset and how the APIs present it.
type Served struct {
	Dataset
	// JSON means that values are rows as JSON; otherwise each value says what it is.
	JSON bool
	// ContentType is the media type of all values; empty means that of MediaType.
	ContentType string
	// Key are the columns of a composite key; none if a key has one column (origin.JoinKey).
	Key []string
	// ReadOnly means that the dataset rejects writes.
	ReadOnly bool
	// Gate decides who may do what with the dataset; nil allows everything.
	Gate *access.Gate
	// View is how HTTP clients see the dataset; nil if nothing is configured.
	View *httpview.View
}

// The media types of values.
const (
	TypeJSON  = "application/json"
	TypeText  = "text/plain; charset=utf-8"
	TypeBytes = "application/octet-stream"
)

// MediaType returns the media type of a value. A value of unknown content comes from a member of an earlier version.
func (s Served) MediaType(content origin.Content) string {
	switch {
	case s.ContentType != "":
		return s.ContentType
	case content == origin.ContentJSON, content == origin.ContentUnknown && s.JSON:
		return TypeJSON
	case content == origin.ContentText:
		return TypeText
	}
	return TypeBytes
}

// Datasets are the datasets of the running configuration. It is safe for concurrent use.
type Datasets interface {
	// Lookup finds a dataset by its name or an alias, which may lie in memory that the caller reuses.
	Lookup(name string) (Served, bool)
	// Match finds the dataset that has a path of its own, and appends the parts of the key, percent-encoded as in the path.
	Match(path string, into []string) (s Served, parts []string, ok bool)
	// All returns the datasets sorted by name; the caller does not modify the list.
	All() []Served
}

// Catalog is a list of datasets that can be replaced as a whole while requests are served. Its zero value is empty.
type Catalog struct {
	current atomic.Pointer[catalog]
}

type catalog struct {
	byName map[string]Served // also by aliases
	sorted []Served
	paths  []servedPath
}

type servedPath struct {
	*httpview.Template
	served Served
}

// NewCatalog returns a Catalog of datasets with different names.
func NewCatalog(list ...Served) *Catalog {
	c := new(Catalog)
	c.Replace(list...)
	return c
}

// Replace makes list, whose names differ, the whole catalog.
func (c *Catalog) Replace(list ...Served) {
	next := &catalog{byName: make(map[string]Served, len(list)), sorted: slices.Clone(list)}
	for _, s := range list {
		next.byName[s.Name()] = s
		if s.View == nil {
			continue
		}
		for _, name := range s.View.Aliases {
			next.byName[name] = s
		}
		for _, t := range s.View.Paths {
			next.paths = append(next.paths, servedPath{t, s})
		}
	}
	slices.SortFunc(next.sorted, func(a, b Served) int { return cmp.Compare(a.Name(), b.Name()) })
	c.current.Store(next)
}

// Lookup implements Datasets.
func (c *Catalog) Lookup(name string) (Served, bool) {
	current := c.current.Load()
	if current == nil {
		return Served{}, false
	}
	s, ok := current.byName[name]
	return s, ok
}

// Match implements Datasets. No two paths of a configuration overlap.
func (c *Catalog) Match(path string, into []string) (Served, []string, bool) {
	current := c.current.Load()
	if current == nil {
		return Served{}, into, false
	}
	for _, p := range current.paths {
		if parts, ok := p.Match(path, into); ok {
			return p.served, parts, true
		}
	}
	return Served{}, into, false
}

// All implements Datasets.
func (c *Catalog) All() []Served {
	current := c.current.Load()
	if current == nil {
		return nil
	}
	return current.sorted
}

// similarNames returns at most three names that a client that wrote name may have meant.
func similarNames(name string, all []Served) []string {
	similar := []string{}
	for _, s := range all {
		if len(similar) < 3 && isSimilar(name, s.Name()) {
			similar = append(similar, s.Name())
		}
	}
	return similar
}

func isSimilar(requested, name string) bool {
	const longest = 64 // keeps the comparison of absurd names cheap
	if requested == "" || len(requested) > longest || len(name) > longest {
		return false
	}
	requested, name = strings.ToLower(requested), strings.ToLower(name)
	return strings.HasPrefix(name, requested) || editDistance(requested, name) <= 1+len(name)/4
}

// editDistance counts the bytes to insert, delete or replace to turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
