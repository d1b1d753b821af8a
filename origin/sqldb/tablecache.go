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
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
)

// typesLife is how long an ALTER TABLE that leaves all statements valid may go unnoticed.
const CatalogLifetime = time.Minute

// table is what the catalog says of a table.
type Table struct {
	read    time.Time
	Columns []rowjson.Column
	Key     rowset.KeyType
}

func (t *Table) Column(name string) *rowjson.Column {
	i := slices.IndexFunc(t.Columns, func(c rowjson.Column) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Columns[i]
}

func namesOf(columns []rowjson.Column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

var errNoTable = errors.New("it is not there, or the account of the DSN may not see it")

// catalog remembers what the database says of one table.
type tableCache struct {
	reader Catalog
	table  string
	key    string
	held   atomic.Pointer[Table] // nil: to be asked
}

func (k *tableCache) get(ctx context.Context, conn *sql.Conn) (*Table, error) {
	if t := k.held.Load(); t != nil && time.Since(t.read) < CatalogLifetime {
		return t, nil
	}
	t, err := k.reader.ReadTable(ctx, conn, k.table, k.key)
	//guard:missing-table-blamed-on-client
	if err == nil && len(t.Columns) == 0 { // or each member of a value would be a column that is not there
		err = errNoTable
	}
	if err != nil {
		return nil, fmt.Errorf("read the columns of table %s: %w", k.table, err)
	}
	t.read = time.Now()
	k.held.Store(t)
	return t, nil
}

// doubtAfter is how old what is known must be before a value that does not fit it makes it doubtful: a caller whose
// values are wrong must not have the catalog read for each of them.
const doubtAfter = time.Second

// doubt has the database asked again where err may come of a table that was altered.
func (k *tableCache) doubt(t *Table, err error) {
	switch {
	case errors.Is(err, origin.ErrConflict), errors.Is(err, origin.ErrUnknown), errors.Is(err, ErrRetry):
	case errors.Is(err, origin.ErrInvalidValue) && time.Since(t.read) < doubtAfter:
	default: //guard:altered-table-rejects-writes
		k.held.Store(nil)
	}
}
