package e2e

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // for direct access to the databases
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// cluster is sidecars on one ring in front of one database.
type cluster struct {
	t        testing.TB
	etcd     *rig.EtcdServer
	database *rig.Database
	sql      *sql.DB
	sidecars []*rig.Sidecar // the members of the ring
	clients  []*rig.Sidecar // the clients of the ring
	client   *http.Client
}

// inZones lets the clusters of newCluster be in three zones, with a client of the ring.
var inZones = flag.Bool("zones", false, "the promises about reads in a cluster of three zones with a client of the ring")

// statementCap is max_in_flight of each sidecar of a cluster.
const statementCap = 4

// newCluster starts n sidecars in front of PostgreSQL. All datasets read the table cnf_metrics: slow-metrics through a view that
// takes 20 ms per statement, short-metrics with a ttl of 1 s, and owned-metrics practically without local copies. Tests count
// their queries, so that none compares entries with the database.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	if !*inZones {
		return newClusterOf(t, n, rig.Sidecars)
	}
	var all []*rig.Sidecar
	c := newClusterOf(t, n, func(t testing.TB, n int, config string) []*rig.Sidecar {
		all = sidecarsInZones(t, n, config)
		return all[:n]
	})
	c.clients = all[n:]
	return c
}

// sidecarsInZones starts n members in three zones, and a client of the ring in one of them, which is the last.
func sidecarsInZones(t testing.TB, n int, config string) (all []*rig.Sidecar) {
	t.Helper()
	config = strings.Replace(config, "membership: {", "membership: {zones: true, ", 1)
	for i := range n + 1 {
		s := rig.NewSidecar(t, fmt.Sprint("sidecar-", i+1), config)
		s.InZone(string("abc"[i%3]))
		if i == n {
			s.RoleClient()
			s.Role("client")
		}
		s.Start()
		all = append(all, s)
	}
	rig.AwaitRing(t, all[:n])
	return all
}

// readers returns the sidecars that tests read through: the members, then the clients of the ring.
func (c *cluster) readers() []*rig.Sidecar { return slices.Concat(c.sidecars, c.clients) }

// described is what was done in a cluster, for a promise.
func described(done string) string {
	if *inZones {
		done += ", in three zones with a client of the ring"
	}
	return done
}

func newClusterOf(t testing.TB, n int, start func(t testing.TB, n int, config string) []*rig.Sidecar) *cluster {
	t.Helper()
	c := &cluster{t: t, etcd: rig.Etcd(t), database: rig.NewPostgres(t)}
	c.open()
	c.exec(`CREATE EXTENSION pg_stat_statements`)
	c.exec(`CREATE TABLE cnf_metrics (cnf_id text PRIMARY KEY, value float8 NOT NULL, ver bigint NOT NULL DEFAULT 1)`)
	c.exec(`CREATE VIEW slow_metrics AS SELECT m.* FROM cnf_metrics m, (SELECT pg_sleep(0.02)) AS pause`)
	c.sidecars = start(t, n, c.config())
	c.client = &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Minute},
	}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

// open connects to the database.
func (c *cluster) open() {
	c.t.Helper()
	db, err := sql.Open("pgx", c.database.DSN)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { db.Close() })
	c.sql = db
}

func (c *cluster) config() string {
	return c.configOf(fmt.Sprintf("{etcd: {endpoints: [%q], lease_ttl: 2s}}", c.etcd.Endpoint()))
}

// configOf returns the configuration of a sidecar with another membership in YAML. A busy machine gets more than a second for a load:
// these tests count failed reads.
func (c *cluster) configOf(membership string) string {
	dsn := filepath.Join(c.t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(c.database.DSN), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf(`
membership: %s
origins:
  db: {driver: postgres, dsn_file: %q, max_in_flight: %d}
datasets:
  cnf-metrics: {origin: db, table: cnf_metrics, key: cnf_id, version: ver, ttl: 1m, local_ttl: 1m, load_timeout: 5s, verify_rate: 0}
  owned-metrics: {origin: db, table: cnf_metrics, key: cnf_id, ttl: 1m, local_ttl: 1ms, load_timeout: 5s, verify_rate: 0}
  short-metrics: {origin: db, table: cnf_metrics, key: cnf_id, version: ver, ttl: 1s, load_timeout: 5s, verify_rate: 0}
  slow-metrics: {origin: db, table: slow_metrics, key: cnf_id, version: ver, ttl: 1m, load_timeout: 5s, verify_rate: 0}
`, membership, dsn, statementCap)
}

func (c *cluster) exec(statement string, args ...any) {
	c.t.Helper()
	if _, err := c.sql.Exec(statement, args...); err != nil {
		c.t.Fatalf("%s: %v", statement, err)
	}
}

// fill writes rows key-0 … key-(n-1) of a prefix.
func (c *cluster) fill(prefix string, n int) {
	c.t.Helper()
	c.exec(`INSERT INTO cnf_metrics (cnf_id, value) SELECT $1 || i, i FROM generate_series(0, $2 - 1) AS i`, prefix, n)
}

// queries returns the number of SELECT statements on relation that pg_stat_statements has counted.
func (c *cluster) queries(relation string) (n int) {
	c.t.Helper()
	err := c.sql.QueryRow(`SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
		WHERE query LIKE '%' || $1 || '%' AND query LIKE '%SELECT%' AND query NOT LIKE '%pg_stat_%'
		AND query NOT LIKE 'INSERT%' AND query NOT LIKE 'CREATE%'`, relation).Scan(&n)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// get reads a key through reader i. An incomplete response is an error.
func (c *cluster) get(i int, dataset, key string) (status int, body string, err error) {
	response, err := c.client.Get(c.readers()[i].URL(dataset, key))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}

// herd makes n concurrent reads of one key, spread over all sidecars, and returns those whose status is not want.
func (c *cluster) herd(n int, dataset, key string, want int) (failures []string) {
	var mu sync.Mutex // guards failures
	var all sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-gate
			status, body, err := c.get(i%len(c.readers()), dataset, key)
			if err != nil || status != want {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, fmt.Sprint(status, " ", strings.TrimSpace(body), " ", err))
			}
		})
	}
	close(gate)
	all.Wait()
	return failures
}

// load is a closed loop of reads, until stop is called.
type load struct {
	reads, failed atomic.Int64
	last          atomic.Pointer[string] // the last failure
	stop          func()
}

// load starts workers that read the keys of a prefix through the sidecars with the indexes in alive.
func (c *cluster) load(workers, keys int, prefix string, alive ...int) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; ctx.Err() == nil; i++ {
				l.readOne(c, alive[i%len(alive)], fmt.Sprint(prefix, i*7%keys))
			}
		})
	}
	l.stop = func() { cancel(); all.Wait() }
	c.t.Cleanup(l.stop)
	return l
}

func (l *load) readOne(c *cluster, i int, key string) {
	status, body, err := c.get(i, "short-metrics", key)
	l.reads.Add(1)
	if err != nil || status != http.StatusOK {
		l.failed.Add(1)
		why := fmt.Sprint(c.readers()[i].ID, " ", key, ": ", status, " ", body, " ", err)
		l.last.Store(&why)
	}
}

func (l *load) failure() string {
	if why := l.last.Load(); why != nil {
		return *why
	}
	return ""
}

// awaitReads waits until n more reads have completed, so that a fault happens under load.
func (l *load) awaitReads(t testing.TB, n int64) {
	t.Helper()
	until := l.reads.Load() + n
	rig.Eventually(t, time.Minute, func() error {
		if got := l.reads.Load(); got < until {
			return fmt.Errorf("%d reads; want %d", got, until)
		}
		return nil
	})
}
