package sqldb

import (
	"sync/atomic"

	"github.com/ringside-cache/ringside/origin"
)

// account is whose connections are made, and to what.
type account struct{ address, user, password string }

// login is what each new connection is made with: the user and the password that the DSN has by then, for as long as it
// is of the same database. Connections to two databases in one pool would answer with two truths.
type login struct {
	again  func() (account, error)
	latest atomic.Pointer[account] // that was of the same database
}

// login reads accounts by parse, whose errors hold no part of the DSN.
func newLogin(c origin.SourceConfig, parse func(dsn string) (account, error)) (*login, error) {
	first, err := parse(c.DSN)
	if err != nil {
		return nil, err
	}
	l := &login{again: func() (account, error) { return first, nil }}
	if c.ReloadDSN != nil {
		l.again = func() (account, error) {
			dsn, err := c.ReloadDSN()
			if err != nil {
				return account{}, err
			}
			return parse(dsn)
		}
	}
	l.latest.Store(&first)
	return l, nil
}

// now stays as it was while the DSN cannot be read: it may be about to be replaced.
func (l *login) now() account {
	if a, err := l.again(); err == nil && a.address == l.latest.Load().address { //guard:another-databases-password-sent-this-one
		l.latest.Store(&a)
	}
	return *l.latest.Load()
}

// targetChanged reports whether the DSN has become that of another database.
func (l *login) targetChanged() bool {
	a, err := l.again()
	return err == nil && a.address != l.latest.Load().address
}
