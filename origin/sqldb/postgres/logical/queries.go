package logical

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// queries is the connection of a reader for queries: that of a walsender has none while it streams.
type queries struct{ conn *pgconn.PgConn }

// maxOpens limits the connections that are tried. The sessions of a pooler may still have what they owe to other clients.
const maxOpens = 5

func openQueries(ctx context.Context, c Connect) (q *queries, err error) {
	for range maxOpens {
		conn, err := c.Queries(ctx)
		if err == nil {
			return &queries{conn}, nil
		}
		if !errors.Is(err, session.ErrOutOfStep) || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, session.ErrOutOfStep
}

func (q *queries) close() { closeSoon(q.conn) }

// read runs a query with the settings, in one round trip, and returns its rows; nil in place of NULL.
func (q *queries) read(ctx context.Context, query string, parameters ...string) ([][][]byte, error) {
	soon, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	values := make([][]byte, len(parameters))
	for i, p := range parameters {
		values[i] = []byte(p)
	}
	batch := &pgconn.Batch{}
	session.Of(q.conn).AddSettings(soon, batch)
	batch.ExecParams(query, values, nil, nil, nil)
	results, err := q.conn.ExecBatch(soon, batch).ReadAll()
	err = session.WantResults(len(results), 2, err)
	switch {
	case err != nil && soon.Err() != nil:
		return nil, fmt.Errorf("the database has not answered for %v: %w", silence, soon.Err())
	case err != nil:
		return nil, err
	}
	return results[1].Rows, nil
}

// row is read for a query that has one row.
func (q *queries) row(ctx context.Context, columns int, query string, parameters ...string) ([][]byte, error) {
	rows, err := q.read(ctx, query, parameters...)
	switch {
	case err != nil:
		return nil, err
	case len(rows) != 1 || len(rows[0]) != columns:
		return nil, errNoRow
	}
	return rows[0], nil
}

var errNoRow = errors.New("no row")

// heldBy returns how many bytes of the log a slot holds.
func (q *queries) heldBy(ctx context.Context, slot string) (int64, error) {
	row, err := q.row(ctx, 1, "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint "+
		"FROM pg_replication_slots WHERE slot_name = $1", slot)
	switch {
	case errors.Is(err, errNoRow): //guard:queries-of-another-server
		return 0, fmt.Errorf("the replication slot %s is gone, or the connections of the feed lead to different servers: "+
			"name one server in the DSN, or use target_session_attrs=read-write", slot)
	case err != nil:
		return 0, err
	}
	return strconv.ParseInt(string(row[0]), 10, 64)
}

// snapshot says which transactions reads see (PostgreSQL, 9.27.5).
type snapshot struct {
	xmin, xmax uint64   // all before xmin have ended; none from xmax on
	running    []uint64 // between the two, sorted
}

func (q *queries) snapshot(ctx context.Context) (snapshot, error) {
	row, err := q.row(ctx, 1, "SELECT pg_current_snapshot()::text")
	if err != nil {
		return snapshot{}, err
	}
	return parseSnapshot(string(row[0]))
}

func parseSnapshot(text string) (s snapshot, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, errMalformed
	}
	s.xmin, err = strconv.ParseUint(parts[0], 10, 64)
	if err == nil {
		s.xmax, err = strconv.ParseUint(parts[1], 10, 64)
	}
	for _, xid := range strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' }) {
		var n uint64
		if err == nil {
			n, err = strconv.ParseUint(xid, 10, 64)
		}
		s.running = append(s.running, n)
	}
	if err != nil || s.xmin > s.xmax || !slices.IsSorted(s.running) {
		return snapshot{}, errMalformed
	}
	return s, nil
}

// sees reports whether reads see a transaction, of whose number the log has the lower half.
func (s snapshot) sees(xid uint32) bool {
	full := s.xmax&^0xffffffff | uint64(xid)
	switch { // one is at most half of all numbers away from those that run
	case full > s.xmax+1<<31 && full >= 1<<32:
		full -= 1 << 32
	case full+1<<31 < s.xmax:
		full += 1 << 32 //guard:xid-of-the-next-epoch-seems-old
	}
	_, runs := slices.BinarySearch(s.running, full)
	return full < s.xmax && !runs
}

// tables returns the tables of the dataset with their partitions and descendants, by OID, after a check that the publication has
// their changes and that the server can decode them.
func (f *feed) tables(ctx context.Context, q *queries) (map[uint32]*table, error) {
	if err := f.checkServer(ctx, q); err != nil {
		return nil, err
	}
	found := map[uint32]*table{}
	for _, of := range f.Sources {
		members, err := f.members(ctx, q, of.Dataset)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			switch {
			case !m.published:
				return nil, fmt.Errorf("%w: the publication %q does not have every change of table %s, with its key: run `ringside changes apply %s`",
					origin.ErrFeedUnavailable, f.Publication, m.name, f.Dataset.Name)
			case !m.identified:
				return nil, m.errIdentity()
			}
			found[m.oid] = &m.table
		}
	}
	return found, nil
}

