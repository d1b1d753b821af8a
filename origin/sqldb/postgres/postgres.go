// Package postgres implements sqldb.Database for PostgreSQL. It works below database/sql, with pgconn: only there do a
// statement and its time limit share a round trip, and only there do values arrive as the text that PostgreSQL prints,
// which exists for every type.
package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/changes"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/dsn"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/logical"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
)

// Driver returns the driver of PostgreSQL.
func Driver() origin.Driver {
	return sqldb.Driver{
		Kind: "postgres", Feeds: []string{origin.FeedNotify, origin.FeedPoll, origin.FeedLogical},
		Connect: connect, Unencrypted: dsn.ClearText,
	}
}

// connector makes connections with the current credentials.
type connector struct {
	config      *pgx.ConnConfig // of connections outside the pool
	credentials *sqldb.Credentials
	settings    *session.Settings
}

func connect(c origin.SourceConfig) (*sqldb.Database, error) {
	config, ofDSN, err := parseDSN(c.DSN)
	if err != nil {
		return nil, err
	}
	credentials, err := sqldb.NewCredentials(c, parseAccount)
	if err != nil {
		return nil, err
	}
	p := connector{config, credentials, session.New(ofDSN)}
	reads := stdlib.GetConnector(*config, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		p.renew(&c.Config) //guard:postgres-password-not-reloaded
		return nil
	}), stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error { return p.start(ctx, c.PgConn()) }))
	return &sqldb.Database{
		Reads: plainConnector{reads}, ReadsOnly: dsn.ReadsOnly(c.DSN), Credentials: credentials,
		Syntax: syntax{}, Reader: reader{}, Catalog: catalog{}, Writer: writer{p.settings}, Errors: errorClasses{},
		Triggers: changes.Triggers{Syntax: syntax{}}, Notify: p.notify, IsReadOnly: isReadOnly,
		Logical: logical.Decoding{Connect: logical.Connect{Queries: p.openQueries, Replication: p.openReplication}, Syntax: syntax{}},
	}, nil
}

// start closes a connection whose settings cannot be set.
func (p connector) start(ctx context.Context, conn *pgconn.PgConn) error {
	err := p.settings.Start(ctx, conn)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqldb.RollbackTimeout)
		defer cancel()
		_ = conn.Close(ctx) // it is dropped either way
	}
	return err
}

// notify returns the feed of a dataset.
func (p connector) notify(c changefeed.NotifyConfig) changefeed.Feed {
	return changes.Notify(c, p.open)
}

// open opens a connection of a feed.
func (p connector) open(ctx context.Context, handle pgconn.NotificationHandler) (*pgconn.PgConn, error) {
	conn, err := p.dial(ctx, func(c *pgconn.Config) { c.OnNotification = handle })
	if err != nil {
		return nil, err
	}
	return conn, p.start(ctx, conn)
}

func (p connector) openQueries(ctx context.Context) (*pgconn.PgConn, error) { return p.open(ctx, nil) }

func (p connector) openReplication(ctx context.Context) (*pgconn.PgConn, error) {
	return p.dial(ctx, logical.Prepare)
}

// dial opens a connection outside the pool.
func (p connector) dial(ctx context.Context, change func(*pgconn.Config)) (*pgconn.PgConn, error) {
	config := p.config.Config.Copy()
	p.renew(config) //guard:notify-password-not-reloaded
	change(config)
	ctx, cancel := context.WithTimeout(ctx, changefeed.AnswerTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, plainConnect(err)
	}
	return conn, nil
}

// parseDSN returns the configuration of connections, and the settings in the DSN.
func parseDSN(text string) (config *pgx.ConnConfig, ofDSN []dsn.Parameter, err error) {
	return dsn.Parse(text, session.Own())
}

// parseAccount returns all hosts of the DSN as the target.
func parseAccount(text string) (sqldb.Account, error) {
	c, _, err := parseDSN(text)
	if err != nil {
		return sqldb.Account{}, err
	}
	address := fmt.Sprintf("%s %s:%d", c.Database, c.Host, c.Port)
	for _, f := range c.Fallbacks {
		address += fmt.Sprintf(" %s:%d", f.Host, f.Port)
	}
	return sqldb.Account{Target: address, User: c.User, Password: c.Password}, nil
}

// renew sets the current user and password in c, which is a copy.
func (p connector) renew(c *pgconn.Config) {
	now := p.credentials.Current()
	c.User, c.Password = now.User, now.Password
}

// plainConnector reports a failed connection in one line: pgx writes a line for each address and TLS mode that it tried.
type plainConnector struct{ driver.Connector }

func (c plainConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, plainConnect(err) //guard:connection-error-has-several-lines
	}
	return conn, nil
}

// plainConnect joins the lines of an error, each once.
func plainConnect(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	if first := strings.TrimSuffix(lines[0], ":"); len(lines) > 1 {
		slices.Sort(lines[1:])
		lines = []string{first + ": " + strings.Join(slices.Compact(lines[1:]), "; ")}
	}
	if notWanted(err) {
		lines[0] += "; no host of the DSN is what its target_session_attrs asks for"
	}
	return &sqldb.PlainError{Text: lines[0], Err: err}
}

// notWanted reports whether a server was reached that is not what target_session_attrs asks for.
func notWanted(err error) bool {
	return slices.ContainsFunc([]error{pgconn.ErrReadOnlyConnection, pgconn.ErrReadWriteConnection, pgconn.ErrPrimaryConnection,
		pgconn.ErrStandbyConnection}, func(one error) bool { return errors.Is(err, one) })
}
