package changefeed

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

const (
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
	// Script returns the statements that install the triggers of a table, and those that remove them.
	Script(tags *Tags) (install, remove string)
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

// Tags are what the scripts of one table of a feed contain in place of {{Tag}} and {{Tag argument}}: names and expressions that
// are quoted for the database. The scripts have no text/template because a program that executes one keeps every exported
// method of its types, a quarter of the size of the sidecar.
type Tags struct {
	Dataset origin.Dataset
	config  origin.FeedConfig
	syntax  sqltext.Syntax
	at      Table
	several bool // other tables report changes of the dataset, too
}

// Script returns the statements that install, and those that remove, the triggers of a feed.
func Script(of Source, c origin.FeedConfig, s sqltext.Syntax, tr Triggers, at Table) (install, remove string, err error) {
	tags := &Tags{of.Dataset, c, s, at, of.Several}
	if err := tags.checkNames(tr.OwnSchemaOnly()); err != nil {
		return "", "", err
	}
	install, remove = tr.Script(tags)
	return install + "\n", remove + "\n", nil
}

// tag finds the tags of a part, and the comments in it with the spaces before them.
var tag = regexp.MustCompile(` *\{\{/\*.*?\*/\}\}|\{\{(\w+)(?: (\w+))?\}\}`)

// Parts splits an embedded file at its lines {{part NAME}}.
func Parts(file string) map[string]string {
	parts := map[string]string{}
	for _, part := range strings.Split("\n"+file, "\n{{part ")[1:] {
		name, text, _ := strings.Cut(part, "}}\n")
		parts[name] = strings.TrimSuffix(text, "\n")
	}
	return parts
}

// Fill replaces the tags of a part. more has the values of tags that one database alone has. Tags in values are not replaced:
// names of tables may look like tags. A tag without a value is a fault of the file and panics.
func (s *Tags) Fill(part string, more map[string]string) string {
	var b strings.Builder
	from := 0
	for _, at := range tag.FindAllStringSubmatchIndex(part, -1) {
		b.WriteString(part[from:at[0]])
		from = at[1]
		if at[2] < 0 {
			continue // a comment
		}
		name, argument := part[at[2]:at[3]], ""
		if at[4] >= 0 {
			argument = part[at[4]:at[5]]
		}
		if value, ok := more[name]; ok {
			b.WriteString(value)
		} else {
			b.WriteString(s.value(name, argument))
		}
	}
	b.WriteString(part[from:])
	return b.String()
}

// value returns the value of a tag that all databases have.
func (s *Tags) value(name, argument string) string {
	switch name {
	case "Dataset":
		return s.Dataset.Name
	case "Described":
		return strconv.Quote(s.Dataset.Table)
	case "Warnings":
		return s.warnings()
	case "Table":
		return s.Table()
	case "TableName": // without its schema, as a trigger of SQLite requires
		return s.syntax.Quote(s.at.Name)
	case "Changes":
		return s.Changes(argument)
	case "ChangesTable":
		_, table := sqltext.SplitTable(s.config.Table)
		return s.syntax.Quote(table)
	case "Object": // a name that belongs to the dataset, with the schema of the dataset's table
		return s.qualified([2]string{s.at.Schema, s.name(argument)})
	case "Trigger": // the same without a schema
		return s.syntax.Quote(s.name(argument))
	case "Key":
		return s.Key(argument)
	case "HasKey":
		return s.HasKey(argument)
	case "Version":
		return s.Version(argument)
	case "Kept": // how many rows of changes SQLite keeps
		return strconv.Itoa(s.config.KeepRows)
	case "MaxKey":
		return strconv.Itoa(maxNotifiedKey)
	}
	panic("a script has the unknown tag " + name)
}

// bodyQuote begins and ends the body of PostgreSQL's function.
const bodyQuote = "$ringside$"

// checkNames rejects names that would end their surroundings in the script, where quotes do not help.
func (s *Tags) checkNames(ownSchemaOnly bool) error {
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
func (s *Tags) Polled() bool { return s.config.Kind == origin.FeedPoll }

// RandomChannel reports whether a table has the name of the channel of NOTIFY.
func (s *Tags) RandomChannel() bool { return !s.Polled() && s.config.Channel == "" }

// ChannelTable returns the name of that table with its schema.
func (s *Tags) ChannelTable() string { return s.qualified([2]string{s.at.Schema, ChannelTable}) }

// Channel returns the expression for the channel of NOTIFY. Its name needs no quotes.
func (s *Tags) Channel() string {
	if s.RandomChannel() {
		return "(SELECT c.channel FROM " + s.ChannelTable() + " AS c)"
	}
	return "'" + s.config.Channel + "'"
}

// Table returns the dataset's table with its schema.
func (s *Tags) Table() string { return s.qualified([2]string{s.at.Schema, s.at.Name}) }

func (s *Tags) qualified(table [2]string) string {
	return s.syntax.Quote(table[0]) + "." + s.syntax.Quote(table[1])
}

func (s *Tags) qualifiedAll(tables [][2]string) []string {
	names := make([]string, len(tables))
	for i, table := range tables {
		names[i] = s.qualified(table)
	}
	return names
}

// Tables returns the dataset's table and its descendants, which need the same triggers.
func (s *Tags) Tables() []string {
	return append([]string{s.Table()}, s.qualifiedAll(s.at.Descendants)...)
}

// Partitions returns the tables that only need a trigger for TRUNCATE.
func (s *Tags) Partitions() []string { return s.qualifiedAll(s.at.Partitions) }

// warnings returns what an operator must know before installing the triggers, as comments.
func (s *Tags) warnings() string {
	all := s.at.Warnings
	if !s.Polled() {
		all = slices.Concat(all, s.at.NotifyWarnings)
	}
	var b strings.Builder
	for _, warning := range all {
		b.WriteString("-- WARNING: " + warning + "\n")
	}
	return b.String()
}

// Unique returns the unique indexes by which SQLite may replace rows.
func (s *Tags) Unique() [][]UniqueColumn { return s.at.Unique }

// EachRow reports whether the triggers run for each row.
func (s *Tags) EachRow() bool { return s.at.EachRow } //guard:partition-statement-not-reported

// Changes returns the name of the table of changes, or of an object that belongs to it, with its schema.
func (s *Tags) Changes(suffix string) string {
	schema, table := sqltext.SplitTable(s.config.Table)
	if schema == "" {
		schema = s.at.Schema
	}
	return s.qualified([2]string{schema, table + suffix})
}

// XidIndex names an index of the table of changes.
func (s *Tags) XidIndex() string {
	_, table := sqltext.SplitTable(s.config.Table)
	return s.syntax.Quote(short(table, "_xid"))
}

// name names an object that belongs to the dataset. Those of two kinds of feeds can exist together.
func (s *Tags) name(suffix string) string {
	name := "ringside_" + s.config.Kind + "_" + s.Dataset.Name
	if s.several {
		name += "." + s.at.Name //guard:tables-share-the-name-of-a-trigger
	}
	return short(name, suffix)
}

// HasKey returns the condition that no column of the key of a row is NULL.
func (s *Tags) HasKey(row string) string {
	return sqltext.AndAll(s.Dataset.Key, func(_ int, column string) string { return row + "." + s.syntax.Quote(column) + " IS NOT NULL" })
}

// Key returns the expression for the reported key of a row.
func (s *Tags) Key(row string) string { return s.at.KeyText(row) }

// Version returns the expression for the reported version of a row; 0 for none.
func (s *Tags) Version(row string) string {
	if s.Dataset.Version == "" {
		return "0"
	}
	return "COALESCE(" + row + "." + s.syntax.Quote(s.Dataset.Version) + ", 0)"
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
