package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// rowWrite is one row of a batch of writes.
type rowWrite struct {
	kv.Change
	refused error // why it cannot be written
}

// rowResult is the result of one row of a batch of writes: exactly one of error and what is written.
type rowResult struct {
	Key     string            `json:"key"`
	Version int64             `json:"version,omitempty"`
	Error   *apierror.Problem `json:"error,omitempty"`
}

// batchPut handles POST of {dataset}:batchPut.
func (h *Handler) batchPut(c *RequestContext, escapedName string) {
	d, ok := h.dataset(c, escapedName, access.Write)
	if !ok {
		return
	}
	if d.ReadOnly { // WriteMany reports it, too, but only after the client has sent the values
		h.failBatchPut(c, &kv.Error{Kind: kv.KindReadOnly, Err: errors.New("the dataset is read-only")})
		return
	}
	if e := c.checkBatchPut(); e != nil {
		c.Fail(e)
		return
	}
	content, ok := h.content(c)
	if !ok {
		return
	}
	rows, e := parseBatchPut(content)
	if e != nil {
		c.Fail(e)
		return
	}
	changes, refused := make([]kv.Change, len(rows)), map[int]error{}
	for i, r := range rows {
		if changes[i] = r.Change; r.refused != nil {
			refused[i] = r.refused
		} else if e := api.CheckWrite(r.Change); e != nil {
			refused[i] = e
		}
	}
	if e := api.CheckBatchWrite(changes); e != nil {
		c.Fail(e)
		return
	}
	if !c.cover(2*len(content) + len(rows)*rowResultBytes) { // before the write, which must not look refused
		c.Fail(h.backend.Error(kv.ErrNoMemory))
		return
	}
	results, err := d.WriteManyFor(c.deadline, &c.who, changes, refused)
	if err != nil {
		h.failBatchPut(c, err)
		return
	}
	body, err := h.marshalRows(changes, results)
	if err != nil {
		c.Fail(h.backend.Error(fmt.Errorf("write the response to a batch: %w", err)))
		return
	}
	c.send(api.TypeJSON, body)
	c.setString("Cache-Control", noStore)
}

// failBatchPut responds with an error of a batch. A dataset that is read-only supports no method here.
func (h *Handler) failBatchPut(c *RequestContext, err error) {
	c.Fail(h.backend.Error(err))
	if kv.KindOf(err) == kv.KindReadOnly {
		c.setString("Allow", "")
	}
}

// rowResultBytes is the most that a result has, apart from its key, which JSON may make twice as long as it was in the request.
const rowResultBytes = 1 << 10

func (h *Handler) marshalRows(changes []kv.Change, results []kv.Result) ([]byte, error) {
	document := struct {
		Results []rowResult `json:"results"`
	}{make([]rowResult, len(results))}
	for i, r := range results {
		document.Results[i] = rowResult{Key: changes[i].Key, Version: r.Answer.Version}
		if r.Err != nil {
			problem := writeError(h.backend.Error(r.Err), changes[i].If).Problem()
			document.Results[i] = rowResult{Key: changes[i].Key, Error: &problem}
		}
	}
	return marshal(document)
}

// checkBatchPut returns an error if the header of a batch has what belongs to one row, or shows that its content is not JSON.
func (r *Request) checkBatchPut() *apierror.Error {
	if r.ifMatch != "" || r.ifNoneMatch != "" || r.ifVersion != "" || r.idempotencyKey != "" { //guard:condition-of-a-batch-ignored
		return api.InvalidRequest(errors.New("a batch has no conditions and no Idempotency-Key of its own: give each row its ifMatch, " +
			"ifNoneMatch, ifVersion and idempotencyKey"))
	}
	return r.checkContent(api.Served{JSON: true})
}

var errBatchPutShape = errors.New(`the body must be one JSON object {"rows": [{"key": "…", "value": …}, …]} and nothing else`)

