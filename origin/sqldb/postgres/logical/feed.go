// Package logical reads the changes of PostgreSQL's tables from its write-ahead log, by logical decoding: nothing is installed in
// a table. See DESIGN.md.
package logical

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

const (
	// pingInterval is how often the feed asks whether the server still sends changes, and how much of the log its slot holds.
	pingInterval = time.Second
	// silence is how long the server may send nothing, or not answer a query; then the feed has broken. A walsender answers
	// between two changes, and needs seconds for a large transaction of tables that are not published.
	silence = 5 * time.Second
	// maxDelay is how old a commit may be when it arrives, by the server's clock. A feed that is further behind has broken: it begins
	// again at the present.
	maxDelay = 10 * time.Second
	// startTimeout bounds the creation of a slot, which waits for the transactions that are open.
	startTimeout = 5 * time.Minute
	// recheck is the pause between two checks whether a commit is visible.
	recheck = 10 * time.Millisecond
	// maxInvisible limits the commits that are not yet visible, as they wait for a standby.
	maxInvisible = 10_000
)

// Connect opens connections outside the pool.
type Connect struct {
	// Queries opens one that session.Settings.Start has checked.
	Queries func(context.Context) (*pgconn.PgConn, error)
	// Replication opens one of a walsender of the same database.
	Replication func(context.Context) (*pgconn.PgConn, error)
}

// feed has a temporary slot for each Follow, which ends with it: no slot outlives its reader and fills the disk of the server, and
// each reader of a dataset has its own. So each Follow begins with Missed.
type feed struct {
	changefeed.LogicalConfig
	connect Connect
	syntax  sqltext.Syntax

	mu    sync.Mutex // guards stats
	stats origin.LogStats
}

// Decoding implements changefeed.Logical.
type Decoding struct {
	Connect Connect
	Syntax  sqltext.Syntax
}

// Feed implements changefeed.Logical.
func (d Decoding) Feed(c changefeed.LogicalConfig) changefeed.Feed { return d.feed(c) }

func (d Decoding) feed(c changefeed.LogicalConfig) *feed {
	return &feed{LogicalConfig: c, connect: d.Connect, syntax: d.Syntax}
}

// LogStats implements origin.LoggedFeed.
func (f *feed) LogStats() origin.LogStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *feed) setWAL(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats = origin.LogStats{WAL: bytes, MaxWAL: f.MaxWAL}
}

// Check implements changefeed.Feed.
func (f *feed) Check(ctx context.Context) error {
	q, err := openQueries(ctx, f.connect)
	if err != nil {
		return err
	}
	defer q.close()
	if _, err := f.tables(ctx, q); err != nil {
		return err
	}
	conn, err := f.openReplication(ctx)
	if err != nil {
		return err
	}
	closeSoon(conn)
	return nil
}

// Follow implements origin.Feed. It returns within about ten seconds after the database stops answering.
func (f *feed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	err := f.follow(ctx, handle)
	f.setWAL(0)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("origin %q, dataset %q: feed: %w", f.Origin, f.Dataset.Name, err)
}

func (f *feed) follow(ctx context.Context, handle func(origin.Changes)) error {
	q, err := openQueries(ctx, f.connect)
	if err != nil {
		return err
	}
	defer q.close()
	known, err := f.tables(ctx, q)
	if err != nil {
		return err
	}
	s, err := f.startStream(ctx, q)
	if err != nil {
		return err
	}
	defer closeSoon(s.conn)
	r := &reader{feed: f, queries: q, stream: s, known: known, heard: time.Now()}
	handle(origin.Changes{Missed: true})
	for {
		if err := r.step(ctx, handle); err != nil {
			return err
		}
	}
}

// reader is one Follow that has begun. It belongs to one goroutine.
type reader struct {
	feed    *feed
	queries *queries
	stream  *stream
	known   map[uint32]*table // :: OID → table; nil for one that is not of the dataset

	pending     changefeed.Pending
	transaction *message // the begin of the one whose changes arrive; nil between two
	counted     bool     // its xid is in invisible
	invisible   []uint32 // the xids of commits in pending that may not be visible yet
	received    lsn      // everything before it has been received, and is in pending or was reported
	handled     lsn      // everything before it has been reported

	heard    time.Time // when the server last sent anything
	nextPing time.Time
	checkAt  time.Time // when to look again whether the commits are visible
}

