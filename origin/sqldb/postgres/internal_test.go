package postgres

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		`{"d":"rows","k":"a","v":1}`, `{"all":true}`, `{"ping":"X"}`, `{"k":null}`, `{"k":"\ud800"}`, `{"k":"cut`,
		"", "[]", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		l := &listener{dataset: "rows", name: "me", awaited: true}
		l.add(payload)
		m, ok := parseMessage(payload)
		if ok != json.Valid([]byte(payload)) && ok {
			t.Fatalf("%q was accepted", payload)
		}
		if !ok && !l.pending.Missed {
			t.Fatalf("%q was ignored", payload)
		}
		if !l.awaited && m.Ping != "me" {
			t.Fatalf("%q was accepted as a ping", payload)
		}
		for key := range l.pending.Versions {
			if m.Key == nil || key != *m.Key {
				t.Fatalf("%q reported %q", payload, key)
			}
		}
	})
}

// logOf returns a reader of a table of changes that has begun, a connection to read with, and a function that adds a row.
func logOf(t *testing.T, dsn string) (log *changeLog, conn *sql.Conn, add func()) {
	t.Helper()
	db, err := sqldb.Open(Driver().(sqldb.Driver), origin.SourceConfig{Name: "db", DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	database, err := connect(origin.SourceConfig{Name: "db", DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(database.Reads)
	t.Cleanup(func() { _ = pool.Close() })
	ctx := t.Context()
	if conn, err = pool.Conn(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	write := func(statement string) {
		t.Helper()
		if err := (triggers{}).Apply(ctx, conn, statement); err != nil {
			t.Fatal(err)
		}
	}
	write("BEGIN READ WRITE; CREATE TABLE t (k int primary key); COMMIT")
	ds, c := origin.Dataset{Name: "rows", Table: "t", Key: "k"}, origin.FeedConfig{Kind: origin.FeedPoll}.WithDefaults()
	if err := db.InstallChanges(ctx, ds, c); err != nil {
		t.Fatal(err)
	}
	log = &changeLog{table: c.Table}
	if err := log.Begin(ctx, conn); err != nil {
		t.Fatal(err)
	}
	i := 0
	return log, conn, func() {
		i++
		write(fmt.Sprintf("BEGIN READ WRITE; INSERT INTO t VALUES (%d); COMMIT", i))
	}
}

// A promoted standby or a restored cluster may lack some rows that were read, and assigns the same xids again.
func TestLogDetectsAnotherHistory(t *testing.T) {
	t.Parallel()
	log, conn, add := logOf(t, rig.Postgres(t))
	for name, change := range map[string]func(){
		"timeline": func() { log.timeline = "0000002A" }, "xids": func() { log.snapshot = "900000000:900000000:" },
	} {
		add()
		change()
		if _, lost, err := log.Next(t.Context(), conn, 10); err != nil || !lost {
			t.Errorf("%s: lost %v, %v", name, lost, err)
		}
		if err := log.Begin(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		if rows, lost, err := log.Next(t.Context(), conn, 10); err != nil || lost || len(rows) > 0 {
			t.Errorf("%s: %d rows after it, lost %v, %v", name, len(rows), lost, err)
		}
	}
}

// After a crash, a transaction may get the xid of one that was rolled back, which the snapshot considers ended.
func TestLogFindsAReusedXid(t *testing.T) {
	t.Parallel()
	log, conn, add := logOf(t, rig.Postgres(t))
	add()
	high := log.high
	if err := log.Begin(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	log.high = high // as if the row had not existed when the snapshot was taken
	if rows, lost, err := log.Next(t.Context(), conn, 10); err != nil || lost || len(rows) != 1 {
		t.Errorf("%d rows, lost %v, %v", len(rows), lost, err)
	}
}

// Whatever the server sends for a type, the row is JSON.
func FuzzCellIsJSON(f *testing.F) {
	oids := []uint32{pgtype.BoolOID, pgtype.Int8OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.ByteaOID, pgtype.JSONOID,
		pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.TimeOID, pgtype.BPCharOID, pgtype.IntervalOID, pgtype.DateOID}
	for i := range oids {
		for _, text := range []string{"NaN", "-Infinity", "1e400", "-0", ".5", "0044-03-15 BC", "infinity", "24:00:00", `\x00ff`, "\xff", `{"a":"\ud800"}`, ""} {
			f.Add(uint8(i), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		oid := oids[int(kind)%len(oids)]
		row := rowjson.EncodeRow([]string{"v"}, []rowjson.Cell{cellOf(oid, text)})
		if _, err := rowjson.ParseRow(row); err != nil {
			t.Fatalf("%d: %q: %v", oid, row, err)
		}
	})
}
