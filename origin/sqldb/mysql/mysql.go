// Package mysql implements sqldb.Database for MySQL and MariaDB.
package mysql

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// Driver returns the driver of MySQL and MariaDB.
func Driver() origin.Driver {
	return sqldb.Driver{Kind: "mysql", Feeds: []string{origin.FeedPoll}, Connect: connect}
}

func connect(c origin.SourceConfig) (*sqldb.Database, error) {
	config, err := mysqldriver.ParseDSN(c.DSN)
	if c.DSN == "" || err != nil || config.Net != "tcp" && config.Net != "unix" { // Net would be part of a password
		return nil, errBadDSN
	}
	config.ParseTime = false         // receive times as the database prints them
	config.InterpolateParams = false // keys are never part of a statement
	config.MultiStatements = false
	config.AllowAllFiles = false
	config.Logger = &mysqldriver.NopLogger{} // its messages are returned as errors too
	if config.Params == nil {
		config.Params = map[string]string{}
	}
	config.Params["time_zone"] = "'+00:00'"
	config.Params["sql_mode"] = "CONCAT(" + cmp.Or(config.Params["sql_mode"], "@@sql_mode") + ", ',STRICT_ALL_TABLES')" //guard:mysql-values-truncated
	//guard:unchanged-row-not-matched
	config.ClientFoundRows = true // an UPDATE that changes nothing has still matched its row
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
		Reads: readOnlyConnector{connector, config.Addr}, Credentials: credentials,
		Syntax: syntax{}, Reader: r, Catalog: catalog{s}, Writer: writer{r}, Errors: errorClasses{}, Triggers: triggers{s},
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
	c, err := mysqldriver.ParseDSN(dsn)
	if err != nil {
		return sqldb.Account{}, errBadDSN
	}
	return sqldb.Account{Target: c.Net + " " + c.Addr + " " + c.DBName, User: c.User, Password: c.Passwd}, nil
}

var errBadDSN = errors.New("this is not a DSN of MySQL; give one such as user:password@tcp(host:3306)/database?tls=true")

// readOnlyConnector makes connections that can only write in a transaction that begins with READ WRITE. A parameter of the
// DSN could not do this: the variable has two names (tx_read_only, transaction_read_only), and no server supports both.
type readOnlyConnector struct {
	driver.Connector
	addr string
}

func (c readOnlyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		// Servers of other databases wait for the client to begin.
		return nil, &sqldb.NoAnswerError{Server: "MySQL or MariaDB", Addr: c.addr, Err: ctx.Err()}
	case err != nil:
		return nil, err
	}
	_, err = conn.(driver.ExecerContext).ExecContext(ctx,
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", nil)
	if err != nil {
		_ = conn.Close() // the first error is returned
		return nil, fmt.Errorf("make the session read-only: %w", err)
	}
	return conn, nil
}
