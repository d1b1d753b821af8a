// Package history records what a member counted in the last minutes, and what happened, so that a console that opens has
// something to show. Nothing is added to the read path: counters that exist are read every few seconds.
package history

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// maxIntervalBytes limits the encoded intervals of a member. A busy dataset needs about 300 bytes for an interval, so that ten
	// of them have ten minutes. With more, the history is shorter.
	maxIntervalBytes = 384 << 10
	// lookInterval is the time between two looks at what may have changed.
	lookInterval = time.Second
)

// Config is what a Recorder records.
type Config struct {
	Datasets func() []*cache.Dataset
	// Observe returns what the member depends on.
	Observe func() State
	// Defect is called with errors that are bugs.
	Defect func(error)
}

// Recorder records. It is safe for concurrent use.
type Recorder struct {
	config Config

	// Used by the task alone.
	before map[string]counters // :: dataset → at the end of the latest interval
	state  State
	number int64 // of the interval that is being recorded

	mu        sync.Mutex // guards the rest; held for no more than copying
	intervals []encoded  // in ascending order
	bytes     int        // of intervals
	events    []adminapi.Event
}

// encoded is the JSON of an adminapi.Interval.
type encoded struct {
	number int64
	text   []byte
}

// New returns a Recorder that begins now.
func New(c Config) *Recorder {
	return &Recorder{config: c, number: numberOf(time.Now())}
}

func numberOf(t time.Time) int64 { return t.UnixNano() / int64(adminapi.HistoryInterval) }

// Run records until ctx is done.
func (r *Recorder) Run(ctx context.Context) error {
	r.before, r.state = r.read(), r.config.Observe()
	return task.Every(ctx, lookInterval, func() { r.look(time.Now()) })
}

// Add records an event.
func (r *Recorder) Add(e adminapi.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == adminapi.MaxEvents { //guard:events-without-limit
		r.events = append(r.events[:0], r.events[1:]...)
	}
	e.Text = printable.Text(e.Text) // names of members and datasets are part of it, and have a limit here
	r.events = append(r.events, e)
}

func (r *Recorder) look(now time.Time) {
	next := r.config.Observe()
	for _, e := range r.state.changes(next) {
		e.At = now
		r.Add(e)
	}
	r.state = next
	if number := numberOf(now); number != r.number {
		r.record(number)
	}
}

// record ends the present interval, and begins the one with the given number.
func (r *Recorder) record(next int64) {
	after := r.read()
	interval := adminapi.Interval{Number: r.number}
	for _, d := range r.config.Datasets() {
		before, known := r.before[d.Name()]
		if after := after[d.Name()]; known && after.of == before.of && after.counts != before.counts {
			interval.Datasets = append(interval.Datasets, after.since(d.Name(), before))
		}
	}
	r.before, r.number = after, next
	text, err := json.Marshal(interval)
	if err != nil {
		r.config.Defect(err)
		return
	}
	r.keep(encoded{interval.Number, text})
}

func (r *Recorder) keep(e encoded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intervals = append(r.intervals, e)
	r.bytes += len(e.text) + 1
	for len(r.intervals) > adminapi.HistoryLength || r.bytes > maxIntervalBytes { //guard:history-takes-any-memory
		r.bytes -= len(r.intervals[0].text) + 1
		r.intervals = r.intervals[1:]
	}
}

// After returns the JSON of an adminapi.MemberHistory with what came after an interval.
func (r *Recorder) After(number int64) []byte {
	since := time.Unix(0, 0)
	if number > 0 && number < numberOf(time.Now().Add(time.Hour)) {
		since = time.Unix(0, (number+1)*int64(adminapi.HistoryInterval))
	}
	r.mu.Lock()
	intervals := r.intervals
	events := []adminapi.Event{}
	for _, e := range r.events {
		if !e.At.Before(since) {
			events = append(events, e)
		}
	}
	r.mu.Unlock()
	list, err := json.Marshal(events)
	if err != nil {
		r.config.Defect(err)
		list = []byte("[]")
	}
	var b bytes.Buffer
	b.WriteString(`{"now":` + strconv.FormatInt(numberOf(time.Now())-1, 10) + `,"intervals":[`)
	comma := ""
	for _, e := range intervals {
		if e.number > number {
			b.WriteString(comma)
			b.Write(e.text)
			comma = ","
		}
	}
	b.WriteString(`],"events":`)
	b.Write(list)
	b.WriteByte('}')
	return b.Bytes()
}

// counters are those of a dataset since its start.
type counters struct {
	of     *kv.Stats // of another dataset with the same name after a reload
	counts [adminapi.NumCounts]int64
	times  [adminapi.NumTimes]kv.DistributionSnapshot
}

func (r *Recorder) read() map[string]counters {
	all := map[string]counters{}
	for _, d := range r.config.Datasets() {
		all[d.Name()] = countersOf(d.Stats())
	}
	return all
}

func countersOf(s *kv.Stats) counters {
	c := counters{of: s, counts: [adminapi.NumCounts]int64{
		adminapi.CountHit: s.Hit.Load(), adminapi.CountLocalHit: s.LocalHit.Load(), adminapi.CountPeerHit: s.PeerHit.Load(),
		adminapi.CountLoad: s.Load.Load(), adminapi.CountStale: s.Stale.Load(), adminapi.CountNegative: s.Negative.Load(),
		adminapi.CountDataError: s.DataError.Load(), adminapi.CountError: s.Error.Load(),
		adminapi.CountQueries: s.Queries.Load(), adminapi.CountServed: s.Served.Load(), adminapi.CountWritten: s.Written.Load(),
	}}
	c.times = [adminapi.NumTimes]kv.DistributionSnapshot{
		adminapi.TimeLoad: s.LoadTime.Snapshot(), adminapi.TimeFetch: s.PeerFetchTime.Snapshot(),
		adminapi.TimeWrite: s.WriteTime.Snapshot(), adminapi.TimeAge: s.AnswerAge.Snapshot(),
	}
	read := kv.DistributionSnapshot{Buckets: map[int]int64{}}
	for i := range s.ReadTime {
		one := s.ReadTime[i].Snapshot()
		read.Zero += one.Zero
		for bucket, n := range one.Buckets {
			read.Buckets[bucket] += n
		}
	}
	c.times[adminapi.TimeRead] = read
	return c
}

func (c counters) since(name string, before counters) adminapi.DatasetSample {
	d := adminapi.DatasetSample{Name: name}
	for i := range c.counts {
		d.Counts[i] = c.counts[i] - before.counts[i]
	}
	for i := range c.times {
		grown := c.times[i].Since(before.times[i])
		if grown.Zero > 0 {
			d.Times[i] = append(d.Times[i], kv.ZeroBucket, int64(grown.Zero))
		}
		for bucket, n := range grown.Buckets {
			d.Times[i] = append(d.Times[i], int64(bucket), n)
		}
	}
	return d
}
