package sqldb_test

import (
	"database/sql"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// microseconds is the time now, as the first version of a row.
var microseconds = map[string]string{
	"postgres": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
	"mysql":    "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
	"sqlite":   "CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)",
}

// lockWaits counts the statements that wait for a lock.
var lockWaits = map[string]string{
	"postgres": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
	// InnoDB's own table of waits does not change while it is read often.
	"mysql": "SELECT count(*) FROM information_schema.PROCESSLIST WHERE id <> CONNECTION_ID() AND info REGEXP '(UPDATE|INSERT INTO) `conformance`'",
}

// A write may wait for the lock of a deletion. The row that it then creates must be newer than all that was there meanwhile.
func testVersionOfARowCreatedAfterAWait(t *testing.T, d database) {
	for _, cond := range []origin.Condition{{}, {Absent: true}} {
		for _, updates := range []int{0, 3} {
			d.fillExact(t, map[string]string{"a": "old"})
			w := d.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"})
			other := d.begin(t)
			run(t, other, "DELETE FROM conformance WHERE k = 'a'")
			result := make(chan origin.Value, 1)
			go func() {
				v, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte("new"), If: cond})
				if err != nil {
					t.Errorf("%+v: %v", cond, err)
				}
				result <- v
			}()
			if waits := lockWaits[d.driver]; waits != "" {
				d.await(t, waits)
			}
			run(t, other, "INSERT INTO conformance (k, v, ver) VALUES ('a', 'between', "+microseconds[d.driver]+")")
			for range updates {
				run(t, other, "UPDATE conformance SET ver = ver + 1")
			}
			var between int64
			if err := other.QueryRowContext(t.Context(), "SELECT ver FROM conformance").Scan(&between); err != nil {
				t.Fatal(err)
			}
			run(t, other, "DELETE FROM conformance WHERE k = 'a'")
			run(t, other, "COMMIT")
			v := <-result
			if v.Version <= between {
				t.Errorf("%+v, %d updates: version %d after %d", cond, updates, v.Version, between)
			}
			if held := loadOne(t, w, "a"); string(held.Data) != "new" || held.Version != v.Version {
				t.Errorf("%+v: %q at version %d, want the written one at %d", cond, held.Data, held.Version, v.Version)
			}
		}
	}
}

// begin opens a transaction on a connection of its own.
func (d database) begin(t *testing.T) *sql.Conn {
	t.Helper()
	conn, err := d.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	begin := "START TRANSACTION"
	if d.driver == "sqlite" {
		begin = "BEGIN IMMEDIATE"
	}
	run(t, conn, begin)
	return conn
}

func run(t *testing.T, conn *sql.Conn, statement string) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
