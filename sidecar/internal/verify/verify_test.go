package verify

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// setup is a dataset of the rows a and b that one member owns, and a Verifier of it, in a synctest bubble.
type setup struct {
	*Verifier
	t       *testing.T
	rows    *origintest.Fake
	d       *cache.Dataset
	limiter *guard.Limiter
	healthy atomic.Bool
	members int
}

func policy() kv.Policy {
	p := kv.DefaultPolicy()
	p.TTL, p.TTLJitter, p.StaleIfError = 20*time.Second, 0, time.Minute
	return p
}

func newSetup(t *testing.T, p kv.Policy, peers kv.Peers) *setup {
	s := &setup{t: t, rows: origintest.New(map[string]string{"a": "1", "b": "2"}), limiter: guard.NewLimiter(guard.LimitConfig{}), members: 1}
	d, err := cache.New(cache.Config{Name: "rows", Policy: p, MaxBytes: 1 << 20, Origin: s.rows, Writer: s.rows, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	s.d = d
	s.healthy.Store(true)
	s.Verifier = New(Config{
		Node: "m", Datasets: func() []*cache.Dataset { return []*cache.Dataset{d} },
		Rows: func(string) (origins.Rows, bool) {
			return origins.Rows{Origin: s.rows, Turn: s.limiter.EnterIdle, Batch: 10, Healthy: s.healthy.Load}, true
		},
		FeedInterval: func(string) time.Duration { return 500 * time.Millisecond },
		Members:      func() int { return s.members },
		Tasks:        task.NewGroup(func(err error) { t.Error(err) }),
	})
	return s
}

func (s *setup) read(keys ...string) {
	s.t.Helper()
	for _, key := range keys {
		if _, err := s.d.Get(s.t.Context(), key, kv.ReadOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// audit compares all entries, and checks the result of each that differs.
func (s *setup) audit(want map[string]kv.Verdict) adminapi.Audit {
	s.t.Helper()
	a, err := s.Audit(s.t.Context(), s.d, 0)
	if err != nil || !a.Complete {
		s.t.Fatalf("got %+v, %v; want a complete audit", a, err)
	}
	got := map[string]string{}
	for _, f := range a.Findings {
		got[f.Key] = f.Result
	}
	text := map[string]string{}
	for key, v := range want {
		text[key] = v.String()
	}
	if !maps.Equal(got, text) {
		s.t.Errorf("got %v, want %v", got, text)
	}
	return a
}

// A write that bypasses the cache without a change feed is within the promise until the ttl has passed. An entry that reads still
// get after that breaks it: here one whose ttl is wrong.
func TestBypassingWriteIsFoundAndWithinItsTTLAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, policy(), nil)
		s.read("a", "b")
		s.audit(nil)
		s.rows.Set("a", "3")
		time.Sleep(5 * time.Second)
		a := s.audit(map[string]kv.Verdict{"a": kv.StaleWithinPromise})
		f := a.Findings[0]
		if f.Cached.Age != 5*time.Second || f.Promised != 21*time.Second || f.Cached.Version != 1 || f.Database.Version != 2 || f.Cached.ETag == f.Database.ETag || a.Broken() != 0 {
			t.Errorf("got %+v, want what is cached and what the database has", f)
		}
		time.Sleep(20 * time.Second)
		s.audit(map[string]kv.Verdict{"a": kv.StaleWithinPromise}) // reads load it
	})
}

func TestEntryThatOutlivesItsPolicyIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := policy()
		long.TTL = time.Hour
		s := newSetup(t, long, nil)
		s.read("a")
		s.d.SetPolicy(policy()) // entries keep their times: those of the former policy are allowed, for as long as they live
		s.rows.Set("a", "3")
		time.Sleep(time.Minute)
		s.audit(map[string]kv.Verdict{"a": kv.StaleWithinPromise})

		c, ok := s.d.Promise("a")
		if !ok || !c.Fresh {
			t.Fatalf("got %+v, %t", c, ok)
		}
		c.Promised = policy().TTL + policy().LoadTimeout
		if v, _ := verdict(c, origin.Result{Value: origin.Value{Data: []byte("3"), Version: 2}}); v != kv.OlderThanPromised {
			t.Errorf("got %v, want %v", v, kv.OlderThanPromised)
		}
	})
}

// A change feed that is live and reports nothing is what a removed trigger looks like.
func TestFeedThatReportsNothingIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.GapTTL = time.Second
		s := newSetup(t, p, nil)
		s.d.SetFeedLive(true)
		s.read("a", "b")
		s.rows.Set("a", "3")
		s.rows.Delete("b")
		a := s.audit(map[string]kv.Verdict{"a": kv.OlderThanPromised, "b": kv.OlderThanPromised})
		if a.Broken() != 2 || !a.Findings[0].FeedLive || a.WorstAge == 0 {
			t.Errorf("got %+v", a)
		}
		// A change that is reported after the comparison is none.
		go func() {
			time.Sleep(time.Second)
			s.d.ApplyInvalidation(kv.Invalidation{Dataset: "rows", Key: "a", Version: 2})
			s.d.ApplyInvalidation(kv.Invalidation{Dataset: "rows", Key: "b"})
		}()
		if a := s.audit(nil); a.Counts[kv.ChangedMeanwhile.String()] != 2 {
			t.Errorf("got %v", a.Counts)
		}
		// In a gap, gap_ttl limits the age.
		s.read("a")
		s.rows.Set("a", "4")
		s.d.SetFeedLive(false)
		s.audit(map[string]kv.Verdict{"a": kv.StaleWithinPromise})
		// An older version in the database is a replica that lags.
		s.d.SetFeedLive(true)
		s.d.ExpireAll()
		s.read("a")
		s.rows.SetVersion("a", "3", 2)
		s.audit(map[string]kv.Verdict{"a": kv.StaleWithinPromise})
	})
}

