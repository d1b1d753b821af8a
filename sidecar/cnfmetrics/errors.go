package cnfmetrics

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// The types of errors that the service compares with; all that it can return are documented in cnfmetrics.proto and
// openapi.json.
var (
	conflict = apierror.TypeOf(kv.KindConflict)
	readOnly = apierror.TypeOf(kv.KindReadOnly)
)

const noSuchMetric = "the database has no such metric"

// conflicts explains a condition that is not met :: type of the error → detail.
var conflicts = map[apierror.Type]string{
	apierror.NotFound:      noSuchMetric,
	apierror.AlreadyExists: "the metric already exists; update it, or choose another cnf_id",
	conflict:               "the metric has another version or was deleted; read it with no_cache and decide again",
}

// invalid returns the error of a request that has violations.
func invalid(wrong violations) *apierror.Error {
	return &apierror.Error{Type: apierror.InvalidRequest, Detail: wrong.join(""), Violations: wrong}
}

// datasetError turns an error of the dataset into what clients see. keyField is the field that holds the key, and
// onConflict the type of the error if the condition of a write is not met.
func (s *Service) datasetError(err error, keyField string, onConflict apierror.Type) *apierror.Error {
	e := s.from(err)
	switch kv.KindOf(err) {
	case kv.KindConflict:
		e.Type, e.Detail = onConflict, conflicts[onConflict]
	case kv.KindInvalidKey:
		return invalid(violations{{Field: keyField, Detail: e.Detail}})
	case kv.KindIDReused:
		return invalid(violations{{Field: "idempotency_id", Detail: e.Detail}})
	case kv.KindInvalidValue:
		return invalid(violations{wrongColumn(e)})
	case kv.KindCanceled:
		e.Type = apierror.Stopping // a client that has canceled the call does not see it
	}
	return e
}

// wrongColumn returns the violation of the column that the database rejected, or of the request as a whole.
func wrongColumn(e *apierror.Error) apierror.Violation {
	if column := e.Column(); column != "" {
		return apierror.Violation{Field: "metric." + column, Detail: e.Violations[0].Detail}
	}
	return apierror.Violation{Field: "request", Detail: e.Detail}
}

func (s *Service) from(err error) *apierror.Error { return apierror.From(err, s.errors.Report) }

// errorOf returns an error of a method as an *apierror.Error.
func (s *Service) errorOf(err error) *apierror.Error {
	var e *apierror.Error
	if errors.As(err, &e) {
		return e
	}
	return s.from(err)
}

// refused reports whether a request was refused because of its caller: without a permission, or above a rate limit.
func refused(err error) bool {
	var denied *access.DeniedError
	var limited *access.LimitedError
	return errors.As(err, &denied) || errors.As(err, &limited)
}

func unreadableRow(id, why string) *apierror.Error {
	return apierror.New(apierror.UnreadableRow, fmt.Sprintf("row %q is not a metric: %s", id, why))
}

// listRetryAfter is when a client may retry after the database has failed.
const listRetryAfter = time.Second
