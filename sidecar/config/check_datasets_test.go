package config

import (
	"strings"
	"testing"
	"time"
)

func TestProblemsOfWritesAndFeeds(t *testing.T) {
	const query = "origins: {db: {driver: sqlite, dsn: a}}\ndatasets:\n  q:\n    origin: db\n    query: SELECT ?\n"
	const composite = "origins: {db: {driver: sqlite, dsn: a}}\ndatasets:\n  q:\n    origin: db\n    query: SELECT ?, ?\n"
	const notifying = "origins: {db: {driver: postgres, dsn: \"postgres://h/d\"}}\n" +
		"datasets: {a: {origin: db, table: t, key: k, feed: {kind: notify"
	for _, test := range []struct{ name, text, want string }{
		{"fine", oneDataset + "    version: ver\n    writable: true\n    write_timeout: 1s\n    feed: {kind: poll}\n    gap_ttl: 2s", ""},
		{"fine notify", notifying + ", channel: c}, gap_ttl: 1ms}}", ""},
		{"short ttl", oneDataset + "    ttl: 10ms\n    feed: {kind: poll}", ""},
		{
			"query that is writable", query + "    writable: true",
			"ringside.yaml:6:15: datasets.q.writable: a query is not writable; set table and key",
		},
		{"feed of a query", query + "    feed: {kind: poll}", "datasets.q.feed.tables: is missing: only a table has triggers"},
		{
			"fine tables of a composite key", composite + "    key: [a, b]\n    feed: {kind: poll, tables: {t: [a, b], u: [c, d]}}", "",
		},
		{
			"table with a part of the key", composite + "    key: [a, b]\n    feed: {kind: poll, tables: {t: [a, b], u: a}}",
			"datasets.q.feed.tables.u: has 1 of 2 columns; want the one of this table for each column of key (a, b), in this order",
		},
		{
			"tables of a key that is not composite", query + "    feed: {kind: poll, tables: {t: [a, b]}}",
			"datasets.q.feed.tables.t: has 2 columns for a key of one; name the columns of the key of the query in key",
		},
		{
			"write timeout of what is not writable", oneDataset + "    write_timeout: 1s",
			"datasets.metrics.write_timeout: belongs to writable: true",
		},
		{
			"no write timeout", oneDataset + "    writable: true\n    write_timeout: 0s",
			"datasets.metrics.write_timeout: must be more than 0s, at most 1h",
		},
		{
			"write timeout that overflows", oneDataset + "    writable: true\n    write_timeout: 2562047h",
			"datasets.metrics.write_timeout: must be more than 0s, at most 1h",
		},
		{"switch", oneDataset + "    writable: yes", "datasets.metrics.writable: want true or false"},
		{"fine warm", oneDataset + "    warm: {keys: all, interval: 10s, pin: true, wait: 1m}", ""},
		{"fine warm query", query + "    warm: {keys: SELECT id FROM t}", ""},
		{"warm without keys", oneDataset + "    warm: {pin: true}", "datasets.metrics.warm.keys: is missing; want all"},
		{"all keys of a query", query + "    warm: {keys: all}", "datasets.q.warm.keys: all belongs to table"},
		{"seldom warm", oneDataset + "    warm: {keys: all, interval: 156s}", "datasets.metrics.warm.interval: want 1s to half of ttl + stale_if_error, which is 2m35s"},
		{"often warm", oneDataset + "    warm: {keys: all, interval: 10ms}", "datasets.metrics.warm.interval: want 1s"},
		{"pin and slru", oneDataset + "    eviction: slru\n    warm: {keys: all, pin: true}", "datasets.metrics.warm.pin: needs eviction: lru"},
		{"long wait", oneDataset + "    warm: {keys: all, wait: 2h}", "datasets.metrics.warm.wait: want 0s to 1h"},
		{"gap without feed", oneDataset + "    gap_ttl: 1s", "datasets.metrics.gap_ttl: belongs to feed"},
		{
			"no gap", oneDataset + "    feed: {kind: poll}\n    gap_ttl: 0s",
			"datasets.metrics.gap_ttl: must be more than 0s, at most ttl, which is 10s; got 0s",
		},
		{
			"gap_ttl that has no effect", oneDataset + "    feed: {kind: poll}\n    gap_ttl: 11s",
			"datasets.metrics.gap_ttl: must be more than 0s, at most ttl",
		},
		{
			"feed of no kind", oneDataset + "    feed: {interval: 1s}",
			"datasets.metrics.feed.kind: is missing; want one of notify, poll, logical",
		},
		{
			"unknown kind", oneDataset + "    feed: {kind: debezium}",
			"datasets.metrics.feed.kind: want one of notify, poll, logical",
		},
		{
			"notify of another driver", oneDataset + "    feed: {kind: notify}",
			"datasets.metrics.feed.kind: db is sqlite, which has no feed of kind notify; use poll",
		},
		{
			"logical of another driver", oneDataset + "    feed: {kind: logical}",
			"datasets.metrics.feed.kind: db is sqlite, which has no feed of kind logical; use poll",
		},
		{"logical", strings.Replace(notifying, "notify", "logical, publication: p, max_wal: 4GiB", 1) + "}}}", ""},
		{
			"logical with a channel", strings.Replace(notifying, "notify", "logical", 1) + ", channel: x}}}",
			"datasets.a.feed: channel belongs to notify",
		},
		{
			"logical that keeps nothing", strings.Replace(notifying, "notify", "logical", 1) + ", max_wal: 1MiB}}}",
			"datasets.a.feed.max_wal: want at least 16MiB; got 1MiB",
		},
		{
			"poll with a publication", oneDataset + "    feed: {kind: poll, publication: p}",
			"datasets.metrics.feed: channel belongs to notify",
		},
		{
			"notify with a table", notifying + ", table: x}}}",
			"datasets.a.feed: channel belongs to notify; table, interval, keep and keep_rows to poll",
		},
		{
			"poll with a channel", oneDataset + "    feed: {kind: poll, channel: c}",
			"datasets.metrics.feed: channel belongs to notify",
		},
		{
			"poll without pause", oneDataset + "    feed: {kind: poll, interval: 0s}",
			"datasets.metrics.feed.interval: want 10ms to 1m0s; got 0s",
		},
		{
			"typed service of nothing", "cnf_metrics: a",
			`ringside.yaml:1:14: cnf_metrics: no dataset is named "a"; want one of: there are none`,
		},
		{
			"typed service of a column", oneDataset + "    value: value\ncnf_metrics: metrics",
			"cnf_metrics: the dataset metrics needs table and a key of one column, rows: one, and no value",
		},
		{"typed service", oneDataset + "cnf_metrics: metrics", ""},
		{
			"typed service of many rows", oneDataset + "    rows: many\ncnf_metrics: metrics",
			"cnf_metrics: the dataset metrics needs table and a key of one column, rows: one, and no value",
		},
		{"many rows", oneDataset + "    rows: many\n    order: [prio, -id]\n    max_rows: 5", ""},
		{"several rows", oneDataset + "    rows: several", "datasets.metrics.rows: want one of one, many"},
		{"order of one row", oneDataset + "    order: id", "datasets.metrics: order and max_rows belong to rows: many"},
		{"limit of one row", oneDataset + "    rows: one\n    max_rows: 7", "datasets.metrics: order and max_rows belong to rows: many"},
		{"too many rows", oneDataset + "    rows: many\n    max_rows: 1000000", "datasets.metrics.max_rows: want 1 to 100000"},
		{"version of many rows", oneDataset + "    rows: many\n    version: ver", "datasets.metrics.version: does not fit rows: many"},
		{"writes of many rows", oneDataset + "    rows: many\n    writable: true", "datasets.metrics.writable: does not fit rows: many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := problemsOf(t, test.text, nil)
			switch {
			case test.want == "" && len(got) > 0:
				t.Errorf("got %q, want no problem", got)
			case test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)):
				t.Errorf("got  %q\nwant one problem with %q", got, test.want)
			}
		})
	}
}

