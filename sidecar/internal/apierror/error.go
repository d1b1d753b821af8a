package apierror

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// minRetryAfter is when a client may retry after a temporary error that does not say when.
const minRetryAfter = time.Second

// Error is a failed request. A gRPC method returns it as it is; an HTTP handler writes it with Write or JSON.
type Error struct {
	Type   Type
	Detail string
	// RetryAfter is when a retry may succeed; 0 if it would not.
	RetryAfter time.Duration
	// Challenge is the value of WWW-Authenticate; set with Unauthenticated.
	Challenge string
	// Datasets are names that the client may have meant; set with UnknownDataset.
	Datasets []string
	// Violations are the parts of the request that are wrong, if the error is about some of them.
	Violations []Violation
}

// Violation is what is wrong with one part of a request: a field of the message, or a column of a value.
type Violation struct {
	Field  string `json:"field,omitempty"`
	Column string `json:"column,omitempty"`
	Detail string `json:"detail"`
}

// New returns an error of a type.
func New(t Type, detail string) *Error { return &Error{Type: t, Detail: detail} }

// From turns an error of a dataset, or of the access to it, into what clients see. Nobody has checked an error without a
// kind for secrets: From passes it to defect instead of the client.
func From(err error, defect func(error)) *Error {
	if errors.Is(err, kv.ErrBatchBytes) {
		return New(BatchTooLarge, "the values before this key fill the response; request this key in another batch")
	}
	if e := ofAccess(err); e != nil {
		return e
	}
	kind := kv.KindOf(err)
	e := &Error{Type: byKind[kind], Detail: err.Error(), RetryAfter: kv.RetryAfter(err)}
	switch kind {
	case kv.KindInternal:
		defect(err)
		e.Detail = "the sidecar has a defect; see its log" //guard:defect-shown-to-clients
	case kv.KindOverloaded, kv.KindUnavailable, kv.KindCanceled:
		e.RetryAfter = max(e.RetryAfter, minRetryAfter)
	case kv.KindDeadline:
		e.Detail = "the deadline passed (" + err.Error() + "); retry, or allow more time"
	case kv.KindUnknown:
		e.RetryAfter = max(e.RetryAfter, minRetryAfter)
		e.Detail += "; read the key with no-cache to see whether the write happened, or retry it with the same idempotency id"
	case kv.KindInvalidValue:
		e.addColumn(err)
	}
	return e
}

// ofAccess returns what clients see of a request that was denied or exceeded a rate limit; nil for other errors.
func ofAccess(err error) *Error {
	var denied *access.DeniedError
	var limited *access.LimitedError
	switch {
	case errors.As(err, &limited):
		return &Error{Type: RateLimited, Detail: limited.Error(), RetryAfter: limited.RetryAfter}
	case !errors.As(err, &denied):
		return nil
	case denied.Unauthenticated:
		return &Error{Type: Unauthenticated, Detail: denied.Error(), Challenge: denied.Challenge()}
	}
	return New(PermissionDenied, denied.Error())
}

func (e *Error) addColumn(err error) {
	var wrong *origin.ValueError
	if !errors.As(err, &wrong) {
		return
	}
	e.Detail = wrong.Error()
	if wrong.Column != "" {
		e.Violations = []Violation{{Column: wrong.Column, Detail: wrong.Reason}}
	}
}

// Column returns the column that is wrong with a value, or "".
func (e *Error) Column() string {
	if len(e.Violations) == 0 {
		return ""
	}
	return e.Violations[0].Column
}

// At returns e as an error about a field of the request, if it is one that the client can correct there.
func (e *Error) At(field string) *Error {
	if e.Type.Code != codes.InvalidArgument {
		return e
	}
	detail := e.Detail
	if e.Column() != "" {
		detail = e.Violations[0].Detail // field names the column
	}
	at := *e
	at.Violations = []Violation{{Field: field, Detail: detail}}
	return &at
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Type.Reason, e.Detail) }

// GRPCStatus returns e as package status reads it, with google.rpc details.
func (e *Error) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Reason: e.Type.Reason, Domain: Domain}
	if len(e.Datasets) > 0 {
		info.Metadata = map[string]string{"near": strings.Join(e.Datasets, ",")}
	}
	details := []protoadapt.MessageV1{info}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if len(e.Violations) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: e.fieldViolations()})
	}
	plain := status.New(e.Type.Code, e.Detail)
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain // details that cannot be marshaled: the code is still right
	}
	return detailed
}

func (e *Error) fieldViolations() []*errdetails.BadRequest_FieldViolation {
	list := make([]*errdetails.BadRequest_FieldViolation, len(e.Violations))
	for i, v := range e.Violations {
		list[i] = &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Detail, Reason: e.Type.Reason}
	}
	return list
}
