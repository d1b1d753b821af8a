package mysql

import (
	"context"
	"database/sql"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/mysql/session"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// reader implements sqldb.Reader.
type reader struct {
	*server
	tables sync.Map // :: [2]string{table, key} → *tableTypes
}

func (r *reader) Describe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) ([]rowset.ResultColumn, error) {
	return rowset.DescribeByRunning(ctx, conn, q.Expand(1, ""), q.Width())
}

func (r *reader) Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error {
	return r.read(ctx, conn, q, keys, set, session.Keep)
}

// keepNot is for statements of writes, which are many, and each rare.
func keepNot(ctx context.Context, _ string) context.Context { return ctx }

// read is Read with a function that says in the context of a statement whether it stays prepared.
func (r *reader) read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set,
	keep func(ctx context.Context, types string) context.Context,
) error {
	types, err := r.typesFor(ctx, conn, q, keys)
	if err != nil {
		return errclass.Keyless(err)
	}
	keys, parameters := set.OfType(types.key, keys)
	if len(keys) == 0 {
		return nil
	}
	if types.kept != "" && sqltext.Comment(ctx) == "" {
		ctx = keep(ctx, types.kept)
	}
	for parameters := range slices.Chunk(parameters, types.together(len(keys))) {
		if err = r.readKeys(ctx, conn, q, types, keys[0], parameters, set); err != nil {
			break
		}
	}
	if err != nil && (errorClasses{}).Class(err) != errclass.Statement {
		r.tables.Delete(tableKey(q)) // the table may have been altered
	}
	return err
}

// readKeys reads the rows of the keys with these parameters; key is the one of a query for one key.
func (r *reader) readKeys(ctx context.Context, conn *sql.Conn, q *sqltext.Query, types *tableTypes, key string, parameters [][]any,
	set *rowset.Set,
) error {
	parameters = filled(q, parameters)
	query, err := r.withTimeLimit(ctx, conn, q.Expand(len(parameters), ""))
	if err != nil {
		return err
	}
	scan := &rowset.Scan{Query: q, Key: key, Set: set, Cell: types.cell, Types: types.check}
	return scan.Run(ctx, conn, query+sqltext.Comment(ctx), slices.Concat(parameters...))
}

// maxFilled limits the keys of a statement that is likely to be used again: larger batches are rare.
const maxFilled = 32

// filled repeats the last key of a few until their number is a power of two: statements of fewer numbers of keys are more often
// prepared already. A key that is twice in IN (…) has its row once; for a query of the configuration nothing is known.
func filled(q *sqltext.Query, parameters [][]any) [][]any {
	n := len(parameters)
	if q.Table == "" || n > maxFilled {
		return parameters
	}
	full := 1
	for full < n {
		full *= 2
	}
	last := parameters[n-1]
	return slices.Concat(parameters, slices.Repeat([][]any{last}, full-n))
}

// together returns how many of n keys one statement may read.
func (t *tableTypes) together(n int) int {
	if t.time { //guard:time-keys-read-together
		return 1 // MySQL 8.0 finds no row by k IN (…) with several texts, if k is a TIME
	}
	return n
}

// typesFor reads the types again if they reject a key: that of the key column may have changed.
func (r *reader) typesFor(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string) (*tableTypes, error) {
	types, err := r.typesOf(ctx, conn, q)
	if err != nil || types.key.Fit(keys, q.Key) || time.Since(types.read) < recheckAfter {
		return types, err
	}
	r.tables.Delete(tableKey(q))
	return r.typesOf(ctx, conn, q)
}

// recheckAfter is the age from which a rejected key causes another read of the catalog.
const recheckAfter = time.Second

func (r *reader) Probe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) error {
	query, err := r.withTimeLimit(ctx, conn, q.Expand(1, ""))
	if err != nil {
		return err
	}
	return rowset.Probe(ctx, conn, query, q.Width())
}

