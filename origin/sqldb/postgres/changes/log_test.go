package changes_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/changes"
)

// logOf returns a reader of a table of changes that has begun, a connection to read with, and a function that adds a row.
func logOf(t *testing.T, dsn string) (log *changes.ChangeLog, conn *sql.Conn, add func()) {
	t.Helper()
	db, err := sqldb.Open(postgres.Driver().(sqldb.Driver), origin.SourceConfig{Name: "db", DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	database, err := postgres.Driver().(sqldb.Driver).Connect(origin.SourceConfig{Name: "db", DSN: dsn})
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
		if err := database.Triggers.Apply(ctx, conn, statement); err != nil {
			t.Fatal(err)
		}
	}
	write("BEGIN READ WRITE; CREATE TABLE t (k int primary key); COMMIT")
	ds, c := origin.Dataset{Name: "rows", Table: "t", Key: []string{"k"}}, origin.FeedConfig{Kind: origin.FeedPoll}.WithDefaults()
	if err := db.InstallChanges(ctx, ds, c); err != nil {
		t.Fatal(err)
	}
	log = database.Triggers.Log(c.Table).(*changes.ChangeLog)
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
		"timeline": func() { log.SetTimeline("0000002A") }, "xids": func() { log.SetSnapshot("900000000:900000000:") },
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
	high := log.High()
	if err := log.Begin(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	log.SetHigh(high) // as if the row had not existed when the snapshot was taken
	if rows, lost, err := log.Next(t.Context(), conn, 10); err != nil || lost || len(rows) != 1 {
		t.Errorf("%d rows, lost %v, %v", len(rows), lost, err)
	}
}
