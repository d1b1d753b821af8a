package sqldb

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"text/template"

	"github.com/ringside-cache/ringside/origin"
)

//go:embed changes/*.sql
var changesFiles embed.FS

const (
	// manyRows is how many rows one statement may change in PostgreSQL before they are told of as one: any row.
	manyRows = 1000
	// toldKeyBytes is the longest key that is told of by PostgreSQL, as a cache holds none that is longer. A payload of
	// NOTIFY has less than 8000 bytes, and JSON makes at most six of one.
	toldKeyBytes = 1024
	// keptChanges is how many rows of changes SQLite keeps.
	keptChanges = 100_000
	// maxIdentifier is the longest name in PostgreSQL, in bytes; MySQL takes one more.
	maxIdentifier = 63
)

// recorder is what differs between databases in how changes are recorded and read.
type recorder interface {
	// locate finds the table of a dataset.
	locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (located, error)
	// scripts names the file in changes/ with the statements.
	scripts() string
	// apply runs a script of ChangesSQL.
	apply(ctx context.Context, conn *sql.Conn, script string) error
	// denied reports whether err says that the account lacks a right.
	denied(err error) bool
	// missing reports whether err says that there is no such table.
	missing(err error) bool
	// covered returns the events of a table of which no trigger tells that contains all of words.
	covered(ctx context.Context, conn *sql.Conn, ds origin.Dataset, words []string) (missing []string, err error)
	// log returns a reader of a table of changes, whose name is quoted.
	log(table string) changeLog
}

// located is a table as the catalog has it.
type located struct {
	schema, table string
	keyText       func(column string) string // the expression for a key as Load compares it
}

// tableOf returns where changes of ds are recorded, as table or schema.table.
func tableOf(c origin.FeedConfig, ds origin.Dataset) string {
	schema, _ := splitTable(ds.Table)
	if schema == "" || strings.Contains(c.Table, ".") {
		return c.Table
	}
	return schema + "." + c.Table
}

// ChangesSQL returns the statements that a database needs for a feed, to be read and to be run by whoever may: install
// makes the triggers, and the table of origin.FeedPoll; it may be run again. Remove undoes it, but for the table, which other
// datasets may use. It connects, to name the schema of each object and to look at the columns: a trigger that is wrong
// makes the application's writes fail.
func (db *DB) ChangesSQL(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) (install, remove string, err error) {
	c = c.WithDefaults()
	if err := db.checkFeed(ds, c); err != nil {
		return "", "", err
	}
	if err := db.Check(ctx, ds); err != nil { //guard:trigger-column-there
		return "", "", err
	}
	s := script{Dataset: ds, config: c, dialect: db.dialect}
	err = db.onConn(ctx, func(conn *sql.Conn) (err error) {
		s.at, err = db.dialect.locate(ctx, conn, ds)
		return err
	})
	if err == nil {
		err = s.check()
	}
	if err == nil {
		install, remove, err = s.write()
	}
	if err != nil {
		return "", "", fmt.Errorf("origin %q, dataset %q: table %s: %w", db.name, ds.Name, ds.Table, err)
	}
	return install, remove, nil
}

// InstallChanges makes in the database what ChangesSQL shows. Other statements of this package never write unless told
// to; this one needs an account that may make triggers.
func (db *DB) InstallChanges(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	install, _, err := db.ChangesSQL(ctx, ds, c)
	if err != nil {
		return err
	}
	return db.applyChanges(ctx, ds, install)
}

// RemoveChanges undoes InstallChanges, but for the table of changes, which other datasets may use.
func (db *DB) RemoveChanges(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	_, remove, err := db.ChangesSQL(ctx, ds, c)
	if err != nil {
		return err
	}
	return db.applyChanges(ctx, ds, remove)
}

func (db *DB) applyChanges(ctx context.Context, ds origin.Dataset, script string) error {
	conn, err := db.writes.Conn(ctx)
	if err == nil {
		defer conn.Close() // the script has committed, or it has not
		err = db.dialect.apply(ctx, conn, script)
	}
	switch {
	case err == nil:
		return nil
	case db.dialect.denied(err):
		err = fmt.Errorf("the account of the DSN may not do this: have one that may run what "+
			"`ringside changes sql %s` prints: %w", ds.Name, err)
	}
	return fmt.Errorf("origin %q, dataset %q: %w", db.name, ds.Name, err)
}

// CheckFeed says whether a feed would hear of changes: whether it can be read by this account, and whether there are
// triggers, of ChangesSQL or others, that name its channel or table, and the dataset. What is missing is an
// origin.ErrFeedUnavailable; other errors say nothing of the feed.
func (db *DB) CheckFeed(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	c = c.WithDefaults()
	if err := db.checkFeed(ds, c); err != nil {
		return err
	}
	err := db.checkReading(ctx, ds, c)
	if err == nil {
		err = db.checkTriggers(ctx, ds, c)
	}
	if err != nil {
		return fmt.Errorf("origin %q, dataset %q: feed: %w", db.name, ds.Name, err)
	}
	return nil
}

// checkReading reads as the feed would.
func (db *DB) checkReading(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	feed, err := db.Feed(ds, c)
	if err != nil {
		return err
	}
	if f, ok := feed.(*notifyFeed); ok {
		l, err := f.listen(ctx)
		if err != nil {
			return err
		}
		defer l.close()
		return nil
	}
	log := feed.(*pollFeed).log
	err = db.onConn(ctx, func(conn *sql.Conn) error {
		if err := log.begin(ctx, conn); err != nil {
			return err
		}
		_, _, err := log.next(ctx, conn, 1)
		return err
	})
	return db.unread(err, tableOf(c, ds), ds.Name)
}

