package adminapi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/ring/printable"
)

// The history of a member is divided into intervals, which begin at multiples of HistoryInterval since 1970, so that those of
// different members add up. The number of an interval is that multiple.
const (
	HistoryInterval = 5 * time.Second
	// HistoryLength is the number of intervals that are kept: ten minutes.
	HistoryLength = 120
	// MaxEvents limits the events that a member keeps.
	MaxEvents = 200
)

// The counters of a DatasetSample, in the order of its Counts. The first CountResults are reads by result.
const (
	CountHit = iota
	CountLocalHit
	CountPeerHit
	CountLoad
	CountStale
	CountNegative
	CountDataError
	CountError
	CountResults            // the number of results
	CountQueries = iota - 1 // queries to the origin
	CountServed             // fetches served to other members
	CountWritten            // rows, for applications
	NumCounts               // the number of counters
)

// CountNames are the names of the counters.
var CountNames = [NumCounts]string{
	"hit", "local_hit", "peer_hit", "load", "stale", "negative", "data_error", "error", "queries", "served", "written",
}

// The distributions of a DatasetSample, in the order of its Times.
const (
	TimeRead = iota
	TimeLoad
	TimeFetch // from other members
	TimeWrite
	TimeAge  // of the values that reads returned
	NumTimes // the number of distributions
)

// TimeNames are the names of the distributions.
var TimeNames = [NumTimes]string{"read", "load", "fetch", "write", "age"}

// MemberHistory is what one member recorded. Members send it to each other in this form.
type MemberHistory struct {
	// Now is the number of the latest complete interval.
	Now       int64      `json:"now"`
	Intervals []Interval `json:"intervals"`
	Events    []Event    `json:"events"`
}

// Interval has what the datasets of a member counted in one interval. A dataset that counted nothing may be missing.
type Interval struct {
	Number   int64           `json:"n"`
	Datasets []DatasetSample `json:"d,omitempty"`
}

// DatasetSample has the increments of counters in one interval.
type DatasetSample struct {
	Name   string           `json:"n"`
	Counts [NumCounts]int64 `json:"c"`
	// Times has pairs of a bucket of kv.Distribution and its count, one after another.
	Times [NumTimes][]int64 `json:"t"`
}

// Event is something that happened.
type Event struct {
	At     time.Time `json:"at"`
	Member string    `json:"member,omitempty"` // that recorded it
	Kind   string    `json:"kind"`             // one of the kinds below
	Text   string    `json:"text"`
	// Bad: something stopped working. Otherwise it is good, or neither.
	Bad bool `json:"bad,omitempty"`
}

// The kinds of events.
const (
	EventStart     = "start"
	EventReload    = "reload"
	EventRing      = "ring"
	EventFeed      = "feed"
	EventBreaker   = "breaker"
	EventDirectory = "directory"
)

// History is the response of /api/history: the history of all members, after the interval in the request.
type History struct {
	IntervalNS time.Duration `json:"interval_ns"`
	Length     int           `json:"length"` // intervals that the page shows
	Self       string        `json:"self"`
	// First is the number of the first interval of every list.
	First  int64    `json:"first"`
	Count  int      `json:"count"` // of intervals
	Series []Series `json:"series"`
	// Omitted is the number of members without a series of their own, because there are too many.
	Omitted int     `json:"omitted_members,omitempty"`
	Events  []Event `json:"events"`
}

// The scopes of a Series.
const (
	ScopeAll     = "all"
	ScopeDataset = "dataset" // over all members
	ScopeMember  = "member"  // over all datasets
)

// Series has the sums of one scope, one element for each interval. A list of zeros is left out.
type Series struct {
	Scope string `json:"scope"`
	Name  string `json:"name,omitempty"`
	// Members is the number of members that contribute to an interval: 0 where nothing is known.
	Members []int `json:"members"`
	// Counts are increments of the counters of CountNames.
	Counts map[string][]int64 `json:"counts"`
	// P50 and P99 are quantiles in seconds of the distributions of TimeNames; 0 where nothing was measured.
	P50 map[string][]float64 `json:"p50"`
	P99 map[string][]float64 `json:"p99"`
}

// DecodeMemberHistory decodes the MemberHistory of another member, which may be anything.
func DecodeMemberHistory(data []byte) (*MemberHistory, error) {
	if len(data) > maxStateBytes {
		return nil, fmt.Errorf("the history has %d bytes; at most %d are allowed", len(data), maxStateBytes)
	}
	var h MemberHistory
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, stateError(err)
	}
	if len(h.Intervals) > HistoryLength || len(h.Events) > MaxEvents { //guard:history-of-member-without-limit
		return nil, fmt.Errorf("the history has %d intervals and %d events; at most %d and %d are allowed",
			len(h.Intervals), len(h.Events), HistoryLength, MaxEvents)
	}
	printable.Clean(&h) //guard:history-of-member-controls-the-terminal
	for i := range h.Intervals {
		for k := range h.Intervals[i].Datasets {
			h.Intervals[i].Datasets[k].clean()
		}
	}
	return &h, nil
}

// maxIncrement lets the sums of all intervals of 10 000 members be an int64.
const maxIncrement = maxCounter / HistoryLength

// clean makes every count possible.
func (d *DatasetSample) clean() {
	for i, n := range d.Counts {
		d.Counts[i] = min(max(0, n), maxIncrement) //guard:count-of-member-is-negative
	}
	for t, pairs := range d.Times {
		pairs = pairs[:len(pairs)/2*2]
		for i := 1; i < len(pairs); i += 2 {
			pairs[i] = min(max(0, pairs[i]), maxIncrement)
		}
		d.Times[t] = pairs
	}
}
