package sqldb

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Bounds of every feed.
const (
	// feedAnswer is how long the database may take for one question of a feed; then the feed has broken.
	feedAnswer = 1500 * time.Millisecond
	// maxGathered bounds the keys that wait to be told. When more than that have changed it costs less to say that any
	// row may have.
	maxGathered = 10_000
	// maxTold bounds the rows of one Changes.
	maxTold = 1000
)

// spoken is what needs no quotes in any statement or message. PostgreSQL's channels have at most 63 bytes.
var spoken = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func checkConfig(c origin.FeedConfig, ds origin.Dataset, d dialect) error {
	_, listens := d.(postgres)
	switch {
	case ds.Table == "":
		return errors.New("a feed tells the keys of a table: give the dataset table and key instead of query")
	case c.Kind != origin.FeedNotify && c.Kind != origin.FeedPoll:
		return fmt.Errorf("feed kind %q is not known: use notify or poll", c.Kind)
	case c.Kind == origin.FeedNotify && !listens:
		return errors.New("only PostgreSQL can notify: use poll")
	case !spoken.MatchString(ds.Name):
		return fmt.Errorf("the name %q can not be told of: use at most 63 letters, digits, '.', '_' and '-'", ds.Name)
	case !spoken.MatchString(c.Channel):
		return fmt.Errorf("channel %q: use at most 63 letters, digits, '.', '_' and '-'", c.Channel)
	}
	return nil
}

// Feed returns the feed of one dataset's changes, which needs what ChangesSQL makes. It does not connect; CheckFeed
// does. A Changed has the key as Load takes it, and version 0 where the row was deleted, or where its version did not
// grow with the change.
func (db *DB) Feed(ds origin.Dataset, c origin.FeedConfig) (origin.Feed, error) {
	c = c.WithDefaults()
	if err := db.checkFeed(ds, c); err != nil {
		return nil, err
	}
	if c.Kind == origin.FeedNotify {
		return &notifyFeed{origin: db.name, dataset: ds.Name, channel: c.Channel,
			postgres: db.dialect.(postgres)}, nil
	}
	return &pollFeed{db: db, dataset: ds.Name, table: tableOf(c, ds), interval: c.Interval,
		log: db.dialect.log(quoteTable(db.dialect, tableOf(c, ds)))}, nil
}

func (db *DB) checkFeed(ds origin.Dataset, c origin.FeedConfig) error {
	err := checkDataset(ds, db.dialect)
	if err == nil {
		err = checkConfig(c, ds, db.dialect)
	}
	if err != nil {
		return fmt.Errorf("dataset %q: %w", ds.Name, err)
	}
	return nil
}

// gathered are changes that wait to be told. It belongs to one goroutine.
type gathered struct {
	missed   bool
	versions map[string]int64 // :: key → version of its row now; 0: not known
}

// miss says that any row may have changed, and so forgets which did.
func (g *gathered) miss() { g.missed, g.versions = true, nil }

func (g *gathered) empty() bool { return !g.missed && len(g.versions) == 0 }

func (g *gathered) add(key string, version int64) {
	if g.missed || len(key) > maxKeyBytes {
		return // no such key can be loaded
	}
	known, ok := g.versions[key]
	switch {
	case !ok && len(g.versions) == maxGathered: //guard:keys-changes-wait-without-bound
		g.miss()
		return
	case g.versions == nil:
		g.versions = make(map[string]int64)
	case ok && (known == 0 || version == 0): // it may have had any version in between
		known, version = 0, 0 //guard:version-from-before-deletion
	}
	g.versions[key] = max(known, version)
}

// take returns what is to be told, in pieces, and forgets it.
func (g *gathered) take() (pieces []origin.Changes) {
	if g.missed {
		pieces = append(pieces, origin.Changes{Missed: true})
	}
	var rows []origin.Changed
	for key, version := range g.versions {
		rows = append(rows, origin.Changed{Key: key, Version: version})
		if len(rows) == maxTold {
			pieces, rows = append(pieces, origin.Changes{Rows: rows}), nil
		}
	}
	if len(rows) > 0 {
		pieces = append(pieces, origin.Changes{Rows: rows})
	}
	*g = gathered{}
	return pieces
}

func (g *gathered) tell(handle func(origin.Changes)) {
	for _, piece := range g.take() {
		handle(piece)
	}
}
