package changefeed

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// plainName needs no quotes in any statement or message. PostgreSQL's channels have at most 63 bytes.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckConfig returns what is wrong with the feed of a dataset. Notifies says whether the database supports FeedNotify.
func CheckConfig(ds origin.Dataset, c origin.FeedConfig, notifies bool) error {
	switch {
	case ds.Table == "":
		return errors.New("a feed reports the keys of a table: give the dataset table and key instead of query")
	case c.Kind != origin.FeedNotify && c.Kind != origin.FeedPoll:
		return fmt.Errorf("unknown feed kind %q: use notify or poll", c.Kind)
	case c.Kind == origin.FeedNotify && !notifies:
		return errors.New("only PostgreSQL can notify: use poll")
	case !plainName.MatchString(ds.Name):
		return fmt.Errorf("a feed cannot carry the dataset name %q: use at most 63 letters, digits, '.', '_' and '-'", ds.Name)
	case c.Channel != "" && !plainName.MatchString(c.Channel):
		return fmt.Errorf("channel %q: use at most 63 letters, digits, '.', '_' and '-'", c.Channel)
	}
	return nil
}

// TableOf returns the table in which the changes of ds are recorded, as table or schema.table.
func TableOf(ds origin.Dataset, c origin.FeedConfig) string {
	schema, _ := sqltext.SplitTable(ds.Table)
	if schema == "" || strings.Contains(c.Table, ".") {
		return c.Table
	}
	return schema + "." + c.Table
}

// ChannelTable is the table with the random name of the channel of origin.FeedNotify.
const ChannelTable = "ringside_channel"

// ChannelTableOf returns ChannelTable as table or schema.table.
func ChannelTableOf(ds origin.Dataset) string {
	return TableOf(ds, origin.FeedConfig{Table: ChannelTable})
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
