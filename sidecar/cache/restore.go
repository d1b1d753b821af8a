package cache

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/saved"
)

// startOfClock is a time before everything that this process or an earlier one on this host has seen. So no time on the clock of a
// dataset is 0, which means none, or negative, that of an entry of an earlier process included.
func startOfClock() time.Time { return time.Now().Add(-time.Duration(max(saved.Uptime(), 1))) }

// Save writes entries and read bounds for the next process. Nothing may use d meanwhile.
func (d *Dataset) Save(w *saved.Writer) {
	uptime := saved.Uptime() // before the other clock: if time passes between them, entries are older than they are
	w.Int(uptime - d.now())
	d.store.Save(w)
}

// ReadSaved reads what Save of another process has written, within room bytes.
func (d *Dataset) ReadSaved(r *saved.Reader, room int64) *entries.Saved {
	offset, now := r.Int(), d.now()
	return entries.ReadSaved(r, room, offset-(saved.Uptime()-now))
}

// SkipSaved reads what Save of another process has written, and forgets it.
func SkipSaved(r *saved.Reader) {
	_ = r.Int() // the offset of a clock
	entries.ReadSaved(r, 0, 0)
}

// Restore adds to d what ReadSaved has read. The entries are stale answers until they are loaded.
func (d *Dataset) Restore(from *entries.Saved) (restored int) {
	restored = d.store.Restore(from)
	d.stats.Restored.Add(int64(restored))
	d.stats.RestoredBytes.Add(d.Memory().Bytes)
	return restored
}
