package sqldb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// keyTypeChange is a change of the type of the key column k of the table r, while the database is open.
type keyTypeChange struct {
	from, to string
	convert  string            // the statement, if it is not the usual one
	rows     map[string]string // :: key → key after the change
	only     string            // database; empty: all
	newKey   string            // of the new type; the old one does not have it, if the types have different keys
	noKey    string            // is not of the new type
}

const firstUUID, secondUUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b811-9dad-11d1-80b4-00c04fd430c8"

var keyTypeChanges = []keyTypeChange{
	{from: "INT", to: "VARCHAR(50)", newKey: "x-1", rows: map[string]string{"7": "7"}},
	{from: "INT", to: "BIGINT", newKey: "3000000000", rows: map[string]string{"7": "7"}, noKey: "x-1"},
	{from: "VARCHAR(50)", to: "INT", newKey: "8", rows: map[string]string{"7": "7"}, noKey: "x-1"},
	{from: "VARCHAR(50)", to: "UUID", only: "postgres mariadb", newKey: secondUUID, rows: map[string]string{firstUUID: firstUUID}, noKey: "x-1"},
	{from: "UUID", to: "VARCHAR(50)", only: "postgres mariadb", newKey: "x-1", rows: map[string]string{firstUUID: firstUUID}},
	{from: "DATE", to: "VARCHAR(50)", newKey: "x-1", rows: map[string]string{"2024-02-29": "2024-02-29"}},
	{from: "VARCHAR(50)", to: "DATE", newKey: "2024-03-01", rows: map[string]string{"2024-02-29": "2024-02-29"}},
	{from: "VARCHAR(50)", to: "DECIMAL(9,2)", only: "postgres mysql", newKey: "8.50", rows: map[string]string{"7": "7.00"}},
	{from: "VARCHAR(50)", to: "VARBINARY(50)", only: "mysql", newKey: "x-1", rows: map[string]string{"7": "7"}},
	{from: "INT", to: "TIMESTAMP", only: "postgres", convert: "to_timestamp(k)", newKey: "2024-02-29 12:00:00",
		rows: map[string]string{"7": "1970-01-01 00:00:07"}, noKey: "x-1"},
	{from: "INT", to: "TEXT", only: "sqlite", newKey: "x-1", rows: map[string]string{"7": "7"}},
	{from: "TEXT", to: "INTEGER", only: "sqlite", newKey: "8", rows: map[string]string{"7": "7"}, noKey: "x-1"},
}

func (c keyTypeChange) concerns(d database) bool {
	return c.only == "" || strings.Contains(c.only, d.driver) || strings.Contains(c.only, d.engine)
}

