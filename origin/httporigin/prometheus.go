package httporigin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// prometheusURL is the default of `url`: the key is the query.
const prometheusURL = "/api/v1/query?query={key}"

// promQL requests instant queries of Prometheus, or of what has its API (Thanos, Mimir, VictoriaMetrics).
type promQL struct {
	inString bool // the key is part of a string of the query
}

// check accepts a template whose key is the whole query, or within double quotes: elsewhere a key could be any expression.
func (p *promQL) check(text string, t *template) error {
	if len(t.columns) != 1 {
		return errors.New("preset: prometheus needs a key of one column")
	}
	variable := "{" + t.columns[0] + "}"
	_, query, _ := strings.Cut(text, "?")
	for field := range strings.SplitSeq(query, "&") {
		before, after, ok := strings.Cut(field, variable)
		name, value, _ := strings.Cut(before, "=")
		switch {
		case !ok:
		case name == "query" && value == "" && after == "":
			return nil
		case name == "query" && strings.Count(strings.ReplaceAll(value, "%22", `"`), `"`)%2 == 1 && !strings.Contains(after, variable): //guard:key-is-any-expression
			p.inString = true
			return nil
		}
	}
	return fmt.Errorf(`want %s once, as the whole query (query=%s) or in a string of it (query=up{instance="%s"})`, variable, variable, variable)
}

// accepts reports whether a key stays within its string.
func (p *promQL) accepts(key string) bool {
	return !p.inString || !strings.ContainsAny(key, "\"'`\\\n\r") //guard:key-ends-the-string-of-a-query
}

// promResponse is a response of the HTTP API of Prometheus.
type promResponse struct {
	Status    string          `json:"status"`
	ErrorType string          `json:"errorType"`
	Data      json.RawMessage `json:"data"`
}

// value returns `data`, the type and the result of the query. No series are no such key.
func (p *promQL) value(body []byte) (origin.Value, error) {
	var r promResponse
	var data struct {
		Result json.RawMessage `json:"result"`
	}
	err := json.Unmarshal(body, &r)
	switch {
	case err == nil && r.Status == "error": //guard:error-of-prometheus-is-a-value
		return origin.Value{}, fmt.Errorf("the query failed: %s", r.ErrorType)
	case err != nil || r.Status != "success" || json.Unmarshal(r.Data, &data) != nil || len(data.Result) == 0:
		return origin.Value{}, errors.New("the body is not a response of Prometheus: check dsn and url")
	case bytes.Equal(data.Result, []byte("[]")):
		return origin.Value{}, origin.ErrNotFound
	}
	return origin.Value{Data: bytes.Clone(r.Data), Content: origin.ContentJSON}, nil
}
