package sqldb_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// TestNotifications sends payloads from other programs: any client may write to the channel.
func TestNotifications(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify, Channel: "ringside"}).started(t)
	for _, garbage := range []string{
		"", "garbage", "{}", `{"k":5}`, `{"d":"rows"}`, `{"k":"cut`, `{"k":"a","v":1.5}`,
		`{"k":"a","v":99999999999999999999}`, `[]`, "null", `{"all":true}`, `{"d":"rows","all":true}`, strings.Repeat("x", 7999),
	} {
		d.exec(t, "SELECT pg_notify('ringside', $1)", garbage)
		if c := f.next(); !c.Missed {
			t.Errorf("%.20q: got %+v, want missed", garbage, c)
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

// A key that is too long for a notification must not make the application's write fail.
func TestRegressionNotificationThatIsTooLong(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, "CREATE TABLE r (k text, v text, ver int)")
	f := d.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify}).started(t)
	d.exec(t, "INSERT INTO r VALUES ($1, 'x', 1), ($2, 'x', 1), ('a', 'x', 1)", strings.Repeat("k", 9000),
		strings.Repeat("\x01", 1024))
	f.want(map[string]int64{"a": 1, strings.Repeat("\x01", 1024): 1})
}

// A pooler that gives each transaction another connection accepts LISTEN and never delivers. The feed must not seem live.
func TestFeedBehindATransactionPoolerBreaks(t *testing.T) {
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

// A network that drops everything, without an error.
func TestFeedOfASilentNetworkBreaks(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	p := newProxy(t, d.dsn)
	d.dsn = p.dsn
	for _, c := range d.feeds() {
		f := follow(t, d.record(t, rowsDataset, c).feed(t))
		f.wantStart(true)
		p.silent.Store(true)
		if err := f.end(); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			t.Errorf("%s: ended with %v", c.Kind, err)
		}
		f.ended <- nil // for stop
		p.silent.Store(false)
	}
}

// A pooler may send a result of another session to a new connection.
func TestFeedWhoseConnectionGetsAnotherResult(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	p := newProxy(t, d.dsn)
	behind := d
	behind.dsn = p.dsn
	r := behind.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify})
	p.stray.Store(2)
	f := follow(t, r.feed(t))
	f.wantStart(true)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 1})
}
