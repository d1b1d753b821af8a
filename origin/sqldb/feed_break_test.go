package sqldb_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

// server is a database that a test may stop and freeze.
type server struct {
	database
	*rig.Database
	installed []origin.FeedConfig // feeds of the table r
}

// startServer starts a server of a kind.
func startServer(t testing.TB, e rig.Engine) server {
	t.Helper()
	s := e.Start(t)
	return server{database{DB: connect(t, e.SQLDriver, s.DSN), engine: e.Name, driver: e.Driver, dsn: s.DSN}, s, nil}
}

func (d database) sqlDriver() string {
	if d.driver == "postgres" {
		return "pgx"
	}
	return d.driver
}

// TestFeedsOfServersThatBreak freezes and restarts the servers under the feeds.
func TestFeedsOfServersThatBreak(t *testing.T) {
	for _, engine := range rig.Engines {
		t.Run(engine.Name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, engine)
			s.exec(t, rowsTable)
			feeds := map[string]origin.Feed{}
			for _, c := range s.feeds() {
				feeds[c.Kind] = s.record(t, rowsDataset, c).feed(t)
			}
			breaks := func(f, repair func()) {
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
					if kind != origin.FeedPoll {
						f.wantStart(true)
					} else {
						f.want(map[string]int64{"a": 1})
					}
					f.stop()
				}
				s.exec(t, "DELETE FROM r") // reported by the next Follow
			}
			breaks(s.Freeze, s.Thaw)
			breaks(s.Database.Stop, s.Start)
			breaks(s.Kill, s.Start)
		})
	}
}
