package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// slowCommit makes each COMMIT after a write to the table conformance take half a minute, and hold the advisory lock 7.
var slowCommit = []string{
	`CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_advisory_xact_lock(7); PERFORM pg_sleep(30); RETURN NULL; END $$`,
	// A write makes all deferred triggers run before COMMIT, except Ringside's own.
	`CREATE CONSTRAINT TRIGGER ringside_poll_wait AFTER INSERT OR UPDATE OR DELETE ON conformance
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`,
}

const committing = `FROM pg_stat_activity WHERE application_name = 'ringside' AND query = 'COMMIT' AND
	wait_event = 'PgSleep'`

func TestWhatEndsACommit(t *testing.T) {
	d := startPostgres(t)
	for _, c := range []struct {
		name    string
		timeout time.Duration
		end     func(t *testing.T, cancel func())
		want    error
	}{
		{"the deadline", 3 * time.Second, func(*testing.T, func()) {}, origin.ErrUnknown}, // COMMIT has no statement_timeout
		{"the caller", time.Minute, func(_ *testing.T, cancel func()) { cancel() }, origin.ErrUnknown},
		{"the death of the session", time.Minute, func(t *testing.T, _ func()) {
			d.count(t, "SELECT count(pg_terminate_backend(pid)) "+committing)
		}, origin.ErrUnknown},
		{"the cancellation of the statement", time.Minute, func(t *testing.T, _ func()) {
			d.count(t, "SELECT count(pg_cancel_backend(pid)) "+committing)
		}, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.fillExact(t, map[string]string{"a": "old"})
			d.exec(t, "DROP FUNCTION IF EXISTS wait")
			for _, statement := range slowCommit {
				d.exec(t, statement)
			}
			w := d.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"})
			ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
			defer cancel()
			result := make(chan error, 1)
			go func() {
				_, err := w.Write(ctx, origin.Change{Key: "a", Data: []byte("new")})
				result <- err
			}()
			d.await(t, "SELECT count(*) "+committing)
			c.end(t, cancel)
			err := <-result
			if !errors.Is(err, c.want) || errors.Is(err, origin.ErrUnknown) != (c.want == origin.ErrUnknown) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := d.count(t, "SELECT ver FROM conformance WHERE k = 'a' FOR UPDATE"); n != 1 {
				t.Errorf("version %d: it was committed", n)
			}
		})
	}
}

func TestDeferredConstraintRejectsACommit(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d database) {
		if d.driver == "mysql" {
			return // it has no deferred constraints
		}
		d.exec(t, "CREATE TABLE other (id INT PRIMARY KEY)")
		d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v INT REFERENCES other (id) DEFERRABLE INITIALLY DEFERRED)")
		w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
		for range 2 { // the second on the same connection
			_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":1}`)})
			if !errors.Is(err, origin.ErrInvalidValue) || errors.Is(err, origin.ErrUnknown) {
				t.Errorf("got %v", err)
			}
		}
		if n := d.count(t, "SELECT count(*) FROM r"); n != 0 {
			t.Errorf("%d rows", n)
		}
	})
}

// A session that ends before its COMMIT has written nothing, so the write is retried in another session.
func TestWriteContinuesAfterItsSessionIsKilled(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d database) {
		waiting := map[string]string{
			"postgres": "FROM pg_stat_activity WHERE application_name = 'ringside' AND wait_event_type = 'Lock'",
			"mysql":    "FROM information_schema.PROCESSLIST WHERE info LIKE '%UPDATE `conformance`%' AND id <> CONNECTION_ID()",
		}[d.driver]
		if waiting == "" {
			return
		}
		d.fillExact(t, map[string]string{"a": "old"})
		w := d.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"})
		release := d.lock(t)
		result := make(chan error, 1)
		go func() {
			_, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte("new")})
			result <- err
		}()
		pid := map[string]string{"postgres": "pid", "mysql": "id"}[d.driver]
		kill := map[string]string{"postgres": "SELECT pg_terminate_backend(%d)", "mysql": "KILL %d"}[d.driver]
		id := d.await(t, "SELECT COALESCE(MIN("+pid+"), 0) "+waiting)
		d.exec(t, fmt.Sprintf(kill, id))
		release()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if v := loadOne(t, w, "a"); string(v.Data) != "new" || v.Version != 2 {
			t.Errorf("%s at version %d", v.Data, v.Version)
		}
	})
}
