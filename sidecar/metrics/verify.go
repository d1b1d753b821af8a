package metrics

import (
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// verifyMetrics are about the comparisons of cached entries with the database.
func verifyMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_verified_entries_total", counter, []string{"dataset", "result"},
			"Cached entries that this member owns and has compared with the database, by result. older_than_promised and different_at_same_version are broken promises.",
			func(s *Source, emit func(float64, ...string)) {
				for _, d := range s.Configured().Datasets {
					for v := range kv.Verdicts {
						emit(float64(d.Stats().Verified[v].Load()), d.Name(), v.String())
					}
				}
			}},
		{"ringside_verify_skipped_total", counter, []string{"dataset", "reason"},
			"Comparisons with the database that were due and did not take place, or after which fewer follow, by reason.",
			func(s *Source, emit func(float64, ...string)) {
				for _, d := range s.Configured().Datasets {
					for r := range kv.VerifySkips {
						emit(float64(d.Stats().VerifySkipped[r].Load()), d.Name(), r.String())
					}
				}
			}},
		{"ringside_verify_queries_total", counter, dataset,
			"Queries for comparisons with the database, which ringside_origin_queries_total does not count.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.VerifyQueries })},
		{"ringside_verify_worst_age_seconds", gauge, dataset,
			"Greatest age of an entry that reads got as fresh and that differed from the database, in the last 5 to 10 minutes.",
			perDataset(func(d *cache.Dataset) float64 { return d.Stats().VerifyWorstAge.Value(time.Now()).Seconds() })},
		{"ringside_verify_max_rate", gauge, dataset,
			"Limit of the entries per second that all members together compare with the database (verify_rate).",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Policy().VerifyRate) })},
	}
}
