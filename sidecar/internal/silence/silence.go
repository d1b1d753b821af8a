// Package silence remembers which parties, the origin and other members, did not answer in time, so that readers who have a
// stale answer do not wait for them one after the other.
package silence

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// memory is how long a party counts as silent after the last sign of it. While there are readers, each failed refresh is a
// sign; without readers nobody knows, and the next one may wait.
const memory = 10 * time.Second

// Set is the silent parties. Its zero value is empty.
type Set struct {
	some  atomic.Bool // parties is not empty
	mu    sync.Mutex  // guards parties
	until map[string]int64
}

// Mark records that party did not answer in time. Times are nanoseconds on one monotonic clock.
func (s *Set) Mark(party string, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.until, func(_ string, until int64) bool { return now >= until }) //guard:members-that-left-stay-in-memory
	if s.until == nil {
		s.until = map[string]int64{}
	}
	s.until[party] = now + int64(memory)
	s.some.Store(true)
}

// Clear records that party has answered in time.
func (s *Set) Clear(party string) {
	if !s.some.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, party)
	s.some.Store(len(s.until) > 0)
}

// Any reports whether any party may be silent. It takes no lock.
func (s *Set) Any() bool { return s.some.Load() }

// Has reports whether party is silent.
func (s *Set) Has(party string, now int64) bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return now < s.until[party] //guard:silence-is-remembered-forever
}