// apply changes the type. SQLite has no statement for it: a new table takes the name of the old one.
func (c keyTypeChange) apply(t *testing.T, d database) {
	t.Helper()
	switch d.driver {
	case "postgres":
		using := c.convert
		if using == "" {
			using = "k::" + c.to
		}
		d.exec(t, "ALTER TABLE r ALTER COLUMN k TYPE "+c.to+" USING "+using)
	case "mysql":
		d.exec(t, "ALTER TABLE r MODIFY k "+c.to+" NOT NULL")
	case "sqlite":
		tx, err := d.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{
			"CREATE TABLE other (k " + c.to + " PRIMARY KEY, v VARCHAR(100), ver BIGINT)", "INSERT INTO other SELECT * FROM r",
			"DROP TABLE r", "ALTER TABLE other RENAME TO r",
		} {
			if _, err := tx.Exec(statement); err != nil {
				t.Fatal(statement, err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// testTypeOfTheKeyChanges changes the type of the key column while the database is open: reads, lists, writes and the changes go on.
func testTypeOfTheKeyChanges(t *testing.T, d database) {
	for _, c := range keyTypeChanges {
		if !c.concerns(d) {
			continue
		}
		for _, feed := range append(d.feeds(), origin.FeedConfig{}) {
			t.Run(strings.Join([]string{c.from, c.to, feed.Kind}, " "), func(t *testing.T) {
				d.testKeyTypeChange(t, c, feed)
			})
		}
	}
}

func (d database) testKeyTypeChange(t *testing.T, c keyTypeChange, feed origin.FeedConfig) {
	d.exec(t, "DROP TABLE IF EXISTS r")
	d.exec(t, "CREATE TABLE r (k "+c.from+" PRIMARY KEY, v VARCHAR(100), ver BIGINT)")
	for key := range c.rows {
		d.exec(t, "INSERT INTO r VALUES ('"+key+"', 'x', 1)")
	}
	r := d.rows(t, rowsDataset)
	for key := range c.rows {
		loadOne(t, r, key)
		if _, err := r.Write(soon(t), origin.Change{Key: key, Data: []byte(`{"v":"y"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.List(soon(t), origin.ListQuery{Limit: 10}); err != nil {
		t.Fatal(err)
	}
	var f *follower
	if feed.Kind != "" {
		f = d.record(t, rowsDataset, feed).started(t)
	}
	c.apply(t, d)
	if f != nil && d.driver == "sqlite" { // the triggers are dropped with the table
		d.record(t, rowsDataset, feed)
		f.wantMissed()
	}
	for _, key := range c.rows {
		d.wantLoaded(t, r, key)
		d.wantWritten(t, r, key)
	}
	d.wantWritten(t, r, c.newKey)
	d.wantLoaded(t, r, c.newKey)
	if c.noKey != "" {
		results, err := r.Load(soon(t), []string{c.noKey, c.newKey})
		if err != nil || results[0].Err == nil || results[1].Err != nil {
			t.Errorf("got %v, %+v", err, results)
		}
		d.wantInvalid(t, r, c.noKey)
	}
	if list, err := r.List(soon(t), origin.ListQuery{Limit: 10}); err != nil || len(list) != len(c.rows)+1 {
		t.Errorf("lists %v, %v", list, err)
	}
	if f != nil {
		d.exec(t, "DELETE FROM r WHERE k = '"+c.newKey+"'")
		f.wantKey(c.newKey)
	}
}

// The type of a column is read again at most once a second because of a key that does not fit it. Until then the key is rejected
// as one of the old type.

func (d database) wantLoaded(t *testing.T, r rows, key string) {
	t.Helper()
	eventually(t, "a read of "+key, func() bool {
		results, err := r.Load(soon(t), []string{key})
		if err == nil {
			err = results[0].Err
		}
		if err != nil && !errors.Is(err, origin.ErrInvalidKey) {
			t.Fatalf("%s: %v", key, err)
		}
		return err == nil
	})
}

func (d database) wantWritten(t *testing.T, w rows, key string) {
	t.Helper()
	eventually(t, "a write of "+key, func() bool {
		_, err := w.Write(soon(t), origin.Change{Key: key, Data: []byte(`{"v":"z"}`)})
		if err != nil && !errors.Is(err, origin.ErrInvalidKey) {
			t.Fatalf("%s: %v", key, err)
		}
		return err == nil
	})
}

func (d database) wantInvalid(t *testing.T, w rows, key string) {
	t.Helper()
	eventually(t, "an invalid key "+key, func() bool {
		_, err := w.Write(soon(t), origin.Change{Key: key, Data: []byte(`{"v":"z"}`)})
		if !errors.Is(err, origin.ErrInvalidKey) && !errors.Is(err, origin.ErrInvalidValue) {
			t.Fatalf("%s: %v", key, err)
		}
		return errors.Is(err, origin.ErrInvalidKey)
	})
}

// wantKey receives changes until one has the key.
func (f *follower) wantKey(key string) {
	f.t.Helper()
	for {
		for _, row := range f.next().Rows {
			if row.Key == key {
				return
			}
		}
	}
}
