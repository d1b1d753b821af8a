package peer

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// maxBatch bounds the invalidations in one response of a stream.
const maxBatch = 512

// Log is what a member has invalidated lately, and which feeds it reads: the Pool writes it, the Service streams it to
// those who follow. It keeps a fixed number of invalidations; a follower that needs older ones has missed some.
type Log struct {
	epoch uint64 // names this run; never 0

	mu      sync.Mutex    // guards the rest; held for no longer than a copy of maxBatch records takes
	records []record      // number n is at n % len
	last    uint64        // number of the latest record; the first one is 1
	live    []string      // datasets, sorted; replaced, never changed
	edition uint64        // of live
	changed chan struct{} // closed at the next change; nil while nobody waits for it
}

type record struct {
	invalidation cache.Invalidation
	published    time.Time
}

func newLog(size int) *Log {
	return &Log{epoch: rand.Uint64() | 1, records: make([]record, size)}
}

// publish appends i. It never waits for a follower.
func (l *Log) publish(i cache.Invalidation) {
	published := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.records[l.last%uint64(len(l.records))] = record{i, published}
	l.wakeLocked()
}

func (l *Log) setLive(datasets []string) {
	sorted := slices.Compact(slices.Sorted(slices.Values(datasets)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(sorted, l.live) {
		return
	}
	l.live = sorted
	l.edition++
	l.wakeLocked()
}

// wakeLocked wakes all who wait. They make the channel, so that a publish that wakes nobody allocates nothing. To wake
// a thousand takes a millisecond, which is not the publisher's.
func (l *Log) wakeLocked() {
	if l.changed != nil {
		go close(l.changed)
		l.changed = nil
	}
}

// published returns how many invalidations there were since the start.
func (l *Log) published() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// cursor is how far a follower has come.
type cursor struct {
	sequence, edition uint64
}

// errBehind ends the stream of a follower.
var errBehind = errors.New("what comes next is no longer kept: drop what came from this member, and follow anew")

// from returns where a follower begins that has taken in the given sequence of the given epoch: behind it, or at the
// present when it was another run of this member, or none.
func (l *Log) from(epoch, sequence uint64) (cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch {
		return cursor{sequence: l.last}, nil
	}
	at := cursor{sequence: sequence}
	if sequence > l.last || !l.keptLocked(at) {
		return at, errBehind
	}
	return at, nil
}

// keptLocked reports whether everything behind at is still there.
func (l *Log) keptLocked(at cursor) bool { return l.last-at.sequence <= uint64(len(l.records)) }

// page is a part of the log.
type page struct {
	epoch, sequence uint64 // the latter of the last record, or of the one before where there is none
	records         []record
	live            []string
	// news: there are records, or live has changed.
	news bool
	// interrupted: live was something else in between, which the follower was not told.
	interrupted bool
	// changed is closed at the next change; nil when there are news.
	changed <-chan struct{}
}

// read returns what is behind at, at most maxBatch records, and moves at.
func (l *Log) read(at *cursor) (page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.keptLocked(*at) { //guard:overwritten-invalidations-read
		return page{}, errBehind
	}
	n := min(l.last-at.sequence, maxBatch)
	next := page{
		epoch: l.epoch, sequence: at.sequence + n, records: l.recordsLocked(at.sequence, n), live: l.live,
		news: n > 0 || l.edition != at.edition, interrupted: l.edition > at.edition+1, //guard:short-interruption-feed-hidden
	}
	if !next.news {
		next.changed = l.changedLocked()
	}
	*at = cursor{next.sequence, l.edition}
	return next, nil
}

func (l *Log) recordsLocked(after, n uint64) []record {
	if n == 0 {
		return nil
	}
	records := make([]record, n)
	for i := range n {
		records[i] = l.records[(after+1+i)%uint64(len(l.records))]
	}
	return records
}

func (l *Log) changedLocked() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// response says how long ago each change was when it is sent.
func (p page) response() *peerv1.FollowResponse {
	list := make([]*peerv1.Invalidation, len(p.records))
	for i, r := range p.records {
		list[i] = toWire(r.invalidation, time.Since(r.published))
	}
	return &peerv1.FollowResponse{Epoch: p.epoch, Sequence: p.sequence, Invalidations: list, LiveFeeds: p.live}
}
