package origin

import (
	"fmt"
	"strings"
)

// MaxKeyColumns limits Dataset.Key.
const MaxKeyColumns = 4

// JoinKey returns the key text of a row: the one component as it is, or several joined by slashes, with % as %25 and / as %2F
// in each of them. Components may be empty.
func JoinKey(components ...string) string {
	if len(components) == 1 {
		return components[0]
	}
	var b []byte
	for i, c := range components {
		if i > 0 {
			b = append(b, '/')
		}
		b = AppendKeyComponent(b, c)
	}
	return string(b)
}

// AppendKeyComponent appends one of several components of a key as JoinKey writes it.
func AppendKeyComponent[T string | []byte](dst []byte, component T) []byte {
	for i := range len(component) {
		switch c := component[i]; c {
		case '%':
			dst = append(dst, "%25"...)
		case '/':
			dst = append(dst, "%2F"...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

var keyUnescaper = strings.NewReplacer("%25", "%", "%2F", "/")

// UnescapeKeyPrefix returns the beginning of the component of a key of several columns whose spelling begins with prefix: without a
// percent sign at the end that may be the beginning of %25 or %2F.
func UnescapeKeyPrefix(prefix string) string {
	if i := strings.LastIndexByte(prefix, '%'); i >= 0 && i > len(prefix)-len("%25") { //guard:prefix-that-ends-in-a-part-of-an-escape-matches-nothing
		prefix = prefix[:i]
	}
	return keyUnescaper.Replace(prefix)
}

// SplitKey is the inverse of JoinKey for a key of these columns. It accepts no other spelling, so that each row has one key;
// the error says how to write it.
func SplitKey(key string, columns []string) ([]string, error) {
	if len(columns) <= 1 {
		return []string{key}, nil
	}
	components := strings.Split(key, "/")
	if len(components) != len(columns) {
		return nil, fmt.Errorf("it has %d of %d components: want %s, with a slash in a component as %%2F", len(components), len(columns),
			strings.Join(columns, "/"))
	}
	for i, c := range components {
		components[i] = keyUnescaper.Replace(c)
		if len(AppendKeyComponent(nil, components[i])) != len(c) {
			return nil, fmt.Errorf("component %s has a %% that begins neither %%25 nor %%2F: write %% as %%25, / as %%2F, and "+
				"nothing else with %%", columns[i])
		}
	}
	return components, nil
}
