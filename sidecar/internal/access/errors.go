package access

import (
	"fmt"
	"time"
)

// DeniedError is the error of a request that its caller may not make. It says what is missing, not who has it.
type DeniedError struct {
	Dataset   string
	Operation Operation
	Caller    string // without secrets
	// Unauthenticated means that a token could help, and none or a wrong one was sent.
	Unauthenticated bool
	// WrongToken means that an Authorization header was sent that is not a known token.
	WrongToken bool
}

func (e *DeniedError) Error() string {
	what := fmt.Sprintf("permission %s on dataset %s is missing", e.Operation, e.Dataset)
	switch {
	case e.Unauthenticated && e.WrongToken:
		return what + ": the Authorization header has no valid token; send Authorization: Bearer with a current one"
	case e.Unauthenticated:
		return what + ": send a token as Authorization: Bearer"
	}
	return fmt.Sprintf("%s for this caller (%s); see allow.%s in the configuration of the dataset", what, e.Caller, e.Operation)
}

// Challenge is the value of WWW-Authenticate with this error (RFC 6750, 3), or empty.
func (e *DeniedError) Challenge() string {
	switch {
	case !e.Unauthenticated:
		return ""
	case e.WrongToken:
		return `Bearer realm="ringside", error="invalid_token"`
	}
	return `Bearer realm="ringside"`
}

// LimitedError is the error of a request that exceeds a rate limit.
type LimitedError struct {
	Dataset    string
	Kind       Kind
	Rate       Rate
	RetryAfter time.Duration // when as many units as the request needs are available
}

func (e *LimitedError) Error() string {
	return fmt.Sprintf("dataset %s: this client has reached the limit of %s %s; see limits.%s in the configuration of the dataset",
		e.Dataset, e.Rate, e.Kind.text(), e.Kind)
}
