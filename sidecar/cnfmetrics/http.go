package cnfmetrics

import (
	_ "embed"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// The paths of the HTTP API. Below collection, each metric has one.
const (
	description = "/cnfmetrics/openapi.json"
	collection  = "/cnfmetrics/v1/metrics"
	batchShow   = "/cnfmetrics/v1/metrics:batchShow"
)

//go:embed openapi.json
var openAPI []byte

// ServeHTTP implements http.Handler for the paths below /cnfmetrics/. The listener has checked the size and the source of
// the request. Fields of a request message that are neither in the path nor in the body are parameters of the query. The
// only header with a meaning is Cache-Control: no-cache; headers that would change the meaning of a request are rejected.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if err := s.route(w, r); err != nil {
		writeError(w, s.errorOf(err))
	}
}

// PostOnly reports whether a path has operations with POST only.
func (s *Service) PostOnly(path string) bool { return path == batchShow }

// methods are the methods of a resource.
type methods map[string]func(http.ResponseWriter, *http.Request) error

func (s *Service) route(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.EscapedPath()
	if id, ok := strings.CutPrefix(path, collection+"/"); ok {
		return s.routeMetric(w, r, id)
	}
	switch path {
	case description:
		return methods{http.MethodGet: describe}.serve(w, r)
	case collection:
		return methods{http.MethodGet: s.httpList, http.MethodPost: s.httpCreate}.serve(w, r)
	case batchShow:
		return methods{http.MethodPost: s.httpBatchShow}.serve(w, r)
	}
	return apierror.New(apierror.NoSuchRoute, "metrics are at "+collection+"; see "+description)
}

// routeMetric takes the whole rest of the path as the id, including slashes, and does not clean it.
func (s *Service) routeMetric(w http.ResponseWriter, r *http.Request, escaped string) error {
	id, err := url.PathUnescape(escaped)
	if err != nil {
		return invalid(violations{{Field: "cnf_id", Detail: err.Error()}})
	}
	return methods{
		http.MethodGet:    func(w http.ResponseWriter, r *http.Request) error { return s.httpShow(w, r, id) },
		http.MethodPut:    func(w http.ResponseWriter, r *http.Request) error { return s.httpUpdate(w, r, id) },
		http.MethodDelete: func(w http.ResponseWriter, r *http.Request) error { return s.httpDelete(w, r, id) },
	}.serve(w, r)
}

// serve handles HEAD like GET: the listener omits the body.
func (m methods) serve(w http.ResponseWriter, r *http.Request) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if handle, ok := m[method]; ok {
		return handle(w, r)
	}
	allowed := slices.Collect(maps.Keys(m))
	if m[http.MethodGet] != nil {
		allowed = append(allowed, http.MethodHead)
	}
	slices.Sort(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return apierror.New(apierror.WrongMethod, "this resource supports "+strings.Join(allowed, ", "))
}

func describe(w http.ResponseWriter, _ *http.Request) error {
	writeBody(w, http.StatusOK, "application/json", openAPI)
	return nil
}

func (s *Service) httpShow(w http.ResponseWriter, r *http.Request, id string) error {
	in := newInput(r)
	q := &cnfmetricsv1.ShowCnfMetricRequest{
		CnfId: id, NoCache: in.noCache(), MinVersion: in.integer("min_version", 64),
	}
	if err := in.check(checkShow(q)); err != nil {
		return err
	}
	found, err := s.ShowCnfMetric(r.Context(), q)
	if err != nil {
		return err
	}
	w.Header().Set("Age", strconv.FormatInt(wholeSeconds(found), 10))
	if found.GetFreshness().GetStale() {
		w.Header().Set("Ringside-Stale", "true")
	}
	return writeJSON(w, http.StatusOK, toJSON(found.GetMetric()))
}

func wholeSeconds(found *cnfmetricsv1.ShowCnfMetricResponse) int64 {
	return int64(found.GetFreshness().GetAge().AsDuration() / time.Second)
}

func (s *Service) httpCreate(w http.ResponseWriter, r *http.Request) error {
	in := newInput(r)
	q := &cnfmetricsv1.CreateCnfMetricRequest{Metric: in.metric(""), IdempotencyId: in.idempotency()}
	if err := in.check(checkCreate(q)); err != nil {
		return err
	}
	created, err := s.CreateCnfMetric(r.Context(), q)
	if err != nil {
		return err
	}
	w.Header().Set("Location", collection+"/"+url.PathEscape(q.GetMetric().GetCnfId()))
	return writeJSON(w, http.StatusCreated, toJSON(created.GetMetric()))
}

// pageJSON is one page of a list.
type pageJSON struct {
	Metrics       []*metricJSON    `json:"metrics"`
	NextPageToken string           `json:"next_page_token"`
	Unreadable    []unreadableJSON `json:"unreadable,omitempty"`
}

