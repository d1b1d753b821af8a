package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// watch handles GET /v1/{dataset}:watch with ?key=…, ?prefix=… or ?all=true. The server opens the watch and writes its events.
func (h *Handler) watch(c *RequestContext, path string) {
	if h.Routed {
		c.fail(apierror.NoSuchRoute, api.ErrWatchIsRouted.Error())
		return
	}
	name, query, _ := verbTarget(path, ":watch")
	d, ok := h.dataset(c, name, access.Read)
	if !ok {
		return
	}
	of, err := parseWatchQuery(query)
	if err != nil {
		c.Fail(api.InvalidRequest(err))
		return
	}
	if c.Method == http.MethodGet {
		if err := d.Gate.Limit(&c.who, access.Watches, 1); err != nil {
			c.Fail(h.backend.Error(err))
			return
		}
	}
	c.Status, c.ContentType = http.StatusOK, typeEvents
	c.setString("Cache-Control", noStore)
	c.setString("X-Accel-Buffering", "no") // nginx would buffer events until it has many
	if c.Method == http.MethodGet {
		c.Watch = of.open(h.watches, d, strings.Clone(httpfield.Trim(c.lastEventID)), permission(d, c))
	}
}

// permission returns a function that checks again whether the caller of c may read d, after c is used for another request.
func permission(d api.Served, c *RequestContext) func() error {
	who, authorization := c.Caller, strings.Clone(c.authorization())
	return func() error {
		_, err := d.Gate.Authorize(who, access.Read, authorization)
		return err
	}
}

// Watches returns the engine that bounds the open watches.
func (h *Handler) Watches() *watch.Engine { return h.watches }

// verbTarget returns the name of the dataset and the query from the path of an operation whose keys are in its query.
func verbTarget(path, verb string) (name, query string, ok bool) {
	rest, versioned := strings.CutPrefix(path, "/v1/")
	rest, query, _ = strings.Cut(rest, "?")
	name, hasVerb := strings.CutSuffix(rest, verb)
	return name, query, versioned && hasVerb && !strings.Contains(name, "/")
}

func isWatch(path string) bool {
	_, _, ok := verbTarget(path, ":watch")
	return ok
}

// watchedKeys is what the query of a watch selects.
type watchedKeys struct {
	keys   []string // distinct; nil: the set of a prefix
	prefix string   // empty: all keys
}

func (k watchedKeys) open(e *watch.Engine, d api.Served, resume string, permit func() error) watch.Stream {
	if k.keys == nil {
		return e.NewSet(d, k.prefix, resume).While(permit)
	}
	return e.New(d, k.keys, resume).While(permit)
}

// parseWatchQuery parses key=…&key=…, prefix=… or all=true. The empty prefix is not everything: it may be a mistake.
func parseWatchQuery(query string) (k watchedKeys, err error) {
	values, err := parseQuery(query)
	if err != nil {
		return k, err
	}
	prefixes, hasPrefix := values["prefix"]
	all, hasAll := values["all"]
	switch {
	case len(values) > 1 || len(prefixes) > 1:
		return k, errWatchQuery
	case hasAll && (len(all) > 1 || all[0] != "true"):
		return k, errors.New("all is true, once, or absent")
	case hasAll:
		return k, nil
	case hasPrefix:
		k.prefix = prefixes[0]
		return k, watch.CheckPrefix(k.prefix) //guard:empty-prefix-watches-everything
	case len(values) > 0 && values["key"] == nil:
		return k, errWatchQuery
	}
	k.keys, err = watch.CheckKeys(values["key"])
	return k, err
}

var errWatchQuery = errors.New("the query of a watch is either key=…, once for each key, or prefix=…, or all=true")

// parseKeys parses a query that has keys only, as URLSearchParams of a browser writes it: a plus sign is a space.
func parseKeys(query string) (keys []string, err error) {
	values, err := parseQuery(query)
	if err != nil {
		return nil, err
	}
	for name := range values {
		if name != "key" {
			return nil, errors.New("the query has only the parameter key, once for each key")
		}
	}
	return values["key"], nil
}

func parseQuery(query string) (url.Values, error) {
	if strings.Contains(query, "#") {
		return nil, errors.New("a request has no fragment; in a key write # as %23")
	}
	values, err := url.ParseQuery(strings.Clone(query))
	if err != nil {
		return nil, errors.New("the query is not key=…&key=…, percent-encoded")
	}
	return values, nil
}
