package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// batchEntry is the result of one key: a value or an error.
type batchEntry struct {
	Key         string            `json:"key"`
	Value       json.RawMessage   `json:"value,omitzero"`
	ValueBase64 []byte            `json:"valueBase64,omitzero"`
	ContentType string            `json:"contentType,omitempty"`
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
	options, e := c.readOptions()
	if e != nil {
		c.Fail(e)
		return
	}
	content, ok := h.content(c)
	if !ok {
		return
	}
	keys, e := parseBatch(content)
	if e != nil {
		c.Fail(e)
		return
	}
	if err := d.LimitRead(&c.who, options, len(keys)); err != nil {
		c.Fail(h.backend.Error(err))
		return
	}
	body, err := h.marshalBatch(c, d, keys, h.backend.ReadBatch(c.deadline, d, keys, options, &c.loan))
	if err != nil {
		c.Fail(h.backend.Error(fmt.Errorf("write the response to a batch: %w", err)))
		return
	}
	c.send(api.TypeJSON, body)
	c.setString("Cache-Control", noStore)
}

// marshalBatch returns {"results": […]}. The loan of c, which is that of the values, becomes that of the result.
func (h *Handler) marshalBatch(c *RequestContext, d api.Served, keys []string, results []kv.Result) ([]byte, error) {
	values := c.loan.Bytes()
	expected := 160 * len(keys)
	for i := range results {
		expected += len(keys[i]) + len(results[i].Answer.Value)*4/3
	}
	b := growing{loan: &c.loan, free: api.PrepaidResponse}
	err := b.grow(expected)
	b.append(&err, []byte(`{"results":[`))
	for i := 0; i < len(results) && err == nil; i++ {
		var one []byte
		if one, err = h.MarshalEntry(d, keys[i], results[i]); err == nil {
			results[i] = kv.Result{} // the value is in one
			b.append(&err, bytes.TrimSuffix(one, []byte("\n")))
		}
		if i < len(results)-1 {
			b.append(&err, []byte(","))
		}
	}
	b.append(&err, []byte("]}\n"))
	c.loan.Shrink(c.loan.Bytes() - values)
	return b.bytes, err
}

// growing is a buffer that takes its bytes from a loan before it grows, except for those that are free.
type growing struct {
	bytes []byte
	loan  *budget.Loan
	taken int64
	free  int
}

func (g *growing) grow(size int) error {
	if size > g.free && !g.loan.Grow(int64(size)-g.taken) { //guard:batch-response-without-budget
		return kv.ErrNoMemory
	}
	if size > g.free {
		g.taken = int64(size)
	}
	g.bytes = append(make([]byte, 0, size), g.bytes...)
	return nil
}

// append appends b unless there was an error before.
func (g *growing) append(err *error, b []byte) {
	if need := len(g.bytes) + len(b); *err == nil && need > cap(g.bytes) {
		*err = g.grow(max(need, 2*cap(g.bytes)))
	}
	if *err == nil {
		g.bytes = append(g.bytes, b...)
	}
}

func (h *Handler) entry(d api.Served, key string, r kv.Result) batchEntry {
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
	mediaType := d.MediaType(a.Content)
	if mediaType == api.TypeJSON && json.Valid(a.Value) {
		entry.Value = a.Value
	} else {
		entry.ValueBase64 = append([]byte{}, a.Value...)
		if mediaType != api.TypeBytes {
			entry.ContentType = mediaType
		}
	}
	return entry
}

// MarshalEntry returns the result of one key as a line of JSON, as in a batch.
func (h *Handler) MarshalEntry(d api.Served, key string, r kv.Result) ([]byte, error) {
	return marshal(h.entry(d, key, r))
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
