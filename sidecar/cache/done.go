package cache

import "sync"

const (
	// maxDone bounds the writes with an ID of which the outcome is remembered, in one of two generations.
	maxDone = 4096
	// maxDoneBytes bounds the values of one generation, and so does a share of the dataset's memory: an outcome is the
	// row as it was then.
	maxDoneBytes, doneShare = 16 << 20, 16
	// doneLife is for how long at least, unless there are more.
	doneLife = int64(5 * 60e9)
)

// done remembers what came of writes that have an ID, so that one that is sent again does not happen again.
type done struct {
	maxBytes int // of the values of one generation

	mu         sync.Mutex // guards all below
	young, old map[string]found
	bytes      int   // of the values of young
	turn       int64 // when young becomes old
}

func (d *done) find(c Change, now int64) (found, bool) {
	if c.ID == "" {
		return found{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.young[c.ID]
	if !ok && now < d.turn {
		f, ok = d.old[c.ID]
	}
	return f, ok && now < d.turn+doneLife
}

func (d *done) remember(c Change, f found, now int64) {
	if c.ID == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	size := len(f.entry.value)
	switch {
	//guard:idempotency-id-remembered-hours-when-few
	case d.young == nil || now >= d.turn+doneLife: // nobody has asked for so long that young has had its time, too
		d.old, d.young, d.bytes, d.turn = nil, map[string]found{}, 0, now+doneLife
	case now >= d.turn || len(d.young) >= maxDone || d.bytes+size > d.maxBytes: //guard:ids-remembered-without-bound guard:outcomes-writes-remembered-without-bound
		d.old, d.young, d.bytes, d.turn = d.young, map[string]found{}, 0, now+doneLife
	}
	d.young[c.ID] = f
	d.bytes += size
}
