package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Census tracks the rows in the table. A row that is no longer measured is written once more with the status Gone, and
// deleted some time later.
type Census struct {
	keep    time.Duration
	present map[string]Row       // :: id → as last written; without Lasting rows
	gone    map[string]time.Time // :: id → when it disappeared
}

// NewCensus returns a Census of an empty table. Rows with the status Gone are kept for the duration keep.
func NewCensus(keep time.Duration) *Census {
	return &Census{keep: keep, present: map[string]Row{}, gone: map[string]time.Time{}}
}

// Adopt replaces the state by the rows that are in the table now, such as those of an earlier run.
func (c *Census) Adopt(held []Row, now time.Time) {
	clear(c.present)
	clear(c.gone)
	for _, row := range held {
		if row.Status == Gone {
			c.gone[row.ID] = now
		} else {
			c.present[row.ID] = row
		}
	}
}

// Plan has the changes to make to the table.
type Plan struct {
	Write []Row    // ordered by id, so that writers of the same rows do not deadlock
	Drop  []string // ids

	measured []Row
	at       time.Time
}

// Plan returns the changes to make after a measurement. It does not change the state until Done is called.
func (c *Census) Plan(measured []Row, now time.Time) Plan {
	p := Plan{Write: slices.Clone(measured), measured: measured, at: now}
	present := make(map[string]bool, len(measured))
	for _, row := range measured {
		present[row.ID] = true
	}
	for id, row := range c.present {
		if !present[id] {
			row.Status, row.Time = Gone, now
			p.Write = append(p.Write, row)
		}
	}
	for id, since := range c.gone {
		if !present[id] && now.Sub(since) >= c.keep {
			p.Drop = append(p.Drop, id)
		}
	}
	slices.SortFunc(p.Write, func(a, b Row) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(p.Drop)
	return p
}

// Done records that p, the latest Plan, has been applied to the table.
func (c *Census) Done(p Plan) {
	for _, row := range p.Write {
		if row.Status == Gone {
			c.gone[row.ID] = p.at
		}
	}
	clear(c.present)
	for _, row := range p.measured {
		delete(c.gone, row.ID)
		if !row.Lasting {
			c.present[row.ID] = row
		}
	}
	maps.DeleteFunc(c.gone, func(id string, _ time.Time) bool {
		_, dropped := slices.BinarySearch(p.Drop, id)
		return dropped
	})
}
