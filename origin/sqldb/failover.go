package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
)

// Connections to a server outlive a failover: a MySQL primary that becomes read-only keeps them open, and those that were
// made before the name led to the new primary lead to the old one. So a pool in use is checked from time to time.
const (
	// checkInterval is the time between two checks of the connected server, one short query each.
	checkInterval = 2 * time.Second
	// maxCheckInterval limits the interval of a read-only server, at which each check also makes a new connection. The
	// interval doubles up to it: a server may be a replica forever.
	maxCheckInterval = time.Minute
	checkTimeout     = 5 * time.Second
)

// failoverCheck replaces the pools of a database if they lead to a read-only server, and a new connection would lead to one
// that accepts writes.
type failoverCheck struct {
	db      *DB
	ctx     context.Context // done once the database is closed
	cancel  context.CancelFunc
	running sync.WaitGroup
	nextAt  atomic.Int64  // of the next check, in nanoseconds since 1970; never while one runs
	after   time.Duration // interval to the next check; belongs to the running one
}

const never = math.MaxInt64

func newFailoverCheck(db *DB) *failoverCheck {
	c := &failoverCheck{db: db, after: checkInterval}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.nextAt.Store(time.Now().Add(c.after).UnixNano())
	return c
}

func (c *failoverCheck) close() {
	c.cancel()
	c.running.Wait()
}

// startIfDue starts a check if the last one is long ago.
func (c *failoverCheck) startIfDue() {
	due := c.nextAt.Load()
	if c.db.database.IsReadOnly == nil || time.Now().UnixNano() < due || !c.nextAt.CompareAndSwap(due, never) {
		return
	}
	c.running.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, checkTimeout)
		defer cancel()
		c.runSafely(ctx)
		c.nextAt.Store(time.Now().Add(c.after).UnixNano())
	})
}

// runSafely reports a panic of the driver, which would end the process on this goroutine.
func (c *failoverCheck) runSafely(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-of-failover-check-ends-process
			c.db.defect(fmt.Errorf("origin %s: panic while checking the server: %v\n%s", c.db.name, p, debug.Stack()))
		}
	}()
	c.run(ctx)
}

func (c *failoverCheck) run(ctx context.Context) {
	if readOnly, err := c.isReadOnly(ctx, c.db.pool); err != nil || !readOnly {
		c.after = checkInterval
		return
	}
	c.after = min(2*c.after, maxCheckInterval)
	fresh := c.db.openFresh()
	defer fresh.Close()                                                     // nothing was written
	if readOnly, err := c.isReadOnly(ctx, fresh); err == nil && !readOnly { //guard:reads-stay-with-demoted-server
		c.db.replacePools()
		c.after = checkInterval
	}
}

func (c *failoverCheck) isReadOnly(ctx context.Context, pool *connpool.Pool) (readOnly bool, err error) {
	err = pool.Use(ctx, func(conn *sql.Conn) error {
		readOnly, err = c.db.database.IsReadOnly(ctx, conn)
		return err
	})
	return readOnly, err
}

// openFresh returns a pool of one connection, which leads to where new connections lead now.
func (db *DB) openFresh() *connpool.Pool {
	connector := db.database.Reads
	if db.database.Writes != nil {
		connector = db.database.Writes
	}
	return db.pools.Open(func() *sql.DB { return openPool(connector, 1) })
}

// run makes changes in one transaction; the error is that of all. If the server is read-only, nothing was written: the connection may
// be older than a failover, and the write is retried on a new one. If that accepts the write, the other connections are outdated too.
func (w *rowWriter) run(ctx context.Context, tx *transaction) ([]row, error) {
	db := w.source.db
	rows, err := w.attempts(ctx, db.writes, tx)
	//guard:write-stays-with-demoted-server
	if db.database.IsReadOnly != nil && db.classOf(err) == errclass.ReadOnly && ctx.Err() == nil {
		fresh := db.openFresh()
		defer fresh.Close() // the change is committed or rolled back
		rows, err = w.attempts(ctx, fresh, tx)
		if err == nil || isOutcome(err) { // the server accepts writes
			db.replacePools() //guard:siblings-stay-with-demoted-server
		}
	}
	return rows, db.explainWrite(ctx, err)
}
