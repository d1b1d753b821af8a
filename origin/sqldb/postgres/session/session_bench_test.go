package session

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/e2e/rig"
)

const (
	benchTable = `CREATE TABLE items (id text PRIMARY KEY, b bytea, f float8, v text);
		INSERT INTO items SELECT 'k' || g, '\x00ff41', 0.1, 'x' FROM generate_series(1, 10000) AS g; ANALYZE items`
	benchQuery = "SELECT id, b, f, v FROM items WHERE id = ANY($1)"
	onlyLimit  = "SELECT set_config('statement_timeout', $1, true)"
)

// BenchmarkSettings compares the ways to give each load its settings, and prints the ratio of each to the first.
func BenchmarkSettings(b *testing.B) {
	server := rig.NewPostgres(b)
	for name, dsn := range map[string]string{
		"direct": server.DSN, "session": rig.PgBouncer(b, server, rig.SessionPool).DSN,
		"transaction": rig.PgBouncer(b, server, rig.TransactionPool).DSN,
	} {
		b.Run(name, func(b *testing.B) {
			conn, err := pgconn.Connect(b.Context(), dsn)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(b.Context(), "DROP TABLE IF EXISTS items; "+benchTable).ReadAll(); err != nil {
				b.Fatal(err)
			}
			compareSettings(b, conn, name != "transaction")
		})
	}
}

// compareSettings measures in turns, so that a busy machine slows all of them down.
func compareSettings(b *testing.B, conn *pgconn.PgConn, prepare bool) {
	all := New(nil).read
	names, ways := []string{"limit and query parsed", "all and query parsed", "three round trips"}, []func(*pgconn.Batch){
		func(b *pgconn.Batch) { parsed(b, onlyLimit, "1000"); parsed(b, benchQuery, "{k5}") },
		func(b *pgconn.Batch) { parsed(b, all, "1000"); parsed(b, benchQuery, "{k5}") },
		nil,
	}
	if prepare {
		for name, sql := range map[string]string{"all": all, "query": benchQuery} {
			if _, err := conn.Prepare(b.Context(), name, sql, nil); err != nil {
				b.Fatal(err)
			}
		}
		names = append([]string{"limit parsed, query prepared"}, append(names, "all and query prepared")...)
		ways = append([]func(*pgconn.Batch){
			func(b *pgconn.Batch) { parsed(b, onlyLimit, "1000"); prepared(b, "query", "{k5}") },
		}, append(ways, func(b *pgconn.Batch) { prepared(b, "all", "1000"); prepared(b, "query", "{k5}") })...)
	}
	times := make([][]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			start := time.Now()
			for range 100 {
				runWay(b, conn, way)
			}
			times[i] = append(times[i], time.Since(start)/100)
		}
	}
	median := func(i int) time.Duration {
		slices.Sort(times[i])
		return times[i][len(times[i])/2]
	}
	for i, name := range names {
		fmt.Printf("%-30s %6.0f µs  %.2f\n", name, float64(median(i).Nanoseconds())/1e3, float64(median(i))/float64(median(0)))
	}
}

func parsed(b *pgconn.Batch, sql, parameter string) {
	b.ExecParams(sql, [][]byte{[]byte(parameter)}, nil, nil, nil)
}

func prepared(b *pgconn.Batch, name, parameter string) {
	b.ExecPrepared(name, [][]byte{[]byte(parameter)}, nil, nil)
}

// runWay runs one load; nil is a transaction with SET LOCAL.
func runWay(b *testing.B, conn *pgconn.PgConn, way func(*pgconn.Batch)) {
	ctx := b.Context()
	if way == nil {
		setLocal := "BEGIN READ ONLY; SET LOCAL statement_timeout = 1000"
		for _, s := range required {
			setLocal += "; SET LOCAL " + s.Name + " = '" + s.Value + "'"
		}
		if _, err := conn.Exec(ctx, setLocal).ReadAll(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			if _, err := conn.Exec(ctx, "COMMIT").ReadAll(); err != nil {
				b.Fatal(err)
			}
		}()
		way = func(b *pgconn.Batch) { parsed(b, benchQuery, "{k5}") }
	}
	batch := &pgconn.Batch{}
	way(batch)
	if err := conn.ExecBatch(ctx, batch).Close(); err != nil {
		b.Fatal(err)
	}
}
