// Package changes reads the change feeds of PostgreSQL, by NOTIFY and from a table of changes, and has the triggers that they need.
package changes

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// pingInterval is how often a listener notifies itself, to verify that it would receive a change.
const pingInterval = time.Second

// notifyFeed receives changes by LISTEN. NOTIFY has no memory, so that each Follow begins with Missed.
type notifyFeed struct {
	changefeed.NotifyConfig
	open Open
}

// Open opens a connection outside the pool, which Settings.Start has checked, for a listener.
type Open func(ctx context.Context, handle pgconn.NotificationHandler) (*pgconn.PgConn, error)

// Notify returns the feed of a dataset.
func Notify(c changefeed.NotifyConfig, open Open) changefeed.Feed { return &notifyFeed{c, open} }

// Check implements changefeed.Feed.
func (f *notifyFeed) Check(ctx context.Context) error {
	l, err := f.listen(ctx)
	if err == nil {
		l.close()
	}
	return err
}

// Follow implements origin.Feed. It returns within about three seconds after the database stops answering.
func (f *notifyFeed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	err := f.follow(ctx, handle)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("origin %q, dataset %q: feed: %w", f.Origin, f.Dataset, err)
}

func (f *notifyFeed) follow(ctx context.Context, handle func(origin.Changes)) error {
	l, err := f.listen(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	l.pending.Miss() //guard:changes-before-listen-lost
	for {
		l.pending.Report(handle)
		if err := l.receive(ctx); err != nil {
			return err
		}
	}
}

// listen returns a listener that has received a ping, and receives everything that is committed from now on.
func (f *notifyFeed) listen(ctx context.Context) (*listener, error) {
	l := &listener{dataset: f.Dataset, channel: "'" + f.Channel + "'", name: rand.Text(), explain: f.Explain}
	err := f.connect(ctx, l)
	channel := f.Channel
	if err == nil && channel == "" {
		// A ping by the name that is stored does not arrive on a channel that has been replaced.
		l.channel = "(SELECT channel FROM " + f.Table + ")" //guard:listens-to-previous-channel
		channel, err = l.query(ctx, l.conn, "SELECT channel FROM "+f.Table)
		err = f.Explain(err)
	}
	if err == nil {
		err = l.exec(ctx, l.conn, "LISTEN "+sqltext.QuoteWith(`"`, channel))
	}
	if err == nil {
		err = l.firstPing(ctx)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// connect opens the connections of a listener. Behind a pooler in transaction mode, a ping by the listening connection would
// arrive as long as its transactions happen to get the same server session, but no change would: another connection pings.
func (f *notifyFeed) connect(ctx context.Context, l *listener) (err error) {
	l.conn, err = f.connectOne(ctx, func(_ *pgconn.PgConn, n *pgconn.Notification) { l.add(n.Payload) })
	if err != nil {
		return err
	}
	l.pinger = l.conn
	if !session.Of(l.conn).Direct() { //guard:notify-pings-itself-through-a-pooler
		l.pinger, err = f.connectOne(ctx, nil)
	}
	return err
}

// maxOpens limits the connections that are tried. The sessions of a pooler may still have what they owe to other clients.
const maxOpens = 5

func (f *notifyFeed) connectOne(ctx context.Context, handle pgconn.NotificationHandler) (conn *pgconn.PgConn, err error) {
	for range maxOpens {
		conn, err = f.open(ctx, handle)
		if !errors.Is(err, session.ErrOutOfStep) || ctx.Err() != nil { //guard:notify-fails-with-a-session-out-of-step
			break
		}
	}
	return conn, err
}

// listener is one connection that listens. It belongs to one goroutine.
type listener struct {
	conn             *pgconn.PgConn
	pinger           *pgconn.PgConn // sends the pings; the same as conn if there is no pooler
	dataset, channel string
	name             string // of its own pings
	explain          func(error) error

	pending  changefeed.Pending
	awaited  bool // a ping was sent and has not arrived
	nextPing time.Time
}

// firstPing waits for a ping: before it arrives, the feed must not seem live.
func (l *listener) firstPing(ctx context.Context) error {
	if err := l.ping(ctx); err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, changefeed.AnswerTimeout)
	defer cancel()
	for l.awaited { //guard:notify-live-before-a-ping
		err := l.conn.WaitForNotification(soon)
		switch {
		case err != nil && ctx.Err() == nil && soon.Err() != nil:
			return errNoDelivery
		case err != nil:
			return err
		}
	}
	return nil
}

// receive waits until there is something to report, or it is time for a ping.
func (l *listener) receive(ctx context.Context) error {
	wait, cancel := context.WithDeadline(ctx, l.nextPing)
	defer cancel()
	err := l.conn.WaitForNotification(wait)
	switch {
	case err != nil && wait.Err() == nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Err() != nil:
		return l.ping(ctx) //guard:silent-connection-never-ends
	case l.pending.Empty():
		return nil // a ping, or a change of another dataset
	}
	return l.exec(ctx, l.conn, "") // also receives what has arrived meanwhile: one round trip for many is better than one for each
}

var errNoDelivery = fmt.Errorf("%w: notifications do not arrive: connect to the database directly, or through a pooler that "+
	"keeps a session's connection (pool_mode = session), or use a feed of kind poll", origin.ErrFeedUnavailable)

// ping sends a message to the channel, after a check that the previous one has arrived. Unlike the answer to a statement,
// it proves the whole path of a change.
func (l *listener) ping(ctx context.Context) error {
	if l.awaited { //guard:notify-behind-pooler-seems-live
		return errNoDelivery
	}
	l.awaited, l.nextPing = true, time.Now().Add(pingInterval)
	_, err := l.query(ctx, l.pinger, fmt.Sprintf(`SELECT pg_notify(%s, '{"ping":"%s"}')`, l.channel, l.name))
	if session.SQLState(err) != "" {
		return l.explain(err)
	}
	return err
}

// query returns the first column of the one row of a query; nothing if it has none. It sets the search_path of the DSN.
func (l *listener) query(ctx context.Context, conn *pgconn.PgConn, query string) (text string, err error) {
	soon, cancel := context.WithTimeout(ctx, changefeed.AnswerTimeout)
	defer cancel()
	batch := &pgconn.Batch{}
	session.Of(conn).AddSettings(soon, batch)
	batch.ExecParams(query, nil, nil, nil, nil)
	results, err := conn.ExecBatch(soon, batch).ReadAll()
	err = session.WantResults(len(results), 2, err)
	if err == nil && len(results[1].Rows) == 1 && len(results[1].Rows[0]) == 1 {
		text = string(results[1].Rows[0][0])
	}
	return text, noAnswer(soon, err)
}

func (l *listener) exec(ctx context.Context, conn *pgconn.PgConn, statement string) error {
	soon, cancel := context.WithTimeout(ctx, changefeed.AnswerTimeout)
	defer cancel()
	results, err := conn.Exec(soon, statement).ReadAll()
	return noAnswer(soon, session.WantResults(len(results), 1, err))
}

func noAnswer(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("the database has not answered for %v: %w", changefeed.AnswerTimeout, ctx.Err())
	}
	return err
}

// close notifies the server, but only waits briefly: the server may be frozen.
func (l *listener) close() {
	soon, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for _, conn := range []*pgconn.PgConn{l.conn, l.pinger} {
		if conn != nil {
			_ = conn.Close(soon) // the connection is dropped either way
		}
	}
}

func (l *listener) add(payload string) {
	m, ok := parseMessage(payload)
	switch {
	case !ok:
		l.pending.Miss()
	case m.Ping != "":
		l.awaited = l.awaited && m.Ping != l.name
	case m.Dataset != "" && m.Dataset != l.dataset: //guard:keys-of-another-dataset-accepted
	case m.All:
		l.pending.Miss()
	default:
		l.pending.Add(*m.Key, max(m.Version, 0))
	}
}

// message is the payload of a notification: one row, all rows, or a ping.
type message struct {
	Dataset string  `json:"d"` // empty: every dataset on the channel
	Key     *string `json:"k"`
	Version int64   `json:"v"`
	All     bool    `json:"all"`
	Ping    string  `json:"ping"`
}

// parseMessage rejects a payload that may have been cut, or that another program sent.
func parseMessage(payload string) (m message, ok bool) {
	if !utf8.ValidString(payload) || json.Unmarshal([]byte(payload), &m) != nil {
		return message{}, false //guard:truncated-payload-accepted
	}
	return m, m.All || m.Ping != "" || m.Key != nil
}
