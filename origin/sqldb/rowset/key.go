package rowset

import (
	"fmt"
	"regexp"
	"strconv"
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

// Fit reports whether all keys are of the type.
func (kt KeyType) Fit(keys []string) bool {
	for _, key := range keys {
		if _, err := kt.Parse(key); err != nil {
			return false
		}
	}
	return true
}

// Parameters returns keys that OfType has accepted as parameters for the driver.
func (kt KeyType) Parameters(keys []string) []any {
	parameters := make([]any, len(keys))
	for i, key := range keys {
		parameters[i], _ = kt.Parse(key) // OfType has checked that it can
	}
	return parameters
}

// OfType returns the keys that are of the type, and rejects the others.
func (s *Set) OfType(kt KeyType, keys []string) (good []string) {
	for _, key := range keys {
		if _, err := kt.Parse(key); err != nil {
			s.Reject(key, err.Error())
			continue
		}
		good = append(good, key)
	}
	return good
}
