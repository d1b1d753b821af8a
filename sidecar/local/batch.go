package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// outcome is the answer to one key of a batch.
type outcome struct {
	answer cache.Answer
	err    error
}

// readAll answers all keys of a batch, in order.
func (s *Server) readAll(ctx context.Context, d Dataset, keys []string, o cache.ReadOptions) []outcome {
	return s.readUpTo(ctx, d, keys, o, int64(s.config.MaxBatchBytes))
}

// readUpTo reads keys until their values exceed a limit in bytes, which a single one may exceed; the others fail with
// errBatchBytes.
func (s *Server) readUpTo(ctx context.Context, d Dataset, keys []string, o cache.ReadOptions, limit int64) []outcome {
	outcomes := make([]outcome, len(keys))
	bytes := int64(0)
	for i, r := range d.GetMany(ctx, keys, o) {
		size := int64(len(r.Answer.Value))
		if bytes > 0 && bytes+size > limit {
			outcomes[i] = outcome{err: errBatchBytes}
			continue
		}
		bytes += size
		outcomes[i] = outcome{r.Answer, r.Err}
	}
	return outcomes
}

// batchEntry is the answer to one key as HTTP gives it: a value or an error.
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

func (e *entrance) batchGet(c *call, escapedName string) {
	d, ok := e.dataset(c, escapedName)
	if !ok {
		return
	}
	keys, err := parseBatch(c.content)
	if err != nil {
		c.fail(invalidBatch(err))
		return
	}
	options, err := c.options()
	if err != nil {
		c.fail(invalidRequest(err))
		return
	}
	entries := make([]batchEntry, len(keys))
	for i, o := range e.server.readAll(c.deadline, d, keys, options) {
		entries[i] = e.entry(keys[i], o, d.JSON)
	}
	body, err := marshalBatch(entries)
	if err != nil {
		c.fail(e.server.fail(fmt.Errorf("write the answer to a batch: %w", err)))
		return
	}
	c.send(typeJSON, body)
	c.status = http.StatusOK
	c.setString("Cache-Control", noStore)
}

func (e *entrance) entry(key string, o outcome, isJSON bool) batchEntry {
	switch {
	case o.err != nil:
		document := e.server.fail(o.err).Problem()
		return batchEntry{Key: key, Error: &document}
	case o.answer.NotFound:
		document := absent().Problem()
		return batchEntry{Key: key, Error: &document}
	}
	a := o.answer
	age, maxAge := wholeSeconds(a.Age), wholeSeconds(timeLeft(&a))
	entry := batchEntry{Key: key, Version: a.Version, ETag: a.ETag, Age: &age, MaxAge: &maxAge,
		Source: a.Source.String(), Stale: a.Stale, Owner: a.Owner}
	if isJSON && json.Valid(a.Value) {
		entry.Value = a.Value
	} else {
		entry.ValueBase64 = append([]byte{}, a.Value...)
	}
	return entry
}

func marshalBatch(entries []batchEntry) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a value leaves as it came
	err := enc.Encode(struct {
		Results []batchEntry `json:"results"`
	}{entries})
	return b.Bytes(), err
}

var errBatchShape = errors.New(`the body must be one JSON object {"keys": ["…", …]} and nothing else`)

// parseBatch reads {"keys": […]}, which has at least one: nobody means to ask nothing.
func parseBatch(body []byte) (keys []string, err error) {
	r := newObjectReader(body, errBatchShape)
	r.expect(json.Delim('{'))
	r.expect("keys")
	keys = r.keys()
	if err := r.end(); err != nil {
		return nil, err
	}
	return keys, checkBatch(keys)
}

// checkBatch says what is wrong with the number of a batch's keys, if anything.
func checkBatch(keys []string) error {
	if len(keys) == 0 || len(keys) > MaxBatchKeys {
		return fmt.Errorf("a batch has 1 to %d keys, not %d", MaxBatchKeys, len(keys))
	}
	return nil
}
