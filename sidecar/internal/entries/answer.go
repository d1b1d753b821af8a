package entries

import (
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
	}
}
