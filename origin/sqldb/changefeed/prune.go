package changefeed

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// DefaultGrace is Retention.Grace of real feeds. It exceeds the longest interval between two reads several times.
const DefaultGrace = 5 * time.Minute

const (
	pruneInterval = time.Minute
	// pruneBatch is how many rows one statement deletes. While there are more, each read is followed by such a statement.
	pruneBatch = 5000
)

// Retention says which rows of a table of changes are kept: at most Rows, and those of the last Age.
type Retention struct {
	Age  time.Duration
	Rows int64
	// Grace is for how long a row must have been visible before it is deleted, so that every reader has read it. A reader that
	// has not read for half of Grace assumes that it has missed rows.
	Grace time.Duration
}

// pruner deletes the rows of a table of changes that every reader has read. Readers do not know each other's positions; what
// they know is that a row which was visible Grace ago has been read by each of them, or that the reader will notice its pause.
type pruner struct {
	Retention
	log Log

	ripe, next any       // positions of the log; rows visible at ripe may be deleted
	nextSince  time.Time // when next was the position
	due        time.Time // of the next pass

	mu    sync.Mutex // guards stats
	stats origin.LogStats
}

// forget drops the positions, as after a gap they may be those of another server.
func (p *pruner) forget() { p.ripe, p.next = nil, nil }

// advance takes the present position of the log, and makes the one of Grace ago that at which rows may be deleted.
func (p *pruner) advance() {
	switch {
	case p.next == nil:
		p.next, p.nextSince = p.log.Mark(), time.Now()
	case time.Since(p.nextSince) >= p.Grace: //guard:unread-changes-pruned
		p.ripe, p.next, p.nextSince = p.next, p.log.Mark(), time.Now()
	}
}

// run makes one pass, if one is due.
func (p *pruner) run(ctx context.Context, conn *sql.Conn, table func(context.Context, *sql.Conn) (Bounds, error)) error {
	p.advance()
	if time.Now().Before(p.due) {
		return nil
	}
	p.due = time.Now().Add(min(pruneInterval, p.Grace))
	b, err := table(ctx, conn)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.stats.Rows, p.stats.MaxRows = b.rows(), p.Rows
	p.mu.Unlock()
	if p.ripe == nil {
		return nil
	}
	deleted, err := p.log.Prune(ctx, conn, p.ripe, p.Retention, pruneBatch)
	if err == nil && deleted >= pruneBatch {
		p.due = time.Time{}
	}
	return err
}

func (p *pruner) setError(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.PruneError = err
}

// LogStats implements origin.LoggedFeed.
func (p *pruner) LogStats() origin.LogStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// stopped forgets how many rows there are: another member counts them.
func (p *pruner) stopped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats = origin.LogStats{}
}

// rows returns about how many rows there are: numbers may be missing in between.
func (b Bounds) rows() int64 {
	if b.High == 0 {
		return 0
	}
	return b.High - b.Low + 1
}