// parseBatchPut parses {"rows": […]}. What is wrong with the document is an error of the batch, and what is wrong with a row that of the
// row.
func parseBatchPut(body []byte) ([]rowWrite, *apierror.Error) {
	r := newObjectReader(body, errBatchPutShape)
	r.expect(json.Delim('{'))
	r.expect("rows")
	r.expect(json.Delim('['))
	var rows []rowWrite
	for r.err == nil && r.decoder.More() {
		if len(rows) == kv.MaxBatchWrites {
			r.fail("one request has at most %d rows; send several", kv.MaxBatchWrites)
			break
		}
		rows = append(rows, r.row(len(rows)))
	}
	r.expect(json.Delim(']'))
	if err := r.end(); err != nil {
		return nil, apierror.New(apierror.InvalidBatch, err.Error())
	}
	return rows, nil
}

// row parses one row of a batch of writes.
func (r *objectReader) row(index int) (row rowWrite) {
	r.expect(json.Delim('{'))
	seen := map[string]bool{}
	var match, noneMatch, version string
	for r.err == nil && r.decoder.More() {
		name := r.string()
		if seen[name] {
			r.fail("row %d has %q twice", index, name)
		}
		seen[name] = true
		switch name {
		case "key":
			row.Key = r.string()
		case "value":
			row.Value = r.raw()
		case "valueBase64":
			row.Value = r.base64(index)
		case "delete":
			row.Delete = r.token() == true
			if r.err == nil && !row.Delete {
				r.fail("delete of row %d is not true; omit it to write the row", index)
			}
		case "ifMatch":
			match = r.string()
		case "ifNoneMatch":
			noneMatch = r.string()
		case "ifVersion":
			version = string(r.raw())
		case "idempotencyKey":
			row.ID = r.string()
			switch {
			case row.ID == "":
				r.fail("idempotencyKey of row %d is empty; omit it if there is none", index)
			case len(row.ID) > kv.MaxIDBytes || strings.ContainsFunc(row.ID, func(c rune) bool { return c < ' ' || c > '~' }):
				r.fail("idempotencyKey of row %d has more than %d bytes, or other characters than those from space to ~ in ASCII", index, kv.MaxIDBytes)
			}
		default:
			r.fail("row %d has %q; a row has key, value or valueBase64 or delete, and may have ifVersion, ifMatch, ifNoneMatch and "+
				"idempotencyKey", index, name)
		}
	}
	r.expect(json.Delim('}'))
	if r.err != nil {
		return row
	}
	switch {
	case !seen["key"]:
		r.fail("row %d has no key", index)
	case !exactlyOne(seen["value"], seen["valueBase64"], seen["delete"]):
		r.fail("row %d needs one of value, valueBase64 and delete", index)
	case seen["ifMatch"] && match == "", seen["ifNoneMatch"] && noneMatch == "": //guard:empty-condition-of-a-row-ignored
		r.fail("row %d has an empty condition; omit it to write unconditionally", index)
	}
	var err error
	if row.If, err = parseCondition(match, noneMatch, version); err != nil {
		row.refused = api.InvalidRequest(fmt.Errorf("conditions in a batch are ifMatch, ifNoneMatch and ifVersion: %w", err))
	}
	return row
}

func exactlyOne(list ...bool) bool {
	n := 0
	for _, b := range list {
		if b {
			n++
		}
	}
	return n == 1
}

// raw returns a value as the document has it.
func (r *objectReader) raw() (b json.RawMessage) {
	if r.err == nil {
		if err := r.decoder.Decode(&b); err != nil {
			r.err = fmt.Errorf("%w: %w", r.shape, err)
		}
	}
	return b
}

func (r *objectReader) base64(index int) []byte {
	b, err := base64.StdEncoding.DecodeString(r.string())
	if err != nil {
		r.fail("valueBase64 of row %d: %v", index, err)
	}
	return b
}
