package cnfmetrics

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// The limits of what is written, in characters: those of the narrowest schema (deploy/schema).
const (
	maxID     = 191
	maxType   = 191
	maxUnit   = 64
	maxStatus = 32
)

// statuses are those that deploy/collector and deploy/schema/seed.sql write.
var statuses = []string{"ok", "warn", "critical", "gone", "unknown"}

// typeName is what is measured, optionally followed by a colon and its source: a process can have any name.
var typeName = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(:.+)?$`)

// violations are everything that is wrong with a request, so that a client can correct all of it at once.
type violations []apierror.Violation

func (w *violations) add(field, format string, args ...any) {
	field = cmp.Or(field, "body") // of {"": 1}, for example: a Problem has no error without a field
	*w = append(*w, apierror.Violation{Field: field, Detail: fmt.Sprintf(format, args...)})
}

func (w violations) has(field string) bool {
	return slices.ContainsFunc(w, func(v apierror.Violation) bool { return v.Field == field })
}

// ofBody renames fields as an HTTP request has them: its body is the metric itself.
func (w violations) ofBody() violations {
	named := slices.Clone(w)
	for i := range named {
		if named[i].Field == "metric" {
			named[i].Field = "body"
		}
		named[i].Field = strings.TrimPrefix(named[i].Field, "metric.")
	}
	return named
}

// join returns all violations in one line.
func (w violations) join(prefix string) string {
	parts := make([]string, len(w))
	for i, v := range w {
		parts[i] = prefix + v.Field + " " + v.Detail
	}
	return strings.Join(parts, "; ")
}

func checkShow(q *cnfmetricsv1.ShowCnfMetricRequest) (wrong violations) {
	wrong.checkID("cnf_id", q.GetCnfId())
	wrong.checkVersion("min_version", q.GetMinVersion())
	return wrong
}

func checkCreate(q *cnfmetricsv1.CreateCnfMetricRequest) (wrong violations) {
	wrong.checkMetric(q.GetMetric())
	if q.GetMetric().GetVersion() != 0 {
		wrong.add("metric.version", "is assigned by the database to a new metric; omit it")
	}
	wrong.checkIdempotency(q.GetIdempotencyId())
	return wrong
}

func checkUpdate(q *cnfmetricsv1.UpdateCnfMetricRequest) (wrong violations) {
	wrong.checkMetric(q.GetMetric())
	wrong.checkVersion("metric.version", q.GetMetric().GetVersion())
	wrong.checkIdempotency(q.GetIdempotencyId())
	return wrong
}

func checkDelete(q *cnfmetricsv1.DeleteCnfMetricRequest) (wrong violations) {
	wrong.checkID("cnf_id", q.GetCnfId())
	wrong.checkVersion("version", q.GetVersion())
	wrong.checkIdempotency(q.GetIdempotencyId())
	return wrong
}

func checkBatch(ids []string) (wrong violations) {
	if len(ids) == 0 || len(ids) > maxBatch {
		wrong.add("cnf_ids", "has %d ids; 1 to %d are allowed", len(ids), maxBatch)
	}
	return wrong
}

func (w *violations) checkMetric(m *cnfmetricsv1.CnfMetric) {
	if m == nil {
		w.add("metric", "is missing")
		return
	}
	w.checkID("metric.cnf_id", m.GetCnfId())
	w.checkTime("metric.timestamp", m.GetTimestamp())
	w.checkType("metric.metric_type", m.GetMetricType())
	w.checkValue("metric.value", m.GetValue())
	w.checkUnit("metric.unit", m.GetUnit())
	w.checkStatus("metric.status", m.GetStatus())
}

// checkID also rejects spaces at the ends: MariaDB ignores trailing spaces when it compares keys.
func (w *violations) checkID(field, id string) {
	if w.checkText(field, id, maxID) && strings.Trim(id, " ") != id { //guard:ids-that-mariadb-considers-equal
		w.add(field, "begins or ends with a space")
	}
}

// checkText adds at most one violation.
func (w *violations) checkText(field, text string, maxLength int) (ok bool) {
	switch {
	case text == "":
		w.add(field, "is missing")
	case !utf8.ValidString(text):
		w.add(field, "is not UTF-8")
	case utf8.RuneCountInString(text) > maxLength:
		w.add(field, "has %d characters; at most %d are allowed", utf8.RuneCountInString(text), maxLength)
	case strings.ContainsFunc(text, unicode.IsControl):
		w.add(field, "contains a control character")
	default:
		return true
	}
	return false
}

func (w *violations) checkType(field, name string) {
	if w.checkText(field, name, maxType) && !typeName.MatchString(name) {
		w.add(field, `is not a dotted name in lower case, such as "cpu.total" or "process.cpu:nginx"`)
	}
}

func (w *violations) checkUnit(field, unit string) {
	if w.checkText(field, unit, maxUnit) && strings.ContainsFunc(unit, unicode.IsSpace) {
		w.add(field, `contains a space; write "bytes_per_second" or "B/s"`)
	}
}

func (w *violations) checkValue(field string, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) { //guard:non-finite-value-written
		w.add(field, "is %v, which cannot be stored; use status to report that there is no value", v)
	}
}

func (w *violations) checkStatus(field, status string) {
	if !slices.Contains(statuses, status) {
		w.add(field, "is not one of %s", strings.Join(statuses, ", "))
	}
}

func (w *violations) checkTime(field string, t *timestamppb.Timestamp) {
	switch {
	case t == nil:
		w.add(field, "is missing")
	case t.CheckValid() != nil || t.GetSeconds() < 0:
		w.add(field, "is not between 1970-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z")
	}
}

func (w *violations) checkVersion(field string, version int64) {
	if version < 0 {
		w.add(field, "is negative; versions start at 1, and 0 means any")
	}
}

func (w *violations) checkIdempotency(id string) {
	if len(id) > kv.MaxIDBytes || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
		w.add("idempotency_id", "is not 1 to %d printable ASCII characters", kv.MaxIDBytes)
	}
}
