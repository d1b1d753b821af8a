// Package sqlite implements sqldb.Database for SQLite. The file may be another process's: it is opened read-only, except
// by the one connection that writes.
package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	sqlitedriver "modernc.org/sqlite"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// Driver returns the driver of SQLite.
func Driver() origin.Driver {
	return sqldb.Driver{Kind: "sqlite", Feeds: []string{origin.FeedPoll}, Connect: connect}
}

// busySlice is how long a statement waits for another connection at a time: SQLite sleeps while it waits, even if the
// context is cancelled. Waits are repeated until the context is done. In WAL mode readers hardly ever wait.
const busySlice = 20 * time.Millisecond

func connect(c origin.SourceConfig) (*sqldb.Database, error) {
	if c.Comment != nil {
		return nil, errComment
	}
	read, write, err := connectionURIs(c.DSN)
	if err != nil {
		return nil, err
	}
	reads, err := sqlitedriver.NewConnector(read)
	if err != nil {
		return nil, errBadDSN
	}
	writes, err := sqlitedriver.NewConnector(write)
	if err != nil {
		return nil, errBadDSN
	}
	credentials, err := sqldb.NewCredentials(c, func(dsn string) (sqldb.Account, error) {
		return sqldb.Account{Target: dsn}, nil // there are no accounts
	})
	if err != nil {
		return nil, err
	}
	path, _, _ := strings.Cut(strings.TrimPrefix(c.DSN, "file:"), "?")
	database := &sqldb.Database{
		Reads:  fileConnector{sessionConnector{reads, pragmasOfReads}, path},
		Writes: fileConnector{sessionConnector{writes, pragmasOfWrites}, path}, Credentials: credentials,
		Syntax: syntax{}, Reader: patientReader{}, Catalog: patientCatalog{}, Writer: writer{}, Errors: errorClasses{}, Triggers: triggers{},
		IntegerTimes: true,
	}
	if f := newFile(c.DSN); f != nil {
		database.Target = f.target
	}
	return database, nil
}

// fileConnector reports the file that cannot be opened, and nothing else of the DSN.
type fileConnector struct {
	driver.Connector
	path string
}

func (c fileConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, (&file{path: c.path}).explain(err)
	}
	return conn, nil
}

// foreign matches DSNs of other databases, which must not be printed as the path of a file.
var foreign = regexp.MustCompile(`://|@\w*\(|password\s*=`)

var errComment = errors.New("trace_comments: SQLite has no server that would show the comments; remove it")

var errBadDSN = errors.New("this is not a DSN of SQLite: give a path, or a URI such as file:/data/rows.db")

// connectionURIs turns the path or URI of a database into the URI of the connections that read, and that of the one that
// writes. Neither creates a file.
func connectionURIs(dsn string) (read, write string, err error) {
	path, query, isURI := strings.TrimPrefix(dsn, "file:"), "", strings.HasPrefix(dsn, "file:")
	if isURI {
		path, query, _ = strings.Cut(path, "?")
	} else {
		path = (&url.URL{Path: path}).EscapedPath()
	}
	values, err := url.ParseQuery(query)
	if path == "" || err != nil || foreign.MatchString(dsn) && !strings.HasPrefix(dsn, "file://") { //guard:foreign-dsn-printed-as-path
		return "", "", errBadDSN
	}
	if inMemory(path, values) {
		return "", "", errors.New("the DSN :memory: makes an empty database for each connection: use a file")
	}
	for _, name := range conversions {
		values.Del(name)
	}
	writes := maps.Clone(values)
	if !values.Has("mode") {
		values.Set("mode", "ro") //guard:sqlite-file-created
		writes.Set("mode", "rw")
	}
	values["_pragma"] = append(slices.Clone(values["_pragma"]), pragmaBusy(busySlice), "query_only(1)")
	writes["_pragma"] = append(slices.Clone(writes["_pragma"]), pragmaBusy(busySlice), "foreign_keys(1)")
	return "file:" + path + "?" + values.Encode(), "file:" + path + "?" + writes.Encode(), nil
}

// conversions are the parameters of the driver that change what it returns for a stored value.
var conversions = []string{"_texttotime", "_inttotime", "_timezone", "_time_format", "_time_integer_format"}
