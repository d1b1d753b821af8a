package cnfmetrics

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// input takes the fields of a request message out of an HTTP request, and notes all that is wrong with them.
type input struct {
	request *http.Request
	query   url.Values // what nobody has taken yet
	wrong   violations
	media   *apierror.Error // why the body is not read, if it is not
}

func newInput(r *http.Request) *input {
	in := &input{request: r}
	var err error
	if in.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		in.wrong.add("query", "can not be parsed: %v", err)
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		in.refuseHeaders(asking) //guard:header-asks-version-ignored
	} else {
		in.refuseHeaders(promising)
	}
	return in
}

// instead is a header that is not looked at, and where to say the same.
type instead struct{ header, use string }

// promising would have a change depend on something, asking an answer.
var (
	promising = []instead{
		{"Idempotency-Key", "the parameter idempotency_id"},
		{"If-Match", "version"},
		{"If-None-Match", "POST, which never replaces a metric"},
		{"Ringside-If-Version", "version"},
		{"Ringside-Min-Version", "the parameter min_version of one metric"},
		{"Content-Range", "a body that is whole"},
	}
	asking = []instead{
		{"If-Match", "the version in the metric"},
		{"Ringside-Min-Version", "the parameter min_version of one metric"},
	}
)

// refuseHeaders keeps a request from being answered whose condition nobody has looked at.
func (in *input) refuseHeaders(list []instead) {
	for _, p := range list {
		if len(in.request.Header.Values(p.header)) > 0 {
			in.wrong.add(p.header, "is not looked at here; use %s", p.use)
		}
	}
}

// noCache takes no_cache, or what browsers send for it when a page is loaded again. Who asks memory alone, or for
// nothing stale, would get another answer than asked for; all else says what a client would like (RFC 9111, 5.2.1).
func (in *input) noCache() bool {
	noCache := in.flag("no_cache")
	for directive := range strings.SplitSeq(in.request.Header.Get("Cache-Control"), ",") {
		name, argument, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch {
		case name == "no-cache", name == "max-age" && strings.Trim(argument, `"0`) == "" && argument != "":
			noCache = true
		case name == "only-if-cached", name == "max-stale":
			in.wrong.add("Cache-Control", "%s is not looked at here; use no_cache, or /v1/{dataset}/{key}, which takes it", name)
		}
	}
	return noCache
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
	if in.media = checkMedia(in.request.Header); in.media != nil { //guard:packed-bytes-read-metric
		return nil
	}
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

// checkMedia says why a body can not be a message, if it can not. What curl says of any data that it is given is no reason.
func checkMedia(h http.Header) *apierror.Error {
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return apierror.New(apierror.UnsupportedMediaType, "a body is sent without a Content-Encoding")
	}
	sent := h.Get("Content-Type")
	if sent == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(sent)
	if err != nil || media != "application/json" && media != "application/x-www-form-urlencoded" {
		return apierror.New(apierror.UnsupportedMediaType, "a body is a JSON object: send Content-Type: application/json")
	}
	return nil
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

// ids takes the body for the list of a batch, and what the rules say of it.
func (in *input) ids() (ids []string, wrong violations) {
	o := in.object()
	if o == nil {
		return nil, nil
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
	return ids, checkBatch(ids)
}

// end refuses what is left of the body: a name that was misspelled would otherwise be ignored.
func (in *input) end(o *object) {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		o.wrong.add(name, "is no field of this message") //guard:misspelled-field-ignored
	}
	in.wrong = append(in.wrong, o.wrong...)
}

// check returns nil if nothing is wrong with the request. found is what the rules say of what could be taken; a field
// that could not has been noted before.
func (in *input) check(found violations) error {
	if in.media != nil {
		return in.media
	}
	for _, name := range slices.Sorted(maps.Keys(in.query)) {
		field := name
		if field == "" {
			field = "query" // as in `?=1`: a Problem has no error without a field
		}
		in.wrong.add(field, "is no parameter of this resource") //guard:misspelled-parameter-ignored
	}
	for _, v := range found.ofBody() {
		if !in.wrong.has(v.Field) { //guard:one-fault-told-twice
			in.wrong = append(in.wrong, v)
		}
	}
	if in.wrong != nil {
		return invalid(in.wrong)
	}
	return nil
}
