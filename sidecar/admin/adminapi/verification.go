package adminapi

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Verification is the response of /api/verification?dataset=…: what a member has found since its start by comparing a few of the
// entries that it owns with the database, all the time.
type Verification struct {
	Dataset string `json:"dataset"`
	Node    string `json:"node"`
	Rate    int    `json:"rate"`    // entries per second, of all members together; 0: off
	Members int    `json:"members"` // that share it
	Counts  Counts `json:"compared"`
	Queries int64  `json:"queries"`
	// Skipped counts comparisons that were due and did not take place, by reason: breaker, busy, slow, failed.
	Skipped map[string]int64 `json:"skipped"`
	// WorstAge is the greatest age of an entry that reads got as fresh and that differed, in the last 5 to 10 minutes.
	WorstAge time.Duration `json:"worst_age_ns"`
	// Findings are the latest broken promises, at most 50, the oldest first.
	Findings []Finding `json:"findings"`
}

// Audit is the response of /api/audit?dataset=…&keys=…: a comparison of the entries of one member with the database.
type Audit struct {
	Dataset string `json:"dataset"`
	Node    string `json:"node"`
	Counts  Counts `json:"compared"`
	Failed  int    `json:"failed"` // entries whose query failed
	// Complete: every entry was compared, or as many as were requested. Otherwise Stopped says why.
	Complete bool          `json:"complete"`
	Stopped  string        `json:"stopped,omitempty"`
	Took     time.Duration `json:"took_ns"`
	// WorstAge is the greatest age of an entry that reads got as fresh and that differed.
	WorstAge time.Duration `json:"worst_age_ns"`
	// Findings are the entries that differ, at most 1000; if there are more, FindingsOmitted counts them.
	Findings        []Finding `json:"findings"`
	FindingsOmitted int       `json:"findings_omitted"`
}

// Broken returns how many entries break a promise.
func (a Audit) Broken() (n int64) {
	for v := range kv.Verdicts {
		if v.Broken() {
			n += a.Counts[v.String()]
		}
	}
	return n
}

// Counts are the compared entries by result, the String of a kv.Verdict.
type Counts map[string]int64

// NewCounts returns Counts with 0 for each result.
func NewCounts() Counts {
	c := Counts{}
	for v := range kv.Verdicts {
		c.Add(v, 0)
	}
	return c
}

// Add counts n more entries.
func (c Counts) Add(v kv.Verdict, n int64) { c[v.String()] += n }

// Finding is an entry that differs from the database. It has no value: an ETag is a hash of it.
type Finding struct {
	Key      string    `json:"key"`
	Result   string    `json:"result"` // the String of a kv.Verdict
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	Cached   CachedRow `json:"cached"`
	Database Row       `json:"database"`
	// Promised is the greatest age at which reads may get the entry as they do.
	Promised time.Duration `json:"promised_age_ns"`
	// FeedLive: the change feed is live, so that every change is promised to invalidate the entry.
	FeedLive bool `json:"feed_live"`
}

// Row is what there is of a key, without its value.
type Row struct {
	NotFound  bool   `json:"not_found,omitempty"`
	DataError string `json:"data_error,omitempty"`
	Version   int64  `json:"version,omitempty"`
	ETag      string `json:"etag,omitempty"`
}

// CachedRow is a Row that is cached.
type CachedRow struct {
	Row
	Age time.Duration `json:"age_ns"`
	// Fresh: reads get it, not marked as stale.
	Fresh bool `json:"fresh"`
}
