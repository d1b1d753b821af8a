package logical

import (
	"context"
	"strings"

	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

// Script implements changefeed.Logical. The publication is replaced in one transaction, so that it exists at each position of the log.
func (d Decoding) Script(c changefeed.LogicalConfig, tables []changefeed.Table) (install, remove string) {
	var names []string
	for _, t := range tables {
		names = append(names, d.Syntax.Quote(t.Schema)+"."+d.Syntax.Quote(t.Name))
	}
	publication := d.Syntax.Quote(c.Publication)
	install = "-- Ringside: publishes the changes of these tables, which logical decoding reports as dataset " + c.Dataset.Name + `.
-- Safe to run again. Needs PostgreSQL 14 with wal_level = logical, the ownership of the tables, and the right CREATE on the database.
-- The account that Ringside connects with must be able to replicate:
--   ALTER ROLE ... REPLICATION;
-- Tables of INHERITS that are created later are not published: run this again then. Partitions are.
BEGIN READ WRITE;
SET LOCAL lock_timeout = '5s'; -- fail instead of blocking the application
DROP PUBLICATION IF EXISTS ` + publication + `;
CREATE PUBLICATION ` + publication + " FOR TABLE " + strings.Join(names, ", ") + `
  WITH (publish = 'insert, update, delete, truncate');
COMMIT;
`
	remove = "-- Ringside: stops publishing the changes of dataset " + c.Dataset.Name + `. Slots end with their readers.
BEGIN READ WRITE;
SET LOCAL lock_timeout = '5s'; -- fail instead of blocking the application
DROP PUBLICATION IF EXISTS ` + publication + `;
COMMIT;
`
	return install, remove
}

// CheckTables implements changefeed.Logical.
func (d Decoding) CheckTables(ctx context.Context, c changefeed.LogicalConfig) error {
	f := d.feed(c)
	q, err := openQueries(ctx, f.connect)
	if err != nil {
		return err
	}
	defer q.close()
	for _, of := range c.Sources {
		members, err := f.members(ctx, q, of.Dataset)
		if err != nil {
			return err
		}
		for _, m := range members {
			if !m.identified { //guard:publication-makes-writes-fail
				return m.errIdentity()
			}
		}
	}
	return nil
}