// checkServer checks the server and the publication.
func (f *feed) checkServer(ctx context.Context, q *queries) error {
	row, err := q.row(ctx, 3, `SELECT current_setting('wal_level'), pg_is_in_recovery(),
		(SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = $1)`, f.Publication)
	if err != nil {
		return err
	}
	switch level := string(row[0]); {
	case level != "logical":
		return fmt.Errorf("%w: wal_level is %s: run ALTER SYSTEM SET wal_level = logical, and restart the server", origin.ErrFeedUnavailable, level)
	case string(row[1]) == "t":
		return errStandby
	case row[2] == nil:
		return fmt.Errorf("%w: the publication %q does not exist: run `ringside changes apply %s`", origin.ErrFeedUnavailable, f.Publication,
			f.Dataset.Name)
	case string(row[2]) != "t":
		return fmt.Errorf("%w: the publication %q leaves out changes: run ALTER PUBLICATION … SET (publish = 'insert, update, delete, truncate')",
			origin.ErrFeedUnavailable, f.Publication)
	}
	return nil
}

var errStandby = errors.New("the server is a standby, whose reads lag behind its log: connect to the primary (target_session_attrs=read-write)")

// member is a table, partition or descendant that has rows.
type member struct {
	table
	oid        uint32
	published  bool // with all its rows, and the columns of the key
	identified bool // messages about rows that were changed or deleted have the previous key
}

// members reads the tables with rows of a source. A publication may name a partition or an ancestor of it. Filters and lists of
// columns exist since PostgreSQL 15.
func (f *feed) members(ctx context.Context, q *queries, ds origin.Dataset) (all []*member, err error) {
	rows, err := q.read(ctx, `WITH RECURSIVE member AS (SELECT to_regclass($1)::oid AS oid
			UNION SELECT i.inhrelid FROM pg_inherits i JOIN member m ON i.inhparent = m.oid)
		SELECT c.oid, format('%I.%I', n.nspname, c.relname), EXISTS (
				SELECT FROM (SELECT c.oid UNION SELECT relid FROM pg_partition_ancestors(c.oid)) AS upward (oid)
				JOIN pg_class u ON u.oid = upward.oid JOIN pg_namespace un ON un.oid = u.relnamespace
				JOIN pg_publication_tables p ON p.schemaname = un.nspname AND p.tablename = u.relname
				WHERE p.pubname = $2 AND to_jsonb(p)->>'rowfilter' IS NULL
				AND coalesce(to_jsonb(p)->'attnames' ?& $3::text[], true)),
			c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
				AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
				AND NOT EXISTS (SELECT unnest($3::text[]) EXCEPT SELECT a.attname::text FROM generate_series(0, i.indnkeyatts - 1) AS s
					JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[s])),
			(SELECT string_agg((k.name IN (WITH RECURSIVE type AS (SELECT a.attname, t.oid, t.typbasetype FROM pg_attribute a
						JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = c.oid
					UNION ALL SELECT type.attname, t.oid, t.typbasetype FROM type JOIN pg_type t ON t.oid = type.typbasetype)
				SELECT attname::text FROM type WHERE oid = 'bpchar'::regtype))::text, ',' ORDER BY k.at)
			FROM unnest($3::text[]) WITH ORDINALITY AS k (name, at))
		FROM member JOIN pg_class c ON c.oid = member.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'`,
		sqltext.QuoteTable(f.syntax, ds.Table), f.Publication, array(ds.Key))
	for _, row := range rows {
		m := &member{}
		if m, err = memberOf(ds, row); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, err
}

func memberOf(ds origin.Dataset, row [][]byte) (*member, error) {
	if len(row) != 5 {
		return nil, session.ErrOutOfStep
	}
	oid, err := strconv.ParseUint(string(row[0]), 10, 32)
	if err != nil {
		return nil, err
	}
	m := &member{
		table: table{name: string(row[1]), key: ds.Key, version: ds.Version}, oid: uint32(oid),
		published: string(row[2]) == "t", identified: string(row[3]) == "t",
	}
	for padded := range strings.SplitSeq(string(row[4]), ",") {
		m.padded = append(m.padded, padded == "true")
	}
	if len(m.padded) != len(ds.Key) {
		return nil, session.ErrOutOfStep
	}
	return m, nil
}

// array writes a literal of an array of texts.
func array(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}
