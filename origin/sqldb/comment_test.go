package sqldb_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

type traceKey struct{}

// Statements of traced requests end with a comment, and the prepared statements of the others stay prepared.
func TestTraceComments(t *testing.T) {
	for name, start := range starts {
		if name == "sqlite" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.exec(t, "CREATE TABLE c (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9))")
			d.exec(t, "INSERT INTO c VALUES ('a', 'x')")
			d, w := d.through(t)
			db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxConns: 1,
				Comment: func(ctx context.Context) string { s, _ := ctx.Value(traceKey{}).(string); return s }})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			ds := origin.Dataset{Name: "rows", Table: "c", Key: []string{"k"}, Value: "v"}
			rows, writer := mustDataset(t, db, ds), mustWriter(t, db, ds)
			load := func(trace string) func() {
				return func() {
					ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), traceKey{}, trace), time.Hour)
					defer cancel()
					results, err := rows.Load(ctx, []string{"a"})
					if err != nil || results[0].Err != nil {
						t.Fatalf("%v, %v", results, err)
					}
				}
			}
			load("")()
			load("")()
			for i := range 6 { // more than a connection of MySQL keeps prepared
				trace := fmt.Sprintf("00-%d-'*/-01", i)
				load(trace)()
				if want := fmt.Sprintf("/*traceparent='00-%d-%%27%%2A%%2F-01'*/", i); !w.hasSent(want) {
					t.Errorf("no statement has %s", want)
				}
			}
			if got := w.during(load("")); got != 1 {
				t.Errorf("after them a load without a trace takes %d round trips, want 1: its statement is not prepared any more", got)
			}
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), traceKey{}, "00-write-01"), time.Minute)
			defer cancel()
			if _, err := writer.Write(ctx, origin.Change{Key: "a", Data: []byte("y")}); err != nil {
				t.Error(err)
			}
			if !w.hasSent("/*traceparent='00-write-01'*/") {
				t.Error("a write has no comment")
			}
		})
	}
	_, err := openDB("sqlite", origin.SourceConfig{Name: "db", DSN: "rows.db", Comment: func(context.Context) string { return "" }})
	if err == nil || !strings.Contains(err.Error(), "trace_comments") {
		t.Errorf("SQLite: got %v, want an error that names trace_comments", err)
	}
}

func mustWriter(t *testing.T, db origin.Source, ds origin.Dataset) origin.Writer {
	t.Helper()
	source, err := origin.Writable(db)
	if err != nil {
		t.Fatal(err)
	}
	w, err := source.Writer(ds)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
