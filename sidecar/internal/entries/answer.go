package entries

import (
	"math/bits"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Source is the source of an answer that e gives to a read here.
func (e *Entry) Source() kv.Source {
	if e.Local() {
		return kv.SourceLocalHit
	}
	return kv.SourceHit
}

// Answer is the answer that a fresh e gives.
func (e *Entry) Answer(now int64, source kv.Source) kv.Answer {
	return kv.Answer{
		Value:     e.Value,
		NotFound:  e.NotFound,
		DataError: e.DataError,
		Content:   e.Content,
		Version:   e.Version,
		ETag:      e.ETag,
		Age:       time.Duration(now - e.Began),
		Fresh:     time.Duration(e.FreshUntil - now),
		Source:    source,
		Owner:     e.Owner,
	}
}

// StaleAnswer is the answer that e gives when it is stale; detail is why.
func (e *Entry) StaleAnswer(now int64, detail string) kv.Answer {
	a := e.Answer(now, e.Source())
	a.Stale, a.Fresh, a.Detail = true, 0, detail
	return a
}

func (e *Entry) content() string {
	if e.NotFound {
		return ""
	}
	return e.Content.String()
}

// Explain describes e.
func (e *Entry) Explain(now int64) kv.Explanation {
	fresh := time.Duration(e.FreshUntil - now)
	if e.Expired() {
		fresh = min(fresh, 0) //guard:expired-copy-is-explained-as-fresh
	}
	dataError := ""
	if e.DataError != 0 {
		dataError = e.DataError.String()
	}
	return kv.Explanation{
		DataError: dataError,
		Held:      true,
		Absent:    e.NotFound,
		Local:     e.Local(),
		Owner:     e.Owner,
		Version:   e.Version,
		ETag:      e.ETag,
		Bytes:     len(e.Value),
		Content:   e.content(),
		Age:       time.Duration(now - e.Began),
		Fresh:     fresh,
		Usable:    time.Duration(e.StaleUntil - now),
		LastLoad:  time.Duration(e.Took),
		Why:       e.Reason.String(),
		Failing:   e.Failing(),
		Reads:     e.recentReads(now),
	}
}

func (e *Entry) recentReads(now int64) kv.RecentReads {
	r := kv.RecentReads{Of: useWindows, Window: time.Duration(useInterval)}
	if used := e.usedAt.Load(); used != 0 {
		r.Windows = bits.OnesCount64(e.uses.Load() << (max(0, now-used) / useInterval)) //guard:reads-of-long-ago-are-recent
		r.Last = time.Duration(max(0, now-used))
	}
	return r
}

// inheritUses makes e, which takes the place of held, go on with what is known of its reads.
func (e *Entry) inheritUses(held *Entry) {
	e.usedAt.Store(held.usedAt.Load())
	e.uses.Store(held.uses.Load()) //guard:refresh-forgets-the-reads
}

// Explain describes b.
func (b Bound) Explain(now int64) (r kv.ReadBound) {
	r.Version = b.Version
	if after := b.LoadedAfter(); after != 0 {
		r.LoadedWithin = time.Duration(max(now-after, 1))
	}
	return r
}
