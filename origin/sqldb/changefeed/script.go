package changefeed

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

const (
	// manyRows is how many rows one statement may change in PostgreSQL before the trigger reports that any row may have
	// changed.
	manyRows = 1000
	// maxNotifiedKey is the longest key that PostgreSQL's trigger reports; a cache holds no longer one. A payload of NOTIFY
	// has less than 8000 bytes, and JSON writes at most six for one.
	maxNotifiedKey = 1024
	// maxIdentifier is the longest name in PostgreSQL, in bytes; MySQL allows one more.
	maxIdentifier = 63
)

// Triggers are how one kind of database records and reads changes.
type Triggers interface {
	// Locate returns the table of a dataset as the catalog has it.
	Locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (Table, error)
	// Script returns a text/template that defines "install" and "remove". It is executed with a *script.
	Script() string
	// OwnSchemaOnly reports whether a trigger can only write to tables in the schema of its own table.
	OwnSchemaOnly() bool
	// Apply runs an executed script.
	Apply(ctx context.Context, conn *sql.Conn, text string) error
	// MissingEvents returns the events of a table for which no trigger contains all of marks.
	MissingEvents(ctx context.Context, conn *sql.Conn, ds origin.Dataset, marks []string) ([]string, error)
	// Log returns a reader of a table of changes, whose name is quoted.
	Log(table string) Log
}

// located is a table as the catalog has it.
type Table struct {
	Schema, Name string
	KeyText      func(row string) string // the expression for the key of a row as Load compares it; see KeyText
	// Warnings say what the triggers do not report, and NotifyWarnings what those of origin.FeedNotify make impossible.
	Warnings, NotifyWarnings []string
	// EachRow says that statements on other tables change rows of this one, as with partitions: only triggers for each row
	// notice them.
	EachRow bool
	// Descendants are tables, each with its schema, whose rows are also rows of this one and need triggers of their own.
	Descendants [][2]string
	// Partitions are tables that inherit the triggers for each row, but not those for TRUNCATE.
	Partitions [][2]string
	// Unique are the columns of unique indexes other than that of the key, by which SQLite's REPLACE finds rows to delete.
	Unique [][]UniqueColumn
}

// KeyText returns the expression for the key of a row, as origin.JoinKey writes it: texts have the expressions for its columns,
// and join concatenates expressions.
func KeyText(s sqltext.Syntax, columns []string, texts []func(column string) string, join func(texts []string) string) func(string) string {
	return func(row string) string {
		parts := sqltext.QuoteAll(s, row+".", columns)
		for i, column := range parts {
			parts[i] = texts[i](column)
			if len(columns) > 1 {
				parts[i] = "replace(replace(" + parts[i] + ", '%', '%25'), '/', '%2F')" //guard:trigger-escapes-no-components
			}
		}
		if len(parts) == 1 {
			return parts[0]
		}
		return join(parts)
	}
}

// JoinWithPipes joins with the operator of the SQL standard.
func JoinWithPipes(texts []string) string { return strings.Join(texts, " || '/' || ") }

// UniqueColumn is a column of a unique index.
type UniqueColumn struct{ Name, Collation string }

// ErrKeyType returns the error about a key column whose type a trigger does not print as a read does.
func ErrKeyType(name, why string) error {
	return fmt.Errorf("key: a trigger cannot print a key of type %s as reads do: %s; use a column of another type as key, or no feed",
		name, why)
}

// script is the data of the templates, which call its methods.
type script struct {
	Dataset origin.Dataset
	config  origin.FeedConfig
	syntax  sqltext.Syntax
	at      Table
	several bool // other tables report changes of the dataset, too
}

// executeScript returns the statements that install, and those that remove, the triggers of a feed.
func Script(of Source, c origin.FeedConfig, s sqltext.Syntax, tr Triggers, at Table) (install, remove string, err error) {
	data := &script{of.Dataset, c, s, at, of.Several}
	if err := data.checkNames(tr.OwnSchemaOnly()); err != nil {
		return "", "", err
	}
	t, err := template.New("").Parse(tr.Script())
	if err != nil {
		return "", "", err
	}
	var texts [2]strings.Builder
	err = errors.Join(t.ExecuteTemplate(&texts[0], "install", data), t.ExecuteTemplate(&texts[1], "remove", data))
	return texts[0].String(), texts[1].String(), err
}

// bodyQuote begins and ends the body of PostgreSQL's function.
const bodyQuote = "$ringside$"

// checkNames rejects names that would end their surroundings in the script, where quotes do not help.
func (s *script) checkNames(ownSchemaOnly bool) error {
	if schema, _ := sqltext.SplitTable(s.config.Table); ownSchemaOnly && schema != "" && schema != s.at.Schema {
		return fmt.Errorf("changes table %s: a trigger of SQLite can only write to its own file", s.config.Table)
	}
	for _, name := range append([]string{s.at.Schema, s.at.Name, s.Dataset.Version, s.config.Table}, s.Dataset.Key...) {
		if strings.Contains(name, bodyQuote) || strings.ContainsAny(name, "\n\r\x00") {
			return fmt.Errorf("the name %q cannot be part of a trigger: rename it, or write the trigger by hand", name)
		}
	}
	return nil
}

// Polled reports whether the changes are recorded in a table.
func (s *script) Polled() bool { return s.config.Kind == origin.FeedPoll }

// RandomChannel reports whether a table has the name of the channel of NOTIFY.
func (s *script) RandomChannel() bool { return !s.Polled() && s.config.Channel == "" }

