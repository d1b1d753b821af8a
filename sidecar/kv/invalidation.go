package kv

import (
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
