package origin

import (
	"errors"
	"fmt"
)

// DataError is the result of a key whose rows cannot be its value. It is an answer of the origin, as ErrNotFound is: it stays
// the same until somebody corrects the rows, so that a retry does not help, and it replaces what was cached of the key.
type DataError struct {
	Cause DataCause
	// Text says what is wrong with the rows, and what to do. It contains nothing of the rows.
	Text string
}

// NewDataError returns a DataError whose text is formatted.
func NewDataError(cause DataCause, format string, args ...any) *DataError {
	return &DataError{Cause: cause, Text: fmt.Sprintf(format, args...)}
}

func (e *DataError) Error() string { return e.Text }

// DataCause is what is wrong with the rows of a key; 0: nothing.
type DataCause uint8

// The causes of data errors. Members send their numbers to each other.
const (
	SeveralRows    DataCause = iota + 1 // more than one row, where the dataset promises one
	TooLarge                            // the value exceeds the limit
	InvalidVersion                      // the version column has no integer
	InvalidExpiry                       // the column of the expiry has no time
	UnknownCause                        // one that only a later release knows; the last one
)

// DataCauses is the number of causes, with 0.
const DataCauses = int(UnknownCause) + 1

func (c DataCause) String() string {
	return [...]string{"none", "several-rows", "too-large", "invalid-version", "invalid-expiry", "unknown"}[min(c, UnknownCause)]
}

// CauseOf returns the cause of the data error in err; 0 if there is none.
func CauseOf(err error) DataCause {
	if e, ok := errors.AsType[*DataError](err); ok {
		return e.Cause
	}
	return 0
}