// unread says what keeps a table of changes from being read, and what to do.
func (db *DB) unread(err error, table, dataset string) error {
	switch {
	case err == nil:
		return nil
	case db.dialect.denied(err):
		return fmt.Errorf("%w: the account of the DSN may not read %s: GRANT SELECT on it: %w", origin.ErrFeedUnavailable, table, err)
	case db.dialect.missing(err):
		return fmt.Errorf("%w: %s is not there: run `ringside changes apply %s`: %w", origin.ErrFeedUnavailable, table, dataset, err)
	}
	return fmt.Errorf("%s can not be read: %w", table, err)
}

func (db *DB) checkTriggers(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	_, table := splitTable(tableOf(c, ds))
	words := []string{table, "'" + ds.Name + "'"}
	if c.Kind == origin.FeedNotify {
		words[0] = "'" + c.Channel + "'"
	}
	var missing []string
	err := db.onConn(ctx, func(conn *sql.Conn) (err error) {
		missing, err = db.dialect.covered(ctx, conn, ds, words)
		return err
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: no trigger of table %s tells of %s: run `ringside changes apply %s`", origin.ErrFeedUnavailable, ds.Table,
			strings.Join(missing, ", "), ds.Name)
	}
	return err
}

// script is what the templates in changes/ are about.
type script struct {
	Dataset origin.Dataset
	config  origin.FeedConfig
	dialect dialect
	at      located
}

// quoteOfBody is what begins and ends the body of PostgreSQL's function.
const quoteOfBody = "$ringside$"

// check refuses names that would end what they stand in, where no quotes help.
func (s script) check() error {
	_, sqlite := s.dialect.(sqlite)
	if schema, _ := splitTable(s.config.Table); sqlite && schema != "" && schema != s.at.schema {
		return fmt.Errorf("changes table %s: a trigger of SQLite can only write to its own file", s.config.Table)
	}
	for _, name := range []string{s.at.schema, s.at.table, s.Dataset.Key, s.Dataset.Version, s.config.Table} {
		if strings.Contains(name, quoteOfBody) || strings.ContainsAny(name, "\n\r\x00") {
			return fmt.Errorf("the name %q can not be part of a trigger: rename it, or write the trigger by hand", name)
		}
	}
	return nil
}

func (s script) write() (install, remove string, err error) {
	t, err := template.ParseFS(changesFiles, "changes/"+s.dialect.scripts())
	if err != nil {
		return "", "", err
	}
	var texts [2]strings.Builder
	err = errors.Join(t.ExecuteTemplate(&texts[0], "install", s), t.ExecuteTemplate(&texts[1], "remove", s))
	return texts[0].String(), texts[1].String(), err
}

// The rest is what the templates call.

// Polled reports whether the changes are recorded in a table.
func (s script) Polled() bool { return s.config.Kind == origin.FeedPoll }

// Channel returns the channel of NOTIFY; it needs no quotes.
func (s script) Channel() string { return s.config.Channel }

// Many returns manyRows.
func (s script) Many() int { return manyRows }

// MaxKey returns toldKeyBytes.
func (s script) MaxKey() int { return toldKeyBytes }

// Kept returns keptChanges.
func (s script) Kept() int { return keptChanges }

// Literal is what stands between the quotes of a string.
func (s script) Literal(text string) string { return strings.ReplaceAll(text, "'", "''") }

// Quote quotes an identifier.
func (s script) Quote(name string) string { return s.dialect.quote(name) }

// Table returns the dataset's table with its schema, TableName without it, as a trigger of SQLite wants it.
func (s script) Table() string { return s.Quote(s.at.schema) + "." + s.Quote(s.at.table) }

// TableName is explained at Table.
func (s script) TableName() string { return s.Quote(s.at.table) }

// Changes returns the name of the table of changes, or of what belongs to it, with its schema.
func (s script) Changes(suffix string) string {
	schema, table := splitTable(s.config.Table)
	if schema == "" {
		schema = s.at.schema
	}
	return s.Quote(schema) + "." + s.Quote(table+suffix)
}

// ChangesTable is Changes without the schema.
func (s script) ChangesTable() string {
	_, table := splitTable(s.config.Table)
	return s.Quote(table)
}

// XidIndex names an index of the table of changes.
func (s script) XidIndex() string {
	_, table := splitTable(s.config.Table)
	return short(table, "_xid")
}

// Name names what belongs to the dataset, Object with the schema of its table. Two kinds can be there side by side.
func (s script) Name(suffix string) string {
	return short("ringside_"+s.config.Kind+"_"+s.Dataset.Name, suffix)
}

// Object is explained at Name.
func (s script) Object(suffix string) string {
	return s.Quote(s.at.schema) + "." + s.Quote(s.Name(suffix))
}

// Column returns the key of a row, Key what it is told as, Version the version to tell, 0 for none.
func (s script) Column(row string) string { return row + "." + s.Quote(s.Dataset.Key) }

// Key is explained at Column.
func (s script) Key(row string) string { return s.at.keyText(s.Column(row)) }

// Version is explained at Column.
func (s script) Version(row string) string {
	if s.Dataset.Version == "" {
		return "0"
	}
	return "COALESCE(" + row + "." + s.Quote(s.Dataset.Version) + ", 0)"
}

// short returns name+suffix, with a digest in the place of what is too long. PostgreSQL would cut it, and take two for
// one.
func short(name, suffix string) string {
	if len(name)+len(suffix) <= maxIdentifier {
		return name + suffix
	}
	sum := sha256.Sum256([]byte(name))
	digest := "_" + hex.EncodeToString(sum[:4])
	return name[:maxIdentifier-len(digest)-len(suffix)] + digest + suffix
}
