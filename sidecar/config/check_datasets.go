package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
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
		k.oneOf(path+".eviction", d.eviction(), "lru", "slru")
		if d.MemoryShare == nil {
			without++
		}
		shares += orDefault(d.MemoryShare, 0)
		if d.MemoryShare != nil && *d.MemoryShare == 0 {
			k.problem(path+".memory_share", "must be more than 0%%; leave it out for an equal share")
		}
	}
	// Shares are read from text: thirds may add up to a hair more than the whole.
	const hair = 0.0001
	switch {
	case shares > 1+hair:
		k.problem("datasets", "the memory_share of all datasets add up to %s; at most 100%%", shares)
	case shares > 1-hair && without > 0:
		k.problem("datasets", "the memory_share of some datasets add up to all of memory; nothing is left for the others")
	}
}

func (k *checker) origin(path string, d Dataset) {
	known := strings.Join(slices.Sorted(maps.Keys(k.config.Origins)), ", ")
	if d.Origin == "" {
		k.problem(path+".origin", "is missing; want the name of one of the origins: %s", cmp.Or(known, "there is none yet"))
		return
	}
	if _, ok := k.config.Origins[d.Origin]; !ok {
		k.problem(path+".origin", "no origin is named %q; there is: %s", d.Origin, cmp.Or(known, "none"))
	}
}

// source checks that d says what to load in one way: a table or a query.
func (k *checker) source(path string, d Dataset) {
	switch {
	case d.Table == "" && d.Query == "":
		k.problem(path, "give table, and queries are made for you, or query")
	case d.Table != "" && d.Query != "":
		k.problem(path+".query", "give table or query, not both")
	case d.Query != "":
		k.ofQuery(path, d)
	default:
		k.ofTable(path, d)
	}
}

func (k *checker) ofQuery(path string, d Dataset) {
	if d.Key != "" || len(d.Columns) > 0 {
		k.problem(path, "key and columns belong to table; a query names its own")
	}
}

func (k *checker) ofTable(path string, d Dataset) {
	if d.Key == "" {
		k.problem(path+".key", "is missing; want the column that identifies a row")
	}
	if d.Batch != "" {
		k.problem(path+".batch", "belongs to query; for a table it is made for you")
	}
	if d.Value != "" && len(d.Columns) > 0 {
		k.problem(path+".value", "give value, one column as it is, or columns of a JSON object, not both")
	}
}

func (k *checker) policy(path string, d Dataset) {
	p := d.Policy()
	if p.TTL == 0 {
		k.problem(path+".ttl", "must be more than 0s: a value that is never fresh need not be cached")
	}
	if p.LocalTTL > p.TTL {
		k.problem(path+".local_ttl", "%s is more than ttl, which is %s: a copy never outlives the owner's entry",
			p.LocalTTL, p.TTL)
	}
	if p.LoadTimeout == 0 || p.LoadTimeout > time.Hour {
		k.problem(path+".load_timeout", "must be more than 0s, at most 1h; got %s", p.LoadTimeout)
	}
}

// writes checks what goes with writable.
func (k *checker) writes(path string, d Dataset) {
	if d.Writable && d.Table == "" {
		k.problem(path+".writable", "a query cannot be written to; give table and key instead of query, or leave it out")
	}
	if !d.Writable && d.WriteTimeout != nil {
		k.problem(path+".write_timeout", "belongs to writable: true; this dataset takes no writes")
	}
	if t := d.Policy().WriteTimeout; t == 0 || t > time.Hour {
		k.problem(path+".write_timeout", "must be more than 0s, at most 1h; got %s", t)
	}
}

// feed checks how changes are heard of.
func (k *checker) feed(path string, d Dataset) {
	f := d.Feed
	if !f.Configured() {
		if d.GapTTL != nil {
			k.problem(path+".gap_ttl", "belongs to feed: it is how long entries live while changes are not heard of")
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
		k.problem(path+".feed", "tells the keys of a table; a query has none: give table and key instead, or leave feed out")
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

// Between these, a poll is neither a load of its own nor later than what ttl would have brought.
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

// cnfMetrics checks that the dataset of the typed service can be one.
func (k *checker) cnfMetrics() {
	const path = "cnf_metrics"
	n := k.config.CNFMetrics
	d, ok := k.config.Datasets[n]
	switch {
	case n == "":
	case !ok:
		k.problem(path, "no dataset is named %q; want one of: %s", n,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(k.config.Datasets)), ", "), "there is none yet"))
	case d.Table == "" || d.Key == "" || d.Value != "":
		k.problem(path, "the dataset %s must have table and key, and no value: the service lists and writes whole rows", n)
	}
}
