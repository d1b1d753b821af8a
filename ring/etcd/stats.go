package etcd

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/ring/record"
)

// Stats is a snapshot for metrics.
type Stats struct {
	// Registered: etcd has this member, as far as is known.
	Registered bool
	// Connected: the list of members is known and watched.
	Connected bool
	// Members is the number of members in the last list, without the rejected ones.
	Members int
	// Registrations counts successful registrations: more than one means that one was lost.
	Registrations int64
	// Lists counts the full lists read.
	Lists int64
	// WatchRestarts counts the watches that failed.
	WatchRestarts int64
	// Rejected counts rejected records by reason. Each list counts a record again.
	Rejected map[record.Reason]int64
	// LastRejected is the last rejected record and the reason; empty when there is none.
	LastRejected string
	// ContactAge is the time since the last answer of etcd, or since Open before its first answer.
	ContactAge time.Duration
}

// counters are updated by the loops.
type counters struct {
	opened time.Time // written before the loops start

	registration, listing             condition
	registrations, lists, watchErrors atomic.Int64
	checks                            atomic.Int64 // counts of the records, by which Resolve finds what a watch has missed
	members                           atomic.Int64
	contact                           atomic.Int64 // nanoseconds from opened to the last answer of etcd
	lease                             atomic.Int64 // of the own keys; 0 when there is none

	rejectedMu   sync.Mutex // guards the rest
	rejected     map[record.Reason]int64
	lastRejected string
	reportedAt   time.Time // when the last rejected record was reported
}

// Stats returns a snapshot.
func (d *Directory) Stats() Stats {
	d.rejectedMu.Lock()
	defer d.rejectedMu.Unlock()
	return Stats{
		Registered:    d.registration.holds.Load(),
		Connected:     d.listing.holds.Load(),
		Members:       int(d.members.Load()),
		Registrations: d.registrations.Load(),
		Lists:         d.lists.Load(),
		WatchRestarts: d.watchErrors.Load(),
		Rejected:      maps.Clone(d.rejected),
		LastRejected:  d.lastRejected,
		ContactAge:    time.Since(d.opened) - time.Duration(d.contact.Load()),
	}
}

// reportInterval is the time between two reports of rejected records: any client of etcd can write them.
const reportInterval = 10 * time.Second

// rejectRecord counts a rejected record, and reports it unless it was the last one, or another one was reported just now.
func (d *Directory) rejectRecord(r *record.Rejection) {
	if d.reject(r) && d.cfg.OnEvent != nil {
		d.cfg.OnEvent("ignored a record of a member; the ring is built without it", r)
	}
}

// reject reports whether r must be reported.
func (c *counters) reject(r *record.Rejection) bool {
	c.rejectedMu.Lock()
	defer c.rejectedMu.Unlock()
	if c.rejected == nil {
		c.rejected = make(map[record.Reason]int64)
	}
	c.rejected[r.Reason]++
	text := r.Error()
	isNew := text != c.lastRejected && time.Since(c.reportedAt) >= reportInterval
	c.lastRejected = text
	if isNew {
		c.reportedAt = time.Now()
	}
	return isNew
}

// recordContact records an answer of etcd.
func (c *counters) recordContact() { c.contact.Store(int64(time.Since(c.opened))) }
