// Package invalidationlog keeps the latest invalidations of a member, and the change feeds that it reads, for the members
// that subscribe to them.
package invalidationlog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Limits of a Page. Subscribers reject more prefixes in one message.
const (
	MaxPage     = 512 // invalidations
	MaxPrefixes = 16  // among them
)

// Log is a ring buffer of invalidations with consecutive sequence numbers. Its writer never waits for a reader: there is
// no queue per reader, only the reader's Cursor. A reader that needs an overwritten invalidation gets ErrOverwritten.
type Log struct {
	epoch uint64 // identifies this run of the member; never 0

	mu        sync.Mutex    // guards the rest; held for at most the time to copy MaxPage records
	records   []Record      // sequence number n is at n % len
	last      uint64        // sequence number of the latest record; the first one is 1
	liveFeeds []string      // datasets, sorted; replaced, never modified
	edition   uint64        // of liveFeeds
	changed   chan struct{} // closed at the next change; nil while nobody waits for it
}

// Record is an invalidation and the time when it was published.
type Record struct {
	Invalidation kv.Invalidation
	Published    time.Time
}

// New returns a Log of the given number of invalidations.
func New(size int) *Log {
	return &Log{epoch: rand.Uint64() | 1, records: make([]Record, size)}
}

// Epoch identifies this run of the member. It is never 0.
func (l *Log) Epoch() uint64 { return l.epoch }

// Publish appends i.
func (l *Log) Publish(i kv.Invalidation) {
	published := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.records[l.last%uint64(len(l.records))] = Record{i, published}
	l.wakeLocked()
}

// SetLiveFeeds sets the datasets whose change feed this member reads without a gap from now on.
func (l *Log) SetLiveFeeds(datasets []string) {
	sorted := slices.Compact(slices.Sorted(slices.Values(datasets)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(sorted, l.liveFeeds) {
		return
	}
	l.liveFeeds = sorted
	l.edition++
	l.wakeLocked()
}

// wakeLocked wakes all waiting readers. They create the channel, so that Publish allocates nothing when nobody waits.
// Waking a thousand readers takes a millisecond, which the publisher must not spend.
func (l *Log) wakeLocked() {
	if l.changed != nil {
		go close(l.changed)
		l.changed = nil
	}
}

// Published returns the number of invalidations published since the start.
func (l *Log) Published() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Cursor is the position of a reader.
type Cursor struct {
	sequence, edition uint64
}

// Sequence is the sequence number of the last invalidation before the cursor.
func (c Cursor) Sequence() uint64 { return c.sequence }

// ErrOverwritten says that the log no longer has the next invalidation of a reader.
var ErrOverwritten = errors.New("the next invalidation has been overwritten: drop everything received from this member and subscribe again")

// From returns the cursor of a reader that has received the given sequence number of the given epoch. It is at the end of
// the log when the epoch is that of another run of this member, or 0.
func (l *Log) From(epoch, sequence uint64) (Cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch {
		return Cursor{sequence: l.last}, nil
	}
	at := Cursor{sequence: sequence}
	if sequence > l.last || !l.keptLocked(at) {
		return at, ErrOverwritten
	}
	return at, nil
}

// keptLocked reports whether the log still has every invalidation behind at.
func (l *Log) keptLocked(at Cursor) bool { return l.last-at.sequence <= uint64(len(l.records)) }

// Page is a part of a Log.
type Page struct {
	Epoch uint64
	// Sequence is the number of the last record; without records, of the one before.
	Sequence  uint64
	Records   []Record
	LiveFeeds []string
	// HasNews: there are records, or LiveFeeds has changed.
	HasNews bool
	// Interrupted: between two reads, LiveFeeds had another value that the reader has not seen.
	Interrupted bool
	// Changed is closed at the next change; nil when HasNews is set.
	Changed <-chan struct{}
}

// Read returns what is behind the cursor, at most MaxPage records, and moves the cursor.
func (l *Log) Read(at *Cursor) (Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.keptLocked(*at) { //guard:overwritten-invalidations-read
		return Page{}, ErrOverwritten
	}
	n := l.pageLocked(at.sequence)
	next := Page{
		Epoch: l.epoch, Sequence: at.sequence + n, Records: l.recordsLocked(at.sequence, n), LiveFeeds: l.liveFeeds,
		HasNews: n > 0 || l.edition != at.edition, Interrupted: l.edition > at.edition+1, //guard:short-interruption-of-feed-hidden
	}
	if !next.HasNews {
		next.Changed = l.changedLocked()
	}
	*at = Cursor{next.Sequence, l.edition}
	return next, nil
}

// pageLocked returns how many records behind after belong to one page.
func (l *Log) pageLocked(after uint64) uint64 {
	most, prefixes := min(l.last-after, MaxPage), 0
	for n := range most {
		if l.records[(after+1+n)%uint64(len(l.records))].Invalidation.Prefix {
			prefixes++
		}
		if prefixes > MaxPrefixes { //guard:page-that-subscribers-reject
			return n
		}
	}
	return most
}

func (l *Log) recordsLocked(after, n uint64) []Record {
	if n == 0 {
		return nil
	}
	records := make([]Record, n)
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
