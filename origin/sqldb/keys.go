package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// KeyLister implements origin.KeyListableSource. Without a query it lists the keys of a table.
func (db *DB) KeyLister(ds origin.Dataset, query string) (origin.KeyLister, error) {
	if err := sqltext.Check(ds, db.database.Syntax); err != nil {
		return nil, err
	}
	if query == "" {
		if ds.Table == "" {
			return nil, errors.New("a query has no list of its keys: write a query that selects them")
		}
		query = listKeys(ds, db.database.Syntax)
	}
	return &keyLister{db, query, max(1, len(ds.Key))}, nil
}

// listKeys reads the key columns alone, which an index has. It does not ask for different keys: the collation of a column may
// take two keys for the same.
func listKeys(ds origin.Dataset, s sqltext.Syntax) string {
	return fmt.Sprintf("SELECT %s FROM %s AS t WHERE %s IS NOT NULL", sqltext.KeyTexts(ds, s), sqltext.QuoteTable(s, ds.Table),
		strings.Join(sqltext.QuoteAll(s, "t.", ds.Key), " IS NOT NULL AND "))
}

// keyLister lists keys with one statement.
type keyLister struct {
	db    *DB
	query string
	width int // how many columns a key has
}

// ListKeys implements origin.KeyLister.
func (l *keyLister) ListKeys(ctx context.Context, yield func(key string) bool) error {
	var wrong error
	err := l.db.onConn(ctx, func(conn *sql.Conn) error {
		return l.db.database.Reader.ListKeys(ctx, conn, l.query, func(components []string) bool {
			if len(components) != l.width {
				wrong = fmt.Errorf("the query returns %d columns; want the %d of the key", len(components), l.width)
				return false
			}
			key := origin.JoinKey(components...)
			return key == "" || yield(key)
		})
	})
	if err = cmp.Or(err, wrong); err != nil {
		return fmt.Errorf("origin %q: list keys: %w", l.db.name, withAdvice(err))
	}
	return nil
}
