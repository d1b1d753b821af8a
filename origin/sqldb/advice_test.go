package sqldb_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
)

// The log of an outage says what to do, and names no part twice.
func TestErrorOfADeadDatabaseSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for driver, dsn := range map[string]string{
		"postgres": "postgres://u:p@127.0.0.1:1/d?sslmode=disable&connect_timeout=5", "mysql": "u:p@tcp(127.0.0.1:1)/d?timeout=5s",
	} {
		source, err := drivers.All().Open(driver, origin.SourceConfig{Name: "db", DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		o, err := source.Dataset(origin.Dataset{Name: "rows", Table: "t", Key: []string{"k"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = o.Load(ctx, []string{"a"})
		if err == nil || !strings.Contains(err.Error(), "start the database, or correct host and port in the DSN") ||
			strings.Count(err.Error(), "origin") != 1 || strings.Contains(err.Error(), "dataset") {
			t.Errorf("%s: got %v, want what to do, and the origin once", driver, err)
		}
	}
}