// ChannelTable returns the name of that table with its schema.
func (s *script) ChannelTable() string { return s.qualified([2]string{s.at.Schema, ChannelTable}) }

// Channel returns the expression for the channel of NOTIFY. Its name needs no quotes.
func (s *script) Channel() string {
	if s.RandomChannel() {
		return "(SELECT c.channel FROM " + s.ChannelTable() + " AS c)"
	}
	return "'" + s.config.Channel + "'"
}

// Many returns manyRows.
func (s *script) Many() int { return manyRows }

// MaxKey returns maxNotifiedKey.
func (s *script) MaxKey() int { return maxNotifiedKey }

// Kept returns how many rows of changes SQLite keeps.
func (s *script) Kept() int { return s.config.KeepRows }

// Literal escapes text for the inside of a string literal.
func (s *script) Literal(text string) string { return strings.ReplaceAll(text, "'", "''") }

// Quote quotes an identifier.
func (s *script) Quote(name string) string { return s.syntax.Quote(name) }

// Table returns the dataset's table with its schema.
func (s *script) Table() string { return s.qualified([2]string{s.at.Schema, s.at.Name}) }

func (s *script) qualified(table [2]string) string {
	return s.Quote(table[0]) + "." + s.Quote(table[1])
}

func (s *script) qualifiedAll(tables [][2]string) []string {
	names := make([]string, len(tables))
	for i, table := range tables {
		names[i] = s.qualified(table)
	}
	return names
}

// Tables returns the dataset's table and its descendants, which need the same triggers.
func (s *script) Tables() []string {
	return append([]string{s.Table()}, s.qualifiedAll(s.at.Descendants)...)
}

// Partitions returns the tables that only need a trigger for TRUNCATE.
func (s *script) Partitions() []string { return s.qualifiedAll(s.at.Partitions) }

// Warnings returns what an operator must know before installing the triggers.
func (s *script) Warnings() []string {
	if s.Polled() {
		return s.at.Warnings
	}
	return slices.Concat(s.at.Warnings, s.at.NotifyWarnings)
}

// Unique returns the unique indexes by which SQLite may replace rows.
func (s *script) Unique() [][]UniqueColumn { return s.at.Unique }

// EachRow reports whether the triggers run for each row.
func (s *script) EachRow() bool { return s.at.EachRow } //guard:partition-statement-not-reported

// NewRow returns the name of a row after the change.
func (s *script) NewRow() string { return map[bool]string{true: "NEW", false: "n"}[s.at.EachRow] }

// OldRow returns the name of a row before the change.
func (s *script) OldRow() string { return map[bool]string{true: "OLD", false: "o"}[s.at.EachRow] }

// FromNewRows returns the FROM clause for the rows after the change.
func (s *script) FromNewRows() string {
	return map[bool]string{false: "FROM new_rows AS n "}[s.at.EachRow]
}

// FromOldRows returns the FROM clause for the rows before the change.
func (s *script) FromOldRows() string {
	return map[bool]string{false: "FROM old_rows AS o "}[s.at.EachRow]
}

// TableName returns the dataset's table without its schema, as a trigger of SQLite requires.
func (s *script) TableName() string { return s.Quote(s.at.Name) }

// Changes returns the name of the table of changes, or of an object that belongs to it, with its schema.
func (s *script) Changes(suffix string) string {
	schema, table := sqltext.SplitTable(s.config.Table)
	if schema == "" {
		schema = s.at.Schema
	}
	return s.Quote(schema) + "." + s.Quote(table+suffix)
}

// ChangesTable returns the name of the table of changes without its schema.
func (s *script) ChangesTable() string {
	_, table := sqltext.SplitTable(s.config.Table)
	return s.Quote(table)
}

// XidIndex names an index of the table of changes.
func (s *script) XidIndex() string {
	_, table := sqltext.SplitTable(s.config.Table)
	return short(table, "_xid")
}

// Name names an object that belongs to the dataset. Those of two kinds of feeds can exist together.
func (s *script) Name(suffix string) string {
	name := "ringside_" + s.config.Kind + "_" + s.Dataset.Name
	if s.several {
		name += "." + s.at.Name //guard:tables-share-the-name-of-a-trigger
	}
	return short(name, suffix)
}

// Object is Name with the schema of the dataset's table.
func (s *script) Object(suffix string) string {
	return s.Quote(s.at.Schema) + "." + s.Quote(s.Name(suffix))
}

// HasKey returns the condition that no column of the key of a row is NULL.
func (s *script) HasKey(row string) string {
	return sqltext.AndAll(s.Dataset.Key, func(_ int, column string) string { return row + "." + s.Quote(column) + " IS NOT NULL" })
}

// Key returns the expression for the reported key of a row.
func (s *script) Key(row string) string { return s.at.KeyText(row) }

// Version returns the expression for the reported version of a row; 0 for none.
func (s *script) Version(row string) string {
	if s.Dataset.Version == "" {
		return "0"
	}
	return "COALESCE(" + row + "." + s.Quote(s.Dataset.Version) + ", 0)"
}

// short returns name+suffix, and replaces the end of a name that is too long by a digest. PostgreSQL would cut such a
// name, and confuse two of them.
func short(name, suffix string) string {
	if len(name)+len(suffix) <= maxIdentifier {
		return name + suffix
	}
	sum := sha256.Sum256([]byte(name))
	digest := "_" + hex.EncodeToString(sum[:4])
	return name[:maxIdentifier-len(digest)-len(suffix)] + digest + suffix
}
