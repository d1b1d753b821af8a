package cnfmetrics

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// errorDomain is the domain of every google.rpc.ErrorInfo, and problemBase begins every problem type.
const (
	errorDomain = "ringside.dev"
	problemBase = "https://ringside.dev/problems/"
)

// reason is one kind of failure as gRPC and HTTP say it. The list is documented in cnfmetrics.proto and openapi.json.
type reason struct {
	code    codes.Code
	name    string // of google.rpc.ErrorInfo
	status  int
	problem string // after problemBase
	title   string
}

var (
	invalidRequest = reason{codes.InvalidArgument, "INVALID_REQUEST", 400, "invalid-request", "Invalid request"}
	absent         = reason{codes.NotFound, "ABSENT", 404, "absent", "There is no such metric"}
	exists         = reason{codes.AlreadyExists, "EXISTS", 409, "exists", "There is such a metric"}
	conflict       = reason{codes.Aborted, "CONFLICT", 409, "conflict", "The metric is not what was expected"}
	unavailable    = reason{codes.Unavailable, "ORIGIN_UNAVAILABLE", 503, "origin-unavailable", "Origin unavailable"}
	unreadable     = reason{codes.Internal, "UNREADABLE_ROW", 500, "unreadable-row", "The row is no metric"}
	internal       = reason{codes.Internal, "INTERNAL", 500, "internal", "Defect of the sidecar"}
	readOnly       = reason{codes.FailedPrecondition, "READ_ONLY", 405, "read-only", "The dataset takes no writes"}
)

// The reasons that only HTTP has: gRPC finds methods itself.
var (
	noSuchRoute = reason{status: 404, problem: "no-such-route", title: "No such route"}
	wrongMethod = reason{status: 405, problem: "method-not-allowed", title: "Method not allowed"}
	wrongMedia  = reason{status: 415, problem: "unsupported-media-type", title: "Unsupported media type"}
)

// kinds maps what went wrong with a read or a change to how it is said. What is not in it is a defect.
var kinds = map[cache.Kind]reason{
	cache.KindInvalidKey:   invalidRequest,
	cache.KindInvalidValue: invalidRequest,
	cache.KindConflict:     conflict,
	cache.KindReadOnly:     readOnly,
	cache.KindVersion:      {codes.FailedPrecondition, "VERSION_NOT_REACHED", 412, "version-not-reached", "No such version"},
	cache.KindUnknown:      {codes.Unknown, "OUTCOME_UNKNOWN", 500, "outcome-unknown", "The change may have been made"},
	cache.KindOverloaded:   {codes.ResourceExhausted, "OVERLOADED", 429, "overloaded", "Overloaded"},
	cache.KindUnavailable:  unavailable,
	cache.KindDeadline:     {codes.DeadlineExceeded, "DEADLINE", 504, "deadline", "Deadline passed"},
	cache.KindCanceled:     {codes.Canceled, "CANCELED", 503, "stopping", "The caller has given up, or the sidecar is stopping"},
}

const noSuchMetric = "the database was asked and has no such metric"

// minRetry is when callers may try again after a failure that passes, and that does not say when.
const minRetry = time.Second

// fault is a failed call.
type fault struct {
	reason  reason
	message string
	// retry is when trying again may help; 0 where it does not.
	retry time.Duration
	// wrong is set for invalidRequest only.
	wrong violations
}

// violation is what is wrong with one field, by its path in the request message.
type violation struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func invalid(wrong violations) *fault {
	return &fault{reason: invalidRequest, message: wrong.join(""), wrong: wrong}
}

// fail says an error of the dataset. field is the one that holds the key, and otherwise what a conflict means.
func (s *Service) fail(err error, field string, otherwise reason) *fault {
	kind := cache.KindOf(err)
	r, known := kinds[kind]
	if !known {
		return s.broken(err) //guard:unchecked-error-shown
	}
	f := &fault{reason: r, message: err.Error(), retry: cache.RetryAfter(err)}
	switch kind {
	case cache.KindConflict:
		f.reason, f.message = otherwise, conflicts[otherwise.name]
	case cache.KindInvalidKey:
		return invalid(violations{{field, err.Error()}})
	case cache.KindInvalidValue:
		return invalid(violations{wrongColumn(err)})
	case cache.KindOverloaded, cache.KindUnavailable, cache.KindCanceled, cache.KindUnknown:
		f.retry = max(f.retry, minRetry)
	}
	return f
}

// broken says an error of no known kind. It is reported, not shown: nobody has checked it for secrets.
func (s *Service) broken(err error) *fault {
	s.stats.Defects.Add(1)
	s.defect(err)
	return &fault{reason: internal, message: "the sidecar met a defect of its own; its log says more"}
}

// faultOf takes an error of a method for what it is.
func (s *Service) faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	return s.broken(err)
}

// conflicts is what a condition that is not so means :: name of the reason → message.
var conflicts = map[string]string{
	absent.name:   noSuchMetric,
	exists.name:   "there is such a metric already; update it, or choose another cnf_id",
	conflict.name: "the metric has another version, or is gone; show it with no_cache, and decide again",
}

// wrongColumn finds the field that the database refused. What is wrong otherwise, such as an idempotency id that another
// change has, is no field's fault alone.
func wrongColumn(err error) violation {
	var e *origin.ValueError
	if errors.As(err, &e) && e.Column != "" {
		return violation{"metric." + e.Column, e.Reason}
	}
	return violation{"request", err.Error()}
}

func (f *fault) Error() string { return fmt.Sprintf("%s: %s", f.reason.name, f.message) }

// GRPCStatus is how package status reads an error.
func (f *fault) GRPCStatus() *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: f.reason.name, Domain: errorDomain}}
	if f.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.retry)})
	}
	if f.wrong != nil {
		details = append(details, &errdetails.BadRequest{FieldViolations: f.wrong.rpc()})
	}
	plain := status.New(f.reason.code, f.message)
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain // details that cannot be marshaled: the code still tells
	}
	return detailed
}

// problem is a fault as HTTP says it (RFC 9457).
type problem struct {
	Type   string     `json:"type"`
	Title  string     `json:"title"`
	Status int        `json:"status"`
	Detail string     `json:"detail"`
	Errors violations `json:"errors,omitempty"`
	// RetryAfter is in whole seconds; in a batch, where no header can say it.
	RetryAfter int64 `json:"retryAfter,omitempty"`
}

func (f *fault) problem() *problem {
	return &problem{
		Type: problemBase + f.reason.problem, Title: f.reason.title, Status: f.reason.status,
		Detail: f.message, Errors: f.wrong.ofBody(),
		RetryAfter: int64((f.retry + time.Second - 1) / time.Second),
	}
}
