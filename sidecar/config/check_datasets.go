package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

func (k *checker) datasets() {
	var shares Share
	var without int
	for _, n := range slices.Sorted(maps.Keys(k.config.Datasets)) {
		path, d := "datasets."+n, k.config.Datasets[n]
		k.name(path, n)
		k.origin(path, d)
		k.source(path, d)
		k.policy(path, d)
		k.writes(path, d)
		k.feed(path, d)
		if d.IntegerTimes != "" {
			k.oneOf(path+".integer_times", d.IntegerTimes, origin.IntegerSeconds, origin.IntegerMilliseconds)
		}
		k.oneOf(path+".eviction", d.eviction(), "lru", "slru")
		if d.MemoryShare == nil {
			without++
		}
		shares += orDefault(d.MemoryShare, 0)
		if d.MemoryShare != nil && *d.MemoryShare == 0 {
			k.problem(path+".memory_share", "must be more than 0%%; remove it for an equal share")
		}
	}
	// Shares are parsed from decimal text: three thirds may add up to slightly more than 1.
	const rounding = 0.0001
	switch {
	case shares > 1+rounding:
		k.problem("datasets", "the memory_share fields of all datasets add up to %s; the maximum is 100%%", shares)
	case shares > 1-rounding && without > 0:
		k.problem("datasets", "the memory_share fields add up to 100%%; nothing is left for the datasets without one")
	}
}

func (k *checker) origin(path string, d Dataset) {
	known := strings.Join(slices.Sorted(maps.Keys(k.config.Origins)), ", ")
	if d.Origin == "" {
		k.problem(path+".origin", "is missing; want one of the origins: %s", cmp.Or(known, "there are none"))
		return
	}
	if _, ok := k.config.Origins[d.Origin]; !ok {
		k.problem(path+".origin", "no origin is named %q; the origins are: %s", d.Origin, cmp.Or(known, "none"))
	}
}

// source checks that d has either a table or a query.
func (k *checker) source(path string, d Dataset) {
	switch {
	case d.Table == "" && d.Query == "":
		k.problem(path, "set either table, for which the sidecar generates the queries, or query")
	case d.Table != "" && d.Query != "":
		k.problem(path+".query", "set either table or query")
	case d.Query != "":
		k.ofQuery(path, d)
	default:
		k.ofTable(path, d)
	}
}

func (k *checker) ofQuery(path string, d Dataset) {
	if d.Key != "" || len(d.Columns) > 0 {
		k.problem(path, "key and columns belong to table; a query selects its own")
	}
}

func (k *checker) ofTable(path string, d Dataset) {
	if d.Key == "" {
		k.problem(path+".key", "is missing; want the column that identifies a row")
	}
	if d.Batch != "" {
		k.problem(path+".batch", "belongs to query; for a table the sidecar generates it")
	}
	if d.Value != "" && len(d.Columns) > 0 {
		k.problem(path+".value", "set either value, for one unchanged column, or columns, for a JSON object")
	}
}

func (k *checker) policy(path string, d Dataset) {
	p := d.Policy()
	if p.TTL == 0 {
		k.problem(path+".ttl", "must be more than 0s")
	}
	if p.LocalTTL > p.TTL {
		k.problem(path+".local_ttl", "%s exceeds ttl, which is %s: a copy does not outlive the owner's entry",
			p.LocalTTL, p.TTL)
	}
	if p.LoadTimeout == 0 || p.LoadTimeout > time.Hour {
		k.problem(path+".load_timeout", "must be more than 0s, at most 1h; got %s", p.LoadTimeout)
	}
}

// writes checks writable and its fields.
func (k *checker) writes(path string, d Dataset) {
	if d.Writable && d.Table == "" {
		k.problem(path+".writable", "a query is not writable; set table and key instead of query, or remove writable")
	}
	if !d.Writable && d.WriteTimeout != nil {
		k.problem(path+".write_timeout", "belongs to writable: true; this dataset is read-only")
	}
	if t := d.Policy().WriteTimeout; t == 0 || t > time.Hour {
		k.problem(path+".write_timeout", "must be more than 0s, at most 1h; got %s", t)
	}
}

// feed checks the change feed.
func (k *checker) feed(path string, d Dataset) {
	f := d.Feed
	if !f.Configured() {
		if d.GapTTL != nil {
			k.problem(path+".gap_ttl", "belongs to feed: it is the lifetime of entries while the feed is not live")
		}
		return
	}
	switch f.Kind {
	case "":
		k.problem(path+".feed.kind", "is missing; want one of notify, poll")
	case feedNotify:
		k.notify(path, d)
	default:
		k.oneOf(path+".feed.kind", f.Kind, feedNotify, feedPoll)
		k.poll(path+".feed", f)
	}
	if d.Key == "" {
		k.problem(path+".feed", "reports the keys of a table; set table and key instead of query, or remove feed")
	}
	if p := d.Policy(); p.GapTTL == 0 || p.GapTTL > p.TTL {
		k.problem(path+".gap_ttl", "must be more than 0s, at most ttl, which is %s; got %s", p.TTL, p.GapTTL)
	}
}

func (k *checker) notify(path string, d Dataset) {
	driver := k.drivers.Lookup(k.config.Origins[d.Origin].Driver)
	if driver != nil && !slices.Contains(driver.FeedKinds(), d.Feed.Kind) {
		k.problem(path+".feed.kind", "%s is %s, which cannot notify; use %s", d.Origin, driver.Name(),
			cmp.Or(strings.Join(driver.FeedKinds(), ", "), "none"))
	}
	if d.Feed.Table != "" || d.Feed.Interval != nil {
		k.problem(path+".feed", "table and interval belong to poll; notify has channel")
	}
}

// The bounds of the interval: shorter polls load the database, longer ones are hardly better than ttl.
const (
	minPoll = 10 * time.Millisecond
	maxPoll = time.Minute
)

func (k *checker) poll(path string, f ChangeFeed) {
	if f.Channel != "" {
		k.problem(path+".channel", "belongs to notify; poll has table and interval")
	}
	if i := f.interval(); i < minPoll || i > maxPoll {
		k.problem(path+".interval", "want %s to %s; got %s", minPoll, maxPoll, i)
	}
}

// cnfMetrics checks the dataset of the typed service.
func (k *checker) cnfMetrics() {
	const path = "cnf_metrics"
	n := k.config.CNFMetrics
	d, ok := k.config.Datasets[n]
	switch {
	case n == "":
	case !ok:
		k.problem(path, "no dataset is named %q; want one of: %s", n,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(k.config.Datasets)), ", "), "there are none"))
	case d.Table == "" || d.Key == "" || d.Value != "":
		k.problem(path, "the dataset %s needs table and key, and no value: the service lists and writes whole rows", n)
	}
}
