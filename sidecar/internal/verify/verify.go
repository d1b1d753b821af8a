// Package verify compares cached entries with the database, to find broken promises: a few per second all the time (Run), or
// all at once on request (Audit, which `ringside audit` calls). It changes nothing. The log of who has changed what is package audit.
//
// A comparison uses statements that no read needs (guard.Limiter.EnterIdle), and only the clock of this member. What the
// database has may be newer than the entry without any fault: verdict says what the policy allows. A fault must still be there
// after the time that a change may take to reach this member; see settle.
package verify

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// minInterval is the time between two statements of a dataset at the least, on average.
	minInterval = time.Second
	// adoptInterval is the time between two looks for datasets that were added or removed.
	adoptInterval = 500 * time.Millisecond
	// maxTurn is how long a comparison waits for a statement that no read needs.
	maxTurn = 250 * time.Millisecond
	// slowShare of load_timeout is a slow statement: the pauses after it become longer, up to maxPause.
	slowShare = 4
	maxPause  = time.Minute
	// settleTime is how long a change may take to invalidate an entry, in addition to two intervals of a polled feed: the
	// promise is milliseconds, on a machine that is not starved.
	settleTime = 2 * time.Second
	// settleEvery is the time between two looks at entries that may be wrong.
	settleEvery = 100 * time.Millisecond
	// sampleKeys is how many keys of one part of the memory are compared before another one is listed: a list costs time
	// under the lock of the part.
	sampleKeys = 128
)

// Config is what a Verifier needs.
type Config struct {
	Node string
	// Datasets returns the datasets in use.
	Datasets func() []*cache.Dataset
	// Rows returns how to read the rows of a dataset.
	Rows func(dataset string) (origins.Rows, bool)
	// FeedInterval returns the interval of the polled change feed of a dataset; 0 without one.
	FeedInterval func(dataset string) time.Duration
	// Members returns the number of members that share the rate.
	Members func() int
	Tasks   *task.Group
}

// Verifier compares entries. It is safe for concurrent use.
type Verifier struct {
	Config
	settleTime time.Duration
	auditing   atomic.Bool

	mu     sync.Mutex                    // guards latest
	latest map[string][]adminapi.Finding // :: dataset → broken promises that Run has found, the oldest first
}

// New returns a Verifier.
func New(c Config) *Verifier {
	return &Verifier{Config: c, settleTime: settleTime, latest: map[string][]adminapi.Finding{}}
}

// Run compares a few entries per second of each dataset until ctx is done.
func (v *Verifier) Run(ctx context.Context) error {
	running := map[*cache.Dataset]*task.Task{}
	defer func() {
		for _, t := range running {
			t.Stop()
		}
	}()
	for {
		inUse := map[*cache.Dataset]bool{}
		for _, d := range v.Datasets() {
			inUse[d] = true
			if running[d] == nil {
				running[d] = v.Tasks.Go("verify "+d.Name(), v.newSampler(d).run)
			}
		}
		for d, t := range running {
			if !inUse[d] {
				t.Stop()
				delete(running, d)
			}
		}
		if !backoff.Sleep(ctx, adoptInterval) {
			return nil
		}
	}
}

// sampler compares entries of one dataset, a few at a time.
type sampler struct {
	*checker
	stats *kv.Stats
	keys  []string // of one part of the memory, in random order, to compare next
	reads int64    // at the last step
	pause backoff.Backoff
}

func (v *Verifier) newSampler(d *cache.Dataset) *sampler {
	s := &sampler{stats: d.Stats(), pause: backoff.Backoff{First: 2 * minInterval, Longest: maxPause}}
	s.checker = v.newChecker(d, s.record)
	return s
}

// record counts a verdict, and keeps a broken promise for the console.
func (s *sampler) record(f adminapi.Finding, verdict kv.Verdict) {
	s.stats.Verified[verdict].Add(1)
	if verdict != kv.Same && verdict != kv.ChangedMeanwhile && f.Cached.Fresh {
		s.stats.VerifyWorstAge.Observe(f.Cached.Age, time.Now())
	}
	if verdict.Broken() {
		s.verifier.keep(s.dataset.Name(), f)
	}
}

// run compares entries until ctx is done. Each pause is random, so that members do not query at the same time.
func (s *sampler) run(ctx context.Context) error {
	for {
		interval, n := share(s.dataset.Policy().VerifyRate, s.verifier.Members())
		if !backoff.Sleep(ctx, interval/2+rand.N(interval)) {
			return nil
		}
		if n == 0 || !s.wasRead() {
			continue
		}
		suspects, skip, skipped := s.step(ctx, n)
		s.wait(ctx, suspects)
		if ctx.Err() != nil {
			return nil
		}
		if !skipped {
			s.pause.Reset()
			continue
		}
		s.stats.VerifySkipped[skip].Add(1)
		if skip != kv.SkipBusy && !s.pause.Wait(ctx) { //guard:slow-database-gets-as-many-comparisons
			return nil
		}
	}
}

