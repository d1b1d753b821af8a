// Package mysql implements sqldb.Database for MySQL and MariaDB.
package mysql

import (
	"context"
	"database/sql/driver"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// Driver returns the driver of MySQL and MariaDB.
func Driver() origin.Driver {
	return sqldb.Driver{Kind: "mysql", Feeds: []string{origin.FeedPoll}, Connect: connect}
}

func connect(c origin.SourceConfig) (*sqldb.Database, error) {
	config, err := parseDSN(c.DSN)
	if err != nil {
		return nil, err
	}
	collation := collationOf(config)
	config.Collation = "" // a handshake with another character set than utf8mb4 is of no use
	credentials, err := sqldb.NewCredentials(c, parseAccount)
	if err != nil {
		return nil, err
	}
	connector, err := newConnector(config, credentials)
	if err != nil {
		return nil, errBadDSN
	}
	s := &server{}
	r := &reader{server: s}
	return &sqldb.Database{
		Reads: sessionConnector{connector, config.Addr, collation}, Credentials: credentials,
		Syntax: syntax{}, Reader: r, Catalog: catalog{s}, Writer: writer{r}, Errors: errorClasses{}, Triggers: triggers{s},
		IsReadOnly: isReadOnly,
	}, nil
}

func newConnector(config *mysqldriver.Config, credentials *sqldb.Credentials) (driver.Connector, error) {
	err := config.Apply(mysqldriver.BeforeConnect(func(_ context.Context, c *mysqldriver.Config) error {
		now := credentials.Current()
		c.User, c.Passwd = now.User, now.Password //guard:mariadb-password-not-reloaded
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return mysqldriver.NewConnector(config)
}

func parseAccount(dsn string) (sqldb.Account, error) {
	c, err := parseDSN(dsn)
	if err != nil {
		return sqldb.Account{}, err
	}
	return sqldb.Account{Target: c.Net + " " + c.Addr + " " + c.DBName, User: c.User, Password: c.Passwd}, nil
}
