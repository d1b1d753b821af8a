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
)

// table is what the catalog says of a table.
type table struct {
	read    time.Time
	columns []tableColumn
	key     keyType
}

func (t *table) column(name string) *tableColumn {
	i := slices.IndexFunc(t.columns, func(c tableColumn) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &t.columns[i]
}

func namesOf(columns []tableColumn) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

var errNoTable = errors.New("it is not there, or the account of the DSN may not see it")

// catalog remembers what the database says of one table.
type catalog struct {
	dialect dialect
	table   string
	key     string
	held    atomic.Pointer[table] // nil: to be asked
}

func (k *catalog) get(ctx context.Context, conn *sql.Conn) (*table, error) {
	if t := k.held.Load(); t != nil && time.Since(t.read) < typesLife {
		return t, nil
	}
	t, err := k.dialect.table(ctx, conn, k.table, k.key)
	//guard:table-missing-clients-fault
	if err == nil && len(t.columns) == 0 { // or each member of a value would be a column that is not there
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
func (k *catalog) doubt(t *table, err error) {
	switch {
	case errors.Is(err, origin.ErrConflict), errors.Is(err, origin.ErrUnknown), errors.Is(err, errAgain):
	case errors.Is(err, origin.ErrInvalidValue) && time.Since(t.read) < doubtAfter:
	default: //guard:table-altered-can-written-minute
		k.held.Store(nil)
	}
}
