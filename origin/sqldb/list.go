package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/ringside-cache/ringside/origin"
)

const (
	maxListRows  = 1000     // origin.ListQuery
	maxPageBytes = 16 << 20 // of the values of one List: 1000 rows may be 1 GiB
)

// Lister returns the origin.Lister of a dataset, which must be of a table. The order of the keys is the database's own.
func (db *DB) Lister(ds origin.Dataset) (origin.Lister, error) {
	s, err := db.tableSource(ds)
	if err != nil {
		return nil, err
	}
	return &rowLister{s, db.catalogOf(ds)}, nil
}

// rowLister goes through the rows that a source reads.
type rowLister struct {
	source  *source
	catalog *catalog
}

// List implements origin.Lister. A value of Where that can not be its column's is a *origin.ValueError.
func (l *rowLister) List(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	rows, err := l.list(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("origin %q, dataset %q: list: %w", l.source.db.name, l.source.dataset.Name, err)
	}
	return rows, nil
}

func (l *rowLister) list(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	if q.Limit < 1 || q.Limit > maxListRows {
		return nil, fmt.Errorf("a limit of %d: want 1 to %d", q.Limit, maxListRows)
	}
	db := l.source.db
	c := newCollector(l.source.dataset, true, db.maxValueBytes, nil)
	if q.After != "" && len(c.askable([]string{q.After})) == 0 {
		return nil, c.results[q.After].Err
	}
	err := db.onConn(ctx, func(conn *sql.Conn) error {
		t, err := l.catalog.get(ctx, conn)
		if err == nil {
			err = l.read(ctx, conn, t, q, c)
		}
		if err != nil && t != nil {
			l.catalog.doubt(t, err)
		}
		return err
	})
	switch {
	case err == nil:
		return c.rows(q.Limit)
	case db.dialect.badKey(err):
		return nil, invalid("", "the database says that `after` or a value to look for is not of its column's type")
	}
	return nil, err
}

func (l *rowLister) read(ctx context.Context, conn *sql.Conn, t *table, q origin.ListQuery, c *collector) error {
	s, err := l.step(t, q)
	if err != nil {
		return err
	}
	c.begin(nil)
	c.page = &page{}
	st := *l.source.statement
	st.sql = s.sql
	return l.source.db.dialect.list(ctx, conn, &st, s.args, c)
}

// step writes the statement of a page.
func (l *rowLister) step(t *table, q origin.ListQuery) (step, error) {
	ds, dialect := l.source.dataset, l.source.db.dialect
	d, key := &draft{dialect: dialect}, "t."+dialect.quote(ds.Key)
	d.add("SELECT %s, %s FROM %s AS t WHERE ", dialect.keyColumn(key), selected(ds, dialect), quoteTable(dialect, ds.Table))
	limit := q.Limit
	if q.After == "" {
		d.add("%s IS NOT NULL", key)
		limit++ // the first may have the empty key, which nobody can ask for
	} else {
		after, err := t.key.parse(q.After)
		if err != nil {
			return step{}, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
		}
		d.add("%s > %s", key, d.value(assignment{ds.Key, after}))
	}
	if ds.Value != "" {
		d.add(" AND t.%s IS NOT NULL", dialect.quote(ds.Value)) // NULL is absent
	}
	if err := l.filter(d, t, q.Where); err != nil {
		return step{}, err
	}
	d.add(" ORDER BY %s LIMIT %d", key, limit)
	return d.step(), nil
}

func (l *rowLister) filter(d *draft, t *table, where map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(where)) {
		column := t.column(name)
		if column == nil || !shows(l.source.dataset, name) {
			return invalid(name, "there is no such column to look for")
		}
		v, err := column.take(given{kind: plain, text: where[name]})
		if err != nil {
			return err
		}
		quoted, a := "t."+d.dialect.quote(name), assignment{name, v}
		d.add(" AND %s = %s", quoted, d.value(a))
		if exactly := d.dialect.exactly(); exactly != "" && column.form == formText { //guard:filter-takes-cpu-cpu
			d.add(" AND "+exactly, quoted, d.value(a))
		}
	}
	return nil
}

// shows reports whether readers see a column.
func shows(ds origin.Dataset, name string) bool {
	if name == ds.Key || name == ds.Version {
		return true
	}
	if ds.Value != "" {
		return name == ds.Value
	}
	return len(ds.Columns) == 0 || slices.Contains(ds.Columns, name)
}

// page is the rows of one List in their order. It belongs to a collector.
type page struct {
	keys  []string
	bytes int
}

// add reports whether there is room for a row.
func (p *page) add(key string, r origin.Result) bool {
	p.keys = append(p.keys, key)
	p.bytes += len(r.Value.Data)
	return p.bytes <= maxPageBytes
}

// rows returns the rows of a page. A row that is no value fails it: left out, it would look absent.
func (c *collector) rows(limit int) ([]origin.Row, error) {
	if c.page.bytes > maxPageBytes { //guard:page-fills-memory
		return nil, fmt.Errorf("a page of %d rows has %d bytes, over %d: ask for fewer", limit, c.page.bytes, maxPageBytes)
	}
	keys := slices.DeleteFunc(c.page.keys, func(key string) bool { return key == "" })
	rows := make([]origin.Row, 0, limit)
	for _, key := range keys[:min(limit, len(keys))] {
		r := c.results[key]
		if r.Err != nil {
			return nil, fmt.Errorf("key %q: %w", key, r.Err)
		}
		rows = append(rows, origin.Row{Key: key, Value: r.Value})
	}
	return rows, nil
}
