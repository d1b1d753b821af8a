// Package errclass says whom an error of a database concerns: the keys and values of one statement, or everybody. Each
// database has one table from its codes to classes. A code that is in no table belongs to the statement: a wrong guess then
// costs one caller an answer, whereas the opposite guess rejects the keys of all callers.
package errclass

import (
	"database/sql/driver"
	"errors"
)

// Class says whom an error concerns.
type Class uint8

const (
	// Origin concerns everybody: the server cannot be used, lacks resources, or rejects every statement. It is the class of
	// every error that the database has not reported.
	Origin Class = iota
	// Statement concerns the keys or the value of the statement. Other keys and values may succeed.
	Statement
	// Row concerns rows that the database cannot read. Other rows can be read, and the caller is not at fault.
	Row
	// Broken says that the session has ended, and that the statement has had no effect. Another connection may succeed.
	Broken
	// Retry says that the database aborted the statement for another one. The same connection may succeed.
	Retry
	// Outdated says that the statement does not fit the schema, which may have changed since the statement was written.
	Outdated
	// NoTable is Outdated, and the table does not exist.
	NoTable
	// TimedOut says that the database ended the statement at its time limit.
	TimedOut
	// Denied says that the account lacks a right.
	Denied
	// ReadOnly says that the server accepts no writes: it is a standby, or was a primary.
	ReadOnly
)

// OfKeys reports whether the keys of a statement must be read separately.
func (c Class) OfKeys() bool { return c == Statement || c == Row }

// Retryable reports whether a read may succeed at once on another connection.
func (c Class) Retryable() bool { return c == Broken || c == Retry || c == Outdated }

// keyless is an error of a statement that has neither keys nor a value.
type keyless struct{ error }

func (e keyless) Unwrap() error { return e.error }

// Keyless marks an error of a statement that has neither keys nor a value, so that it is not attributed to them.
func Keyless(err error) error {
	if err == nil {
		return nil
	}
	return keyless{err}
}

// changed is an error of class Outdated.
type changed struct{ error }

func (e changed) Unwrap() error { return e.error }

// Changed returns an error of class Outdated.
func Changed(err error) error { return changed{err} }

// Of returns the class of err. It is the one that classify returns unless a function of this package has marked err.
func Of(err error, classify func(error) Class) Class {
	class := classify(err)
	if _, ok := errors.AsType[changed](err); ok {
		return Outdated
	}
	_, noKeys := errors.AsType[keyless](err)
	switch {
	case class == Origin && errors.Is(err, driver.ErrBadConn):
		return Broken
	case noKeys && (class.OfKeys() || class == Outdated): //guard:connection-error-blamed-on-key
		return Origin
	}
	return class
}

// broken is an error after which the pool must drop the connection.
type broken struct{ error }

func (e broken) Unwrap() []error { return []error{e.error, driver.ErrBadConn} }

// DropConn makes database/sql drop the connection, and keeps the text and the class of err.
func DropConn(err error) error { return broken{err} }
