package local

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// problemBase begins every problem type: the type is the contract, title and detail are for people.
const problemBase = "https://ringside.dev/problems/"

// problem is one kind of failure as HTTP says it (RFC 9457).
type problem struct {
	status int
	name   string // after problemBase
	title  string
}

// The problems that have no cache.Kind. kinds holds the others.
var (
	problemNoRoute        = problem{http.StatusNotFound, "no-such-route", "No such route"}
	problemUnknownDataset = problem{http.StatusNotFound, "unknown-dataset", "Unknown dataset"}
	problemAbsent         = problem{http.StatusNotFound, "absent", "The origin has no such key"}
	problemMethod         = problem{http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed"}
	problemMalformed      = problem{http.StatusBadRequest, "malformed-request", "Malformed request"}
	problemBatch          = problem{http.StatusBadRequest, "invalid-batch", "Invalid batch"}
	problemCrossSite      = problem{http.StatusForbidden, "cross-site", "Request from another web site"}
	problemReadTimeout    = problem{http.StatusRequestTimeout, "request-timeout", "The request took too long to arrive"}
	problemBodySize       = problem{http.StatusRequestEntityTooLarge, "body-too-large", "Request body too large"}
	problemBatchSize      = problem{http.StatusRequestEntityTooLarge, "batch-too-large", "Batch answer too large"}
	problemTargetSize     = problem{http.StatusRequestURITooLong, "key-too-long", "Key too long"}
	problemHost           = problem{http.StatusMisdirectedRequest, "wrong-host", "Wrong Host"}
	problemHeaderSize     = problem{http.StatusRequestHeaderFieldsTooLarge, "header-too-large", "Request header too large"}
	problemConns          = problem{http.StatusServiceUnavailable, "too-many-connections", "Too many connections"}
	problemVersion        = problem{http.StatusHTTPVersionNotSupported, "http-version", "HTTP version not supported"}
	problemPrecondition   = problem{http.StatusPreconditionFailed, "precondition-failed", "Precondition failed"}
	problemOtherWrite     = problem{http.StatusUnprocessableEntity, "invalid-value", "The Idempotency-Key names another write"}
	problemStopping       = problem{http.StatusServiceUnavailable, "stopping", "The sidecar is stopping"}
	problemMediaType      = problem{http.StatusUnsupportedMediaType, "unsupported-media-type", "Unsupported media type"}
)

// kinds maps what went wrong with a read or a write to what HTTP says.
var kinds = [...]problem{
	cache.KindInternal:    {http.StatusInternalServerError, "internal", "Defect of the sidecar"},
	cache.KindInvalidKey:  {http.StatusBadRequest, "invalid-key", "Invalid key"},
	cache.KindNotCached:   {http.StatusGatewayTimeout, "not-cached", "Not in memory"},
	cache.KindOverloaded:  {http.StatusTooManyRequests, "overloaded", "Overloaded"},
	cache.KindUnavailable: {http.StatusServiceUnavailable, "origin-unavailable", "Origin unavailable"},
	cache.KindDeadline:    {http.StatusGatewayTimeout, "deadline", "Deadline passed"},
	cache.KindCanceled:    {http.StatusServiceUnavailable, "canceled", "The caller has given up"}, // or see problemStopping
	cache.KindVersion:     {http.StatusPreconditionFailed, "version-not-reached", "No such version"},
	cache.KindReadOnly:    {http.StatusMethodNotAllowed, "read-only", "The dataset takes no writes"},
	// One status for all that is wrong with a value, its syntax too: a client can do the same about each.
	cache.KindInvalidValue: {http.StatusUnprocessableEntity, "invalid-value", "The value can not be this row"},
	cache.KindConflict:     {http.StatusConflict, "conflict", "The row is not what the condition says"},
	// Not 502, 503 or 504, on which proxies try again by themselves.
	cache.KindUnknown: {http.StatusInternalServerError, "outcome-unknown", "The write may or may not have happened"},
}

// verdict is what gRPC says: a code and the reason of google.rpc.ErrorInfo.
type verdict struct {
	code   codes.Code
	reason string
}

var (
	verdictUnknownDataset = verdict{codes.NotFound, "UNKNOWN_DATASET"}
	verdictAbsent         = verdict{codes.NotFound, "ABSENT"}
	verdictBatch          = verdict{codes.InvalidArgument, "INVALID_BATCH"}
	verdictBatchSize      = verdict{codes.ResourceExhausted, "BATCH_TOO_LARGE"}
	verdictRequest        = verdict{codes.InvalidArgument, "INVALID_REQUEST"}
)

// verdicts maps what went wrong with a read or a write to what gRPC says.
var verdicts = [...]verdict{
	cache.KindInternal:    {codes.Internal, "INTERNAL"},
	cache.KindInvalidKey:  {codes.InvalidArgument, "INVALID_KEY"},
	cache.KindNotCached:   {codes.FailedPrecondition, "NOT_CACHED"},
	cache.KindOverloaded:  {codes.ResourceExhausted, "OVERLOADED"},
	cache.KindUnavailable: {codes.Unavailable, "ORIGIN_UNAVAILABLE"},
	cache.KindDeadline:    {codes.DeadlineExceeded, "DEADLINE"},
	cache.KindCanceled:    {codes.Canceled, "CANCELED"},

	cache.KindVersion:      {codes.FailedPrecondition, "VERSION_NOT_REACHED"},
	cache.KindReadOnly:     {codes.FailedPrecondition, "READ_ONLY"},
	cache.KindInvalidValue: {codes.InvalidArgument, "INVALID_VALUE"},
	cache.KindConflict:     {codes.Aborted, "CONFLICT"},
	cache.KindUnknown:      {codes.Unknown, "OUTCOME_UNKNOWN"},
}

// failure is one failed read or write as both protocols tell it.
type failure struct {
	problem problem
	verdict verdict
	detail  string
	// retry is when trying again may help; 0 where it does not.
	retry time.Duration
	// near are names of datasets that the caller may have meant.
	near []string
	// column is the one that is wrong with a value; empty where it is the value as a whole.
	column string
}

var errBatchBytes = errors.New("batch answer too large")

// fail tells an error of a dataset. One of no known kind is reported, not shown: nobody has checked it for secrets.
func (s *Server) fail(err error) failure {
	if errors.Is(err, errBatchBytes) {
		s.stats.BatchTruncated.Add(1)
		return failure{problem: problemBatchSize, verdict: verdictBatchSize,
			detail: "the values before this key fill the answer; ask for this key in another batch"}
	}
	kind := cache.KindOf(err)
	f := failure{problem: kinds[kind], verdict: verdicts[kind], retry: cache.RetryAfter(err), detail: err.Error()}
	switch kind {
	case cache.KindInternal:
		s.defect(err)
		f.detail = "the sidecar met a defect of its own; its log says more"
	case cache.KindOverloaded, cache.KindUnavailable:
		f.retry = max(f.retry, time.Second)
	case cache.KindCanceled:
		f.retry = max(f.retry, time.Second)
		if s.draining.Err() != nil {
			f.problem, f.detail = problemStopping, "the sidecar is stopping; another one, or this one after its start, answers"
		}
	case cache.KindDeadline:
		f.detail = "no answer was found in time (" + err.Error() + "); try again, or allow more time"
	case cache.KindUnknown:
		f.retry = max(f.retry, time.Second)
		f.detail += "; read the key with no-cache to see what came of it, or send the write again with the same " +
			"idempotency key"
	case cache.KindInvalidValue:
		var wrong *origin.ValueError
		if errors.As(err, &wrong) {
			f.column, f.detail = wrong.Column, wrong.Reason
		}
		if f.column == "" && strings.Contains(f.detail, "the idempotency id was used") { // another member says it as a text
			f.problem = problemOtherWrite
		}
	}
	return f
}

func (s *Server) defect(err error) {
	s.stats.Defects.Add(1)
	s.config.Defect(err)
}

func unknownDataset(name string, all []Served) failure {
	f := failure{problem: problemUnknownDataset, verdict: verdictUnknownDataset, near: nearNames(name, all)}
	f.detail = "no dataset of this name is configured; GET /v1/datasets lists those that are"
	return f
}

func invalidKey(err error) failure {
	return failure{problem: kinds[cache.KindInvalidKey], verdict: verdicts[cache.KindInvalidKey], detail: err.Error()}
}

func invalidBatch(err error) failure {
	return failure{problem: problemBatch, verdict: verdictBatch, detail: err.Error()}
}

func invalidRequest(err error) failure {
	return failure{problem: problemMalformed, verdict: verdictRequest, detail: err.Error()}
}

func absent() failure {
	return failure{problem: problemAbsent, verdict: verdictAbsent,
		detail: "the origin was asked and has no such key; the answer is cached like a value"}
}

// problemDocument is a problem as JSON.
type problemDocument struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Datasets are names that are close to the one asked for; always there for that problem.
	Datasets []string `json:"datasets,omitzero"`
	// RetryAfter is in whole seconds; in a batch, where no header can say it.
	RetryAfter int64 `json:"retryAfter,omitempty"`
	// Errors name the columns that are wrong with a value.
	Errors []columnError `json:"errors,omitzero"`
}

type columnError struct {
	Column string `json:"column"`
	Detail string `json:"detail"`
}

func (f failure) document() problemDocument {
	d := problemDocument{Type: problemBase + f.problem.name, Title: f.problem.title, Status: f.problem.status,
		Detail: f.detail, Datasets: f.near}
	if f.retry > 0 {
		d.RetryAfter = retrySeconds(f.retry)
	}
	if f.column != "" {
		d.Errors = []columnError{{f.column, f.detail}}
	}
	return d
}

func (f failure) json() []byte {
	b, err := json.Marshal(f.document())
	if err != nil {
		// Strings and numbers always marshal.
		return []byte(`{"type":"about:blank"}`)
	}
	return append(b, '\n')
}
