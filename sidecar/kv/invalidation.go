package kv

import (
	"slices"
	"strings"
	"time"
)

// Invalidation selects entries of a dataset that must not be used any more.
type Invalidation struct {
	Dataset string
	// Key is one key or, with Prefix set, the beginning of many; all of them when it is empty.
	Key    string
	Prefix bool
	// Version: entries of this version and later ones are valid; 0: not known.
	Version int64
	// Age is the time since the change, at least: entries that were loaded later are valid.
	Age time.Duration
}

// MergeInvalidations returns the invalidations that are left when those that others include are removed: of keys that begin
// with a prefix of the list, of longer prefixes, and of keys that are named twice. All are of one dataset, without a version
// and an age.
func MergeInvalidations(list []Invalidation) (merged []Invalidation) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Invalidation) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 || a.Prefix == b.Prefix {
			return c
		} else if a.Prefix {
			return -1
		}
		return 1
	})
	prefix := -1 // index in merged of the last prefix: what begins with it follows it
	for _, i := range list {
		switch {
		case prefix >= 0 && strings.HasPrefix(i.Key, merged[prefix].Key): //guard:merged-invalidations-lose-one
			continue
		case len(merged) > 0 && merged[len(merged)-1] == i:
			continue
		case i.Prefix:
			prefix = len(merged)
		}
		merged = append(merged, i)
	}
	return merged
}

// Scope selects what to invalidate on all members: keys, all keys with a prefix, or everything if it is empty.
type Scope struct {
	Keys   []string
	Prefix string
}

// InvalidateResult tells which members have applied an invalidation.
type InvalidateResult struct {
	Members   int      // this one included
	Unreached []string // node ids; the entries of these expire with their ttl
}

// Invalidations returns what invalidates s in a dataset.
func (s Scope) Invalidations(dataset string) ([]Invalidation, error) {
	if len(s.Keys) == 0 {
		return []Invalidation{{Dataset: dataset, Key: s.Prefix, Prefix: true}}, nil
	}
	list := make([]Invalidation, len(s.Keys))
	for i, key := range s.Keys {
		if err := CheckKey(key); err != nil {
			return nil, err
		}
		list[i] = Invalidation{Dataset: dataset, Key: strings.Clone(key)}
	}
	return list, nil
}
