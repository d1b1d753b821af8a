package cnfmetrics

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
)

// input takes the fields of a request message out of an HTTP request, and notes all that is wrong with them.
type input struct {
	request *http.Request
	query   url.Values // what nobody has taken yet
	wrong   violations
}

func newInput(r *http.Request) *input {
	in := &input{request: r}
	var err error
	if in.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		in.wrong.add("query", "can not be parsed: %v", err)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		in.refuseHeaders()
	}
	return in
}

// promising are headers that would have a change depend on something, and where to say it instead.
var promising = []struct{ header, instead string }{
	{"Idempotency-Key", "the parameter idempotency_id"},
	{"If-Match", "version"},
	{"If-None-Match", "POST, which never replaces a metric"},
	{"Ringside-If-Version", "version"},
}

// refuseHeaders keeps a change from being made whose condition nobody has looked at.
func (in *input) refuseHeaders() {
	for _, p := range promising {
		if len(in.request.Header.Values(p.header)) > 0 {
			in.wrong.add(p.header, "is not looked at here; use %s", p.instead)
		}
	}
}

// text takes a parameter of the query; it is empty when there is none.
func (in *input) text(name string) string {
	values := in.query[name]
	delete(in.query, name)
	if len(values) > 1 {
		in.wrong.add(name, "is there %d times", len(values))
	}
	return strings.Join(values, "")
}

// idempotency takes the id of a change: who sends an empty one relies on it, too.
func (in *input) idempotency() string {
	sent := in.query.Has("idempotency_id")
	id := in.text("idempotency_id")
	if sent && id == "" {
		in.wrong.add("idempotency_id", "is empty")
	}
	return id
}

func (in *input) integer(name string, bits int) int64 {
	if !in.query.Has(name) {
		return 0
	}
	n, err := strconv.ParseInt(in.text(name), 10, bits)
	if err != nil {
		in.wrong.add(name, "is not an integer of %d bits", bits)
	}
	return n
}

func (in *input) flag(name string) bool {
	if !in.query.Has(name) {
		return false
	}
	text := in.text(name)
	if text != "true" && text != "false" {
		in.wrong.add(name, "is neither true nor false")
	}
	return text == "true"
}

// object reads the body; nil when it is none.
func (in *input) object() *object {
	b, err := io.ReadAll(in.request.Body)
	if err != nil {
		in.wrong.add("body", "can not be read: %v", err)
		return nil
	}
	o, err := parseObject(b)
	if err != nil {
		in.wrong.add("body", "%v", err)
	}
	return o
}

// metric takes the body for a metric. id is the one that the path names: the body need not repeat it.
func (in *input) metric(id string) *cnfmetricsv1.CnfMetric {
	o := in.object()
	if o == nil {
		return nil
	}
	if _, ok := o.members["cnf_id"]; !ok && id != "" {
		o.members["cnf_id"], _ = json.Marshal(id) // a string always marshals
	}
	m := o.metric()
	if _, ok := o.members["version"]; ok {
		o.take("version", &m.Version, "an integer")
	}
	in.end(o)
	return m
}

func (in *input) ids() (ids []string) {
	o := in.object()
	if o == nil {
		return nil
	}
	var list []*string
	o.take("cnf_ids", &list, "a list of strings")
	for i, id := range list {
		if id == nil {
			o.wrong.add(fmt.Sprintf("cnf_ids[%d]", i), "is not a string")
			continue
		}
		ids = append(ids, *id)
	}
	in.end(o)
	return ids
}

// end refuses what is left of the body: a name that was misspelled would otherwise be ignored.
func (in *input) end(o *object) {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		o.wrong.add(name, "is no field of this message")
	}
	in.wrong = append(in.wrong, o.wrong...)
}

// check returns nil if nothing is wrong with the request. found is what the rules say of what could be taken; a field
// that could not has been noted before.
func (in *input) check(found violations) error {
	for _, name := range slices.Sorted(maps.Keys(in.query)) {
		in.wrong.add(name, "is no parameter of this resource")
	}
	for _, v := range found.ofBody() {
		if !in.wrong.has(v.Field) {
			in.wrong = append(in.wrong, v)
		}
	}
	if in.wrong != nil {
		return invalid(in.wrong)
	}
	return nil
}