func TestEntryThatChangesMeanwhileIsNoFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.GapTTL = time.Second
		s := newSetup(t, p, nil)
		s.d.SetFeedLive(true)
		s.read("a")
		s.rows.Set("a", "3")
		replaced := make(chan struct{})
		go func() {
			defer close(replaced)
			time.Sleep(time.Second)
			s.d.ApplyInvalidation(kv.Invalidation{Dataset: "rows", Key: "a", Version: 2})
			s.read("a") // another entry takes its place
		}()
		if a := s.audit(nil); a.Counts[kv.ChangedMeanwhile.String()] != 1 {
			t.Errorf("got %v", a.Counts)
		}
		<-replaced // the audit may see the invalidation before the read ends
	})
}

func TestOtherValueAtTheSameVersionIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, policy(), nil)
		s.read("a", "b")
		s.rows.SetVersion("a", "other", 1)
		a := s.audit(map[string]kv.Verdict{"a": kv.DifferentAtSameVersion})
		if f := a.Findings[0]; f.Cached.Version != f.Database.Version || f.Cached.ETag == f.Database.ETag {
			t.Errorf("got %+v", f)
		}
		s.rows.SetVersion("a", "other", 1)
		s.rows.Unversioned()
		if _, err := s.d.Get(t.Context(), "a", kv.ReadOptions{NoCache: true}); err != nil {
			t.Fatal(err)
		}
		s.rows.Set("a", "another")
		s.audit(map[string]kv.Verdict{"a": kv.StaleWithinPromise, "b": kv.StaleWithinPromise}) // without versions nothing contradicts
	})
}

func TestNegativeEntriesAndDataErrorsAreCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.NegativeTTL = 20 * time.Second
		s := newSetup(t, p, nil)
		s.read("none", "a")
		s.rows.Spoil("b", origin.SeveralRows)
		_, _ = s.d.Get(t.Context(), "b", kv.ReadOptions{})
		if a := s.audit(nil); a.Counts[kv.Same.String()] != 3 {
			t.Errorf("got %v, want 3 the same", a.Counts)
		}
		s.rows.Set("none", "now")
		s.rows.Restore("b")
		s.rows.Spoil("a", origin.SeveralRows)
		all := map[string]kv.Verdict{"none": kv.StaleWithinPromise, "a": kv.StaleWithinPromise, "b": kv.StaleWithinPromise}
		s.audit(all)
	})
}

// elsewhere is a ring on which another member owns all keys.
type elsewhere struct{ kv.NoPeers }

type owner struct{ kv.Peer }

func (owner) ID() string { return "owner" }

func (elsewhere) Route(string, string) kv.Route { return kv.Route{Owner: owner{}} }

func TestEntriesOfOtherOwnersAreNotCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, policy(), elsewhere{})
		if _, err := s.d.Serve(t.Context(), kv.Query{Dataset: "rows", Key: "a"}); err != nil {
			t.Fatal(err)
		}
		if a := s.audit(nil); s.d.Stats().VerifyQueries.Load() != 0 {
			t.Errorf("got %+v, want no query", a.Counts)
		}
	})
}

func TestAuditIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, policy(), nil)
		s.read("a", "b")
		if a, err := s.Audit(t.Context(), s.d, 1); err != nil || !a.Complete || a.Counts[kv.Same.String()] != 1 {
			t.Errorf("of one key: got %+v, %v", a, err)
		}
		s.rows.Fail(errors.New("down"))
		if a, err := s.Audit(t.Context(), s.d, 0); err != nil || a.Complete || a.Stopped == "" || a.Failed != 2 || len(a.Findings) != 0 {
			t.Errorf("of a database that fails: got %+v, %v", a, err)
		}
		s.healthy.Store(false)
		if a, err := s.Audit(t.Context(), s.d, 0); err != nil || a.Complete || a.Stopped != errUnhealthy.Error() {
			t.Errorf("with an open breaker: got %+v, %v", a, err)
		}
		s.rows.Fail(nil)
		s.healthy.Store(true)

		leave := s.busy()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := s.Audit(ctx, s.d, 0)
			done <- err
		}()
		synctest.Wait()
		if _, err := s.Audit(t.Context(), s.d, 0); kv.KindOf(err) != kv.KindOverloaded {
			t.Errorf("a second audit: got %v, want overloaded", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("a canceled audit: got %v", err)
		}
		began := time.Now()
		if a, err := s.Audit(t.Context(), s.d, 0); err != nil || a.Complete || a.Stopped == "" || time.Since(began) != maxAudit {
			t.Errorf("of a database that is busy: got %+v, %v after %v", a, err, time.Since(began))
		}
		leave()
		s.audit(nil)
	})
}

