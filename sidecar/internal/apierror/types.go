// Package apierror has the one table of the errors that the APIs of the sidecar report: each kind of error of a dataset,
// its HTTP status and problem type (RFC 9457), and its gRPC code and reason (google.rpc.ErrorInfo).
package apierror

import (
	"net/http"

	"google.golang.org/grpc/codes"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// BaseURI begins the URI of every problem type.
const BaseURI = "https://ringside.dev/problems/"

// Domain is the domain of every google.rpc.ErrorInfo.
const Domain = "ringside.dev"

// Type is one type of error. Status, Name, Code and Reason are part of the API; Title is for people.
type Type struct {
	Status int    // HTTP status code
	Name   string // of the problem type, after BaseURI
	Title  string
	Code   codes.Code
	Reason string // of google.rpc.ErrorInfo; empty for an error that only HTTP has
}

// Types of errors that have no kv.Kind: what is wrong with a request, or how the request arrived.
var (
	MalformedRequest = Type{http.StatusBadRequest, "malformed-request", "Malformed request",
		codes.InvalidArgument, "INVALID_REQUEST"}
	InvalidRequest = Type{http.StatusBadRequest, "invalid-request", "Invalid request",
		codes.InvalidArgument, "INVALID_REQUEST"}
	InvalidBatch = Type{http.StatusBadRequest, "invalid-batch", "Invalid batch", codes.InvalidArgument, "INVALID_BATCH"}

	Unauthenticated = Type{http.StatusUnauthorized, "unauthenticated", "A token is required",
		codes.Unauthenticated, "UNAUTHENTICATED"}
	PermissionDenied = Type{http.StatusForbidden, "permission-denied", "Permission denied",
		codes.PermissionDenied, "PERMISSION_DENIED"}
	RateLimited = Type{http.StatusTooManyRequests, "rate-limited", "Rate limit reached",
		codes.ResourceExhausted, "RATE_LIMITED"}

	NotFound       = Type{http.StatusNotFound, "not-found", "Not found", codes.NotFound, "NOT_FOUND"}
	UnknownDataset = Type{http.StatusNotFound, "unknown-dataset", "Unknown dataset", codes.NotFound, "UNKNOWN_DATASET"}
	AlreadyExists  = Type{http.StatusConflict, "exists", "Already exists", codes.AlreadyExists, "EXISTS"}
	BatchTooLarge  = Type{http.StatusRequestEntityTooLarge, "batch-too-large", "Batch response too large",
		codes.ResourceExhausted, "BATCH_TOO_LARGE"}
	UnreadableRow = Type{http.StatusInternalServerError, "unreadable-row", "Unreadable row",
		codes.Internal, "UNREADABLE_ROW"}
	Stopping = Type{http.StatusServiceUnavailable, "stopping", "The sidecar is stopping", codes.Canceled, "CANCELED"}
)

// Types of errors that only HTTP has: gRPC finds methods and bounds messages itself.
var (
	NoSuchRoute = Type{Status: http.StatusNotFound, Name: "no-such-route", Title: "No such route"}
	WrongMethod = Type{Status: http.StatusMethodNotAllowed, Name: "method-not-allowed", Title: "Method not allowed"}
	CrossSite   = Type{Status: http.StatusForbidden, Name: "cross-site", Title: "Request from another website"}
	WrongHost   = Type{Status: http.StatusMisdirectedRequest, Name: "wrong-host", Title: "Wrong Host"}
	KeyTooLong  = Type{Status: http.StatusRequestURITooLong, Name: "key-too-long", Title: "Key too long"}

	RequestTimeout = Type{Status: http.StatusRequestTimeout, Name: "request-timeout",
		Title: "The request took too long to arrive"}
	BodyTooLarge = Type{Status: http.StatusRequestEntityTooLarge, Name: "body-too-large",
		Title: "Request body too large"}
	HeaderTooLarge = Type{Status: http.StatusRequestHeaderFieldsTooLarge, Name: "header-too-large",
		Title: "Request header too large"}
	UnsupportedMediaType = Type{Status: http.StatusUnsupportedMediaType, Name: "unsupported-media-type",
		Title: "Unsupported media type"}
	TooManyConnections = Type{Status: http.StatusServiceUnavailable, Name: "too-many-connections",
		Title: "Too many connections"}
	HTTPVersion = Type{Status: http.StatusHTTPVersionNotSupported, Name: "http-version",
		Title: "HTTP version not supported"}
	// PreconditionFailed is a Conflict for which RFC 9110 has a status of its own.
	PreconditionFailed = Type{Status: http.StatusPreconditionFailed, Name: "precondition-failed",
		Title: "Precondition failed"}
)

// byKind is indexed by kv.Kind.
var byKind = [...]Type{
	kv.KindInternal: {http.StatusInternalServerError, "internal", "Internal error", codes.Internal, "INTERNAL"},
	kv.KindInvalidKey: {http.StatusBadRequest, "invalid-key", "Invalid key",
		codes.InvalidArgument, "INVALID_KEY"},
	kv.KindNotCached: {http.StatusGatewayTimeout, "not-cached", "Not cached",
		codes.FailedPrecondition, "NOT_CACHED"},
	kv.KindOverloaded: {http.StatusTooManyRequests, "overloaded", "Overloaded",
		codes.ResourceExhausted, "OVERLOADED"},
	kv.KindUnavailable: {http.StatusServiceUnavailable, "origin-unavailable", "Origin unavailable",
		codes.Unavailable, "ORIGIN_UNAVAILABLE"},
	kv.KindDeadline: {http.StatusGatewayTimeout, "deadline", "Deadline exceeded",
		codes.DeadlineExceeded, "DEADLINE"},
	kv.KindCanceled: {http.StatusServiceUnavailable, "canceled", "Request canceled", codes.Canceled, "CANCELED"},
	kv.KindVersion: {http.StatusPreconditionFailed, "version-not-reached", "Version not reached",
		codes.FailedPrecondition, "VERSION_NOT_REACHED"},
	kv.KindReadOnly: {http.StatusMethodNotAllowed, "read-only", "The dataset is read-only",
		codes.FailedPrecondition, "READ_ONLY"},
	// One status for everything that is wrong with a value, including its syntax: clients react to each in the same way.
	kv.KindInvalidValue: {http.StatusUnprocessableEntity, "invalid-value", "Invalid value",
		codes.InvalidArgument, "INVALID_VALUE"},
	// The problem type of an invalid value: clients correct both and send again.
	kv.KindIDReused: {http.StatusUnprocessableEntity, "invalid-value",
		"The idempotency id was used for another write", codes.InvalidArgument, "INVALID_VALUE"},
	kv.KindConflict: {http.StatusConflict, "conflict", "The row does not meet the condition",
		codes.Aborted, "CONFLICT"},
	// Neither this nor the next is 502, 503 or 504: proxies retry these by themselves.
	kv.KindDataError: {http.StatusInternalServerError, "data-error", "The rows of the key cannot be a value",
		codes.FailedPrecondition, "DATA_ERROR"},
	kv.KindNoAppend: {http.StatusMethodNotAllowed, "append-unsupported", "The database generates no keys of the dataset",
		codes.FailedPrecondition, "APPEND_UNSUPPORTED"},
	kv.KindUnknown: {http.StatusInternalServerError, "outcome-unknown", "The outcome of the write is unknown",
		codes.Unknown, "OUTCOME_UNKNOWN"},
}

// TypeOf returns the type of the errors of a kind.
func TypeOf(kind kv.Kind) Type { return byKind[kind] }
