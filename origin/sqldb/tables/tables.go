// Package tables has what the catalog of a database says about the table of a dataset: its columns and its key. It caches that,
// and reads it again after an error that an ALTER TABLE may have caused.
package tables

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
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// Lifetime is how long an ALTER TABLE that invalidates no statement may go unnoticed.
const Lifetime = time.Minute

// Table is a table as the catalog has it.
type Table struct {
	readAt  time.Time
	Columns []rowjson.Column
	Key     rowset.KeyTypes
	View    bool // rows may be impossible to lock; only PostgreSQL cares
	// Generates is how the database generates the key of a row that is inserted without it.
	Generates Generation
}

// Generation is how a database generates a key, and how the program that inserts the row learns it.
type Generation uint8

// The ways to generate a key.
const (
	NotGenerated      Generation = iota // or in a way in which the key cannot be learned
	GeneratedReturned                   // INSERT … RETURNING returns it
	GeneratedInsertID                   // it is the insert id that answers the statement
)

// SetGeneration sets Generates if the column of this name is the key. Databases that ignore case in names do so in equal.
func (t *Table) SetGeneration(ds origin.Dataset, name string, equal func(a, b string) bool, g Generation) {
	if len(ds.Key) == 1 && equal(ds.Key[0], name) {
		t.Generates = g
	}
}

// CheckAppend returns a *origin.AppendError if no row can be inserted without its key.
func (t *Table) CheckAppend(ds origin.Dataset) error {
	switch {
	case len(ds.Key) > 1:
		return &origin.AppendError{Reason: fmt.Sprintf("the key has %d columns, and the database generates keys of one: write the row with its "+
			"key", len(ds.Key))}
	case t.Generates == NotGenerated: //guard:append-without-a-key
		return &origin.AppendError{Reason: fmt.Sprintf("the database generates no key for column %s: make it an identity, SERIAL, AUTO_INCREMENT or "+
			"INTEGER PRIMARY KEY, or (except in MySQL) give it a default such as gen_random_uuid(); or write the row with its key", ds.Key[0])}
	}
	return nil
}

// Column returns the column of this name, or nil.
func (t *Table) Column(name string) *rowjson.Column {
	i := slices.IndexFunc(t.Columns, func(c rowjson.Column) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Columns[i]
}

// CheckNames returns a *origin.FieldError for each column that a dataset names and the table does not have.
func (t *Table) CheckNames(ds origin.Dataset) error {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	var errs []error
	need := func(field, name string) {
		if name != "" && !slices.Contains(names, name) {
			errs = append(errs, rowset.NoColumn(field, name, names))
		}
	}
	for _, name := range ds.Key {
		need("key", name)
	}
	need("version", ds.Version)
	need("expires", ds.Expires)
	need("value", ds.Value)
	for _, name := range ds.Columns {
		need("columns", name)
	}
	for _, name := range ds.Order {
		need("order", strings.TrimPrefix(name, "-"))
	}
	return errors.Join(errs...)
}

// KeyParameters returns the key as parameters that the database compares with the key columns.
func (t *Table) KeyParameters(ds origin.Dataset, key string) ([]sqltext.Parameter, error) {
	if err := t.CheckKeyTypes(ds); err != nil { //guard:untyped-key-written
		return nil, origin.InvalidValue("", "%s", err)
	}
	values, err := t.Key.Parse(key, ds.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
	}
	parameters := make([]sqltext.Parameter, len(values))
	for i, v := range values {
		parameters[i] = sqltext.Parameter{Column: ds.Key[i], Value: v}
	}
	return parameters, nil
}

// SetKeyType sets the type of the column of this name if it is one of the key. Databases that ignore case in names do so in equal.
func (t *Table) SetKeyType(ds origin.Dataset, name string, equal func(a, b string) bool, kt rowset.KeyType) {
	if t.Key == nil {
		t.Key = make(rowset.KeyTypes, len(ds.Key))
	}
	for i, column := range ds.Key {
		if equal(column, name) {
			t.Key[i] = kt
		}
	}
}

// CheckKeyTypes returns an error about a key column without a type.
func (t *Table) CheckKeyTypes(ds origin.Dataset) error {
	for i, kt := range t.Key {
		if kt.Untyped {
			return fmt.Errorf(untypedKey, ds.Key[i], ds.Table)
		}
	}
	return nil
}

// untypedKey is the format of an error with the key column and the table.
const untypedKey = "the key column %q of table %s has no type, so that 7 and '7' are two keys; it can be read, but not written " +
	"or listed: declare it TEXT or INTEGER"

// Names lists the columns in an error.
func Names(columns []rowjson.Column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// ErrNoTable says that the catalog has no columns of a table.
var ErrNoTable = errors.New("it does not exist, or the account of the DSN may not see it")

// ErrNotUnique says that a write could change several rows.
var ErrNotUnique = errors.New("the key has no unique index of its own: make it the primary key, or give it one")

// ReadTable returns the columns of a dataset's table and the type of its key column. A table that does not exist, or that the
// account may not see, has no columns.
type ReadTable func(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (*Table, error)

// Cache caches what the catalog says about one table.
type Cache struct {
	read    ReadTable
	dataset origin.Dataset
	cached  atomic.Pointer[Table] // nil: read it
}

// NewCache returns a cache of the table of ds, which it does not read yet.
func NewCache(read ReadTable, ds origin.Dataset) *Cache { return &Cache{read: read, dataset: ds} }

// Get returns the table as it was at most Lifetime ago.
func (c *Cache) Get(ctx context.Context, conn *sql.Conn) (*Table, error) {
	if t := c.cached.Load(); t != nil && time.Since(t.readAt) < Lifetime {
		return t, nil
	}
	t, err := c.read(ctx, conn, c.dataset)
	//guard:missing-table-blamed-on-client
	if err == nil && len(t.Columns) == 0 { // otherwise each member of a value would be an unknown column
		err = ErrNoTable
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

// Recheck forgets the table if err, of this class, may be due to an ALTER TABLE, and reports whether it has.
func (c *Cache) Recheck(t *Table, class errclass.Class, err error) bool {
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
