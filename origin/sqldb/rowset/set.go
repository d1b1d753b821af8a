// Package rowset collects the rows of a statement as the results of keys. A row belongs to a requested key only if the key
// column, printed as text, has the same bytes.
package rowset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// maxKeyBytes is the longest key that an index of any of the databases can hold (InnoDB: 3072 bytes, PostgreSQL: 2704).
const MaxKeyBytes = 3072

// collector gathers the rows of one Load. It belongs to one goroutine.
type Set struct {
	Dataset  origin.Dataset
	keyed    bool
	maxBytes int

	results map[string]origin.Result // :: key → what was found, or what is wrong with the key
	seen    map[string]int           // :: key → its rows in the statement under way

	names        []string // of the value's columns
	VersionIndex int      // index in names, or -1
	value        int      // the same, of Dataset.Value
	hidden       bool     // the last of names is the version, and no part of the value

	page *page // nil unless rows are listed
}

func New(ds origin.Dataset, keyed bool, maxBytes int, keys []string) *Set {
	return &Set{Dataset: ds, keyed: keyed, maxBytes: maxBytes, results: make(map[string]origin.Result, len(keys))}
}

// askable returns the keys that a database can be asked for, and refuses the others.
func (c *Set) ValidKeys(keys []string) (ask []string) {
	for _, key := range keys {
		switch {
		case len(key) > MaxKeyBytes:
			c.Refuse(key, fmt.Sprintf("%d bytes are more than %d, the longest key that an index can hold",
				len(key), MaxKeyBytes))
		case !utf8.ValidString(key) || strings.Contains(key, "\x00"):
			c.Refuse(key, "it must be UTF-8 without NUL")
		default:
			ask = append(ask, key)
		}
	}
	return ask
}

func (c *Set) Refuse(key, why string) {
	c.results[key] = origin.Result{Err: fmt.Errorf("%w: %s", origin.ErrInvalidKey, why)}
}

// begin forgets what an attempt before may have read.
func (c *Set) Begin(keys []string) {
	c.seen = make(map[string]int, len(keys))
	for _, key := range keys {
		c.results[key] = origin.Result{Err: origin.ErrNotFound}
	}
}

// result returns the result of a key.
func (c *Set) Result(key string) origin.Result { return c.results[key] }

// seenRows returns how many rows a key has had since begin, and total how many all keys have had.
func (c *Set) RowsOf(key string) int { return c.seen[key] }

// total returns how many rows there have been since begin.
func (c *Set) Rows() (n int) {
	for _, rows := range c.seen {
		n += rows
	}
	return n
}

// paged makes the collector keep the order of the rows, for page.
func (c *Set) Paged() { c.page = &page{} }

// anyKey returns a key of the rows that came, whoever asked for it.
func (c *Set) AnyKey() string {
	for key := range c.seen {
		return key
	}
	return ""
}

// columns takes the names of a result's columns behind the key.
func (c *Set) Columns(names []string) error {
	c.names = names
	c.VersionIndex, c.value = slices.Index(names, c.Dataset.Version), slices.Index(names, c.Dataset.Value)
	if c.Dataset.Version != "" && c.VersionIndex < 0 {
		return NoColumn("version", c.Dataset.Version, names)
	}
	if c.Dataset.Value != "" && c.value < 0 {
		return NoColumn("value", c.Dataset.Value, names)
	}
	c.hidden = len(c.Dataset.Columns) > 0 && len(names) > len(c.Dataset.Columns)
	return distinct(names)
}

func NoColumn(field, name string, names []string) error {
	return &origin.FieldError{Field: field, Err: fmt.Errorf("there is no column %q: it has %s", name, strings.Join(names, ", "))}
}

func distinct(names []string) error {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if seen[name] {
			return fmt.Errorf("two columns are named %q: rename one of them (AS)", name)
		}
		seen[name] = true
	}
	return nil
}

// row takes a row by the key that the database prints. That may be one which nobody asked for, and which only the
// database holds equal because of a collation or a conversion ('a' = 'A', '12abc' = 12): it is no answer to that other.
func (c *Set) Row(key string, cells []rowjson.Cell) {
	c.seen[key]++
	if c.seen[key] > 1 {
		c.results[key] = origin.Result{Err: fmt.Errorf(
			"dataset %q has %d rows of one key: make the key column unique", c.Dataset.Name, c.seen[key])}
		return
	}
	r := c.rowResult(cells)
	if c.page != nil && !c.page.add(key, r) {
		r = origin.Result{} // the page fails
	}
	c.results[key] = r
}

func (c *Set) rowResult(cells []rowjson.Cell) (r origin.Result) {
	version, err := c.versionOf(cells)
	if err != nil {
		return origin.Result{Err: err}
	}
	if c.value >= 0 && cells[c.value].Kind == rowjson.Null {
		return origin.Result{Err: origin.ErrNotFound}
	}
	value := c.encode(cells)
	if len(value) > c.maxBytes {
		return origin.Result{Err: fmt.Errorf("dataset %q: the row makes a value of %d bytes, over max_value_bytes %d",
			c.Dataset.Name, len(value), c.maxBytes)}
	}
	return origin.Result{Value: origin.Value{Data: value, Version: version}}
}

func (c *Set) versionOf(cells []rowjson.Cell) (int64, error) {
	if c.VersionIndex < 0 || cells[c.VersionIndex].Kind == rowjson.Null {
		return 0, nil
	}
	text := string(cells[c.VersionIndex].Text)
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("dataset %q: the version column %q must hold integers of 64 bits: %w", c.Dataset.Name,
			c.Dataset.Version, err)
	}
	return version, nil
}

func (c *Set) encode(cells []rowjson.Cell) []byte {
	if c.value >= 0 {
		return slices.Clone(cells[c.value].Text)
	}
	names := c.names
	if c.hidden {
		names = names[:len(names)-1]
	}
	return rowjson.EncodeRow(names, cells)
}

// answer puts the results in the order of keys.
func (c *Set) Results(keys []string) []origin.Result {
	results := make([]origin.Result, len(keys))
	for i, key := range keys {
		results[i] = c.results[key]
	}
	return results
}

// maxPageBytes limits the values of one List: 1000 rows may be 1 GiB.
const maxPageBytes = 16 << 20

// page is the rows of one List in their order. It belongs to a collector.
type page struct {
	keys  []string
	bytes int
}

// add reports whether there is room for a row.
func (p *page) add(key string, r origin.Result) bool {
	p.keys = append(p.keys, key)
	p.bytes += len(r.Value.Data)
	return p.bytes <= maxPageBytes
}

// rows returns the rows of a page. A row that is no value fails it: left out, it would look absent.
func (c *Set) Page(limit int) ([]origin.Row, error) {
	if c.page.bytes > maxPageBytes { //guard:page-without-size-limit
		return nil, fmt.Errorf("a page of %d rows has %d bytes, over %d: ask for fewer", limit, c.page.bytes, maxPageBytes)
	}
	keys := slices.DeleteFunc(c.page.keys, func(key string) bool { return key == "" })
	rows := make([]origin.Row, 0, limit)
	for _, key := range keys[:min(limit, len(keys))] {
		r := c.results[key]
		if r.Err != nil {
			return nil, fmt.Errorf("key %q: %w", key, r.Err)
		}
		rows = append(rows, origin.Row{Key: key, Value: r.Value})
	}
	return rows, nil
}