var errKeyType = errors.New("the type of the key column has changed")

// check returns an error if a result has a key column of another type than the catalog had when it was read: the server
// converts the keys to it without an error.
func (t *tableTypes) check(types []string) error {
	if !t.known {
		return nil
	}
	for i, kt := range t.key {
		if strings.HasSuffix(types[i], "INT") != (kt.Bits > 0) {
			return errclass.Changed(errKeyType)
		}
	}
	return nil
}

func (r *reader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	types, err := r.typesOf(ctx, conn, q)
	if err != nil {
		return err
	}
	query, err := r.withTimeLimit(ctx, conn, q.SQL)
	if err != nil {
		return err
	}
	//guard:list-rounds-floats
	scan := &rowset.Scan{Query: q, Set: set, Cell: types.cell, Prepare: true} // as text, a FLOAT has six digits
	return scan.Run(ctx, conn, query, sqltext.Step{Parameters: parameters}.Values())
}

func (r *reader) ListKeys(ctx context.Context, conn *sql.Conn, text string, yield rowset.YieldKey) error {
	query, err := r.withTimeLimit(ctx, conn, text)
	if err != nil {
		return err
	}
	return rowset.ListKeys(ctx, conn, query, yield)
}

// tableTypes is what the protocol does not transmit about a table's columns.
type tableTypes struct {
	known bool // false if the query is from the configuration
	read  time.Time
	key   rowset.KeyTypes
	time  bool            // a column of the key is a TIME
	bool  map[string]bool // :: column → declared tinyint(1), for which BOOL is an alias
	json  map[string]bool // :: column → text that MariaDB checks with json_valid, for which JSON is an alias
	// kept identifies the types of the columns of the key, if a statement may stay prepared; otherwise it is empty. MySQL converts
	// parameters to the types of the columns before it finds out that these have changed: what is no DATE is then another one.
	kept string
}

// keptType matches the types of which every text is a value, and integers: only keys that are integers are compared with these.
var keptType = regexp.MustCompile(`^(tiny|small|medium|big)?int|^(var)?char|text$`)

func tableKey(q *sqltext.Query) [2]string { return [2]string{q.Table, strings.Join(q.Key, "\x00")} }

// typesOf returns the types in the table of a query; none if the query is from the configuration.
func (r *reader) typesOf(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (*tableTypes, error) {
	if q.Table == "" {
		return &tableTypes{key: make(rowset.KeyTypes, q.Width())}, nil
	}
	if known, ok := r.tables.Load(tableKey(q)); ok && time.Since(known.(*tableTypes).read) < tables.Lifetime {
		return known.(*tableTypes), nil
	}
	types, err := r.readTypes(ctx, conn, q)
	if err == nil {
		r.tables.Store(tableKey(q), types)
	}
	return types, err
}

func (r *reader) readTypes(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (*tableTypes, error) {
	schema, table, ok := strings.Cut(q.Table, ".")
	if !ok {
		schema, table = "", q.Table
	}
	types := &tableTypes{known: true, read: time.Now(), key: make(rowset.KeyTypes, q.Width()), bool: map[string]bool{}}
	unsafe := false
	err := eachPair(ctx, conn, `SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?`, schema, table,
		func(name, columnType string) {
			types.bool[name] = columnType == "tinyint(1)"
			for i, column := range q.Key {
				if strings.EqualFold(name, column) {
					types.key[i] = keyTypeOf(columnType)
					unsafe = unsafe || !keptType.MatchString(columnType) //guard:mysql-key-converted-to-the-former-type
					types.kept += name + " " + columnType + ","
					types.time = types.time || strings.HasPrefix(columnType, "time") && !strings.HasPrefix(columnType, "timestamp")
				}
			}
		})
	if err != nil {
		return nil, err
	}
	if unsafe {
		types.kept = ""
	}
	types.json, err = r.checkedJSON(ctx, conn, schema, table)
	return types, err
}
