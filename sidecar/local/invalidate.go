package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

var errScopeShape = errors.New(
	`the body must be one JSON object with one member: {"keys": ["…", …]}, {"prefix": "…"} or {"all": true}`)

// toldDocument says who has dropped what was invalidated.
type toldDocument struct {
	Members   int      `json:"members"`
	Unreached []string `json:"unreached"`
}

func (e *entrance) invalidate(c *call, escapedName string) {
	d, ok := e.dataset(c, escapedName)
	if !ok {
		return
	}
	scope, err := parseScope(c.content)
	if err != nil {
		c.fail(invalidRequest(err))
		return
	}
	e.server.stats.Invalidations.Add(1)
	told, err := d.Invalidate(c.deadline, scope)
	if err != nil {
		c.fail(e.server.fail(err))
		return
	}
	body, err := json.Marshal(toldDocument{told.Members, append([]string{}, told.Unreached...)})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	c.send(typeJSON, append(body, '\n'))
	c.setString("Cache-Control", noStore)
}

// parseScope reads what to invalidate. Its result is never the empty scope, which is everything, unless that is asked
// for.
func parseScope(body []byte) (s cache.Scope, err error) {
	r := newObjectReader(body, errScopeShape)
	r.expect(json.Delim('{'))
	switch name := r.string(); name {
	case "keys":
		s.Keys = r.keys()
		err = checkScopeKeys(s.Keys)
	case "prefix":
		s.Prefix = r.string()
		err = checkPrefix(s.Prefix)
	case "all":
		r.expect(true)
	default:
		err = fmt.Errorf("%w: %q is none of them", errScopeShape, name)
	}
	if shape := r.end(); shape != nil {
		return cache.Scope{}, shape
	}
	return s, err
}

func checkScopeKeys(keys []string) error {
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
	}
	switch {
	case len(keys) == 0: //guard:empty-list-drops-everything
		return errors.New("the list of keys is empty; to drop every key say so with all")
	case len(keys) > MaxBatchKeys:
		return fmt.Errorf("at most %d keys fit into one request, not %d; send several", MaxBatchKeys, len(keys))
	}
	return nil
}

func checkPrefix(prefix string) error {
	if err := checkKey(prefix); err != nil {
		return fmt.Errorf("prefix: %s; to drop every key say so with all", strings.Replace(err.Error(), "key", "prefix", 1))
	}
	return nil
}