// busy uses all statements of the origin.
func (s *setup) busy() (leave func()) {
	w := s.limiter.Writer(s.rows)
	release := s.rows.BlockWrites()
	done := make(chan struct{})
	for range origin.DefaultMaxConns {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			_, _ = w.Write(ctx, origin.Change{Key: "busy", Data: []byte("1")})
			done <- struct{}{}
		}()
	}
	synctest.Wait()
	return func() {
		release()
		for range origin.DefaultMaxConns {
			<-done
		}
	}
}

// sample runs the comparisons for d, while a reader reads.
func (s *setup) sample(d time.Duration) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for end := time.Now().Add(d); time.Now().Before(end); {
		s.read("a", "b")
		time.Sleep(100 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		s.t.Error(err)
	}
}

func TestRateIsThatOfAllMembersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.TTL = time.Hour
		s := newSetup(t, p, nil)
		s.sample(100 * time.Second)
		st := s.State(s.d)
		if n := st.Counts[kv.Same.String()]; n < 150 || n > 240 || st.Queries < 75 || st.Queries > 120 {
			t.Errorf("one member: %d entries in %d queries in 100 s, want about 200 in 100", n, st.Queries)
		}
		s.members = 20
		s.sample(100 * time.Second)
		if n := s.State(s.d).Queries - st.Queries; n < 5 || n > 20 {
			t.Errorf("one of 20 members: %d queries in 100 s, want about 10", n)
		}
	})
	for _, tt := range []struct {
		rate, members int
		interval      time.Duration
		n             int
	}{
		{2, 1, time.Second, 2}, {2, 0, time.Second, 2}, {2, 2, time.Second, 1}, {2, 1000, 500 * time.Second, 1},
		{100, 10, time.Second, 10}, {0, 3, time.Second, 0}, {3, 2, time.Second, 1},
	} {
		if interval, n := share(tt.rate, tt.members); interval != tt.interval || n != tt.n {
			t.Errorf("rate %d of %d members: got %d every %v, want %d every %v", tt.rate, tt.members, n, interval, tt.n, tt.interval)
		}
	}
}

func TestComparisonsComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.TTL = time.Hour
		s := newSetup(t, p, nil)
		s.read("a", "b")
		skipped := func(want kv.VerifySkip, most int64) {
			t.Helper()
			before := s.d.Stats().VerifySkipped[want].Load()
			queries := s.State(s.d).Queries
			s.sample(2 * time.Minute)
			after := s.State(s.d)
			if after.Skipped[want.String()] == before || after.Queries-queries > most {
				t.Errorf("%v: skipped %d times, %d queries in 2 min", want, after.Skipped[want.String()]-before, after.Queries-queries)
			}
		}
		s.healthy.Store(false)
		skipped(kv.SkipBreaker, 0)
		s.healthy.Store(true)
		s.rows.Fail(errors.New("down"))
		skipped(kv.SkipFailed, 12)
		s.rows.Fail(nil)
		s.rows.Slow(400 * time.Millisecond)
		skipped(kv.SkipSlow, 12)
		s.rows.Slow(0)
		leave := s.busy()
		skipped(kv.SkipBusy, 0)
		leave()

		queries := s.State(s.d).Queries // nobody reads
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := s.State(s.d).Queries - queries; n > 1 {
			t.Errorf("%d queries in a minute without reads", n)
		}
	})
}

func TestBrokenPromisesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy()
		p.TTL = time.Hour
		s := newSetup(t, p, nil)
		s.read("a", "b")
		s.rows.SetVersion("a", "other", 1)
		s.sample(10 * time.Second)
		st := s.State(s.d)
		if st.Counts[kv.DifferentAtSameVersion.String()] == 0 || len(st.Findings) == 0 || st.Findings[0].Key != "a" || st.WorstAge == 0 {
			t.Errorf("got %+v", st)
		}
		s.sample(10 * time.Minute)
		if n := len(s.State(s.d).Findings); n != maxLatest {
			t.Errorf("%d findings are kept, want %d", n, maxLatest)
		}
	})
}

func TestAuditNamesBrokenPromisesBeforeOthers(t *testing.T) {
	s := &audit{Audit: adminapi.Audit{Counts: adminapi.NewCounts()}}
	for range maxFindings + 5 {
		s.add(adminapi.Finding{Result: kv.StaleWithinPromise.String()}, kv.StaleWithinPromise)
	}
	s.add(adminapi.Finding{Key: "broken", Result: kv.OlderThanPromised.String()}, kv.OlderThanPromised)
	broken := func(f adminapi.Finding) bool { return f.Key == "broken" }
	if len(s.Findings) != maxFindings || s.FindingsOmitted != 6 || !slices.ContainsFunc(s.Findings, broken) {
		t.Errorf("%d findings, %d omitted", len(s.Findings), s.FindingsOmitted)
	}
}
