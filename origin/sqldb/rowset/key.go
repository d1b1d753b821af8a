package rowset

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// KeyType says which texts are keys of a column. The database's own conversion is too lenient: it considers '007', '+7' and
// ' 7' (and MySQL '7abc') equal to 7, but each row must have one key, and so one cache entry. The zero value is text.
type KeyType struct {
	Bits     int // of an integer; 0 for other types
	Unsigned bool
	UUID     bool
	// Untyped says that a key may be a number, a text or bytes, which the database never considers equal.
	Untyped bool
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Parse returns the key as a parameter for the driver.
func (kt KeyType) Parse(key string) (any, error) {
	switch {
	case kt.UUID && !uuidForm.MatchString(key):
		return nil, fmt.Errorf("%q is not a UUID in lower case with hyphens", key)
	case kt.Bits == 0:
		return key, nil
	case kt.Unsigned:
		v, err := strconv.ParseUint(key, 10, kt.Bits)
		return v, kt.exact(key, strconv.FormatUint(v, 10), err)
	}
	v, err := strconv.ParseInt(key, 10, kt.Bits)
	return v, kt.exact(key, strconv.FormatInt(v, 10), err)
}

func (kt KeyType) exact(key, canonical string, err error) error {
	if err != nil || key != canonical {
		return fmt.Errorf("%q is not an integer of %d bits as the column prints it", key, kt.Bits)
	}
	return nil
}

// KeyTypes are the types of the columns of a key.
type KeyTypes []KeyType

// Parse returns the components of a key as parameters for the driver. The error names the column, if there are several.
func (kt KeyTypes) Parse(key string, columns []string) ([]any, error) {
	components, err := origin.SplitKey(key, columns)
	if err != nil {
		return nil, err
	}
	if len(components) != len(kt) {
		return nil, fmt.Errorf("it has %d components of %d", len(components), len(kt))
	}
	parameters := make([]any, len(kt))
	for i, c := range components {
		if parameters[i], err = kt[i].Parse(c); err != nil && len(kt) > 1 {
			err = fmt.Errorf("component %s: %w", columns[i], err)
		}
		if err != nil {
			return nil, err
		}
	}
	return parameters, nil
}

// Fit reports whether all keys of these columns are of the types.
func (kt KeyTypes) Fit(keys, columns []string) bool {
	for _, key := range keys {
		if _, err := kt.Parse(key, columns); err != nil {
			return false
		}
	}
	return true
}

// OfType returns the keys that are of the types, with their parameters for the driver, and rejects the others.
func (s *Set) OfType(kt KeyTypes, keys []string) (good []string, parameters [][]any) {
	for _, key := range keys {
		components, err := kt.Parse(key, s.Dataset.Key)
		if err != nil {
			s.Reject(key, err.Error())
			continue
		}
		good, parameters = append(good, key), append(parameters, components)
	}
	return good, parameters
}

// keyAt returns where the columns of the key are in a result, and how many columns before the value are only the key. None
// means that the result has no key.
func keyAt(q *sqltext.Query, names []string) (at []int, skip int, err error) {
	switch {
	case q.Keyed && len(names) < q.Width():
		return nil, 0, errNoColumns
	case q.Keyed:
		for i := range q.Width() {
			at = append(at, i)
		}
		return at, q.Width(), nil
	}
	for _, name := range q.Key {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, 0, NoColumn("key", name, names)
		}
		at = append(at, i)
	}
	return at, 0, nil
}

// Columns are those of the result of a query.
type Columns struct {
	Skip int // how many columns before the value are only the key
	key  []int
}

// ColumnsOfResult sets the names of the columns of the value. A result that has no key has the requested one.
func (s *Set) ColumnsOfResult(q *sqltext.Query, names []string) (c Columns, err error) {
	if c.key, c.Skip, err = keyAt(q, names); err != nil {
		return c, err
	}
	return c, s.Columns(names[c.Skip:])
}

// Key returns the key of a row. text returns a column as the database prints it; a row of which it is NULL has no key.
func (c Columns) Key(requested string, text func(column int) (string, bool)) (key string, ok bool) {
	if len(c.key) == 0 {
		return requested, true
	}
	var one [1]string
	components := one[:0]
	for _, column := range c.key {
		component, ok := text(column)
		if !ok {
			return "", false
		}
		components = append(components, component)
	}
	return origin.JoinKey(components...), true
}
