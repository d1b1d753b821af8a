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
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// minRetryAfter is when a client may retry after a temporary error that does not say when.
const minRetryAfter = time.Second

// Error is a failed request. A gRPC method returns it as it is; an HTTP handler writes it with Write or JSON.
type Error struct {
	Type   Type
	Detail string
	// ID is that of the line in the log with the text, which clients do not see; empty if Detail is everything.
	ID string
	// RetryAfter is when a retry may succeed; 0 if it would not.
	RetryAfter time.Duration
	// Challenge is the value of WWW-Authenticate; set with Unauthenticated.
	Challenge string
	// Datasets are names that the client may have meant; set with UnknownDataset.
	Datasets []string
	// Cause is what is wrong with the rows of a key (see origin.DataCause); set with KindDataError.
	Cause string
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

// sentences are what clients see instead of the text of an error: a fixed sentence that says what they can do. The text may
// name hosts, databases, accounts and tables.
var sentences = [...]string{
	kv.KindInternal:    "the sidecar has a defect; its operator finds the cause in the log under the id",
	kv.KindNotCached:   "no fresh value is in memory, and the request does not allow to load it",
	kv.KindOverloaded:  "a limit is reached; retry later, with fewer requests, watches or keys at a time",
	kv.KindUnavailable: "the database of the dataset could not be used; retry later. Its operator finds the cause in the log under the id",
	kv.KindDeadline:    "the deadline passed; retry, or allow more time",
	kv.KindCanceled:    "the request was canceled before its end; retry",
	kv.KindReadOnly:    "the dataset is read-only; `writable` in the configuration allows writes",
	kv.KindIDReused:    "the idempotency id was used for another write; each write needs its own",
	kv.KindConflict:    "the row does not meet the condition of the write; read it again and decide",
	kv.KindDataError:   "the rows of the key in the database cannot be its value; correct them, a retry does not help",
	kv.KindNoAppend:    "the database generates no keys for the rows of the dataset; write a row with its key",
	kv.KindUnknown: "the write may or may not have been made; read the key with no-cache to see, or retry it with the same " +
		"idempotency id",
}

// dataErrors are the sentences of kv.KindDataError, by the cause.
var dataErrors = [origin.DataCauses]string{
	origin.SeveralRows:    "the database has several rows of the key, and the dataset promises one; delete all but one, and make the key unique",
	origin.TooLarge:       "the value of the key is larger than 1 MiB, or has more than max_rows rows; store less under the key, or leave columns out of the dataset",
	origin.InvalidExpiry:  "the column of the expiry has neither a time with a date nor seconds since 1970; correct the row",
	origin.InvalidVersion: "the version column of the row has no integer of 64 bits; correct the row",
}

// From turns an error of a dataset, or of the access to it, into what clients see: its kind, a sentence, and for a failure the id that report returns
// for its text.
func From(err error, report func(error) (id string)) *Error {
	if errors.Is(err, kv.ErrBatchBytes) {
		return New(BatchTooLarge, "the values before this key fill the response; request this key in another batch")
	}
	if e, ok := errors.AsType[*Error](err); ok { // of one row of a batch
		return e
	}
	if e := ofAccess(err); e != nil {
		return e
	}
	kind := kv.KindOf(err)
	e := &Error{Type: byKind[kind], Detail: sentences[kind], RetryAfter: kv.RetryAfter(err)} //guard:origin-error-shown-to-clients
	switch kind {
	case kv.KindInternal, kv.KindDeadline:
		e.ID = report(err)
	case kv.KindOverloaded, kv.KindUnavailable, kv.KindCanceled, kv.KindUnknown:
		e.ID = report(err)
		e.RetryAfter = max(e.RetryAfter, minRetryAfter)
	case kv.KindInvalidKey, kv.KindInvalidValue, kv.KindNoAppend:
		e.Detail = printable.Text(kv.Reason(err))
		e.addColumn(err)
	case kv.KindDataError:
		cause := origin.CauseOf(err)
		e.Cause = cause.String()
		if sentence := dataErrors[cause]; sentence != "" {
			e.Detail = sentence
		}
	case kv.KindVersion: // made by this sidecar, from the request and the row
		e.Detail = err.Error()
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
	wrong, ok := errors.AsType[*origin.ValueError](err)
	if ok && wrong.Column != "" {
		e.Violations = []Violation{{Column: printable.Text(wrong.Column), Detail: printable.Text(wrong.Reason)}}
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
	info := &errdetails.ErrorInfo{Reason: e.Type.Reason, Domain: Domain, Metadata: map[string]string{}}
	if e.Cause != "" {
		info.Metadata["cause"] = e.Cause
	}
	if len(e.Datasets) > 0 {
		info.Metadata["near"] = strings.Join(e.Datasets, ",")
	}
	details := []protoadapt.MessageV1{info}
	if e.ID != "" {
		info.Metadata["id"] = e.ID
		details = append(details, &errdetails.RequestInfo{RequestId: e.ID})
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if len(e.Violations) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: e.fieldViolations()})
	}
	plain := status.New(e.Type.Code, e.message())
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain // details that cannot be marshaled: the code is still right
	}
	return detailed
}

// message has the id, too: most clients log only the message of a status.
func (e *Error) message() string {
	if e.ID == "" {
		return e.Detail
	}
	return e.Detail + " (id " + e.ID + ")"
}

func (e *Error) fieldViolations() []*errdetails.BadRequest_FieldViolation {
	list := make([]*errdetails.BadRequest_FieldViolation, len(e.Violations))
	for i, v := range e.Violations {
		list[i] = &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Detail, Reason: e.Type.Reason}
	}
	return list
}
