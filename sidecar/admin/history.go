package admin

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// grace is how long after its end an interval is requested from the members: their clocks differ a little.
	grace = 2 * time.Second
	// maxMemberSeries limits the members that have series of their own. The sums include all.
	maxMemberSeries = 100
	// maxDatasetSeries limits the datasets that have series of their own.
	maxDatasetSeries = 100
	// maxEvents limits the events of all members together.
	maxEvents = 500
	// duplicates is the time within which several members see the same change of the ring.
	duplicates = 10 * time.Second
)

// HistorySource returns the history of members after an interval.
type HistorySource struct {
	// Own is the history of this member.
	Own func(after int64) *adminapi.MemberHistory
	// Others calls use with the history of each other member, one at a time. It returns soon after ctx is done.
	Others func(ctx context.Context, after int64, use func(id string, h *adminapi.MemberHistory))
}

// clusterHistory has the sums of all members, of which each interval is requested once, however many consoles are open. Its
// zero value is ready. It stays in memory when the console is closed: about a kilobyte for each interval of each series.
type clusterHistory struct {
	mu        sync.Mutex // held during the requests
	intervals []*sums    // in ascending order, without gaps
	events    []adminapi.Event
}

// sums has one complete interval.
type sums struct {
	number int64
	series map[scope]*sample
	names  []string // of members without a series
}

type scope struct{ kind, name string }

// sample has one scope in one interval. While it is being summed up, it has buckets.
type sample struct {
	members  int
	counts   [adminapi.NumCounts]int64
	p50, p99 [adminapi.NumTimes]float64
	buckets  [adminapi.NumTimes]map[int]int64
}

// get returns what came after an interval.
func (c *clusterHistory) get(ctx context.Context, s Source, after int64) adminapi.History {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := number(time.Now().Add(-grace)) - 1
	from := last - adminapi.HistoryLength
	if n := len(c.intervals); n > 0 {
		from = max(from, c.intervals[n-1].number)
	}
	if from < last {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clusterTimeout)
		defer cancel()
		c.fetch(ctx, s, from, last)
	}
	return c.answer(s.Node, max(after, last-adminapi.HistoryLength))
}

func number(t time.Time) int64 { return t.UnixNano() / int64(adminapi.HistoryInterval) }

// fetch adds the intervals after from, up to last.
func (c *clusterHistory) fetch(ctx context.Context, s Source, from, last int64) {
	next := make([]*sums, 0, last-from)
	for n := from + 1; n <= last; n++ {
		next = append(next, &sums{number: n, series: map[scope]*sample{}})
	}
	add := func(id string, h *adminapi.MemberHistory) {
		shift := last - h.Now // of a clock that is wrong; the interval at the end may differ by one
		if -1 <= shift && shift <= 1 {
			shift = 0
		}
		for _, i := range h.Intervals {
			if at := i.Number + shift - from - 1; 0 <= at && at < int64(len(next)) { //guard:interval-of-member-is-anywhere
				next[at].add(id, i.Datasets)
			}
		}
		for _, e := range h.Events {
			e.Member, e.At = id, e.At.Add(time.Duration(shift)*adminapi.HistoryInterval)
			c.addEvent(e)
		}
		c.trimEvents()
	}
	since := from
	if len(c.intervals) == 0 {
		since = 0 // for older events
	}
	if own := s.History.Own(since); own != nil {
		add(s.Node, own)
	}
	s.History.Others(ctx, since, add)
	for _, one := range next {
		one.finish()
	}
	c.intervals = append(c.intervals, next...)
	if n := len(c.intervals) - adminapi.HistoryLength; n > 0 {
		c.intervals = slices.Delete(c.intervals, 0, n)
	}
}

// addEvent adds an event once: each interval's events may be fetched twice, and all members see a change of the ring.
func (c *clusterHistory) addEvent(e adminapi.Event) {
	for _, known := range c.events {
		same := known.Kind == e.Kind && known.Text == e.Text
		if same && known.Member == e.Member && known.At.Equal(e.At) ||
			same && e.Kind == adminapi.EventRing && known.At.Sub(e.At).Abs() < duplicates {
			return
		}
	}
	c.events = append(c.events, e)
}

