package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
)

// dialect is what differs between databases.
type dialect interface {
	// quote makes an identifier of any name.
	quote(name string) string
	// keyColumn makes the expression whose text is compared with the keys that were asked for.
	keyColumn(column string) string
	// isAny follows a column in a condition, and is true for each of the keys of the statement's parameter.
	isAny() string
	// parameter is how a statement names its one parameter.
	parameter() string
	// describe returns the columns of a statement without reading its rows.
	describe(ctx context.Context, conn *sql.Conn, st *statement) ([]column, error)
	// read runs a statement for keys and gives its rows to c.
	read(ctx context.Context, conn *sql.Conn, st *statement, keys []string, c *collector) error
	// badKey reports whether err says that a key is not of the type of what it is compared with.
	badKey(err error) bool
	// timedOut reports whether err says that the database ended the statement because of its time.
	timedOut(err error) bool

	changer
	recorder
}

// connectors make the connections of a database.
type connectors struct {
	reads  driver.Connector
	writes driver.Connector // makes the one connection that writes; nil where those of reads can
	login  *login
}

// statement is a query with one parameter.
type statement struct {
	sql   string
	keyed bool // the first column of its result is the key
	list  bool // the parameter stands for many keys

	table, key string // of a statement that this package made; empty otherwise
}

// column describes one column of a result.
type column struct {
	name    string
	integer bool
}

// quoteWith quotes an identifier as SQL does: the quote inside is doubled.
func quoteWith(q, name string) string {
	return q + strings.ReplaceAll(name, q, q+q) + q
}

// expand writes the parameter of a list, (?), once per key.
func expand(st *statement, keys int) string {
	if !st.list {
		return st.sql
	}
	return strings.Replace(st.sql, listParameter, "(?"+strings.Repeat(",?", keys-1)+")", 1)
}

// listParameter is what stands for the keys in the batch statements of MySQL and SQLite.
const listParameter = "(?)"
