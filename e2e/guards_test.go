package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// guard is a line that keeps a known fault away, and the test that notices when it is gone.
type guard struct {
	fault         string // what the line keeps away
	file          string
	line, without string // the line as it is, and as it would be without the guard
	test          string // a regular expression; in the package of file
}

var guards = []guard{
	{
		"a waiter's cancel ends the load for all", "sidecar/internal/flight/flight.go",
		"case <-ctx.Done():", "case <-ctx.Done():\n\t\tg.cancel()",
		"TestWaiterThatGivesUpLeavesAlone",
	},
	{
		"a call that hangs holds its key for ever", "sidecar/internal/flight/flight.go",
		"finish(none, ctx.Err())", "_ = none",
		"TestCallThatHangsHoldsKeyNoLongerThanItsTimeout",
	},
	{
		"flights without bound", "sidecar/internal/flight/flight.go",
		"if g.count >= g.max {", "if false {",
		"TestBoundOfFlightsCountsDetachedOnesToo",
	},
	{
		"a panic of an origin ends the process", "sidecar/internal/flight/flight.go",
		"if p := recover(); p != nil {", "if p := any(nil); p != nil {",
		"TestPanicEndsTheCallAndNotTheProcess",
	},
	{
		"calls stay in the map: a second cache without bound", "sidecar/internal/flight/flight.go",
		"if g.calls[key] == c {", "if false {",
		"TestCallersOfOneKeyShareOneCall",
	},
	{
		"a load begun before an invalidation is stored after it", "sidecar/cache/dataset.go",
		"d.fences.of(key).Add(1)", "",
		"TestLoadBegunBeforeInvalidationIsNotStored",
	},
	{
		"a copy asked for before an invalidation is stored after it", "sidecar/cache/find.go",
		"f.entry = d.keep(q.Key, e, func() bool { return fence.Load() == raised })",
		"_ = raised; f.entry = d.keep(q.Key, e, func() bool { return true })",
		"TestCopyIsNotStoredAfterAnInvalidation",
	},
	{
		"a reader after an invalidation joins the load before it", "sidecar/cache/dataset.go",
		"d.loads.Forget(key)", "",
		"TestInvalidationDetachesTheFlight",
	},
	{
		"a caller that missed just before a flight ended loads again", "sidecar/cache/find.go",
		"if !ok || !e.fresh(d.now()) || (notBefore", "if true || !ok || !e.fresh(d.now()) || (notBefore",
		"TestMissThatComesLateToItsFlightFindsWhatWasStored",
	},
	{
		"the ttl counts from the end of the load", "sidecar/cache/find.go",
		"e.freshUntil = began + int64(ttl)", "e.freshUntil = d.now() + int64(ttl)",
		"TestTTLCountsFromBeforeTheLoad",
	},
	{
		"an outage is cached as absent", "sidecar/cache/find.go",
		"absent := errors.Is(err, origin.ErrNotFound)", "absent := err != nil; _ = origin.ErrNotFound",
		"TestOutageIsNeverCachedAsAbsent",
	},
	{
		"a request of a peer is forwarded", "sidecar/cache/find.go",
		"if r.served || route.Owner == nil {\n\t\twhy", "if route.Owner == nil {\n\t\twhy",
		"TestRingsThatDisagreeDoNotWaitForEachOther|TestMemberThatDoesNotOwnTheKeyServesAndKeepsItShortly",
	},
	{
		"the failure of the origin at the owner sends readers elsewhere", "sidecar/cache/find.go",
		"if errors.Is(err, ErrUnreachable) {\n\t\t\tf, err", "if err != nil {\n\t\t\tf, err",
		"TestOriginFailureAtTheOwnerIsAnAnswer",
	},
	{
		"a dead owner sends every pod to the database", "sidecar/cache/find.go",
		"if route.Successor == nil {", "if true {",
		"TestDeadOwnerDoesNotSendEveryPodToTheDatabase",
	},
	{
		"loads in the stead of dead members without bound", "sidecar/cache/dataset.go",
		"make(chan struct{}, maxFallbacks)", "make(chan struct{}, 1000)",
		"TestOwnerAndSuccessorAway",
	},
	{
		"a local copy outlives the owner's entry", "sidecar/cache/find.go",
		"min(ends, said+int64(p.LocalTTL))", "min(max(ends, longest.Nanoseconds()), said+int64(p.LocalTTL))",
		"TestLocalCopyNeverOutlivesTheOwnersEntry",
	},
	{
		"a local copy is thought younger than it is", "sidecar/cache/find.go",
		"said - int64(bounded(a.Age)), said", "said - 0*int64(a.Age), said",
		"TestLocalCopyNeverOutlivesTheOwnersEntry|TestNewOwnerPeeksAtThePreviousOne",
	},
	{
		"an entry loaded in the owner's stead stays for its full ttl", "sidecar/cache/find.go",
		"if why == reasonGutter {", "if false {",
		"TestMemberThatDoesNotOwnTheKeyServesAndKeepsItShortly",
	},
	{
		"an older version replaces a newer one", "sidecar/cache/find.go",
		"ok && held.newerThan(e) && (held.fresh(now)", "false && held.newerThan(e) && (held.fresh(now)",
		"TestOlderVersionNeverReplacesNewer",
	},
	{
		"a no-cache read takes the load that began before it", "sidecar/cache/find.go",
		"for range maxRounds {", "for range 1 {",
		"TestNoCacheDoesNotTakeALoadThatBeganBefore",
	},
	{
		"an entry loaded before this member started is fetched three times", "sidecar/cache/find.go",
		"if err != nil || notBefore == 0 || f.asOf", "if err != nil || f.asOf",
		"TestEntryOlderThanThisMemberIsOneHop",
	},
	{
		"readers of a stale entry wait for a silent origin, each of them", "sidecar/cache/read.go",
		"if retryAt := held.retryAt.Load(); retryAt != 0 {", "if retryAt := held.retryAt.Load(); retryAt < 0 {",
		"TestFailedRefreshBacksOffAndBlocksNobody",
	},
	{
		"each stale read is a hop", "sidecar/cache/find.go",
		"e.retryAt.Store(said + int64(p.LocalTTL))", "",
		"TestStaleAnswerOfTheOwnerIsCopied",
	},
	{
		"expired entries hold memory for ever", "sidecar/cache/dataset.go",
		"return e.dead(now)", "return now < 0",
		"TestSweepDropsOnlyWhatNobodyCanUse",
	},
	{
		"a key in memory that its caller reuses", "sidecar/cache/read.go",
		"d.miss(ctx, strings.Clone(key), read{noCache", "d.miss(ctx, key, read{noCache",
		"TestKeyMayBeReusedByItsCaller",
	},
}

