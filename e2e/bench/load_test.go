package bench

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // for the query without a sidecar

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// loaded is one kind of database from which rows are loaded.
type loaded struct {
	name, driver, sqlDriver string
	start                   func(testing.TB) (dsn string)
	parameter               string
}

var databases = []loaded{
	{"postgres", "postgres", "pgx", rig.Postgres, "$1"},
	{"mysql", "mysql", "mysql", rig.MySQL, "?"},
	{"mariadb", "mysql", "mysql", rig.MariaDB, "?"},
}

// loadConfig takes the driver and the DSN. The origin db has the default limits; each client of wide has a connection.
const loadConfig = `
origins:
  db: {driver: %[1]s, dsn: %[2]q}
  wide: {driver: %[1]s, dsn: %[2]q, max_conns: 16}
datasets:
  db-metrics: {origin: db, table: metrics, key: id, value: body, ttl: 1h, load_timeout: 30s, limits: {no_cache: off}}
  wide-metrics: {origin: wide, table: metrics, key: id, value: body, ttl: 1h, load_timeout: 30s, limits: {no_cache: off}}
`

// loadRows is the number of rows.
const loadRows = 1000

// open fills a new database with rows.
func (l loaded) open(b *testing.B) (dsn string, db *sql.DB) {
	b.Helper()
	dsn = l.start(b)
	db, err := sql.Open(l.sqlDriver, dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	rows := make([]string, loadRows)
	for i := range rows {
		rows[i] = fmt.Sprintf("('%s', '%s')", keyOf(i), value)
	}
	for _, statement := range []string{
		"CREATE TABLE metrics (id VARCHAR(20) PRIMARY KEY, body TEXT NOT NULL)", "INSERT INTO metrics VALUES " + strings.Join(rows, ", "),
	} {
		if _, err := db.Exec(statement); err != nil {
			b.Fatal(err)
		}
	}
	return dsn, db
}

// query reads one row.
func (l loaded) query(db *sql.DB) func(int) (exchange, error) {
	text := "SELECT body FROM metrics WHERE id = " + l.parameter
	return inProcess(func(ctx context.Context, key string) error {
		var body string
		return db.QueryRowContext(ctx, text, key).Scan(&body)
	})
}

// source opens the origin and its dataset in this process.
func (l loaded) source(b *testing.B, dsn string) origin.Origin {
	b.Helper()
	db, err := drivers.All().Open(l.driver, origin.SourceConfig{Name: "db", DSN: dsn, MaxConns: conns})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	source, err := db.Dataset(origin.Dataset{Table: "metrics", Key: []string{"id"}, Value: "body"})
	if err != nil {
		b.Fatal(err)
	}
	return source
}

// inProcess reads each key with load.
func inProcess(load func(ctx context.Context, key string) error) func(int) (exchange, error) {
	return func(i int) (exchange, error) {
		key := keyOf(i)
		return func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return load(ctx, key)
		}, nil
	}
}

// bySource loads rows without a cache.
func bySource(source origin.Origin) func(int) (exchange, error) {
	return inProcess(func(ctx context.Context, key string) error {
		results, err := source.Load(ctx, []string{key})
		if err != nil {
			return err
		}
		return results[0].Err
	})
}

// byDataset loads rows through the cache and the budget of an origin.
func byDataset(b *testing.B, source origin.Origin, inFlight int) func(int) (exchange, error) {
	limiter := guard.NewLimiter(guard.LimitConfig{MaxInFlight: inFlight})
	batch := guard.NewBatch(guard.NewBreaker(source, guard.BreakerConfig{}), guard.BatchConfig{Limiter: limiter})
	d, err := cache.New(cache.Config{Name: "metrics", Policy: kv.DefaultPolicy(), Origin: batch, MaxBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	return inProcess(func(ctx context.Context, key string) error {
		_, err := d.Get(ctx, key, kv.ReadOptions{NoCache: true})
		return err
	})
}

// keyOf gives each connection a different key; otherwise their loads would be merged.
func keyOf(i int) string { return fmt.Sprintf("CNF-%05d", i) }

const noCache = "Cache-Control: no-cache"

// A read that queries the database each time, compared with the same query without a sidecar. over=driver is the sidecar's
// statement alone, over=process has no HTTP. The numbers in the names of the servers are their statements in flight.
func BenchmarkLoad(b *testing.B) {
	for _, l := range databases {
		b.Run("database="+l.name, func(b *testing.B) {
			dsn, db := l.open(b)
			source := l.source(b, dsn)
			s := rig.Sidecars(b, 1, fmt.Sprintf(loadConfig, l.driver, dsn))[0]
			load := func(dataset string) func(int) (exchange, error) {
				return httpGetEach(b, "tcp", s.HTTP, func(i int) string { return "/v1/" + dataset + "/" + keyOf(i) }, noCache)
			}
			for _, n := range []int{1, conns} {
				for _, way := range []struct {
					name string
					dial func(int) (exchange, error)
				}{
					{"over=SQL/server=sql", l.query(db)},
					{"over=driver/server=ringside", bySource(source)},
					{"over=process/server=ringside4", byDataset(b, source, origin.DefaultMaxConns)},
					{"over=process/server=ringside16", byDataset(b, source, conns)},
					{"over=HTTP/server=ringside4", load("db-metrics")},
					{"over=HTTP/server=ringside16", load("wide-metrics")},
				} {
					b.Run(fmt.Sprintf("clients=%d/%s", n, way.name), func(b *testing.B) { measureWith(b, n, way.dial) })
				}
			}
			b.Run("clients=batch/over=HTTP/server=ringside4", func(b *testing.B) { measureWith(b, 1, httpBatchGet(b, s.HTTP, "db-metrics")) })
		})
	}
}

// httpBatchGet loads all rows with one request.
func httpBatchGet(b *testing.B, address, dataset string) func(int) (exchange, error) {
	keys := make([]string, loadRows)
	for i := range keys {
		keys[i] = `"` + keyOf(i) + `"`
	}
	body := `{"keys":[` + strings.Join(keys, ",") + `]}`
	request := fmt.Sprintf("POST /v1/%s:batchGet HTTP/1.1\r\nHost: localhost\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		dataset, noCache, len(body), body)
	return func(int) (exchange, error) {
		conn, err := dial(b, "tcp", address)
		if err != nil {
			return nil, err
		}
		r := bufio.NewReaderSize(conn, 64<<10)
		return func() error {
			if _, err := io.WriteString(conn, request); err != nil {
				return err
			}
			response, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if n := strings.Count(string(text), `"value`); err == nil && n != loadRows {
				return fmt.Errorf("got %s with %d values, want %d: %.200s", response.Status, n, loadRows, text)
			}
			return err
		}, nil
	}
}
