package httpapi

import (
	"errors"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

func isExplain(path string) bool {
	_, _, ok := verbTarget(path, ":explain")
	return ok
}

// explain handles GET /v1/{dataset}:explain?key=….
func (h *Handler) explain(c *RequestContext, path string) {
	explain := h.backend.Config().Explain
	if h.Routed || explain == nil {
		c.fail(apierror.NoSuchRoute, api.ErrNoExplain.Error())
		return
	}
	name, query, _ := verbTarget(path, ":explain")
	d, ok := h.dataset(c, name, access.Read)
	if !ok {
		return
	}
	key, err := parseKey(query)
	if err != nil {
		c.Fail(api.InvalidRequest(err))
		return
	}
	if err := kv.CheckKey(key); err != nil {
		c.Fail(api.InvalidKey(err))
		return
	}
	if err := d.LimitExplain(&c.who); err != nil {
		c.Fail(h.backend.Error(err))
		return
	}
	body, err := explain(c.deadline, d.Name(), key)
	if err != nil {
		c.Fail(h.backend.Error(err))
		return
	}
	c.send(api.TypeJSON, body)
	c.setString("Cache-Control", noStore)
}

func parseKey(query string) (string, error) {
	keys, err := parseKeys(query)
	if err == nil && len(keys) != 1 {
		err = errors.New("the query has the parameter key once")
	}
	if err != nil {
		return "", err
	}
	return keys[0], nil
}
