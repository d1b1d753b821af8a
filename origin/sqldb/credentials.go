package sqldb

import (
	"sync/atomic"

	"github.com/ringside-cache/ringside/origin"
)

// Account is a database and the account that connects to it.
type Account struct{ Target, User, Password string }

// Credentials are the user and the password of new connections: those of the current DSN, as long as it names the same
// database. Connections to two databases in one pool would return contradictory values.
type Credentials struct {
	reload func() (Account, error)
	latest atomic.Pointer[Account] // of the connected database
}

// NewCredentials reads the DSN with parse, whose errors contain no part of the DSN.
func NewCredentials(config origin.SourceConfig, parse func(dsn string) (Account, error)) (*Credentials, error) {
	first, err := parse(config.DSN)
	if err != nil {
		return nil, err
	}
	c := &Credentials{reload: func() (Account, error) { return first, nil }}
	if config.ReloadDSN != nil {
		c.reload = func() (Account, error) {
			dsn, err := config.ReloadDSN()
			if err != nil {
				return Account{}, err
			}
			return parse(dsn)
		}
	}
	c.latest.Store(&first)
	return c, nil
}

// Current returns the account for the next connection. It stays the same while the DSN cannot be read: its file may be
// about to be replaced.
func (c *Credentials) Current() Account {
	if a, err := c.reload(); err == nil && a.Target == c.latest.Load().Target { //guard:password-of-another-database-sent
		c.latest.Store(&a)
	}
	return *c.latest.Load()
}

// targetChanged reports whether the DSN now names another database.
func (c *Credentials) targetChanged() bool {
	a, err := c.reload()
	return err == nil && a.Target != c.latest.Load().Target
}