// step reports what is visible, and waits for the next message.
func (r *reader) step(ctx context.Context, handle func(origin.Changes)) error {
	between := r.transaction == nil && !r.stream.buffered() // many commits are reported together
	if between && !time.Now().Before(r.checkAt) {
		if err := r.report(ctx, handle); err != nil {
			return err
		}
	}
	if !time.Now().Before(r.nextPing) {
		if err := r.ping(ctx); err != nil {
			return err
		}
	}
	until := r.nextPing
	if between && !r.pending.Empty() && r.checkAt.Before(until) {
		until = r.checkAt
	}
	e, ok, err := r.stream.receive(ctx, until)
	switch {
	case err != nil:
		return err
	case !ok && time.Since(r.heard) > silence: //guard:silent-walsender-seems-live
		return fmt.Errorf("the server has sent nothing for %v: %w", silence, context.DeadlineExceeded)
	case !ok:
		return nil
	}
	r.heard = time.Now()
	return r.take(ctx, e)
}

// report passes on the changes of commits that reads see. The log has a commit before the first read sees it, and much earlier if
// it waits for a standby: a load in between would cache the previous row after its invalidation.
func (r *reader) report(ctx context.Context, handle func(origin.Changes)) error {
	if len(r.invisible) > 0 {
		now, err := r.queries.snapshot(ctx)
		if err != nil {
			return err
		}
		for _, xid := range r.invisible {
			if !now.sees(xid) { //guard:commit-is-reported-before-it-is-visible
				r.checkAt = time.Now().Add(recheck)
				return nil
			}
		}
	}
	r.invisible = r.invisible[:0]
	r.pending.Report(handle)
	r.handled = r.received
	return nil
}

// ping confirms what was reported, asks the server for an answer, and checks the slot.
func (r *reader) ping(ctx context.Context) error {
	r.nextPing = time.Now().Add(pingInterval)
	held, err := r.queries.heldBy(ctx, r.stream.slot)
	if err != nil {
		return err
	}
	r.feed.setWAL(held)
	if held > r.feed.MaxWAL { //guard:slot-fills-the-disk
		return fmt.Errorf("the server keeps %d MiB of its log for this feed, more than max_wal: the feed starts over. A transaction that stays "+
			"open, or a server that decodes slowly, holds the log (pg_stat_activity, pg_replication_slots)", held>>20)
	}
	return r.stream.send(r.handled, true)
}

// take handles what the server has sent.
func (r *reader) take(ctx context.Context, e envelope) error {
	if e.message == nil {
		r.advance(e.end)
		if e.reply {
			return r.stream.send(r.handled, false)
		}
		return nil
	}
	m, err := parseMessage(e.message)
	if err == nil && m.kind == begin {
		r.transaction, r.counted = &m, false
	}
	if err == nil && r.transaction != nil && e.at.Sub(r.transaction.at) > maxDelay { //guard:feed-that-is-far-behind-seems-live
		err = fmt.Errorf("the server sends changes %v after their commit, or later: the feed starts over", maxDelay)
	}
	if err != nil {
		return err
	}
	return r.takeMessage(ctx, m)
}

// advance notes that everything before at has been received. A keepalive in the middle of a transaction says nothing about it.
func (r *reader) advance(at lsn) {
	if r.transaction == nil {
		r.received = max(r.received, at)
	}
}

var errOutside = errors.New("the server has sent a change outside of a transaction")

func (r *reader) takeMessage(ctx context.Context, m message) error {
	if r.transaction == nil && m.kind != typeName && m.kind != emitted {
		return errOutside
	}
	switch m.kind {
	case commit:
		r.transaction = nil
		r.advance(m.end)
	case relation:
		return r.describe(ctx, m)
	case truncate:
		for _, oid := range m.truncated {
			if r.known[oid] != nil { //guard:truncate-is-not-reported
				r.pending.Miss()
			}
		}
		return r.countTransaction()
	case insert, update, remove:
		t, described := r.known[m.table]
		switch {
		case !described:
			return errUndescribed
		case t == nil:
			return nil
		}
		if err := t.add(m, &r.pending); err != nil {
			return err
		}
		return r.countTransaction()
	}
	return nil
}

// countTransaction notes that pending has changes of the transaction.
func (r *reader) countTransaction() error {
	if r.counted {
		return nil
	}
	if len(r.invisible) == maxInvisible { //guard:commits-wait-without-limit
		return fmt.Errorf("more than %d commits are in the log, but not visible: is a synchronous standby (synchronous_standby_names) missing?",
			maxInvisible)
	}
	r.counted = true
	r.invisible = append(r.invisible, r.transaction.xid)
	return nil
}

// maxTables limits the tables and partitions of which a publication has changes.
const maxTables = 100_000

// describe takes the columns of a table. One that is not known may be a new partition, or a table of another dataset.
func (r *reader) describe(ctx context.Context, m message) error {
	if _, ok := r.known[m.table]; !ok {
		if len(r.known) >= maxTables {
			return fmt.Errorf("the publication has more than %d tables", maxTables)
		}
		now, err := r.feed.tables(ctx, r.queries)
		if err != nil {
			return err
		}
		r.known[m.table] = now[m.table] //guard:new-partition-is-not-reported
	}
	if t := r.known[m.table]; t != nil {
		return t.describe(m.columns)
	}
	return nil
}
