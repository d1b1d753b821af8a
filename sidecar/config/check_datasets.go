package config

import (
	"cmp"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
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
		datasetChecker{k, path, d}.check()
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

// datasetChecker checks one dataset.
type datasetChecker struct {
	*checker
	path string
	Dataset
}

func (k datasetChecker) check() {
	k.origin()
	k.source()
	k.policy()
	k.writes()
	k.feed()
	k.verifyRate()
	k.rows()
	k.warm()
	k.allow()
	if k.IntegerTimes != "" {
		k.oneOf(k.path+".integer_times", k.IntegerTimes, words["datasets.*.integer_times"])
	}
	if err := checkMediaType(k.ContentType); k.ContentType != "" && err != nil {
		k.problem(k.path+".content_type", "%v", err)
	}
	k.oneOf(k.path+".eviction", k.eviction(), words["datasets.*.eviction"])
}

// The values of rows.
const rowsOne, rowsMany = "one", "many"

// maxRows bounds max_rows: more rows are hardly ever a value of 1 MiB.
const maxRows = 100_000

func (k datasetChecker) rows() {
	if k.RowsOfKey != "" {
		k.oneOf(k.path+".rows", k.RowsOfKey, words["datasets.*.rows"])
	}
	if !k.Many() {
		if len(k.Order) > 0 || k.MaxRows != 0 {
			k.problem(k.path, "order and max_rows belong to rows: many; a key of this dataset has one row")
		}
		return
	}
	if k.Version != "" {
		k.problem(k.path+".version", "does not fit rows: many: when a row is deleted, the highest version of the others is lower than before")
	}
	if k.Expires != "" {
		k.problem(k.path+".expires", "does not fit rows: many: several rows have no common end; use ttl")
	}
	if k.Writable {
		k.problem(k.path+".writable", "does not fit rows: many; write each row through a dataset with rows: one")
	}
	if k.MaxRows < 0 || k.MaxRows > maxRows {
		k.problem(k.path+".max_rows", "want 1 to %d; got %d", maxRows, k.MaxRows)
	}
}

// checkMediaType returns an error unless s can be the value of a Content-Type field: it is sent as it is.
func checkMediaType(s string) error {
	media, _, err := mime.ParseMediaType(s)
	isPrintable := !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
	if err != nil || !strings.Contains(media, "/") || !isPrintable || len(s) > maxMediaType { //guard:header-in-content-type
		return fmt.Errorf("%q is not a media type as text/html; charset=utf-8, of at most %d ASCII characters", s, maxMediaType)
	}
	return nil
}

const maxMediaType = 255

func (k datasetChecker) origin() {
	known := strings.Join(slices.Sorted(maps.Keys(k.config.Origins)), ", ")
	if k.Origin == "" {
		k.problem(k.path+".origin", "is missing; want one of the origins: %s", cmp.Or(known, "there are none"))
		return
	}
	if _, ok := k.config.Origins[k.Origin]; !ok {
		k.problem(k.path+".origin", "no origin is named %q; the origins are: %s", k.Origin, cmp.Or(known, "none"))
	}
}

// source checks that d has either a table or a query, or what its service has.
func (k datasetChecker) source() {
	driver := k.config.Origins[k.Origin].Driver
	if field := k.drivers.ValuesField(driver); field != "" {
		k.ofDriver(driver, field)
		return
	}
	if k.ofService() {
		k.problem(k.path, "url, preset and response belong to an origin with driver: http, prefix to one with driver: etcd")
		return
	}
	switch {
	case k.Table == "" && k.Query == "":
		k.problem(k.path, "set either table, for which the sidecar generates the queries, or query")
	case k.Table != "" && k.Query != "":
		k.problem(k.path+".query", "set either table or query")
	case k.Query != "":
		k.ofQuery()
	default:
		k.ofTable()
	}
}

// ofDriver checks the fields of a dataset of a service, whose values are in the given field.
func (k datasetChecker) ofDriver(driver, field string) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"table", k.Table != ""}, {"columns", len(k.Columns) > 0}, {"query", k.Query != ""}, {"batch", k.Batch != ""}, {"list", k.List != ""},
		{"expires", k.Expires != ""}, {"value", k.Value != ""}, {"rows", k.RowsOfKey != ""}, {"integer_times", k.IntegerTimes != ""},
	} {
		if f.set {
			k.problem(k.path+"."+f.name, "belongs to SQL databases; a dataset of driver: %s has %s", driver, field)
		}
	}
	if field == "prefix" {
		k.ofEtcd()
	} else {
		k.ofHTTP(driver, field)
	}
}

// ofEtcd checks the fields of a dataset of etcd. Its driver checks the prefix.
func (k datasetChecker) ofEtcd() {
	if k.Version != "" || len(k.Key) > 0 {
		k.problem(k.path, "key and version belong to SQL databases; the key is what follows the prefix in etcd, the version its mod_revision: "+
			"leave them out")
	}
	if k.Dataset.ofHTTP() {
		k.problem(k.path, "url, preset and response belong to an origin with driver: http")
	}
}

