package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Census knows which rows the table holds, and says which have gone: a row that is not measured any more is written
// once more with the status Gone, and dropped some time after that.
type Census struct {
	keep    time.Duration
	present map[string]Row       // :: id → as written last; none that are Lasting
	gone    map[string]time.Time // :: id → when it went
}

// NewCensus returns a Census of an empty table. Rows that have gone stay for the time keep.
func NewCensus(keep time.Duration) *Census {
	return &Census{keep: keep, present: map[string]Row{}, gone: map[string]time.Time{}}
}

// Adopt forgets all, and takes the rows that the table holds now, which an earlier run may have left there.
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

// Plan is what to do to the table.
type Plan struct {
	Write []Row    // ordered by id, so that writers of the same rows do not lock each other out
	Drop  []string // ids

	measured []Row
	at       time.Time
}

// Plan says what to do to the table after a measurement. Nothing is taken as done before Done is called.
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

// Done says that the table is as p, the last Plan, wants it.
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