// share returns how often a member compares entries, and how many at a time: all members together compare rate entries per
// second, however many there are. n is 0 if the rate is.
func share(rate, members int) (interval time.Duration, n int) {
	if rate <= 0 {
		return minInterval, 0
	}
	members = max(members, 1)
	interval = max(minInterval, time.Duration(members)*time.Second/time.Duration(rate)) //guard:every-member-queries-at-the-full-rate
	return interval, max(1, int(interval*time.Duration(rate)/(time.Duration(members)*time.Second)))
}

// wasRead reports whether there were reads since the last call: what nobody reads breaks no promise, and costs no query.
func (s *sampler) wasRead() bool {
	before := s.reads
	s.reads = s.stats.Reads()
	return s.reads != before //guard:idle-members-query-the-database
}

// step compares n entries, or says why it does not, or should not soon again.
func (s *sampler) step(ctx context.Context, n int) (suspects []suspect, skip kv.VerifySkip, skipped bool) {
	rows, ok := s.verifier.Rows(s.dataset.Name())
	if !ok {
		return nil, 0, false // a reload has just removed it
	}
	if !rows.Healthy() { //guard:comparisons-query-a-database-that-is-down
		return nil, kv.SkipBreaker, true
	}
	limited, cancel := context.WithTimeout(ctx, maxTurn)
	defer cancel()
	leave, err := rows.Turn(limited) //guard:comparisons-outside-budget
	if err != nil {
		return nil, kv.SkipBusy, true
	}
	defer leave()
	began := time.Now()
	suspects, err = s.compare(ctx, rows.Origin, s.next(min(n, rows.Batch)))
	switch {
	case err != nil:
		return suspects, kv.SkipFailed, true
	case time.Since(began) > s.dataset.Policy().LoadTimeout/slowShare:
		return suspects, kv.SkipSlow, true
	}
	return suspects, 0, false
}

// next returns the keys of up to n entries that reads may get. Each key of a part of the memory comes once before another part.
func (s *sampler) next(n int) (keys []string) {
	for tries := 0; len(keys) < n && tries < sampleKeys; tries++ {
		if len(s.keys) == 0 {
			_, parts := s.dataset.AllKeys(-1)
			s.keys, _ = s.dataset.AllKeys(rand.N(parts))
			rand.Shuffle(len(s.keys), func(i, j int) { s.keys[i], s.keys[j] = s.keys[j], s.keys[i] })
			s.keys = append([]string(nil), s.keys[:min(len(s.keys), sampleKeys)]...) // not the memory of the others
		}
		if len(s.keys) == 0 {
			continue // another part may have some
		}
		key := s.keys[0]
		s.keys = s.keys[1:]
		if _, ok := s.dataset.Promise(key); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// maxLatest is how many broken promises of a dataset the console can show.
const maxLatest = 50

func (v *Verifier) keep(dataset string, f adminapi.Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := append(v.latest[dataset], f)
	v.latest[dataset] = list[max(0, len(list)-maxLatest):]
}

// State returns what Run has found in a dataset since the start.
func (v *Verifier) State(d *cache.Dataset) adminapi.Verification {
	st := d.Stats()
	s := adminapi.Verification{
		Dataset: d.Name(), Node: v.Node, Rate: d.Policy().VerifyRate, Members: max(v.Members(), 1),
		Counts:   adminapi.NewCounts(),
		Queries:  st.VerifyQueries.Load(),
		Skipped:  map[string]int64{},
		WorstAge: st.VerifyWorstAge.Value(time.Now()),
		Findings: []adminapi.Finding{},
	}
	for i := range st.Verified {
		s.Counts.Add(kv.Verdict(i), st.Verified[i].Load())
	}
	for i := range st.VerifySkipped {
		s.Skipped[kv.VerifySkip(i).String()] = st.VerifySkipped[i].Load()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Findings = append(s.Findings, v.latest[d.Name()]...)
	return s
}

// errNoAnswer is the error of a key for which the origin returned no result.
var errNoAnswer = errors.New("the origin returned no result for a key")

// load reads rows, with the result of each key.
func load(ctx context.Context, o origin.Origin, keys []string) ([]origin.Result, error) {
	results := make([]origin.Result, len(keys))
	for i := range results {
		results[i].Err = errNoAnswer
	}
	err := origin.LoadEach(ctx, o, keys, func(i int, r origin.Result) { results[i] = r })
	return results, err
}
