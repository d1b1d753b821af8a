package datasets

import (
	"crypto/sha256"
	"encoding/json"
	"io"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/saved"
)

const (
	// anotherDataset comes before each dataset.
	anotherDataset = 1
	// nameRoom is for the name of a dataset and its digest.
	nameRoom = 1 << 10
)

// Save writes entries and read bounds of all datasets for the next process. Nothing may use them meanwhile.
func (s *Set) Save(to io.Writer) error {
	w, now := saved.NewWriter(to), s.current.Load()
	for _, d := range now.list {
		w.Int(anotherDataset)
		w.String(d.Name())
		w.Bytes(now.digest(d.Name()))
		d.Save(w)
	}
	w.Int(0)
	return w.Close()
}

// Restored says what was taken over from the previous process.
type Restored struct {
	// Entries were taken over, and have Bytes; for Omitted ones there was no room, or the process has other values already.
	Entries, Omitted int
	Bytes            int64
}

// Restore takes over what the previous process has saved: all of it, as far as there is room, or nothing if any of it is wrong. The
// datasets must be empty. One whose rows may now be others stays empty. room returns the bytes that there are; it is called when the
// previous process saves, because that has freed memory before.
func (s *Set) Restore(from io.Reader, room func() int64) (Restored, error) {
	r, err := saved.NewReader(from)
	if err != nil {
		return Restored{}, err
	}
	share := min(float64(room())/float64(s.config.Memory), 1) //guard:restored-entries-exceed-the-memory-of-the-container
	read := map[*cache.Dataset]*entries.Saved{}
	for now := s.current.Load(); r.Int() == anotherDataset; {
		r.Allow(nameRoom)
		name, _ := r.String()
		digest, _ := r.Bytes()
		d := now.lookup(name)
		if d == nil || len(digest) == 0 || string(digest) != string(now.digest(name)) { //guard:entries-of-other-rows-are-restored
			cache.SkipSaved(r)
			continue
		}
		read[d] = d.ReadSaved(r, int64(share*float64(d.Memory().MaxBytes)))
	}
	if err := r.Close(); err != nil { //guard:half-of-the-entries-are-restored
		return Restored{}, err
	}
	var sum Restored
	for d, from := range read {
		n := d.Restore(from)
		sum.Entries += n
		sum.Omitted += from.Len() - n
		sum.Bytes += d.Memory().Bytes
	}
	return sum, nil
}

// digest depends on all that decides which rows a dataset has: the parameters of its connection to them, and the database.
func (g *generation) digest(name string) []byte {
	d := connections(g.config.Datasets[name])
	o := g.config.Origins[d.Origin]
	d.Origin, d.Writable = "", false
	text, err := json.Marshal(struct {
		Dataset config.Dataset
		Origin  []string
	}{d, o.Target()})
	if err != nil {
		return nil // it equals no other
	}
	sum := sha256.Sum256(text)
	return sum[:]
}
