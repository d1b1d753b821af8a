package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

func TestServerTimeoutIsBelowTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for left, want := range map[time.Duration]time.Duration{
			time.Hour:   3211264 * time.Millisecond,
			time.Second: 896 * time.Millisecond, 5 * time.Millisecond: 4 * time.Millisecond,
			time.Microsecond: time.Millisecond, -time.Second: time.Millisecond,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			if got := ServerTimeout(ctx); got != want {
				t.Errorf("%v left: %v, want %v", left, got, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(4 * time.Millisecond)
		if got := ServerTimeout(ctx); got != 896*time.Millisecond {
			t.Errorf("a little later: %v, want the same", got)
		}
		if got := ServerTimeout(t.Context()); got != 0 {
			t.Errorf("no deadline: %v", got)
		}
	})
}

// panicking is a connector whose driver panics.
type panicking struct{ driver.Connector }

func (panicking) Connect(context.Context) (driver.Conn, error) { panic("canary") }

func TestPanicInACheckOfTheServerIsReportedAndTheNextCheckIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var defects []string
		kind := Driver{Kind: "fake", Connect: func(origin.SourceConfig) (*Database, error) {
			return &Database{Reads: panicking{}, IsReadOnly: func(context.Context, *sql.Conn) (bool, error) { return false, nil }}, nil
		}}
		db, err := Open(kind, origin.SourceConfig{Name: "db", Defect: func(err error) { defects = append(defects, err.Error()) }})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			time.Sleep(checkInterval)
			db.failover.startIfDue()
			db.failover.running.Wait()
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if len(defects) != 2 || slices.ContainsFunc(defects, func(text string) bool {
			return !strings.HasPrefix(text, "origin db: ") || !strings.Contains(text, "canary") || !strings.Contains(text, "goroutine")
		}) {
			t.Errorf("reported %q, want two panics, each with the origin and the stack", defects)
		}
	})
}
