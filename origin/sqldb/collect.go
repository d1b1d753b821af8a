package sqldb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// maxKeyBytes is the longest key that an index of any of the databases can hold (InnoDB: 3072 bytes, PostgreSQL: 2704).
const maxKeyBytes = 3072

// collector gathers the rows of one Load. It belongs to one goroutine.
type collector struct {
	dataset  origin.Dataset
	keyed    bool
	maxBytes int

	results map[string]origin.Result // :: key → what was found, or what is wrong with the key
	seen    map[string]int           // :: key → its rows in the statement under way

	names   []string // of the value's columns
	version int      // index in names, or -1
	value   int      // the same, of Dataset.Value
	hidden  bool     // the last of names is the version, and no part of the value

	page *page // nil unless rows are listed
}

func newCollector(ds origin.Dataset, keyed bool, maxBytes int, keys []string) *collector {
	return &collector{dataset: ds, keyed: keyed, maxBytes: maxBytes, results: make(map[string]origin.Result, len(keys))}
}

// askable returns the keys that a database can be asked for, and refuses the others.
func (c *collector) askable(keys []string) (ask []string) {
	for _, key := range keys {
		switch {
		case len(key) > maxKeyBytes:
			c.refuse(key, fmt.Sprintf("%d bytes are more than %d, the longest key that an index can hold",
				len(key), maxKeyBytes))
		case !utf8.ValidString(key) || strings.Contains(key, "\x00"):
			c.refuse(key, "it must be UTF-8 without NUL")
		default:
			ask = append(ask, key)
		}
	}
	return ask
}

func (c *collector) refuse(key, why string) {
	c.results[key] = origin.Result{Err: fmt.Errorf("%w: %s", origin.ErrInvalidKey, why)}
}

// begin forgets what an attempt before may have read.
func (c *collector) begin(keys []string) {
	c.seen = make(map[string]int, len(keys))
	for _, key := range keys {
		c.results[key] = origin.Result{Err: origin.ErrNotFound}
	}
}

// anyKey returns a key of the rows that came, whoever asked for it.
func (c *collector) anyKey() string {
	for key := range c.seen {
		return key
	}
	return ""
}

// columns takes the names of a result's columns behind the key.
func (c *collector) columns(names []string) error {
	c.names = names
	c.version, c.value = slices.Index(names, c.dataset.Version), slices.Index(names, c.dataset.Value)
	if c.dataset.Version != "" && c.version < 0 {
		return missing("version", c.dataset.Version, names)
	}
	if c.dataset.Value != "" && c.value < 0 {
		return missing("value", c.dataset.Value, names)
	}
	c.hidden = len(c.dataset.Columns) > 0 && len(names) > len(c.dataset.Columns)
	return distinct(names)
}

func missing(field, name string, names []string) error {
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
func (c *collector) row(key string, cells []cell) {
	c.seen[key]++
	if c.seen[key] > 1 {
		c.results[key] = origin.Result{Err: fmt.Errorf(
			"dataset %q has %d rows of one key: make the key column unique", c.dataset.Name, c.seen[key])}
		return
	}
	r := c.result(cells)
	if c.page != nil && !c.page.add(key, r) {
		r = origin.Result{} // the page fails
	}
	c.results[key] = r
}

func (c *collector) result(cells []cell) (r origin.Result) {
	version, err := c.versionOf(cells)
	if err != nil {
		return origin.Result{Err: err}
	}
	if c.value >= 0 && cells[c.value].kind == null {
		return origin.Result{Err: origin.ErrNotFound}
	}
	value := c.encode(cells)
	if len(value) > c.maxBytes {
		return origin.Result{Err: fmt.Errorf("dataset %q: the row makes a value of %d bytes, over max_value_bytes %d",
			c.dataset.Name, len(value), c.maxBytes)}
	}
	return origin.Result{Value: origin.Value{Data: value, Version: version}}
}

func (c *collector) versionOf(cells []cell) (int64, error) {
	if c.version < 0 || cells[c.version].kind == null {
		return 0, nil
	}
	text := string(cells[c.version].text)
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("dataset %q: the version column %q must hold integers of 64 bits: %w", c.dataset.Name,
			c.dataset.Version, err)
	}
	return version, nil
}

func (c *collector) encode(cells []cell) []byte {
	if c.value >= 0 {
		return slices.Clone(cells[c.value].text)
	}
	names := c.names
	if c.hidden {
		names = names[:len(names)-1]
	}
	return encodeRow(names, cells)
}

// answer puts the results in the order of keys.
func (c *collector) answer(keys []string) []origin.Result {
	results := make([]origin.Result, len(keys))
	for i, key := range keys {
		results[i] = c.results[key]
	}
	return results
}
