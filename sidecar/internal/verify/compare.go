package verify

import (
	"context"
	"errors"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// checker compares entries of one dataset, and records each verdict.
type checker struct {
	verifier *Verifier
	dataset  *cache.Dataset
	record   func(adminapi.Finding, kv.Verdict)
}

func (v *Verifier) newChecker(d *cache.Dataset, record func(adminapi.Finding, kv.Verdict)) *checker {
	return &checker{v, d, record}
}

// suspect is an entry that breaks a promise unless a change that explains it arrives in time.
type suspect struct {
	key     string
	cached  cache.Cached
	found   origin.Result
	verdict kv.Verdict
	reason  string
	from    time.Time // of the end of the query
}

// compare loads keys in one statement, and records the verdicts of those whose entries cannot be wrong. It returns the others.
// What the database has may have been committed at any time until the end of the query, so that age is that from before it.
func (c *checker) compare(ctx context.Context, o origin.Origin, keys []string) (suspects []suspect, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	before, held := make([]cache.Cached, len(keys)), make([]bool, len(keys))
	for i, key := range keys {
		before[i], held[i] = c.dataset.Promise(key)
	}
	c.dataset.Stats().VerifyQueries.Add(1)
	limited, cancel := context.WithTimeout(ctx, c.dataset.Policy().LoadTimeout)
	defer cancel()
	results, err := load(limited, o, keys)
	end := time.Now()
	for i, r := range results {
		if !held[i] || !r.IsAnswer() { //guard:outage-is-a-broken-promise
			continue
		}
		s := suspect{key: keys[i], cached: before[i], found: r, from: end}
		s.verdict, s.reason = verdict(before[i], r)
		switch {
		case s.verdict == kv.Same:
			c.record(s.finding(), kv.Same)
		case !c.dataset.StillHolds(s.key, s.cached):
			c.record(s.finding(), kv.ChangedMeanwhile)
		case s.verdict.Broken():
			suspects = append(suspects, s)
		default:
			c.record(s.finding(), s.verdict)
		}
	}
	return suspects, err
}

// settle records the verdicts of suspects whose time is over, and returns the others. A change that was committed when the query
// ended has reached this member by then, and has replaced or removed the entry: if the entry is the same, it has not arrived.
func (c *checker) settle(suspects []suspect) (left []suspect) {
	life := c.settleAfter()
	for _, s := range suspects {
		switch {
		case !c.dataset.StillHolds(s.key, s.cached):
			c.record(s.finding(), kv.ChangedMeanwhile)
		case time.Since(s.from) < life: //guard:change-that-is-being-reported-is-a-fault
			left = append(left, s)
		default:
			s.cached.Age += time.Since(s.from) // reads have got it until now
			c.record(s.finding(), s.verdict)
		}
	}
	return left
}

// wait settles suspects. It returns those for which ctx has left no time.
func (c *checker) wait(ctx context.Context, suspects []suspect) (left []suspect) {
	for len(suspects) > 0 {
		suspects = c.settle(suspects)
		if len(suspects) > 0 && !backoff.Sleep(ctx, settleEvery) {
			break
		}
	}
	return suspects
}

func (c *checker) settleAfter() time.Duration {
	return c.verifier.settleTime + 2*c.verifier.FeedInterval(c.dataset.Name())
}

// verdict says what it means that the database has r where c is cached. A broken promise is a suspicion until it is settled.
func verdict(c cache.Cached, r origin.Result) (v kv.Verdict, reason string) {
	version, etag := r.Value.Version, etagOf(r)
	values := !c.NotFound && c.DataError == 0 && isValue(r)
	switch {
	case same(c, r):
		return kv.Same, ""
	case values && c.Version != 0 && c.Version == version && c.ETag != etag:
		return kv.DifferentAtSameVersion, "the value of the row has changed, and its version has not: readers and invalidations cannot tell the two apart"
	case c.Age > c.Promised: //guard:entry-past-its-time-is-within-the-promise
		return kv.OlderThanPromised, "reads still get the entry, although it is older than the policy allows"
	case values && version < c.Version: //guard:replica-that-lags-is-a-fault
		return kv.StaleWithinPromise, "the database has an older version than the cache: a replica that lags, or a restored backup"
	case c.Fresh && c.Reported: //guard:feed-that-reports-nothing-is-within-the-promise
		return kv.OlderThanPromised, "the change feed is live, and has not reported the change"
	case !c.Fresh:
		return kv.StaleWithinPromise, "reads get the entry marked as stale only"
	}
	return kv.StaleWithinPromise, "the entry is within its time to live"
}

// same reports whether r is what is cached. The version of a row that does not exist is not known.
func same(c cache.Cached, r origin.Result) bool {
	cause := origin.CauseOf(r.Err)
	switch {
	case c.NotFound:
		return errors.Is(r.Err, origin.ErrNotFound)
	case c.DataError != 0 || cause != 0:
		return c.DataError == cause
	}
	return isValue(r) && c.Version == r.Value.Version && c.ETag == etagOf(r)
}

func isValue(r origin.Result) bool { return r.Err == nil }

// etagOf is the hash of the value that applications see.
func etagOf(r origin.Result) string {
	if !isValue(r) {
		return ""
	}
	return kv.ETagOf(r.Value.Data)
}

func (s suspect) finding() adminapi.Finding {
	f := adminapi.Finding{
		Key: s.key, Result: s.verdict.String(), Reason: s.reason, Promised: s.cached.Promised, FeedLive: s.cached.Reported, At: s.from,
		Cached: adminapi.CachedRow{
			Row: adminapi.Row{Version: s.cached.Version, ETag: s.cached.ETag, NotFound: s.cached.NotFound},
			Age: s.cached.Age, Fresh: s.cached.Fresh,
		},
		Database: adminapi.Row{Version: s.found.Value.Version, ETag: etagOf(s.found), NotFound: errors.Is(s.found.Err, origin.ErrNotFound)},
	}
	if s.cached.DataError != 0 {
		f.Cached.DataError = s.cached.DataError.String()
	}
	if cause := origin.CauseOf(s.found.Err); cause != 0 {
		f.Database.DataError = cause.String()
	}
	return f
}