type unreadableJSON struct {
	CnfID   string `json:"cnf_id"`
	Message string `json:"message"`
}

func (s *Service) httpList(w http.ResponseWriter, r *http.Request) error {
	in := newInput(r)
	q := &cnfmetricsv1.ListCnfMetricsRequest{
		PageSize: int32(in.integer("page_size", 32)), PageToken: in.text("page_token"),
		MetricType: in.text("metric_type"), Status: in.text("status"),
	}
	_, wrong := listQuery(q)
	if err := in.check(wrong); err != nil {
		return err
	}
	list, err := s.ListCnfMetrics(r.Context(), q)
	if err != nil {
		return err
	}
	page := pageJSON{Metrics: []*metricJSON{}, NextPageToken: list.GetNextPageToken()}
	for _, m := range list.GetMetrics() {
		page.Metrics = append(page.Metrics, toJSON(m))
	}
	for _, u := range list.GetUnreadable() {
		page.Unreadable = append(page.Unreadable, unreadableJSON{u.GetCnfId(), u.GetMessage()})
	}
	return writeJSON(w, http.StatusOK, page)
}

func (s *Service) httpUpdate(w http.ResponseWriter, r *http.Request, id string) error {
	in := newInput(r)
	q := &cnfmetricsv1.UpdateCnfMetricRequest{Metric: in.metric(id), IdempotencyId: in.idempotency()}
	if m := q.GetMetric(); m != nil && m.GetCnfId() != id {
		in.wrong.add("cnf_id", "is not the one in the path") //guard:metric-of-body-replaces-that-of-path
	}
	if err := in.check(checkUpdate(q)); err != nil {
		return err
	}
	updated, err := s.UpdateCnfMetric(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, toJSON(updated.GetMetric()))
}

// deletedJSON confirms that a metric does not exist any more.
type deletedJSON struct {
	Version int64 `json:"version"`
}

func (s *Service) httpDelete(w http.ResponseWriter, r *http.Request, id string) error {
	in := newInput(r)
	q := &cnfmetricsv1.DeleteCnfMetricRequest{
		CnfId: id, Version: in.integer("version", 64), IdempotencyId: in.idempotency(),
	}
	if err := in.check(checkDelete(q)); err != nil {
		return err
	}
	deleted, err := s.DeleteCnfMetric(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, deletedJSON{deleted.GetVersion()})
}

// batchJSON is the response to a batch.
type batchJSON struct {
	Results []resultJSON `json:"results"`
}

// resultJSON is the result of one id: a metric or an error.
type resultJSON struct {
	CnfID  string            `json:"cnf_id"`
	Metric *metricJSON       `json:"metric,omitempty"`
	Age    *int64            `json:"age,omitempty"` // in whole seconds
	Stale  bool              `json:"stale,omitempty"`
	Error  *apierror.Problem `json:"error,omitempty"`
}

func (s *Service) httpBatchShow(w http.ResponseWriter, r *http.Request) error {
	in := newInput(r)
	ids, wrong := in.ids()
	if err := in.check(wrong); err != nil {
		return err
	}
	memory, err := s.reserve(len(ids))
	if err != nil {
		return err
	}
	defer memory.Close()
	outcomes, err := s.showAll(r.Context(), ids)
	if err != nil {
		return err
	}
	response := batchJSON{Results: make([]resultJSON, len(ids))}
	for i, o := range outcomes {
		response.Results[i] = s.resultJSON(ids[i], o)
	}
	return writeJSON(w, http.StatusOK, response)
}

func (s *Service) resultJSON(id string, o outcome) resultJSON {
	if o.err != nil {
		document := ofBody(s.errorOf(o.err)).Problem()
		return resultJSON{CnfID: id, Error: &document}
	}
	age := wholeSeconds(o.found)
	return resultJSON{
		CnfID: id, Metric: toJSON(o.found.GetMetric()), Age: &age, Stale: o.found.GetFreshness().GetStale(),
	}
}

func writeError(w http.ResponseWriter, e *apierror.Error) {
	if e.Type == readOnly { //guard:405-without-allow
		w.Header().Set("Allow", "GET, HEAD") // required with a 405 (RFC 9110, 15.5.6)
	}
	ofBody(e).Write(w)
}

// ofBody returns e with its fields named as an HTTP request has them.
func ofBody(e *apierror.Error) *apierror.Error {
	renamed := *e
	renamed.Violations = violations(e.Violations).ofBody()
	return &renamed
}

// writeJSON fails on a number that JSON cannot represent; checked and decoded metrics do not have any.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, status, "application/json", append(b, '\n'))
	return nil
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client has gone
}