// F1: each guard is removed, one at a time, and its test must fail.
func TestPromiseF1EachGuardHasATestThatMissesIt(t *testing.T) {
	red := 0
	for _, g := range guards {
		t.Run(g.fault, func(t *testing.T) {
			if err := g.notice(t.TempDir()); err != nil {
				t.Error(err)
				return
			}
			red++
		})
	}
	report(t, promise{
		number: "F1", n: len(guards), held: red == len(guards),
		done:   "each guard removed, one at a time",
		figure: fmt.Sprintf("%d of %d tests went red", red, len(guards)),
	})
}

// notice runs the guard's test against a tree without the guard.
func (g guard) notice(dir string) error {
	overlay, err := g.overlay(dir)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-timeout=60s", "-run", "^("+g.test+")$",
		"./"+filepath.Dir(g.file))
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s: without %q the test %s passes:\n%s", g.file, g.line, g.test, out)
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "no tests to run"):
		return fmt.Errorf("%s: the tree without %q does not build or has no such test:\n%s", g.file, g.line, out)
	}
	return nil
}

// overlay writes the file without the guard, and the list that puts it in the place of the real one (go help build).
func (g guard) overlay(dir string) (list string, err error) {
	path, err := filepath.Abs(filepath.Join("..", g.file))
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), g.line); n != 1 {
		return "", fmt.Errorf("%s has %q %d times; it must be there once", g.file, g.line, n)
	}
	changed, list := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), g.line, g.without, 1)), 0o600); err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	return list, os.WriteFile(list, b, 0o600)
}
