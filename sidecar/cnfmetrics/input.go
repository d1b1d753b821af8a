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
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
)

// input reads the fields of a request message from an HTTP request, and collects everything that is wrong with them.
type input struct {
	request *http.Request
	query   url.Values // the parameters that are not read yet
	wrong   violations
	media   *apierror.Error // why the body is not read; nil if it is
}

func newInput(r *http.Request) *input {
	in := &input{request: r}
	var err error
	if in.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		in.wrong.add("query", "cannot be parsed: %v", err)
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		in.refuseHeaders(ofReads) //guard:header-that-requires-version-ignored
	} else {
		in.refuseHeaders(ofWrites)
	}
	return in
}

// unsupported is a header that has no effect here, and what to use instead.
type unsupported struct{ header, use string }

var (
	// ofWrites would be conditions or ids of a write.
	ofWrites = []unsupported{
		{"Idempotency-Key", "the parameter idempotency_id"},
		{"If-Match", "version"},
		{"If-None-Match", "POST, which never replaces a metric"},
		{"Ringside-If-Version", "version"},
		{"Ringside-Min-Version", "the parameter min_version of one metric"},
		{"Content-Range", "a complete body"},
	}
	// ofReads would be conditions of a read.
	ofReads = []unsupported{
		{"If-Match", "the version in the metric"},
		{"Ringside-Min-Version", "the parameter min_version of one metric"},
	}
)

// refuseHeaders rejects a request with a header whose condition would be ignored.
func (in *input) refuseHeaders(list []unsupported) {
	for _, p := range list {
		if len(in.request.Header.Values(p.header)) > 0 {
			in.wrong.add(p.header, "is not supported here; use %s", p.use)
		}
	}
}

// noCache reads no_cache, or the directives that browsers send when a page is reloaded. It rejects the directives that
// exclude loads or stale values, which would have no effect. All others are only preferences (RFC 9111, 5.2.1).
func (in *input) noCache() bool {
	noCache := in.flag("no_cache")
	for directive := range strings.SplitSeq(in.request.Header.Get("Cache-Control"), ",") {
		name, argument, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch {
		case name == "no-cache", name == "max-age" && strings.Trim(argument, `"0`) == "" && argument != "":
			noCache = true
		case name == "only-if-cached", name == "max-stale":
			in.wrong.add("Cache-Control", "%s is not supported here; use no_cache, or /v1/{dataset}/{key}, which supports it", name)
		}
	}
	return noCache
}

// text reads a parameter of the query; it is empty if the parameter is absent.
func (in *input) text(name string) string {
	values := in.query[name]
	delete(in.query, name)
	if len(values) > 1 {
		in.wrong.add(name, "occurs %d times", len(values))
	}
	return strings.Join(values, "")
}

// idempotency reads the id of a change. An empty one is an error: the client relies on it.
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

// object reads the body; nil if it is not an object.
func (in *input) object() *object {
	if in.media = checkMedia(in.request.Header); in.media != nil {
		return nil
	}
	b, err := io.ReadAll(in.request.Body)
	if err != nil {
		in.wrong.add("body", "cannot be read: %v", err)
		return nil
	}
	o, err := parseObject(b)
	if err != nil {
		in.wrong.add("body", "%v", err)
	}
	return o
}

// checkMedia returns an error if the header shows that the body is not a message.
func checkMedia(h http.Header) *apierror.Error {
	switch {
	case !httpfield.IsUncoded(h.Get("Content-Encoding")): //guard:compressed-bytes-read-as-metric
		return apierror.New(apierror.UnsupportedMediaType, "send the body without a Content-Encoding")
	case !httpfield.AllowsJSON(h.Get("Content-Type")):
		return apierror.New(apierror.UnsupportedMediaType, "the body is a JSON object: send Content-Type: application/json")
	}
	return nil
}

// metric reads the body as a metric. id is that of the path: the body can omit it.
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
		o.decode("version", &m.Version, "an integer")
	}
	in.end(o)
	return m
}

// ids reads the body as the list of a batch, and checks it.
func (in *input) ids() (ids []string, wrong violations) {
	o := in.object()
	if o == nil {
		return nil, nil
	}
	var list []*string
	o.decode("cnf_ids", &list, "a list of strings")
	for i, id := range list {
		if id == nil {
			o.wrong.add(fmt.Sprintf("cnf_ids[%d]", i), "is not a string")
			continue
		}
		ids = append(ids, *id)
	}
	in.end(o)
	return ids, checkBatch(ids)
}

// end rejects the remaining members of the body: otherwise a misspelled name would be ignored.
func (in *input) end(o *object) {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		o.wrong.add(name, "is not a field of this message") //guard:misspelled-field-ignored
	}
	in.wrong = append(in.wrong, o.wrong...)
}

// check returns an error unless the request is valid. found are the violations of the fields that could be read; a field
// that could not be read already has one.
func (in *input) check(found violations) error {
	if in.media != nil {
		return in.media
	}
	for _, name := range slices.Sorted(maps.Keys(in.query)) {
		field := name
		if field == "" {
			field = "query" // as in `?=1`: a Problem has no error without a field
		}
		in.wrong.add(field, "is not a parameter of this resource") //guard:misspelled-parameter-ignored
	}
	for _, v := range found.ofBody() {
		if !in.wrong.has(v.Field) { //guard:one-violation-reported-twice
			in.wrong = append(in.wrong, v)
		}
	}
	if in.wrong != nil {
		return invalid(in.wrong)
	}
	return nil
}
