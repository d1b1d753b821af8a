package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// restartingFeed calls Follow again whenever it ends, as the sidecar does.
type restartingFeed struct{ origin.Feed }

func (f restartingFeed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	for {
		err := f.Feed.Follow(ctx, handle)
		if ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// failover is a database under test that is moved from one server to another.
type failover struct {
	rows
	db       *sqldb.DB            // of rows
	behind   database             // leads to where the DSN does
	followed map[string]*follower // :: kind
}

// newFailover opens the table r of the database to which dsn leads.
func newFailover(t *testing.T, d database, dsn string) *failover {
	t.Helper()
	f := &failover{behind: d, followed: map[string]*follower{}}
	f.behind.dsn = dsn
	f.db = f.behind.open(t)
	ds := rowsDataset
	ds.Name = "rows"
	f.rows = rowsIn(t, f.db, ds)
	return f
}

// atOnce is how many reads hold connections at the same time.
const atOnce = 8

// holdsConnections makes several connections that stay in the pool: query holds each of them for a moment.
func (f *failover) holdsConnections(t *testing.T, query string) {
	t.Helper()
	slow, err := f.db.Dataset(origin.Dataset{Name: "rows", Query: query, Value: "v"})
	if err != nil {
		t.Fatal(err)
	}
	var reads sync.WaitGroup
	for range atOnce {
		reads.Go(func() { f.behind.wantValue(t, slow, "a", "0") })
	}
	reads.Wait()
}

// wantRead reads the row of the key a on several connections at once.
func (f *failover) wantRead(t *testing.T, v string) {
	t.Helper()
	var reads sync.WaitGroup
	for range atOnce {
		reads.Go(func() {
			results, err := f.Load(soon(t), []string{"a"})
			if err != nil || results[0].Err != nil || !strings.Contains(string(results[0].Value.Data), `"`+v+`"`) {
				t.Errorf("read %+v, %v; want %s", results, err, v)
			}
		})
	}
	reads.Wait()
}

// follows starts the feeds, and waits until they are live. They have pools of their own: nothing but the feed notices the failover.
func (f *failover) follows(t *testing.T, feeds ...origin.FeedConfig) {
	t.Helper()
	db := f.behind.open(t)
	for _, c := range feeds {
		ds := rowsDataset
		ds.Name = "rows"
		feed, err := db.Feed(ds, c)
		if err != nil {
			t.Fatal(err)
		}
		f.followed[c.Kind] = follow(t, restartingFeed{feed})
		f.followed[c.Kind].wantMissed()
	}
}

// put writes the value v of the key a.
func (f *failover) put(t *testing.T, v string) error {
	t.Helper()
	_, err := f.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"` + v + `"}`)})
	return err
}

// wantRefused is for a write to a server that is read-only: it is certain that nothing was written.
func (f *failover) wantRefused(t *testing.T, v string) {
	t.Helper()
	err := f.put(t, v)
	if err == nil || errors.Is(err, origin.ErrUnknown) || isOutcome(err) || !strings.Contains(err.Error(), "the server is read-only") {
		t.Errorf("a write to a read-only server: got %v", err)
	}
}

func isOutcome(err error) bool {
	return errors.Is(err, origin.ErrConflict) || errors.Is(err, origin.ErrInvalidKey) || errors.Is(err, origin.ErrInvalidValue)
}

// wantReported checks that each feed reports a write to the server to which the database was moved.
func (f *failover) wantReported(t *testing.T, to database) {
	t.Helper()
	for kind, follower := range f.followed {
		follower.wantMissed()
		for n := 0; ; n++ {
			if n == 20 {
				t.Fatalf("%s: nothing is reported", kind)
			}
			key := fmt.Sprint(kind, n)
			to.exec(t, "INSERT INTO r VALUES ('"+key+"', 'x', 1)")
			if follower.reports(key) {
				break
			}
		}
	}
}

// reports receives changes until one has the key. A feed that has just begun again on the other server reports Missed instead.
func (f *follower) reports(key string) bool {
	f.t.Helper()
	for {
		c := f.next()
		for _, row := range c.Rows {
			if row.Key == key {
				return true
			}
		}
		if c.Missed {
			return false
		}
	}
}

// value reads the value v of the key a in the server itself.
func (d database) value(t *testing.T) (v string) {
	t.Helper()
	d.scan(t, &v, "SELECT v FROM r WHERE k = 'a'")
	return v
}

// postgresPair is a primary with the table r and both kinds of feeds, and its standby.
func postgresPair(t *testing.T) (a, b server) {
	t.Helper()
	primary := rig.NewPostgres(t)
	a = server{database{DB: connect(t, "pgx", primary.DSN), engine: "postgres", driver: "postgres", dsn: primary.DSN}, primary, nil}
	a.exec(t, rowsTable)
	a.exec(t, "INSERT INTO r VALUES ('a', 'old', 1)")
	for _, c := range a.feeds() {
		a.installed = append(a.installed, a.record(t, rowsDataset, c).config)
	}
	standby := rig.NewStandby(t, primary.DSN)
	b = server{database{DB: connect(t, "pgx", standby.DSN), engine: "postgres", driver: "postgres", dsn: standby.DSN}, standby, nil}
	return a, b
}

// switchOver makes the standby b the primary, and a its standby.
func switchOver(t *testing.T, a, b server) {
	t.Helper()
	a.Database.Stop()
	b.Promote()
	a.Demote("host=127.0.0.1 port=" + portOf(b.dsn) + " user=ringside")
}

func portOf(dsn string) string {
	_, port, _ := strings.Cut(hostPort.FindString(dsn), ":")
	return port
}

// A name leads to the demoted server for a while after the switchover, so that all connections lead there when it changes.
func TestSwitchoverOfPostgresBehindOneAddress(t *testing.T) {
	t.Parallel()
	a, b := postgresPair(t)
	network := newCutter(t, hostOf(a.dsn))
	f := newFailover(t, a.database, strings.Replace(a.dsn, hostOf(a.dsn), network.Addr().String(), 1))
	readOnly := f.behind.dataset(t, origin.Dataset{Query: "SELECT inet_server_port()::text AS v WHERE $1 <> ''", Value: "v"}) // never writes
	port := func() string { return string(loadOne(t, readOnly, "a").Data) }
	f.follows(t, a.installed...)
	if err := f.put(t, "before"); err != nil || port() != portOf(a.dsn) {
		t.Fatal(err, port())
	}
	switchOver(t, a, b)
	for range 3 { // fills the pools with connections to the demoted server
		f.wantRefused(t, "refused")
		eventually(t, "the standby has the row", func() bool { return strings.Contains(string(loadOne(t, f, "a").Data), "before") })
		if port() != portOf(a.dsn) {
			t.Fatal("the name leads to the demoted server")
		}
	}
	f.holdsConnections(t, "SELECT 0 AS v FROM pg_sleep(0.1) WHERE $1 <> ''")
	network.leadTo(hostOf(b.dsn))
	if err := f.put(t, "after"); err != nil || b.value(t) != "after" {
		t.Errorf("got %v, and the new primary has %q", err, b.value(t))
	}
	f.wantRead(t, "after")
	eventually(t, "reads reach the new primary without a write", func() bool { return port() == portOf(b.dsn) })
	f.wantReported(t, b.database)
}

// The primary of several hosts in one DSN is found, whether the other one is a standby or has crashed.
func TestFailoverOfPostgresAmongHosts(t *testing.T) {
	t.Parallel()
	for _, attrs := range []string{"read-write", "primary"} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,crash=%v", attrs, crash), func(t *testing.T) {
				t.Parallel()
				a, b := postgresPair(t)
				dsn := strings.Replace(a.dsn, hostOf(a.dsn), hostOf(a.dsn)+","+hostOf(b.dsn), 1) + "&target_session_attrs=" + attrs
				f := newFailover(t, a.database, dsn)
				f.follows(t, a.installed...)
				if err := f.put(t, "before"); err != nil {
					t.Fatal(err)
				}
				a.waitForReplay(t, b.dsn)
				if crash {
					a.Kill()
					if err := f.put(t, "nowhere"); err == nil || isOutcome(err) || errors.Is(err, origin.ErrUnknown) {
						t.Errorf("a write without a primary: got %v", err)
					}
					b.Promote()
				} else {
					switchOver(t, a, b)
				}
				if err := f.put(t, "after"); err != nil || b.value(t) != "after" {
					t.Errorf("got %v, and the new primary has %q", err, b.value(t))
				}
				if v := string(loadOne(t, f, "a").Data); !strings.Contains(v, `"after"`) {
					t.Errorf("read %s after the write", v)
				}
				f.wantReported(t, b.database)
			})
		}
	}
}

// mysqlPair is two servers with the table r and a feed, and an account that a read-only server refuses: the one of the rig has
// the rights of an administrator.
func mysqlPair(t *testing.T, e rig.Engine) (a, b server) {
	t.Helper()
	pair := []server{startServer(t, e), startServer(t, e)}
	for i := range pair {
		s := &pair[i]
		s.exec(t, rowsTable)
		s.exec(t, "INSERT INTO r VALUES ('a', 'old', 1)")
		for _, c := range s.feeds() {
			s.installed = append(s.installed, s.record(t, rowsDataset, c).config)
		}
		admin := database{DB: connect(t, "mysql", strings.Replace(s.dsn, "ringside:ringside@", "root@", 1))}
		admin.exec(t, "CREATE USER app@'127.0.0.1' IDENTIFIED BY 'app'")
		admin.exec(t, "GRANT SELECT, INSERT, UPDATE, DELETE ON ringside.* TO app@'127.0.0.1'")
	}
	return pair[0], pair[1]
}

func TestFailoverOfMySQL(t *testing.T) {
	for _, e := range rig.Engines {
		if e.Driver != "mysql" {
			continue
		}
		settings := []string{"read_only = 1"}
		if e.Name == "mysql8" {
			settings = append(settings, "super_read_only = 1")
		}
		for _, setting := range settings {
			name, _, _ := strings.Cut(setting, " ")
			t.Run(e.Name+","+name, func(t *testing.T) {
				t.Parallel()
				testFailoverOfMySQL(t, e, setting)
			})
		}
	}
}

func testFailoverOfMySQL(t *testing.T, e rig.Engine, setting string) {
	a, b := mysqlPair(t, e)
	network := newCutter(t, hostPort.FindString(a.dsn))
	dsn := strings.Replace(strings.Replace(a.dsn, "ringside:ringside@", "app:app@", 1), hostPort.FindString(a.dsn), network.Addr().String(), 1)
	f := newFailover(t, a.database, dsn)
	reads := f.behind.dataset(t, origin.Dataset{Query: "SELECT CAST(@@port AS CHAR) AS v FROM DUAL WHERE ? <> ''", Value: "v"}) // never writes
	port := func() string { return string(loadOne(t, reads, "a").Data) }
	f.follows(t, a.installed...)
	if err := f.put(t, "before"); err != nil || port() != portOf(a.dsn) {
		t.Fatal(err, port())
	}
	a.exec(t, "SET GLOBAL "+setting)
	for range 3 {
		f.wantRefused(t, "refused")
		if v := string(loadOne(t, f, "a").Data); !strings.Contains(v, `"before"`) {
			t.Errorf("read %s after a refused write", v)
		}
	}
	f.holdsConnections(t, "SELECT SLEEP(0.1) AS v FROM DUAL WHERE ? <> ''")
	network.leadTo(hostPort.FindString(b.dsn))
	if err := f.put(t, "after"); err != nil || b.value(t) != "after" || a.value(t) != "before" {
		t.Errorf("got %v; the servers have %q and %q", err, a.value(t), b.value(t))
	}
	f.wantRead(t, "after")
	eventually(t, "reads reach the new primary without a write", func() bool { return port() == portOf(b.dsn) })
	f.wantReported(t, b.database)
}
