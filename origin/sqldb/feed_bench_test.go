package sqldb_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// withRow creates the table r with one row.
func (d database) withRow(b *testing.B) {
	b.Helper()
	d.exec(b, "DROP TABLE IF EXISTS r")
	d.exec(b, rowsTable)
	d.exec(b, "INSERT INTO r VALUES ('a', 'x', 1)")
}

// BenchmarkFeed measures the time from before a statement is sent until its Changes. Statements are sent at random moments
// between two polls.
func BenchmarkFeed(b *testing.B) {
	for name, start := range starts {
		d := start(b)
		for _, c := range d.feeds() {
			if c.Kind == origin.FeedPoll {
				c.Interval = origin.DefaultFeedInterval
			}
			b.Run(name+"/"+c.Kind, func(b *testing.B) {
				d.withRow(b)
				f := d.record(b, rowsDataset, c).started(b)
				var took []time.Duration
				b.ReportAllocs()
				for b.Loop() {
					time.Sleep(rand.N(max(c.Interval, time.Millisecond)))
					began := time.Now()
					d.exec(b, "UPDATE r SET ver = ver + 1")
					f.next()
					took = append(took, time.Since(began))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}

// BenchmarkRecordedUpdate measures what the triggers cost a writer, for one row and for many in one statement.
func BenchmarkRecordedUpdate(b *testing.B) {
	for name, start := range starts {
		d := start(b)
		for _, rows := range []int{1, 10_000} {
			for _, c := range append(d.feeds(), origin.FeedConfig{Kind: "none"}) {
				b.Run(fmt.Sprintf("%s/%d/%s", name, rows, c.Kind), func(b *testing.B) {
					d.withRow(b)
					d.exec(b, fmt.Sprintf("INSERT INTO r SELECT i, 'x', 1 FROM %s WHERE i > 1", d.numbers(rows)))
					if c.Kind != "none" {
						d.record(b, rowsDataset, c)
					}
					b.ReportAllocs()
					for b.Loop() {
						d.exec(b, "UPDATE r SET ver = ver + 1")
					}
				})
			}
		}
	}
}