// ofHTTP checks the fields of a dataset of a service over HTTP.
func (k datasetChecker) ofHTTP(driver, field string) {
	if k.Prefix != "" {
		k.problem(k.path+".prefix", "belongs to an origin with driver: etcd")
	}
	if k.Version != "" {
		k.problem(k.path+".version", "driver: %s has no column that grows with each change; leave version out, and reads are ordered by the "+
			"times of their loads", driver)
	}
	if k.URL == "" && k.Preset == "" {
		k.problem(k.path+"."+field, "is missing; want the path and query of a key, such as /v1/things/{key}")
	}
	if k.Preset != "" {
		k.oneOf(k.path+".preset", k.Preset, words["datasets.*.preset"])
	}
	k.response()
}

// The values of response.cache_control.
const honor, ignore = "honor", "ignore"

// response checks what responses over HTTP mean.
func (k datasetChecker) response() {
	path, r := k.path+".response", k.Response
	if r.CacheControl != "" {
		k.oneOf(path+".cache_control", r.CacheControl, words["datasets.*.response.cache_control"])
	}
	k.statuses(path+".not_found", r.NotFound)
	k.statuses(path+".invalid", r.Invalid)
}

func (k datasetChecker) statuses(path string, list []string) {
	for _, text := range list {
		code, err := strconv.Atoi(text)
		if err != nil || code != http.StatusNoContent && (code < 400 || code > 499) {
			k.problem(path, "want 204, or status codes from 400 to 499, which say something about the key; got %q", text)
		}
	}
}

func (k datasetChecker) ofQuery() {
	if len(k.Columns) > 0 {
		k.problem(k.path+".columns", "belongs to table; a query selects its own")
	}
}

func (k datasetChecker) ofTable() {
	if len(k.Key) == 0 {
		k.problem(k.path+".key", "is missing; want the column that identifies a row, or a list of columns")
	}
	if k.List != "" {
		k.problem(k.path+".list", "belongs to query; for a table the sidecar generates it")
	}
	if k.Batch != "" {
		k.problem(k.path+".batch", "belongs to query; for a table the sidecar generates it")
	}
	if k.Value != "" && len(k.Columns) > 0 {
		k.problem(k.path+".value", "set either value, for one unchanged column, or columns, for a JSON object")
	}
}

func (k datasetChecker) policy() {
	p := k.Policy()
	if p.TTL == 0 {
		k.problem(k.path+".ttl", "must be more than 0s")
	}
	if p.LocalTTL > p.TTL {
		k.problem(k.path+".local_ttl", "%s exceeds ttl, which is %s: a copy does not outlive the owner's entry",
			p.LocalTTL, p.TTL)
	}
	if p.LoadTimeout == 0 || p.LoadTimeout > time.Hour {
		k.problem(k.path+".load_timeout", "must be more than 0s, at most 1h; got %s", p.LoadTimeout)
	}
}

// writes checks writable and its fields.
func (k datasetChecker) writes() {
	if k.Writable && k.Table == "" && k.Query != "" {
		k.problem(k.path+".writable", "a query is not writable; set table and key instead of query, or remove writable")
	}
	if !k.Writable && k.WriteTimeout != nil {
		k.problem(k.path+".write_timeout", "belongs to writable: true; this dataset is read-only")
	}
	if t := k.Policy().WriteTimeout; t == 0 || t > time.Hour {
		k.problem(k.path+".write_timeout", "must be more than 0s, at most 1h; got %s", t)
	}
}

// maxVerifyRate bounds verify_rate: each entry is a key of a query that no reader needs.
const maxVerifyRate = 1000

func (k datasetChecker) verifyRate() {
	if n := k.Policy().VerifyRate; n < 0 || n > maxVerifyRate {
		k.problem(k.path+".verify_rate", "must be 0 to %d entries per second; got %d", maxVerifyRate, n)
	}
}

// feed checks the change feed.
func (k datasetChecker) feed() {
	f := k.Feed
	if !f.Configured() {
		if k.GapTTL != nil {
			k.problem(k.path+".gap_ttl", "belongs to feed: it is the lifetime of entries while the feed is not live")
		}
		return
	}
	if driver := k.drivers.Lookup(k.config.Origins[k.Origin].Driver); driver != nil && len(driver.FeedKinds()) == 0 {
		k.problem(k.path+".feed", "driver: %s reports no changes: leave feed out; a shorter ttl or an invalidation shows changes earlier", driver.Name())
		return
	}
	switch f.Kind {
	case "":
		k.problem(k.path+".feed.kind", "is missing; want one of %s", strings.Join(words["datasets.*.feed.kind"], ", "))
	case feedNotify, feedWatch:
		k.supported()
		k.ofKinds()
	case feedLogical:
		k.supported()
		k.ofKinds()
		if w := f.maxWAL(); w < minMaxWAL {
			k.problem(k.path+".feed.max_wal", "want at least %s; got %s", Size(minMaxWAL), w)
		}
	default:
		if k.oneOf(k.path+".feed.kind", f.Kind, words["datasets.*.feed.kind"]); f.Kind == feedPoll {
			k.supported()
		}
		k.poll()
	}
	k.feedTables()
	if p := k.Policy(); p.GapTTL == 0 || p.GapTTL > p.TTL {
		k.problem(k.path+".gap_ttl", "must be more than 0s, at most ttl, which is %s; got %s", p.TTL, p.GapTTL)
	}
}

