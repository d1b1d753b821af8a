package hotkeys

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
)

const (
	// maxReported and maxReportedBytes limit one of the two generations of hot keys that a Reported remembers. A key that is
	// forgotten is fetched from its owner, which reports it again.
	maxReported, maxReportedBytes = 64, 32 << 10
	// reportedFor is how long a report counts: a key that is read all the time is fetched, and reported, more often.
	reportedFor = 10 * time.Second
)

// Reported has the keys of a dataset that their owners have reported to be hot. Its zero value has none. It is safe for
// concurrent use.
type Reported struct {
	any atomic.Bool // there may be keys: without, a miss takes no lock

	mu   sync.Mutex // guards keys
	keys *ttlmap.Map[report]
}

type report struct {
	rate    uint32
	relayed *atomic.Uint32 // fetches of others that were answered here since the latest one from the owner
}

// Learn takes what the answer to a fetch of key reports; a rate of 0 says that the key is not hot.
func (r *Reported) Learn(key string, rate uint32, now int64) {
	if rate == 0 && !r.any.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rate == 0 {
		r.keys.Delete(key) //guard:cold-key-stays-hot-for-its-readers
		return
	}
	if r.keys == nil {
		r.keys = ttlmap.New[report](maxReported, maxReportedBytes)
		r.any.Store(true)
	}
	held, ok := r.keys.Get(key, now)
	if !ok {
		held.relayed = new(atomic.Uint32)
	}
	held.rate = rate
	r.keys.Put(key, held, len(key), now, int64(reportedFor))
}

// Hot reports whether key is hot.
func (r *Reported) Hot(key string, now int64) bool {
	held, ok := r.get(key, now)
	return ok && held.rate > 0
}

// Relay counts a fetch of another member that is answered here for the owner of key, and returns what the owner has reported.
func (r *Reported) Relay(key string, now int64) (rate uint32) {
	held, ok := r.get(key, now)
	if !ok {
		return 0
	}
	held.relayed.Add(1)
	return held.rate
}

// TakeRelayed returns how many fetches of key Relay has counted since the last call.
func (r *Reported) TakeRelayed(key string, now int64) uint32 {
	held, ok := r.get(key, now)
	if !ok {
		return 0
	}
	return held.relayed.Swap(0) //guard:relayed-fetches-are-counted-twice
}

func (r *Reported) get(key string, now int64) (held report, ok bool) {
	if !r.any.Load() {
		return report{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys.Get(key, now)
}
