package cache

import "time"

// Explanation is what this member's memory knows of one key. Durations are zero where nothing is held.
type Explanation struct {
	Held    bool   `json:"held"`
	Absent  bool   `json:"absent,omitempty"`
	Local   bool   `json:"local_copy,omitempty"`
	Owner   string `json:"copied_from,omitempty"` // node id, of a local copy
	Version int64  `json:"version,omitempty"`
	ETag    string `json:"etag,omitempty"`
	Bytes   int    `json:"bytes,omitempty"`
	// Age is the time since the load of the entry began, an upper bound.
	Age time.Duration `json:"age_ns,omitempty"`
	// Fresh is how long the entry stays fresh; negative when its ttl has passed, 0 when it was ended before.
	Fresh time.Duration `json:"fresh_ns,omitempty"`
	// Usable is how long the entry may be given as a stale answer; negative when no longer.
	Usable time.Duration `json:"usable_ns,omitempty"`
	// LastLoad is how long the load or the hop that brought the entry took.
	LastLoad time.Duration `json:"last_load_ns,omitempty"`
	// Why is the reason of that load: one of reasonNames.
	Why string `json:"why,omitempty"`
	// Failing says that the last refresh has failed and that stale answers are given.
	Failing bool `json:"failing,omitempty"`
}

// Explain says what is held for key. It does not count as a read.
func (d *Dataset) Explain(key string) Explanation {
	e, ok := d.store.Peek(key)
	if !ok {
		return Explanation{}
	}
	now := d.now()
	fresh := time.Duration(e.freshUntil - now)
	if e.ended.Load() {
		fresh = min(fresh, 0) //guard:copy-ended-explained-fresh
	}
	return Explanation{
		Held:     true,
		Absent:   e.absent,
		Local:    e.local(),
		Owner:    e.owner,
		Version:  e.version,
		ETag:     e.etag,
		Bytes:    len(e.value),
		Age:      time.Duration(now - e.began),
		Fresh:    fresh,
		Usable:   time.Duration(e.staleUntil - now),
		LastLoad: time.Duration(e.took),
		Why:      reasonNames[e.reason],
		Failing:  e.retryAt.Load() != 0,
	}
}
