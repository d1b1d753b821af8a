package cnfmetrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ringside-cache/ringside/origin"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
)

// maxColumnBytes is the size of each text of a row that is read, so that 1000 metrics fit into a response of 4 MiB.
const maxColumnBytes = 1024

// timestampForm is RFC 3339 with microseconds, which is the resolution of all databases.
const timestampForm = "2006-01-02T15:04:05.000000Z"

// metricJSON is a metric in the HTTP API, and without Version the row that is written.
type metricJSON struct {
	CnfID      string  `json:"cnf_id"`
	Timestamp  string  `json:"timestamp"`
	MetricType string  `json:"metric_type"`
	Value      float64 `json:"value"`
	Unit       string  `json:"unit"`
	Status     string  `json:"status"`
	Version    int64   `json:"version,omitempty"`
}

func toJSON(m *cnfmetricsv1.CnfMetric) *metricJSON {
	return &metricJSON{
		CnfID: m.GetCnfId(), Timestamp: m.GetTimestamp().AsTime().Format(timestampForm), MetricType: m.GetMetricType(),
		Value: m.GetValue(), Unit: m.GetUnit(), Status: m.GetStatus(), Version: m.GetVersion(),
	}
}

// encodeRow returns a checked metric as a row of the dataset.
func encodeRow(m *cnfmetricsv1.CnfMetric) []byte {
	row := toJSON(m)
	row.Version = 0
	b, err := json.Marshal(row)
	if err != nil {
		panic(err) // strings and finite numbers always marshal
	}
	return b
}

// decodeRow reads a metric from a row of the dataset. A program has written the row, so that parseObject, which takes twice
// the time, is not needed. Columns that are not part of the model are ignored.
func decodeRow(id string, row []byte, version int64) (*cnfmetricsv1.CnfMetric, error) {
	var o object
	if err := json.Unmarshal(row, &o.members); err != nil || !utf8.Valid(row) {
		return nil, unreadableRow(id, "it is not a JSON object")
	}
	m := o.metric()
	m.Version = version
	if o.wrong != nil {
		return nil, unreadableRow(id, o.wrong.join("column "))
	}
	return m, nil
}

// object is a parsed JSON object. Its methods remove members, and collect what is wrong with them.
type object struct {
	members map[string]json.RawMessage
	wrong   violations
}

// parseObject parses what a person may have written. It is stricter than encoding/json: names are unique, text is UTF-8, and
// errors say what is wrong.
func parseObject(b []byte) (*object, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("is not UTF-8")
	}
	o := &object{members: make(map[string]json.RawMessage, 8)}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("is not a JSON object")
	}
	for d.More() {
		if err := o.parseMember(d); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("has something after the JSON object, at byte %d", d.InputOffset())
	}
	return o, nil
}

func (o *object) parseMember(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return notJSON(err)
	}
	name, _ := token.(string) // the decoder accepts only strings as names
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return notJSON(err)
	}
	if _, twice := o.members[name]; twice { //guard:second-of-two-values-used
		return fmt.Errorf("has %q twice", name)
	}
	o.members[name] = value
	return nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("is not JSON: it ends prematurely")
	}
	return fmt.Errorf("is not JSON: %w", err)
}

// metric removes the members that every metric has.
func (o *object) metric() *cnfmetricsv1.CnfMetric {
	return &cnfmetricsv1.CnfMetric{
		CnfId: o.text("cnf_id"), Timestamp: o.time("timestamp"), MetricType: o.text("metric_type"),
		Value: o.number("value"), Unit: o.text("unit"), Status: o.text("status"),
	}
}

// decode removes one member and decodes it into to, and reports whether it succeeded.
func (o *object) decode(name string, to any, what string) bool {
	raw, ok := o.members[name]
	delete(o.members, name)
	switch {
	case !ok:
		o.wrong.add(name, "is missing")
	case !origin.WholeSurrogates(raw): //guard:half-surrogate-becomes-another-metric
		o.wrong.add(name, "has half of a surrogate pair")
	case string(raw) == "null" || json.Unmarshal(raw, to) != nil: //guard:nulls-become-zeros
		o.wrong.add(name, "is not %s", what)
	default:
		return true
	}
	return false
}

func (o *object) text(name string) (s string) {
	if o.decode(name, &s, "a string") && len(s) > maxColumnBytes { //guard:response-too-large-for-clients
		o.wrong.add(name, "has %d bytes; the limit is %d", len(s), maxColumnBytes)
	}
	return s
}

func (o *object) number(name string) (v float64) {
	o.decode(name, &v, "a finite number")
	return v
}

func (o *object) time(name string) *timestamppb.Timestamp {
	const form = "an RFC 3339 time such as 2006-01-02T15:04:05.999999Z"
	var t time.Time
	comma := bytes.IndexByte(o.members[name], ',') >= 0 // package time accepts it as a decimal sign
	if !o.decode(name, &t, form) {
		return nil
	}
	if comma {
		o.wrong.add(name, "is not "+form)
		return nil
	}
	at := timestamppb.New(t.Truncate(time.Microsecond))
	//guard:time-that-clients-cannot-parse
	if !at.IsValid() { // in UTC it may be in the year 10000
		o.wrong.add(name, "is not between the years 1 and 9999")
	}
	return at
}
