package httpapi

import (
	"encoding/json"
	"errors"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

var errScopeShape = errors.New(
	`the body must be one JSON object with one member: {"keys": ["…", …]}, {"prefix": "…"} or {"all": true}`)

// invalidateResult reports which members have applied an invalidation.
type invalidateResult struct {
	Members   int      `json:"members"`
	Unreached []string `json:"unreached"`
}

func (h *Handler) invalidate(c *RequestContext, escapedName string) {
	d, ok := h.dataset(c, escapedName, access.Invalidate)
	if !ok {
		return
	}
	content, ok := h.content(c)
	if !ok {
		return
	}
	scope, err := parseScope(content)
	if err != nil {
		c.Fail(api.InvalidRequest(err))
		return
	}
	result, err := d.InvalidateFor(c.deadline, &c.who, scope)
	if err != nil {
		c.Fail(h.backend.Error(err))
		return
	}
	body, err := json.Marshal(invalidateResult{result.Members, append([]string{}, result.Unreached...)})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	c.send(api.TypeJSON, append(body, '\n'))
	c.setString("Cache-Control", noStore)
}

// parseScope parses what to invalidate. It returns the empty scope, which means everything, only for {"all": true}.
func parseScope(body []byte) (s kv.Scope, err error) {
	r := newObjectReader(body, errScopeShape)
	r.expect(json.Delim('{'))
	switch name := r.string(); name { // "" after an error, which end returns
	case "keys":
		s.Keys = r.keys()
		err = api.CheckScopeKeys(s.Keys)
	case "prefix":
		s.Prefix = r.string()
		err = api.CheckPrefix(s.Prefix)
	case "all":
		r.expect(true)
	default:
		r.fail("unknown member %q", name)
	}
	if shape := r.end(); shape != nil {
		return kv.Scope{}, shape
	}
	return s, err
}
