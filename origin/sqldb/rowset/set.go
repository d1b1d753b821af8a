// Package rowset collects the rows of a statement as the results of keys. A row belongs to a requested key only if the key
// column, printed as text, has the same bytes.
package rowset

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// MaxKeyBytes is the longest key that an index of any database supports (InnoDB: 3072 bytes, PostgreSQL: 2704).
const MaxKeyBytes = 3072

// Set collects the rows of one Load, List or write. It belongs to one goroutine.
type Set struct {
	Dataset  origin.Dataset
	maxBytes int

	results map[string]origin.Result // :: key → its row, or what is wrong with the key
	seen    map[string]int           // :: key → number of rows since Begin

	names        []string // of the columns after the key
	VersionIndex int      // in names; -1 if there is no version
	value        int      // the same for Dataset.Value
	expires      int      // the same for Dataset.Expires
	shown        int      // how many of names are part of the value; the version and columns of the order may follow

	page  *page  // nil unless rows are listed
	lists *lists // nil unless a key may have many rows

	deliver func(key string, r origin.Result) // nil: results stay until they are requested
	sent    map[string]bool                   // :: key → its result has been delivered
	rows    []string                          // keys of rows that have not been delivered
	bytes   int                               // of their values
}

// New returns an empty Set for rows whose values have at most maxBytes.
func New(ds origin.Dataset, maxBytes int) *Set {
	return &Set{Dataset: ds, maxBytes: maxBytes, results: map[string]origin.Result{}, lists: newLists(ds, maxBytes)}
}

// ValidKeys returns the keys that a database can contain, and rejects the others.
func (s *Set) ValidKeys(keys []string) (valid []string) {
	for _, key := range keys {
		switch {
		case len(key) > MaxKeyBytes:
			s.Reject(key, fmt.Sprintf("%d bytes are more than %d, the longest key that an index supports",
				len(key), MaxKeyBytes))
		case !utf8.ValidString(key) || strings.Contains(key, "\x00"):
			s.Reject(key, "it must be UTF-8 without NUL")
		default:
			if _, err := origin.SplitKey(key, s.Dataset.Key); err != nil {
				s.Reject(key, err.Error())
				continue
			}
			valid = append(valid, key)
		}
	}
	return valid
}

// Reject makes the result of a key origin.ErrInvalidKey.
func (s *Set) Reject(key, why string) {
	s.results[key] = origin.Result{Err: fmt.Errorf("%w: %s", origin.ErrInvalidKey, why)}
}

// Fail makes err the result of a key.
func (s *Set) Fail(key string, err error) {
	s.results[key] = origin.Result{Err: err}
}

// Begin forgets the rows of an earlier attempt.
func (s *Set) Begin(keys []string) {
	s.seen = make(map[string]int, len(keys))
	s.rows, s.bytes = s.rows[:0], 0
	if s.lists != nil {
		s.lists.reset()
	}
	for _, key := range keys {
		s.results[key] = origin.Result{Err: origin.ErrNotFound}
		delete(s.sent, key)
	}
}

// DeliverTo makes the Set pass results on: when the rows that it holds exceed the size of one value, and by Deliver. Until
// then they stay, because a second row of a key makes the first one an error.
func (s *Set) DeliverTo(deliver func(key string, r origin.Result)) {
	s.deliver, s.sent = deliver, map[string]bool{}
}

// Deliver passes on those results of keys that have not been delivered, and forgets their values.
func (s *Set) Deliver(keys []string) {
	for _, key := range keys {
		s.finishList(key)
		if r, ok := s.results[key]; ok && !s.sent[key] {
			s.sent[key], s.results[key] = true, origin.Result{}
			s.deliver(key, r)
		}
	}
}

// hold counts a row until the rows are delivered.
func (s *Set) hold(key string, r origin.Result) {
	s.rows, s.bytes = append(s.rows, key), s.bytes+len(r.Value.Data)
	if s.bytes > s.maxBytes { //guard:statement-holds-all-its-rows
		s.Deliver(s.rows)
		s.rows, s.bytes = s.rows[:0], 0
	}
}

// Result returns the result of a key.
func (s *Set) Result(key string) origin.Result { return s.results[key] }

// RowsOf returns how many rows a key has had since Begin.
func (s *Set) RowsOf(key string) int { return s.seen[key] }

// Rows returns how many rows there have been since Begin.
func (s *Set) Rows() (n int) {
	for _, rows := range s.seen {
		n += rows
	}
	return n
}

// Paged makes the Set keep the order of the rows, for Page.
func (s *Set) Paged() { s.page = &page{} }

// AnyKey returns the key of one of the rows, requested or not.
func (s *Set) AnyKey() string {
	for key := range s.seen {
		return key
	}
	return ""
}

// Columns sets the names of a result's columns after the key.
func (s *Set) Columns(names []string) error {
	s.names = names
	s.VersionIndex, s.value = slices.Index(names, s.Dataset.Version), slices.Index(names, s.Dataset.Value)
	if s.Dataset.Version != "" && s.VersionIndex < 0 {
		return NoColumn("version", s.Dataset.Version, names)
	}
	s.expires = slices.Index(names, s.Dataset.Expires)
	if s.Dataset.Expires != "" && s.expires < 0 {
		return NoColumn("expires", s.Dataset.Expires, names)
	}
	if s.Dataset.Value != "" && s.value < 0 {
		return NoColumn("value", s.Dataset.Value, names)
	}
	s.shown = len(names)
	if n := len(s.Dataset.Columns); n > 0 {
		s.shown = min(s.shown, n)
	}
	if s.lists != nil {
		if err := s.orderColumns(); err != nil {
			return err
		}
	}
	return distinct(names)
}

