package etcd

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is a snapshot for metrics.
type Stats struct {
	// Registered: etcd holds this member, as far as is known.
	Registered bool
	// Following: the list of members is known and watched.
	Following bool
	// Members is how many members the directory listed last, without the refused.
	Members int
	// Registrations counts those that succeeded: more than one means that one was lost.
	Registrations int64
	// Lists counts the full lists read.
	Lists int64
	// WatchRestarts counts the watches that ended before their time.
	WatchRestarts int64
	// Refused counts refused records by reason, once for each time that one was looked at: a record that stays counts
	// again with each list.
	Refused map[Reason]int64
	// LastRefused says which record was refused last, and why; empty when none was.
	LastRefused string
	// Revision is etcd's revision as last seen; 0 when it never answered.
	Revision int64
	// ContactAge is the time since etcd last answered, or since Open when it never did.
	ContactAge time.Duration
}

// counters is what the loops count into.
type counters struct {
	opened time.Time // written before the loops start

	registration, listing             condition
	registrations, lists, watchBreaks atomic.Int64
	members                           atomic.Int64
	revision                          atomic.Int64
	contact                           atomic.Int64 // nanoseconds from opened to etcd's last answer
	lease                             atomic.Int64 // that the own keys were last put under; 0 when there is none

	refusedMu   sync.Mutex // guards the two below
	refused     map[Reason]int64
	lastRefused string
}

// Stats returns a snapshot.
func (d *Directory) Stats() Stats {
	d.refusedMu.Lock()
	defer d.refusedMu.Unlock()
	return Stats{
		Registered:    d.registration.holds.Load(),
		Following:     d.listing.holds.Load(),
		Members:       int(d.members.Load()),
		Registrations: d.registrations.Load(),
		Lists:         d.lists.Load(),
		WatchRestarts: d.watchBreaks.Load(),
		Refused:       maps.Clone(d.refused),
		LastRefused:   d.lastRefused,
		Revision:      d.revision.Load(),
		ContactAge:    time.Since(d.opened) - time.Duration(d.contact.Load()),
	}
}

func (c *counters) refuse(r *refusal) {
	c.refusedMu.Lock()
	defer c.refusedMu.Unlock()
	if c.refused == nil {
		c.refused = make(map[Reason]int64)
	}
	c.refused[r.reason]++
	c.lastRefused = r.Error()
}

// heard notes that etcd answered.
func (c *counters) heard(revision int64) {
	c.contact.Store(int64(time.Since(c.opened)))
	c.revision.Store(revision)
}
