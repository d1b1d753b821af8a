package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// batchEntry is the result of one key: a value or an error.
type batchEntry struct {
	Key         string            `json:"key"`
	Value       json.RawMessage   `json:"value,omitzero"`
	ValueBase64 []byte            `json:"valueBase64,omitzero"`
	Version     int64             `json:"version,omitempty"`
	ETag        string            `json:"etag,omitempty"`
	Age         *int64            `json:"age,omitempty"`
	MaxAge      *int64            `json:"maxAge,omitempty"`
	Source      string            `json:"source,omitempty"`
	Stale       bool              `json:"stale,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Error       *apierror.Problem `json:"error,omitempty"`
}

func (h *Handler) batchGet(c *RequestContext, escapedName string) {
	d, ok := h.dataset(c, escapedName, access.Read)
	if !ok {
		return
	}
	keys, e := parseBatch(c.Content)
	if e != nil {
		c.Fail(e)
		return
	}
	options, e := c.readOptions()
	if e != nil {
		c.Fail(e)
		return
	}
	if err := d.LimitRead(&c.who, options, len(keys)); err != nil {
		c.Fail(h.backend.Error(err))
		return
	}
	entries := make([]batchEntry, len(keys))
	for i, r := range h.backend.ReadBatch(c.deadline, d, keys, options) {
		entries[i] = h.entry(keys[i], r, d.JSON)
	}
	body, err := marshal(struct {
		Results []batchEntry `json:"results"`
	}{entries})
	if err != nil {
		c.Fail(h.backend.Error(fmt.Errorf("write the response to a batch: %w", err)))
		return
	}
	c.send(typeJSON, body)
	c.setString("Cache-Control", noStore)
}

func (h *Handler) entry(key string, r kv.Result, isJSON bool) batchEntry {
	switch {
	case r.Err != nil:
		document := h.backend.Error(r.Err).Problem()
		return batchEntry{Key: key, Error: &document}
	case r.Answer.NotFound:
		document := api.NotFound().Problem()
		return batchEntry{Key: key, Error: &document}
	}
	a := r.Answer
	age, maxAge := httpfield.WholeSeconds(a.Age), httpfield.WholeSeconds(api.TimeLeft(&a))
	entry := batchEntry{Key: key, Version: a.Version, ETag: a.ETag, Age: &age, MaxAge: &maxAge,
		Source: a.Source.String(), Stale: a.Stale, Owner: a.Owner}
	if isJSON && json.Valid(a.Value) {
		entry.Value = a.Value
	} else {
		entry.ValueBase64 = append([]byte{}, a.Value...)
	}
	return entry
}

// MarshalEntry returns the result of one key as a line of JSON, as in a batch.
func (h *Handler) MarshalEntry(key string, r kv.Result, isJSON bool) ([]byte, error) {
	return marshal(h.entry(key, r, isJSON))
}

// marshal leaves the bytes of values as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

var errBatchShape = errors.New(`the body must be one JSON object {"keys": ["…", …]} and nothing else`)

// parseBatch parses {"keys": […]}.
func parseBatch(body []byte) ([]string, *apierror.Error) {
	r := newObjectReader(body, errBatchShape)
	r.expect(json.Delim('{'))
	r.expect("keys")
	keys := r.keys()
	if err := r.end(); err != nil {
		return nil, apierror.New(apierror.InvalidBatch, err.Error())
	}
	return keys, api.CheckBatch(keys)
}