// trimEvents keeps the latest ones, after those of each member: together they may be very many.
func (c *clusterHistory) trimEvents() {
	slices.SortStableFunc(c.events, func(a, b adminapi.Event) int { return a.At.Compare(b.At) })
	if n := len(c.events) - maxEvents; n > 0 { //guard:events-of-members-without-limit
		c.events = slices.Delete(c.events, 0, n)
	}
}

func (s *sums) add(member string, datasets []adminapi.DatasetSample) {
	all, own := s.scope(adminapi.ScopeAll, "", 1), s.scope(adminapi.ScopeMember, member, maxMemberSeries)
	all.members++
	if own != nil {
		own.members++
	} else {
		s.names = append(s.names, member)
	}
	for _, d := range datasets {
		one := s.scope(adminapi.ScopeDataset, d.Name, maxDatasetSeries)
		if one != nil {
			one.members++
		}
		for _, to := range []*sample{all, own, one} {
			to.add(d)
		}
	}
}

// scope returns the sample of a scope, or nil if there are too many of its kind.
func (s *sums) scope(kind, name string, most int) *sample {
	key := scope{kind, name}
	if known := s.series[key]; known != nil {
		return known
	}
	n := 0
	for other := range s.series {
		if other.kind == kind {
			n++
		}
	}
	if n == most { //guard:series-without-limit
		return nil
	}
	s.series[key] = &sample{}
	return s.series[key]
}

func (to *sample) add(d adminapi.DatasetSample) {
	if to == nil {
		return
	}
	for i, n := range d.Counts {
		to.counts[i] += n
	}
	for t, pairs := range d.Times {
		for i := 0; i+1 < len(pairs); i += 2 {
			if to.buckets[t] == nil {
				to.buckets[t] = map[int]int64{}
			}
			to.buckets[t][int(pairs[i])] += pairs[i+1]
		}
	}
}

// finish computes the quantiles, which need much less memory than the buckets.
func (s *sums) finish() {
	for _, one := range s.series {
		for t, buckets := range one.buckets {
			one.p50[t], one.p99[t] = kv.Quantile(buckets, 0.5), kv.Quantile(buckets, 0.99)
		}
		one.buckets = [adminapi.NumTimes]map[int]int64{}
	}
}

func (c *clusterHistory) answer(self string, after int64) adminapi.History {
	shown := c.intervals
	for len(shown) > 0 && shown[0].number <= after {
		shown = shown[1:]
	}
	h := adminapi.History{
		IntervalNS: adminapi.HistoryInterval, Length: adminapi.HistoryLength, Self: self, First: after + 1, Count: len(shown),
		Series: []adminapi.Series{}, Events: []adminapi.Event{},
	}
	if len(shown) > 0 {
		h.First = shown[0].number
	}
	known := map[scope]bool{}
	for _, one := range shown {
		for key := range one.series {
			known[key] = true
		}
		h.Omitted = max(h.Omitted, len(one.names))
	}
	keys := make([]scope, 0, len(known))
	for key := range known {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b scope) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name)) })
	for _, key := range keys {
		h.Series = append(h.Series, newSeries(key, shown))
	}
	h.Events = append(h.Events, c.events...) // all: they are few
	return h
}

func newSeries(key scope, intervals []*sums) adminapi.Series {
	s := adminapi.Series{
		Scope: key.kind, Name: key.name, Members: make([]int, len(intervals)), Counts: map[string][]int64{},
		P50: map[string][]float64{}, P99: map[string][]float64{},
	}
	for i, interval := range intervals {
		one := interval.series[key]
		if one == nil {
			continue
		}
		s.Members[i] = one.members
		for n, v := range one.counts {
			put(s.Counts, adminapi.CountNames[n], len(intervals), i, v)
		}
		for n, name := range adminapi.TimeNames {
			put(s.P50, name, len(intervals), i, rounded(one.p50[n]))
			put(s.P99, name, len(intervals), i, rounded(one.p99[n]))
		}
	}
	return s
}

// put sets an element of a list that exists only if one of them is not 0.
func put[V int64 | float64](lists map[string][]V, name string, length, i int, v V) {
	if v == 0 {
		return
	}
	if lists[name] == nil {
		lists[name] = make([]V, length)
	}
	lists[name][i] = v
}

// rounded returns v with three digits: a quantile is no more precise.
func rounded(v float64) float64 {
	if v <= 0 {
		return 0
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return v
	}
	return short
}
