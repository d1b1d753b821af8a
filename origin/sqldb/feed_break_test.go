package sqldb_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

// server is a database that a test may stop and freeze.
type server struct {
	database
	*rig.Database
}

// servers start one of each kind.
var servers = map[string]func(t *testing.T) server{
	"postgres": func(t *testing.T) server {
		s := rig.NewPostgres(t)
		return server{database{connect(t, "pgx", s.DSN), "postgres", s.DSN, ""}, s}
	},
	"mysql": func(t *testing.T) server {
		s := rig.NewMariaDB(t)
		return server{database{connect(t, "mysql", s.DSN), "mysql", s.DSN, ""}, s}
	},
}

func (d database) sqlDriver() string {
	if d.driver == "postgres" {
		return "pgx"
	}
	return d.driver
}

// TestFeedsThatBreak freezes and restarts the servers under the feeds.
func TestFeedsThatBreak(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.exec(t, rowsTable)
			feeds := map[string]origin.Feed{}
			for _, c := range s.feeds() {
				feeds[c.Kind] = s.record(t, rowsDataset, c).feed(t)
			}
			breaks := func(f, repair func(), commitsStay bool) {
				followed := map[string]*follower{}
				for kind, feed := range feeds {
					followed[kind] = follow(t, feed)
					followed[kind].next()
				}
				f()
				began := time.Now()
				for kind, f := range followed {
					if err := f.end(); err == nil || strings.Contains(err.Error(), "already") {
						t.Errorf("%s: ended with %v", kind, err)
					}
					f.ended <- nil // for stop
					t.Logf("%s: broken for at most %v", kind, time.Since(began).Round(time.Millisecond))
				}
				repair()
				s.DB = connect(t, s.sqlDriver(), s.dsn)
				s.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
				for kind, feed := range feeds {
					f := follow(t, feed)
					switch {
					case kind == origin.FeedNotify:
						f.wantStart(true)
					case commitsStay:
						f.want(map[string]int64{"a": 1})
					default: // of this server, which answers before a commit is on the disk
						f.next()
					}
					f.stop()
				}
				s.exec(t, "DELETE FROM r") // which the next Follow tells of
			}
			breaks(s.Freeze, s.Thaw, true)
			breaks(s.Database.Stop, s.Start, true)
			breaks(s.Kill, s.Start, s.driver != "postgres")
		})
	}
}

func TestNoErrorOfAFeedHoldsASecret(t *testing.T) {
	for driver, dsn := range map[string]string{
		"postgres": "postgres://user:" + canary + "@127.0.0.1:1/db", "mysql": "user:" + canary + "@tcp(127.0.0.1:1)/db",
	} {
		d := database{driver: driver, dsn: dsn}
		db := d.open(t)
		for _, c := range d.feeds() {
			ds := rowsDataset
			ds.Name = "rows"
			feed, err := db.Feed(ds, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				feed.Follow(soon(t), nil), db.CheckFeed(soon(t), ds, c), db.InstallChanges(soon(t), ds, c),
			} {
				if err == nil || strings.Contains(fmt.Sprintf("%+v", err), canary) ||
					!strings.Contains(err.Error(), `origin "db", dataset "rows"`) {
					t.Errorf("%s: %v", c.Kind, err)
				}
			}
		}
	}
}

func TestFeedThatMakesNoSense(t *testing.T) {
	table, notify := origin.Dataset{Name: "rows", Table: "r", Key: "k"}, origin.FeedConfig{Kind: origin.FeedNotify}
	for _, c := range []struct {
		driver, dsn string
		ds          origin.Dataset
		feed        origin.FeedConfig
		want        string
	}{
		{"postgres", "host=h", table, origin.FeedConfig{Kind: "push"}, "use notify or poll"},
		{"sqlite", "x.db", table, notify, "use poll"},
		{"postgres", "host=h", origin.Dataset{Name: "rows", Query: "SELECT $1"}, notify, "table and key instead of query"},
		{"postgres", "host=h", origin.Dataset{Name: "ro'ws", Table: "r", Key: "k"}, notify, "cannot carry the dataset name"},
		{"postgres", "host=h", table, origin.FeedConfig{Kind: origin.FeedNotify, Channel: "a\"b"}, "channel"},
		{"postgres", "host=h", origin.Dataset{Name: "rows", Table: "r"}, notify, "table needs key"},
	} {
		db := database{driver: c.driver, dsn: c.dsn}.open(t)
		_, err := db.Feed(c.ds, c.feed)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
		if _, _, again := db.ChangesSQL(soon(t), c.ds, c.feed); again == nil || again.Error() != err.Error() {
			t.Errorf("got %v, want %v", again, err)
		}
	}
}

