// Package mysql implements sqldb.Database for MySQL and MariaDB.
package mysql

import (
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/mysql/session"
)

// Driver returns the driver of MySQL and MariaDB.
func Driver() origin.Driver {
	return sqldb.Driver{Kind: "mysql", Feeds: []string{origin.FeedPoll}, Connect: connect, Unencrypted: session.ClearText}
}

func connect(c origin.SourceConfig) (*sqldb.Database, error) {
	connector, credentials, err := session.Open(c)
	if err != nil {
		return nil, err
	}
	s := &server{}
	r := &reader{server: s}
	return &sqldb.Database{
		Reads: connector, Credentials: credentials,
		Syntax: syntax{}, Reader: r, Catalog: catalog{s}, Writer: writer{r}, Errors: errorClasses{}, Triggers: triggers{s},
		IsReadOnly: isReadOnly,
	}, nil
}