func TestFeedsHaveTheirDefaults(t *testing.T) {
	c := mustParse(t, oneDataset+"    ttl: 300ms\n    writable: true\n    feed: {kind: poll}", nil)
	d := c.Effective().Datasets["metrics"]
	if d.Feed.Table != "ringside_changes" || *d.Feed.Interval != 500*time.Millisecond || d.Feed.Channel != "" {
		t.Errorf("got %+v", d.Feed)
	}
	if *d.GapTTL != 300*time.Millisecond || *d.WriteTimeout != 2*time.Second {
		t.Errorf("got gap_ttl %s and write_timeout %s", *d.GapTTL, *d.WriteTimeout)
	}
	if d := mustParse(t, oneDataset, nil).Effective().Datasets["metrics"]; d.GapTTL != nil || d.WriteTimeout != nil {
		t.Errorf("a dataset that is read only, without feed, has %+v", d)
	}
}

// A peer fetch that ends before the owner's write leaves the outcome unknown.
func TestPeerFetchesLastAsLongAsWrites(t *testing.T) {
	c := Config{Datasets: map[string]Dataset{"a": {Times: Times{WriteTimeout: new(time.Minute)}, Writable: true}}}
	if got := c.FetchTimeout(); got < time.Minute+FetchOverhead {
		t.Errorf("got a peer fetch of at most %s", got)
	}
}