// TestNotifications is about what comes by a channel that anybody may write to.
func TestNotifications(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify}).started(t)
	for _, garbage := range []string{
		"", "garbage", "{}", `{"k":5}`, `{"d":"rows"}`, `{"k":"cut`, `{"k":"a","v":1.5}`,
		`{"k":"a","v":99999999999999999999}`, `[]`, "null", `{"all":true}`, `{"d":"rows","all":true}`, strings.Repeat("x", 7999),
	} {
		d.exec(t, "SELECT pg_notify('ringside', $1)", garbage)
		if c := f.next(); !c.Missed {
			t.Errorf("%.20q: told %+v", garbage, c)
		}
	}
	for _, none := range []string{
		`{"d":"other","k":"a"}`, `{"d":"other","all":true}`, `{"ping":"of another listener"}`,
		`{"k":"` + strings.Repeat("k", 3073) + `"}`,
	} {
		d.exec(t, "SELECT pg_notify('ringside', $1)", none)
	}
	d.exec(t, `SELECT pg_notify('ringside', '{"k":"a","v":-1}')`)
	f.want(map[string]int64{"a": 0})
	d.exec(t, "INSERT INTO r VALUES ($1, 'x', 1)", strings.Repeat("\x01", 100)) // long in JSON
	f.want(map[string]int64{strings.Repeat("\x01", 100): 1})
}

// A key that no notification can hold must not make the application's write fail.
func TestRegressionANotificationThatIsTooLong(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, "CREATE TABLE r (k text, v text, ver int)")
	f := d.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify}).started(t)
	d.exec(t, "INSERT INTO r VALUES ($1, 'x', 1), ($2, 'x', 1), ('a', 'x', 1)", strings.Repeat("k", 9000),
		strings.Repeat("\x01", 1024))
	f.want(map[string]int64{"a": 1, strings.Repeat("\x01", 1024): 1})
}

// A pooler that gives each transaction another connection takes LISTEN and never delivers. The feed must not seem well.
func TestFeedThatHearsNothingSaysSo(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	p := newProxy(t, d.dsn)
	d.dsn = p.dsn
	r := d.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify})
	f := r.started(t)
	p.deaf.Store(true)
	if err := f.end(); err == nil || !strings.Contains(err.Error(), "pooler") {
		t.Errorf("ended with %v", err)
	}
	f.ended <- nil // for stop
}

// The network is cut: nothing comes any more, and nothing says so.
func TestFeedOfASilentNetworkBreaks(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	p := newProxy(t, d.dsn)
	d.dsn = p.dsn
	for _, c := range d.feeds() {
		f := d.record(t, rowsDataset, c).started(t)
		p.silent.Store(true)
		if err := f.end(); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			t.Errorf("%s: ended with %v", c.Kind, err)
		}
		f.ended <- nil // for stop
		p.silent.Store(false)
	}
}

// proxy is between a client and PostgreSQL.
type proxy struct {
	dsn    string
	silent atomic.Bool // passes nothing on to the client
	deaf   atomic.Bool // passes no notification on
}

func newProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	from, to := strings.Index(dsn, "@")+1, strings.Index(dsn, "/postgres?")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{dsn: dsn[:from] + listener.Addr().String() + dsn[to:]}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close() // ends the loop below
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", dsn[from:to])
			if err != nil {
				_ = client.Close() // the test says what it missed
				continue
			}
			wg.Go(func() { pass(server, client, func() { _, _ = io.Copy(server, client) }) })
			wg.Go(func() { pass(server, client, func() { p.answers(client, server) }) })
		}
	})
	return p
}

// pass closes both connections when copying has ended.
func pass(server, client net.Conn, copying func()) {
	copying()
	_ = server.Close() // the other direction may have done it
	_ = client.Close()
}

// answers passes on messages: a byte of type, and the length of the rest with its own four bytes (PostgreSQL, 55.7).
func (p *proxy) answers(client io.Writer, server io.Reader) {
	const notification = 'A'
	in := bufio.NewReader(server)
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if p.silent.Load() || p.deaf.Load() && head[0] == notification {
			continue
		}
		if _, err := client.Write(append(head, body...)); err != nil {
			return
		}
	}
}