// NoColumn returns an *origin.FieldError about a missing column.
func NoColumn(field, name string, names []string) error {
	return &origin.FieldError{Field: field, Err: fmt.Errorf("there is no column %q: it has %s", name, strings.Join(names, ", "))}
}

func distinct(names []string) error {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		name = strings.ToValidUTF8(name, "\uFFFD") // as JSON has it
		if seen[name] {
			return fmt.Errorf("two columns are named %q: rename one of them (AS)", name)
		}
		seen[name] = true
	}
	return nil
}

// Row adds a row by the key that the database prints. Nobody may have requested this key: the database may consider it equal
// to the requested one by its collation or conversion ('a' = 'A', '12abc' = 12), but then it is not its result.
func (s *Set) Row(key string, cells []rowjson.Cell) {
	s.seen[key]++
	if s.lists != nil {
		s.addToList(key, cells)
		return
	}
	if s.seen[key] > 1 {
		s.results[key] = origin.Result{Err: origin.NewDataError(origin.SeveralRows,
			"the database has %d rows of one key: make the key column unique", s.seen[key])}
		if s.sent[key] && s.seen[key] == 2 { //guard:second-row-after-the-first-was-delivered
			s.deliver(key, s.results[key]) // at once: the statement may fail before its last row
		}
		return
	}
	r := s.rowResult(cells)
	if s.page != nil && !s.page.add(key, r) {
		r = origin.Result{} // the page fails
	}
	s.results[key] = r
	if s.deliver != nil {
		s.hold(key, r)
	}
}

func (s *Set) rowResult(cells []rowjson.Cell) (r origin.Result) {
	version, err := s.versionOf(cells)
	if err != nil {
		return origin.Result{Err: err}
	}
	expires, err := s.expiryOf(cells)
	if err != nil {
		return origin.Result{Err: err}
	}
	if s.value >= 0 && cells[s.value].Kind == rowjson.Null {
		return origin.Result{Err: origin.ErrNotFound}
	}
	value, content := s.encode(cells)
	if len(value) > s.maxBytes {
		return origin.Result{Err: origin.NewDataError(origin.TooLarge,
			"the row makes a value of %d bytes, and the limit is %d: leave out columns, or store less in the row",
			len(value), s.maxBytes)}
	}
	return origin.Result{Value: origin.Value{Data: value, Version: version, Content: content, Expires: expires}}
}

func (s *Set) versionOf(cells []rowjson.Cell) (int64, error) {
	if s.VersionIndex < 0 || cells[s.VersionIndex].Kind == rowjson.Null {
		return 0, nil
	}
	text := string(cells[s.VersionIndex].Text)
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		// The error of strconv has the text of the row.
		return 0, origin.NewDataError(origin.InvalidVersion, "the version column %q must have integers of 64 bits: %v",
			s.Dataset.Version, errors.Unwrap(err))
	}
	return version, nil
}

// expiryOf returns until when a row is valid. A timestamp has the form of RFC 3339, and a number counts seconds since 1970.
func (s *Set) expiryOf(cells []rowjson.Cell) (time.Time, error) {
	if s.expires < 0 || cells[s.expires].Kind == rowjson.Null {
		return time.Time{}, nil
	}
	text := string(cells[s.expires].Text)
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(seconds) < maxExpiry) { // not a number
		return time.Time{}, origin.NewDataError(origin.InvalidExpiry, //guard:row-without-a-valid-end-is-valid-for-ever
			"the column %q of the expiry must have a time with a date, or seconds since 1970", s.Dataset.Expires)
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// maxExpiry is the greatest number of seconds: the end of the year 9999, the last one of RFC 3339.
const maxExpiry = 253402300800

func (s *Set) encode(cells []rowjson.Cell) ([]byte, origin.Content) {
	if s.value >= 0 {
		return slices.Clone(cells[s.value].Text), cells[s.value].Content()
	}
	return rowjson.EncodeRow(s.names[:s.shown], cells), origin.ContentJSON
}

// maxPageBytes limits the values of one List: 1000 rows may be 1 GiB.
const maxPageBytes = 16 << 20

// page is the order of the rows of one List.
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

// Page returns the rows in their order. A row with an error fails the page: without it, the row would look absent.
func (s *Set) Page(limit int) ([]origin.Row, error) {
	if s.page.bytes > maxPageBytes { //guard:page-without-size-limit
		return nil, fmt.Errorf("a page of %d rows has %d bytes, over %d: request fewer rows", limit, s.page.bytes, maxPageBytes)
	}
	keys := slices.DeleteFunc(s.page.keys, func(key string) bool { return key == "" })
	rows := make([]origin.Row, 0, limit)
	for _, key := range keys[:min(limit, len(keys))] {
		r := s.results[key]
		if r.Err != nil {
			return nil, fmt.Errorf("key %q: %w", key, r.Err)
		}
		rows = append(rows, origin.Row{Key: key, Value: r.Value})
	}
	return rows, nil
}
