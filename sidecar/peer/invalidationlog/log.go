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
	// maxPageBytes limits the names and keys: a subscriber that does not read holds one page, encoded and not.
	maxPageBytes = 8 << 10
)

// maxBytes limits the names and keys of a Log: 256 for each of 4096 invalidations.
const maxBytes = 1 << 20

// Log is a ring buffer of invalidations with consecutive sequence numbers. Its writer never waits for a reader: there is
// no queue per reader, only the reader's Cursor. A reader that needs an overwritten invalidation gets ErrOverwritten.
type Log struct {
	epoch uint64 // identifies this run of the member; never 0

	mu        sync.Mutex    // guards the rest; held for at most the time to copy MaxPage records
	records   []Record      // sequence number n is at n % len
	last      uint64        // sequence number of the latest record; the first one is 1
	dropped   uint64        // sequence number of the latest record that is not kept
	bytes     int           // of the names and keys of the records that are kept
	liveFeeds []string      // datasets, sorted; replaced, never modified
	edition   uint64        // of liveFeeds
	clients   *Log          // see ForClients; locked after this one
	relayed   *Log          // see WithFeeds; locked after this one
	heard     []string      // see HearFeeds
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
	if l.clients != nil {
		l.clients.Publish(i) //guard:clients-miss-invalidations
	}
	if l.relayed != nil {
		l.relayed.Publish(i)
	}
	l.last++
	if l.last-l.dropped > uint64(len(l.records)) {
		l.dropLocked()
	}
	*l.atLocked(l.last) = Record{i, published}
	for l.bytes += sizeOf(i); l.bytes > maxBytes; { //guard:log-of-large-keys-without-limit
		l.dropLocked()
	}
	l.wakeLocked()
}

// dropLocked drops the oldest record that is kept.
func (l *Log) dropLocked() {
	l.dropped++
	oldest := l.atLocked(l.dropped)
	l.bytes -= sizeOf(oldest.Invalidation)
	*oldest = Record{}
}

func (l *Log) atLocked(sequence uint64) *Record { return &l.records[sequence%uint64(len(l.records))] }

// sizeOf returns the size of what an invalidation refers to; equal names and keys may share it.
func sizeOf(i kv.Invalidation) int { return len(i.Dataset) + len(i.Key) }

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
	if l.clients != nil {
		l.clients.SetLiveFeeds(sorted)
	}
	l.relayFeedsLocked()
}

// HearFeeds sets the datasets of which this member receives, and relays, the changes that other members read, without a gap from now on.
func (l *Log) HearFeeds(datasets []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = datasets
	l.relayFeedsLocked()
}

func (l *Log) relayFeedsLocked() {
	if l.relayed != nil {
		l.relayed.SetLiveFeeds(slices.Concat(l.liveFeeds, l.heard))
	}
}

// ForClients returns the log that clients of the ring read: it has everything that is published here from now on, and what
// Relay adds. It is a log of its own, because a member would otherwise get each broadcast from all others a second time.
func (l *Log) ForClients() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients == nil { // most members of small clusters never have one
		l.clients = New(len(l.records))
		l.clients.SetLiveFeeds(l.liveFeeds) //guard:first-client-does-not-learn-of-live-feeds
	}
	return l.clients
}

// WithFeeds returns the log that clients read from the members that relay change feeds to them: what ForClients has, and what
// RelayChanges adds. It is a log of its own, because a client would otherwise get each change from every member whose keys it reads.
func (l *Log) WithFeeds() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relayed == nil {
		l.relayed = New(2 * len(l.records)) // each change comes from both readers of its feed
		l.relayFeedsLocked()
	}
	return l.relayed
}

// Relay publishes invalidations that all members receive by other ways to clients only. A client that subscribes later discards what
// it has received before.
func (l *Log) Relay(list []kv.Invalidation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	publishAll(l.clients, list)
	publishAll(l.relayed, list)
}

// RelayChanges publishes changes of feeds that other members read to the clients of WithFeeds only.
func (l *Log) RelayChanges(list []kv.Invalidation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	publishAll(l.relayed, list)
}

// publishAll publishes to a log unless nobody has read it yet.
func publishAll(to *Log, list []kv.Invalidation) {
	for _, i := range list {
		if to != nil {
			to.Publish(i)
		}
	}
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
func (l *Log) keptLocked(at Cursor) bool { return at.sequence >= l.dropped }

// Page is a part of a Log.
type Page struct {
	Epoch uint64
	// Sequence is the number of the last record; without records, of the one before.
	Sequence  uint64
	Records   []Record
	LiveFeeds []string
	// HasNews: there are records, or LiveFeeds has changed.
	HasNews bool
	// More: further records are behind Sequence.
	More bool
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
		HasNews: n > 0 || l.edition != at.edition, More: at.sequence+n < l.last, Interrupted: l.edition > at.edition+1, //guard:short-interruption-of-feed-hidden
	}
	if !next.HasNews {
		next.Changed = l.changedLocked()
	}
	*at = Cursor{next.Sequence, l.edition}
	return next, nil
}

// pageLocked returns how many records behind after belong to one page.
func (l *Log) pageLocked(after uint64) uint64 {
	most, prefixes, bytes := min(l.last-after, MaxPage), 0, 0
	for n := range most {
		i := l.atLocked(after + 1 + n).Invalidation
		if i.Prefix {
			prefixes++
		}
		if prefixes > MaxPrefixes { //guard:page-that-subscribers-reject
			return n
		}
		if bytes += sizeOf(i); bytes > maxPageBytes && n > 0 { //guard:pages-of-large-keys-without-limit
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
		records[i] = *l.atLocked(after + 1 + i)
	}
	return records
}

func (l *Log) changedLocked() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}
