package apierror

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// Problem is a problem document (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// ID is that of the line in the sidecar's log with the cause.
	ID string `json:"id,omitempty"`
	// Cause is what is wrong with the rows of a key, in a data error.
	Cause string `json:"cause,omitempty"`
	// Datasets are names close to the requested one; always present with UnknownDataset.
	Datasets []string `json:"datasets,omitzero"`
	// RetryAfter is in whole seconds, as in the header, which the parts of a batch do not have.
	RetryAfter int64       `json:"retryAfter,omitempty"`
	Errors     []Violation `json:"errors,omitempty"`
}

// Problem returns e as a problem document.
func (e *Error) Problem() Problem {
	return Problem{Type: BaseURI + e.Type.Name, Title: e.Type.Title, Status: e.Type.Status, Detail: e.Detail, ID: e.ID, Cause: e.Cause,
		Datasets: e.Datasets, RetryAfter: e.RetrySeconds(), Errors: e.Violations}
}

// JSON returns the problem document as the body of a response.
func (e *Error) JSON() []byte {
	b, err := json.Marshal(e.Problem())
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(b, '\n')
}

// RetrySeconds is RetryAfter as the header has it: rounded up; 0 for no header.
func (e *Error) RetrySeconds() int64 { return int64((e.RetryAfter + time.Second - 1) / time.Second) }

// Write writes the problem document as the whole response. Headers that are already set stay.
func (e *Error) Write(w http.ResponseWriter) {
	if seconds := e.RetrySeconds(); seconds > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if e.Challenge != "" {
		w.Header().Set("WWW-Authenticate", e.Challenge)
	}
	w.Header().Set("Content-Type", ContentType)
	w.WriteHeader(e.Type.Status)
	_, _ = w.Write(e.JSON()) // fails only if the client has gone
}
