package sidecar

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin/drivers"
)

// This file is what a configuration may say of writes and change feeds.

// writes checks what goes with writable.
func (k *checker) writes(path string, d DatasetConfig) {
	if d.Writable && d.Table == "" {
		k.problem(path+".writable", "a query cannot be written to; give table and key instead of query, or leave it out")
	}
	if !d.Writable && d.WriteTimeout != nil {
		k.problem(path+".write_timeout", "belongs to writable: true; this dataset takes no writes")
	}
	if t := d.policy().WriteTimeout; t == 0 || t > time.Hour {
		k.problem(path+".write_timeout", "must be more than 0s, at most 1h; got %s", t)
	}
}

// feed checks how changes are heard of.
func (k *checker) feed(path string, d DatasetConfig) {
	f := d.Feed
	if !f.configured() {
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
	if p := d.policy(); p.GapTTL == 0 || p.GapTTL > p.TTL {
		k.problem(path+".gap_ttl", "must be more than 0s, at most ttl, which is %s; got %s", p.TTL, p.GapTTL)
	}
}

func (k *checker) notify(path string, d DatasetConfig) {
	driver := drivers.All().Lookup(k.config.Origins[d.Origin].Driver)
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

// writeWarnings are about datasets that take writes.
func (c Config) writeWarnings() []string {
	var list, writable []string
	for _, name := range slices.Sorted(maps.Keys(c.Datasets)) {
		d := c.Datasets[name]
		if !d.Writable {
			continue
		}
		writable = append(writable, name)
		if d.Version == "" {
			list = append(list, fmt.Sprintf("datasets.%s is writable without a version column: conditions on versions and "+
				"ETags are refused, and a late answer can not be told from a new one; add one and name it in version", name))
		}
	}
	if len(writable) == 0 {
		return list
	}
	rows := strings.Join(writable, ", ")
	for _, way := range c.waysToWrite() {
		list = append(list, fmt.Sprintf("%s: whoever reaches it can change the rows of %s", way, rows))
	}
	return list
}

// waysToWrite are the listeners by which others than the pod's own applications can write.
func (c Config) waysToWrite() []string {
	var ways []string
	for _, l := range [][2]string{{"listen.http", c.Listen.http()}, {"listen.grpc", c.Listen.grpc()}} {
		if h, _, err := splitAddr(l[1]); err == nil && !isLoopback(h) {
			ways = append(ways, fmt.Sprintf("%s is %s", l[0], l[1]))
		}
	}
	if c.peerListen() != off && c.PeerTLS == (PeerTLS{}) {
		ways = append(ways, fmt.Sprintf("listen.peer is %s, without peer_tls", c.peerListen()))
	}
	return ways
}
