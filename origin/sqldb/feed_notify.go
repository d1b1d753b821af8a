package sqldb

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
)

// beatEvery is how often a listener tells itself something, to see that it would hear of a change.
const beatEvery = time.Second

// notifyFeed hears of changes by LISTEN. NOTIFY has no memory, so that each Follow begins with Missed.
type notifyFeed struct {
	origin, dataset, channel string
	postgres                 postgres
}

// Follow implements origin.Feed. It returns within about three seconds after the database has fallen silent.
func (f *notifyFeed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	err := f.follow(ctx, handle)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("origin %q, dataset %q: feed: %w", f.origin, f.dataset, err)
}

func (f *notifyFeed) follow(ctx context.Context, handle func(origin.Changes)) error {
	l, err := f.listen(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	l.heard.miss() //guard:heard-before-listen-told-missed
	for {
		l.heard.tell(handle)
		if err := l.hear(ctx); err != nil {
			return err
		}
	}
}

// listen returns a listener that hears of all that is committed from now on.
func (f *notifyFeed) listen(ctx context.Context) (*listener, error) {
	l := &listener{dataset: f.dataset, channel: f.channel, name: rand.Text()}
	config := f.postgres.config.Config.Copy()
	f.postgres.renew(config) //guard:rotated-password-never-picked-up-notify
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { l.take(n.Payload) }
	soon, cancel := context.WithTimeout(ctx, feedAnswer)
	defer cancel()
	var err error
	if l.conn, err = pgconn.ConnectConfig(soon, config); err != nil {
		return nil, err
	}
	err = l.ask(ctx, `LISTEN "`+f.channel+`"`)
	if err == nil {
		err = l.beat(ctx)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// listener is one connection that listens. It belongs to one goroutine.
type listener struct {
	conn             *pgconn.PgConn
	dataset, channel string
	name             string // of its own beats

	heard     gathered
	awaited   bool // a beat was sent and has not come back
	beatAgain time.Time
}

// hear waits until there is something to tell, or it is time for a beat.
func (l *listener) hear(ctx context.Context) error {
	wait, cancel := context.WithDeadline(ctx, l.beatAgain)
	defer cancel()
	err := l.conn.WaitForNotification(wait)
	switch {
	case err != nil && wait.Err() == nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Err() != nil:
		return l.beat(ctx) //guard:silent-connection-listened-ever
	case l.heard.empty():
		return nil // a beat, or another dataset's
	}
	return l.ask(ctx, "") // takes along what has come in the meantime: a round trip for many is better than one for each
}

var errDeaf = errors.New("notifications do not come back: connect to the database itself, " +
	"or by a pooler that keeps a session's connection (pool_mode = session)")

// beat sends a message to the channel, after a look whether the one before came back: it proves all of the way that a
// change takes, which a statement's answer does not.
func (l *listener) beat(ctx context.Context) error {
	if l.awaited { //guard:feed-behind-transaction-pooler-hears-nothing
		return errDeaf
	}
	l.awaited, l.beatAgain = true, time.Now().Add(beatEvery)
	return l.ask(ctx, fmt.Sprintf(`SELECT pg_notify('%s', '{"beat":"%s"}')`, l.channel, l.name))
}

func (l *listener) ask(ctx context.Context, statement string) error {
	soon, cancel := context.WithTimeout(ctx, feedAnswer)
	defer cancel()
	_, err := l.conn.Exec(soon, statement).ReadAll()
	if err != nil && soon.Err() != nil {
		return fmt.Errorf("the database has not answered for %v: %w", feedAnswer, soon.Err())
	}
	return err
}

// close tells the server, for as long as that takes no time: it may be the server that is frozen.
func (l *listener) close() {
	soon, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = l.conn.Close(soon) // the connection is given up either way
}

func (l *listener) take(payload string) {
	m, ok := parseMessage(payload)
	switch {
	case !ok:
		l.heard.miss()
	case m.Beat != "":
		l.awaited = l.awaited && m.Beat != l.name
	case m.Dataset != "" && m.Dataset != l.dataset: //guard:another-datasets-keys-taken
	case m.All:
		l.heard.miss()
	default:
		l.heard.add(*m.Key, max(m.Version, 0))
	}
}

// message is the payload of a notification: one row, all rows, or a beat.
type message struct {
	Dataset string  `json:"d"` // empty: of each that listens
	Key     *string `json:"k"`
	Version int64   `json:"v"`
	All     bool    `json:"all"`
	Beat    string  `json:"beat"`
}

// parseMessage does not take what may have been cut, or be of somebody who knows nothing of us.
func parseMessage(payload string) (m message, ok bool) {
	if !utf8.ValidString(payload) || json.Unmarshal([]byte(payload), &m) != nil {
		return message{}, false //guard:payload-cut-taken
	}
	return m, m.All || m.Beat != "" || m.Key != nil
}
