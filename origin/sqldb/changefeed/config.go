package changefeed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// plainName needs no quotes in any statement or message. PostgreSQL's channels have at most 63 bytes.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckConfig returns what is wrong with the feed of a dataset in a database that supports these kinds.
func CheckConfig(ds origin.Dataset, c origin.FeedConfig, kinds []string) error {
	all := []string{origin.FeedNotify, origin.FeedPoll, origin.FeedLogical}
	switch {
	case ds.Table == "" && len(c.Tables) == 0: //guard:feed-of-a-query-reports-nothing
		return fmt.Errorf("query: %w", ErrNoTriggers)
	case !slices.Contains(all, c.Kind):
		return fmt.Errorf("unknown feed kind %q: use %s", c.Kind, strings.Join(kinds, " or "))
	case !slices.Contains(kinds, c.Kind):
		return fmt.Errorf("this database has no feed of kind %s: use %s", c.Kind, strings.Join(kinds, " or "))
	case !plainName.MatchString(ds.Name):
		return fmt.Errorf("a feed cannot carry the dataset name %q: use at most 63 letters, digits, '.', '_' and '-'", ds.Name)
	case c.Channel != "" && !plainName.MatchString(c.Channel):
		return fmt.Errorf("channel %q: use at most 63 letters, digits, '.', '_' and '-'", c.Channel)
	case c.Publication != "" && !plainName.MatchString(c.Publication):
		return fmt.Errorf("publication %q: use at most 63 letters, digits, '.', '_' and '-'", c.Publication)
	}
	return checkTables(ds, c)
}

// ErrNoTriggers says that a dataset is of a view or a query.
var ErrNoTriggers = errors.New("only a table has triggers that report its rows: name the tables of the rows, each with the columns that " +
	"hold the key, in feed.tables")

// checkTables requires whole keys, and one schema: all tables share a table of changes.
func checkTables(ds origin.Dataset, c origin.FeedConfig) error {
	names := slices.Sorted(maps.Keys(c.Tables))
	for _, name := range names {
		first, _ := sqltext.SplitTable(names[0])
		schema, table := sqltext.SplitTable(name)
		switch err := origin.CheckFeedKey(ds.Key, c.Tables[name]); {
		case table == "":
			return fmt.Errorf("tables: %q is not the name of a table", name)
		case err != nil:
			return fmt.Errorf("tables: %s: %w", name, err)
		case schema != first:
			return fmt.Errorf("tables: %s and %s need the same schema, which has the table of changes", names[0], name)
		}
	}
	return nil
}

// Source is a table whose triggers report changes of a dataset.
type Source struct {
	// Dataset has the name of the dataset, and table and key of the table. It has a version only if it is the dataset itself:
	// the version of one of several rows is not that of the value.
	Dataset origin.Dataset
	// Several says that other tables report changes of the dataset, too.
	Several bool
}

// Sources returns the tables of the feed of ds, in the order of their names.
func Sources(ds origin.Dataset, c origin.FeedConfig) (all []Source) {
	if len(c.Tables) == 0 {
		return []Source{{Dataset: ds}}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tables)) {
		all = append(all, Source{origin.Dataset{Name: ds.Name, Table: name, Key: c.Tables[name]}, true})
	}
	return all
}

// TableOf returns the table in which the changes of ds are recorded, as table or schema.table.
func TableOf(ds origin.Dataset, c origin.FeedConfig) string {
	ds = Sources(ds, c)[0].Dataset
	schema, _ := sqltext.SplitTable(ds.Table)
	if schema == "" || strings.Contains(c.Table, ".") {
		return c.Table
	}
	return schema + "." + c.Table
}

// ChannelTable is the table with the random name of the channel of origin.FeedNotify.
const ChannelTable = "ringside_channel"

// ChannelTableOf returns ChannelTable as table or schema.table.
func ChannelTableOf(ds origin.Dataset, c origin.FeedConfig) string {
	return TableOf(ds, origin.FeedConfig{Table: ChannelTable, Tables: c.Tables})
}

// NotifyConfig says which notifications a feed receives.
type NotifyConfig struct {
	Origin, Dataset string // names, for errors
	Channel         string // empty: Table has its name
	Table           string // quoted
	// Explain says what prevents Table from being read.
	Explain func(error) error
}

// Marks returns the words by which a trigger for a feed is recognized: its channel or table, and the dataset.
func Marks(ds origin.Dataset, c origin.FeedConfig) []string {
	if c.Kind == origin.FeedNotify && c.Channel == "" {
		return []string{ChannelTable, "'" + ds.Name + "'"}
	}
	if c.Kind == origin.FeedNotify {
		return []string{"'" + c.Channel + "'", "'" + ds.Name + "'"}
	}
	_, table := sqltext.SplitTable(TableOf(ds, c))
	return []string{table, "'" + ds.Name + "'"}
}

// Logical reads changes from the log of the database, and creates what makes the log have them.
type Logical interface {
	// Feed returns the feed of a dataset.
	Feed(LogicalConfig) Feed
	// Script returns the statements that publish the changes of tables, and those that stop it.
	Script(c LogicalConfig, tables []Table) (install, remove string)
	// CheckTables connects, and returns why an UPDATE or DELETE of a table would not tell the previous key. In a publication it may
	// even fail.
	CheckTables(ctx context.Context, c LogicalConfig) error
}

// LogicalConfig says which changes a feed reads from the log.
type LogicalConfig struct {
	Origin      string // name, for errors
	Dataset     origin.Dataset
	Sources     []Source
	Publication string
	MaxWAL      int64 // bytes that the server may keep for the feed
}

// PublicationOf returns the publication of the feed of ds.
func PublicationOf(ds origin.Dataset, c origin.FeedConfig) string {
	if c.Publication != "" {
		return c.Publication
	}
	return short("ringside_"+ds.Name, "")
}
