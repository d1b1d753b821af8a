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
	if query == "" && ds.Table == "" {
		return nil, errors.New("a query has no list of its keys: write a query that selects them")
	}
	return &keyLister{db, ds, query}, nil
}

// keyLister lists keys with one statement.
type keyLister struct {
	db      *DB
	dataset origin.Dataset
	query   string // of the configuration; empty: the one of the table
}

// statement reads the key columns alone, which an index has. It does not ask for different keys: the collation of a column may
// take two keys for the same.
func (l *keyLister) statement(prefix string) string {
	if l.query != "" {
		return l.query
	}
	s := l.db.database.Syntax
	statement := fmt.Sprintf("SELECT %s FROM %s AS t WHERE %s IS NOT NULL", sqltext.KeyTexts(l.dataset, s), sqltext.QuoteTable(s, l.dataset.Table),
		strings.Join(sqltext.QuoteAll(s, "t.", l.dataset.Key), " IS NOT NULL AND "))
	for _, condition := range sqltext.KeyPrefix(l.dataset.Key, prefix, s) {
		statement += " AND " + condition
	}
	return statement
}

// ListKeys implements origin.KeyLister.
func (l *keyLister) ListKeys(ctx context.Context, prefix string, yield func(key string) bool) error {
	width := max(1, len(l.dataset.Key))
	var wrong error
	err := l.db.onConn(ctx, func(conn *sql.Conn) error {
		return l.db.database.Reader.ListKeys(ctx, conn, l.statement(prefix), func(components []string) bool {
			if len(components) != width {
				wrong = fmt.Errorf("the query returns %d columns; want the %d of the key", len(components), width)
				return false
			}
			key := origin.JoinKey(components...)
			return key == "" || !strings.HasPrefix(key, prefix) || yield(key) //guard:list-has-keys-of-another-prefix
		})
	})
	if prefix != "" && l.query == "" && l.db.classOf(err).OfKeys() { // no key has text that the column cannot have
		return nil
	}
	if err = cmp.Or(err, wrong); err != nil {
		return fmt.Errorf("origin %q: list keys: %w", l.db.name, withAdvice(err))
	}
	return nil
}
