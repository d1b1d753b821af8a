package respserver

import (
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// textOf returns what people read of an error. Where the sentence of the APIs says what to do over HTTP, it says what to do
// here.
func textOf(e *apierror.Error) string {
	switch {
	case e.Type == apierror.Unauthenticated:
		what, _, _ := strings.Cut(e.Detail, ":")
		return what + ": send AUTH with a valid token"
	case e.Type == apierror.UnknownDataset && len(e.Datasets) > 0:
		return "no dataset of this name is configured; similar names: " + strings.Join(e.Datasets, ", ")
	case e.Type == apierror.UnknownDataset:
		return "no dataset of this name is configured; a key has the form dataset:key"
	case e.ID != "":
		return e.Detail + " (id " + e.ID + ")"
	}
	return e.Detail
}

// prefixes are the codes with which errors begin, by the reason that gRPC clients see. They avoid those on which clients of
// Redis act by themselves in a way that does not help here: MOVED, ASK, CLUSTERDOWN (redirects), LOADING, TRYAGAIN, MASTERDOWN
// and READONLY (retries, another connection).
var prefixes = map[string]string{
	"INVALID_REQUEST": "INVALID", "INVALID_KEY": "INVALID", "INVALID_VALUE": "INVALID", "INVALID_BATCH": "INVALID",
	"UNAUTHENTICATED": "NOAUTH", "PERMISSION_DENIED": "NOPERM", "RATE_LIMITED": "OVERLOADED", "OVERLOADED": "OVERLOADED",
	"UNKNOWN_DATASET": "NODATASET", "BATCH_TOO_LARGE": "TOOLARGE", "READ_ONLY": "NOTWRITABLE", "DATA_ERROR": "DATAERROR",
	"CONFLICT": "CONFLICT", "DEADLINE": "DEADLINE", "ORIGIN_UNAVAILABLE": "UNAVAILABLE", "CANCELED": "UNAVAILABLE",
	"OUTCOME_UNKNOWN": "UNKNOWNOUTCOME",
}

// prefixOf returns the code of a type of errors.
func prefixOf(t apierror.Type) string {
	if prefix := prefixes[t.Reason]; prefix != "" {
		return prefix
	}
	return "INTERNAL"
}
