package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
)

// CatalogLifetime is how long an ALTER TABLE that invalidates no statement may go unnoticed.
const CatalogLifetime = time.Minute

// Table is a table as the catalog has it.
type Table struct {
	readAt  time.Time
	Columns []rowjson.Column
	Key     rowset.KeyType
	View    bool // rows may be impossible to lock; only PostgreSQL cares
}

// Column returns the column of this name, or nil.
func (t *Table) Column(name string) *rowjson.Column {
	i := slices.IndexFunc(t.Columns, func(c rowjson.Column) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Columns[i]
}

// keyParameter returns the key as a parameter that the database compares with the key column.
func (t *Table) keyParameter(ds origin.Dataset, key string) (any, error) {
	if t.Key.Untyped { //guard:untyped-key-written
		return nil, origin.InvalidValue("", untypedKey, ds.Key, ds.Table)
	}
	v, err := t.Key.Parse(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
	}
	return v, nil
}

const untypedKey = "the key column %q of table %s has no type, so that 7 and '7' are two keys; it can be read, but not written " +
	"or listed: declare it TEXT or INTEGER"

func namesOf(columns []rowjson.Column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

var errNoTable = errors.New("it does not exist, or the account of the DSN may not see it")

// tableCache caches what the catalog says about one table.
type tableCache struct {
	catalog Catalog
	dataset origin.Dataset
	cached  atomic.Pointer[Table] // nil: read it
}

func (db *DB) cacheTable(ds origin.Dataset) *tableCache {
	return &tableCache{catalog: db.database.Catalog, dataset: ds}
}

func (c *tableCache) get(ctx context.Context, conn *sql.Conn) (*Table, error) {
	if t := c.cached.Load(); t != nil && time.Since(t.readAt) < CatalogLifetime {
		return t, nil
	}
	t, err := c.catalog.ReadTable(ctx, conn, c.dataset)
	//guard:missing-table-blamed-on-client
	if err == nil && len(t.Columns) == 0 { // otherwise each member of a value would be an unknown column
		err = errNoTable
	}
	if err != nil {
		return nil, fmt.Errorf("read the columns of table %s: %w", c.dataset.Table, errclass.Keyless(err))
	}
	t.readAt = time.Now()
	c.cached.Store(t)
	return t, nil
}

// recheckAfter is the age from which an invalid key or value causes another read of the catalog: a caller with invalid values
// must not cause a read for each of them.
const recheckAfter = time.Second

// recheck forgets the table if err, of this class, may be due to an ALTER TABLE, and reports whether it has.
func (c *tableCache) recheck(t *Table, class errclass.Class, err error) bool {
	switch {
	case errors.Is(err, origin.ErrConflict), errors.Is(err, origin.ErrUnknown), errors.Is(err, ErrNotUnique):
		return false
	case errors.Is(err, origin.ErrInvalidValue), errors.Is(err, origin.ErrInvalidKey):
		if time.Since(t.readAt) < recheckAfter {
			return false
		}
	case class != errclass.Outdated && class != errclass.NoTable:
		return false
	}
	c.cached.Store(nil) //guard:altered-table-rejects-writes
	return true
}