// maxFeedTables limits the tables of one feed: each needs triggers, which validate looks for.
const maxFeedTables = 16

// feedTables checks which tables report the changes. Whether table is a view is known to the database only.
func (k datasetChecker) feedTables() {
	path := k.path + ".feed.tables"
	switch f := k.Feed; {
	case k.drivers.ValuesField(k.config.Origins[k.Origin].Driver) != "":
		if len(f.Tables) > 0 {
			k.problem(path, "belongs to SQL databases; etcd reports all keys of the prefix")
		}
	case len(k.Key) == 0 && len(f.Tables) == 0:
		k.problem(path, "is missing: only a table has triggers that report its rows; name the tables of the query, each with the columns "+
			"that hold the key, such as {radcheck: username, radreply: username}")
	case len(f.Tables) > maxFeedTables:
		k.problem(path, "has %d tables; want at most %d", len(f.Tables), maxFeedTables)
	default:
		for _, name := range slices.Sorted(maps.Keys(f.Tables)) {
			if err := origin.CheckFeedKey(k.Key, f.Tables[name]); err != nil {
				k.problem(path+"."+name, "%v", err)
			}
		}
	}
}

// minWarmInterval bounds how often all keys are listed.
const minWarmInterval = time.Second

// warm checks the warm-up.
func (k datasetChecker) warm() {
	path, w := k.path+".warm", k.Warm
	if !w.Configured() {
		return
	}
	switch {
	case w.Keys == "":
		k.problem(path+".keys", "is missing; want all, for the keys of the table, or a query that selects keys")
	case w.Keys != WarmAll && k.Prefix != "":
		k.problem(path+".keys", "want all, for the keys of the prefix: etcd has no queries")
	case w.Keys == WarmAll && k.Query != "":
		k.problem(path+".keys", "all belongs to table; write a query that selects the keys of this dataset")
	}
	p := k.Policy()
	if i := k.WarmInterval(); i < minWarmInterval || i > (p.TTL+p.StaleIfError)/2 && i > minWarmInterval {
		k.problem(path+".interval", "want %s to half of ttl + stale_if_error, which is %s: entries would end before they are loaded again; got %s",
			minWarmInterval, (p.TTL+p.StaleIfError)/2, i)
	}
	if w.Pin && k.eviction() != "lru" {
		k.problem(path+".pin", "needs eviction: lru")
	}
	if wait := k.WarmWait(); wait < 0 || wait > time.Hour {
		k.problem(path+".wait", "want 0s to 1h; got %s", wait)
	}
}

// supported checks that the database has this kind of feed.
func (k datasetChecker) supported() {
	driver := k.drivers.Lookup(k.config.Origins[k.Origin].Driver)
	if driver != nil && !slices.Contains(driver.FeedKinds(), k.Feed.Kind) {
		k.problem(k.path+".feed.kind", "%s is %s, which has no feed of kind %s; use %s", k.Origin, driver.Name(),
			k.Feed.Kind, cmp.Or(strings.Join(driver.FeedKinds(), ", "), "none"))
	}
}

// ofKinds rejects the fields of other kinds.
func (k datasetChecker) ofKinds() {
	f := k.Feed
	poll := f.Table != "" || f.Interval != nil || f.Keep != nil || f.KeepRows != 0
	notify := f.Channel != ""
	logical := f.Publication != "" || f.MaxWAL != 0
	//guard:field-of-another-kind-of-feed
	if poll && f.Kind != feedPoll || notify && f.Kind != feedNotify || logical && f.Kind != feedLogical {
		k.problem(k.path+".feed", "channel belongs to notify; table, interval, keep and keep_rows to poll; publication and max_wal to logical")
	}
}

// minMaxWAL is a few seconds of the log of a busy server.
const minMaxWAL = 16 << 20

// The bounds of the interval: shorter polls load the database, longer ones are hardly better than ttl.
const (
	minPoll = 10 * time.Millisecond
	maxPoll = time.Minute
)

// The bounds of what is kept of the table of changes: more than a member may be behind.
const (
	minKeep     = 10 * time.Minute
	minKeepRows = 10_000
)

func (k datasetChecker) poll() {
	path, f := k.path+".feed", k.Feed
	k.ofKinds()
	if i := f.interval(); i < minPoll || i > maxPoll {
		k.problem(path+".interval", "want %s to %s; got %s", minPoll, maxPoll, i)
	}
	if keep := f.keep(); keep < minKeep {
		k.problem(path+".keep", "want at least %s, so that every member reads a change before it is deleted; got %s", minKeep, keep)
	}
	if rows := f.keepRows(); rows < minKeepRows {
		k.problem(path+".keep_rows", "want at least %d; got %d", minKeepRows, rows)
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
	case d.Table == "" || len(d.Key) != 1 || d.Value != "" || d.Many():
		k.problem(path, "the dataset %s needs table and a key of one column, rows: one, and no value: the service lists and writes whole rows", n)
	}
}
