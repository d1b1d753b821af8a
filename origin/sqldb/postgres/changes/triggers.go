package changes

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// manyRows is how many rows one statement may change before the trigger reports that any row may have changed.
const manyRows = 1000

// Triggers implements changefeed.Triggers.
type Triggers struct{ Syntax sqltext.Syntax }

// Locate takes the key types below all domains. A row of one table may also belong to another: to partitions, and to tables
// that inherit from it (pg_inherits).
func (t Triggers) Locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at changefeed.Table, err error) {
	var relkind string
	var prepared int
	table := sqltext.QuoteTable(t.Syntax, ds.Table)
	err = session.Query(ctx, conn, func(rows pgx.Rows) error {
		return rows.Scan(&at.Schema, &at.Name, &relkind, &at.EachRow, &prepared)
	}, `SELECT n.nspname, c.relname, c.relkind::text,
			c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)),
			current_setting('max_prepared_transactions')::int
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, table)
	if err != nil {
		return changefeed.Table{}, err
	}
	if !strings.Contains("rp", relkind) {
		return changefeed.Table{}, changefeed.ErrNoTriggers
	}
	texts := make([]func(string) string, len(ds.Key))
	for i, column := range ds.Key {
		if texts[i], err = keyText(ctx, conn, table, column); err != nil {
			return changefeed.Table{}, err
		}
	}
	at.KeyText = changefeed.KeyText(t.Syntax, ds.Key, texts, changefeed.JoinWithPipes)
	if prepared > 0 { //guard:two-phase-commit-fails-without-warning
		at.NotifyWarnings = []string{fmt.Sprintf("max_prepared_transactions is %d: if the application uses two-phase commit (PREPARE "+
			"TRANSACTION, XA, JTA), its transactions that change this table will fail with kind notify; prefer feed: {kind: poll}", prepared)}
	}
	at.Descendants, at.Partitions, err = descendants(ctx, conn, table)
	return at, err
}

// keyText returns the expression by which a trigger prints a column of the key as a read does.
func keyText(ctx context.Context, conn *sql.Conn, table, column string) (func(column string) string, error) {
	var name, category string
	err := session.Query(ctx, conn, func(rows pgx.Rows) error { return rows.Scan(&name, &category) },
		`WITH RECURSIVE key AS (SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t JOIN pg_attribute a
			ON a.atttypid = t.oid WHERE a.attrelid = to_regclass($1) AND a.attname = $2
		UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM key JOIN pg_type t ON t.oid = key.typbasetype)
		SELECT format_type(oid, NULL), typtype::text FROM key WHERE typtype <> 'd'`, table, column)
	if err == nil {
		err = checkKeyType(name, category)
	}
	if err != nil {
		return nil, err
	}
	if name == "character" || name == "bpchar" {
		return func(column string) string { return column + "::text" }, nil // without the padding
	}
	return func(column string) string { return "format('%s', " + column + ")" }, nil // as the type prints itself
}

// namesOfObjects are the types that print the name of an object (PostgreSQL, 8.19).
var namesOfObjects = []string{"regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator",
	"regproc", "regprocedure", "regrole", "regtype"}

// checkKeyType rejects the types whose text depends on more than the settings of the trigger's function: the locale of the
// server's account (money), and the names that the session's search_path finds (regclass and the like).
func checkKeyType(name, category string) error {
	switch {
	case name == "money":
		return changefeed.ErrKeyType(name, "it depends on lc_monetary")
	case slices.Contains(namesOfObjects, name): //guard:regclass-key-accepted
		return changefeed.ErrKeyType(name, "it depends on the search_path of the session")
	case category == "c":
		return changefeed.ErrKeyType(name, "it has columns of its own")
	}
	return nil
}

func descendants(ctx context.Context, conn *sql.Conn, table string) (inheriting, partitions [][2]string, err error) {
	err = session.Query(ctx, conn, func(rows pgx.Rows) error {
		var name [2]string
		var partition bool
		err := rows.Scan(&name[0], &name[1], &partition)
		if partition {
			partitions = append(partitions, name)
		} else {
			inheriting = append(inheriting, name)
		}
		return err
	}, `WITH RECURSIVE child AS (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1)
		UNION SELECT i.inhrelid FROM pg_inherits i JOIN child ON i.inhparent = child.inhrelid)
		SELECT n.nspname, c.relname, c.relispartition FROM child JOIN pg_class c ON c.oid = child.inhrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY 1, 2`, table)
	return inheriting, partitions, err
}

//go:embed triggers.sql
var triggersFile string

var parts = changefeed.Parts(triggersFile)

// Script adds to the tags of all databases those for a table of changes or a channel, and for triggers of statements or of rows.
func (Triggers) Script(tags *changefeed.Tags) (install, remove string) {
	values := map[string]string{
		"TwoPhaseCommit": "", "CreateTable": "", "SecurityDefiner": "", "MissingTable": "", "Revoke": "", "TableRemains": "",
		"ChannelTable": tags.ChannelTable(), "Channel": tags.Channel(), "XidIndex": tags.XidIndex(),
	}
	fill := func(part string) string { return tags.Fill(parts[part], values) }
	values["Changed"] = fill("changed")
	if tags.Polled() {
		values["Report"] = fill("report to the table")
		values["ReportAll"] = fill("report all to the table")
		values["ReportAllNow"] = values["ReportAll"]
	} else {
		values["TwoPhaseCommit"] = fill("two-phase commit")
		values["Report"] = fill("report to the channel")
		values["ReportAll"] = "PERFORM " + fill("report all to the channel")
		values["ReportAllNow"] = "SELECT " + fill("report all to the channel")
	}
	switch {
	case tags.Polled():
		values["CreateTable"] = fill("table of changes")
		values["Needed"] = literal(tags.Changes(""))
		values["TableRemains"] = fill("table of changes remains")
	case tags.RandomChannel():
		values["CreateTable"] = fill("table of the channel")
		values["Needed"] = literal(tags.ChannelTable())
		values["TableRemains"] = fill("table of the channel remains")
	}
	if values["Needed"] != "" {
		values["SecurityDefiner"] = fill("security definer")
		values["MissingTable"] = fill("missing table")
		values["Revoke"] = fill("revoke")
	}
	addRows(values, tags)
	addTriggers(values, tags)
	return fill("install"), fill("remove")
}

// addRows adds the tags for the changed rows: a trigger for each statement has them in tables.
func addRows(values map[string]string, tags *changefeed.Tags) {
	before, after := "OLD", "NEW"
	values["FromOld"], values["FromNew"], values["ManyOld"], values["ManyNew"] = "", "", "false", "false"
	if !tags.EachRow() {
		before, after = "o", "n"
		values["FromOld"], values["FromNew"] = "FROM old_rows AS o", "FROM new_rows AS n"
		values["ManyOld"] = fmt.Sprintf("EXISTS (SELECT FROM old_rows OFFSET %d)", manyRows)
		values["ManyNew"] = fmt.Sprintf("EXISTS (SELECT FROM new_rows OFFSET %d)", manyRows)
	}
	values["KeyOld"], values["VersionOld"], values["HasKeyOld"] = tags.Key(before), tags.Version(before), tags.HasKey(before)
	values["KeyNew"], values["VersionNew"], values["HasKeyNew"] = tags.Key(after), tags.Version(after), tags.HasKey(after)
}

// addTriggers adds the tags for the triggers of the dataset's table, its descendants and its partitions.
func addTriggers(values map[string]string, tags *changefeed.Tags) {
	var create, drop []string
	add := func(all *[]string, part, table string) {
		*all = append(*all, tags.Fill(parts[part], map[string]string{"On": table}))
	}
	kind := map[bool]string{true: "triggers for rows", false: "triggers for statements"}[tags.EachRow()]
	for _, table := range tags.Tables() {
		add(&create, kind, table)
		add(&create, "trigger for truncate", table)
		add(&drop, "drop triggers", table)
		add(&drop, "drop trigger for truncate", table)
	}
	for _, table := range tags.Partitions() {
		add(&create, "trigger for truncate", table)
		add(&drop, "drop trigger for truncate", table)
	}
	values["Triggers"], values["DropTriggers"] = strings.Join(create, "\n"), strings.Join(drop, "\n")
}

// literal escapes text for the inside of a string literal.
func literal(text string) string { return strings.ReplaceAll(text, "'", "''") }

func (Triggers) OwnSchemaOnly() bool { return false }

// MissingEvents ignores disabled triggers; one trigger may be for several events (pg_trigger.h, TRIGGER_TYPE_…).
func (t Triggers) MissingEvents(ctx context.Context, conn *sql.Conn, ds origin.Dataset, marks []string) (
	missing []string, err error,
) {
	err = session.Query(ctx, conn, func(rows pgx.Rows) error {
		var event string
		err := rows.Scan(&event)
		missing = append(missing, event)
		return err
	}, `SELECT event FROM (VALUES ('INSERT', 4), ('UPDATE', 16), ('DELETE', 8), ('TRUNCATE', 32)) AS e (event, bit)
		WHERE NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
			WHERE t.tgrelid = to_regclass($1) AND t.tgenabled IN ('O', 'A') AND t.tgtype & bit <> 0
			AND position($2 IN f.prosrc) > 0 AND position($3 IN f.prosrc) > 0)`, sqltext.QuoteTable(t.Syntax, ds.Table), marks[0], marks[1])
	return missing, err
}

// Apply runs the script as it is: it contains its own transaction.
func (Triggers) Apply(ctx context.Context, conn *sql.Conn, text string) error {
	return session.Use(conn, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, text).ReadAll()
		if err != nil && !c.IsClosed() {
			_, end := c.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
			err = errors.Join(err, end)
		}
		return err
	})
}

func (Triggers) Log(table string) changefeed.Log { return &changeLog{table: table} }
