package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// guard is a line that keeps a known fault away, and the test that notices when it is gone.
type guard struct {
	fault         string // what the line keeps away
	file          string
	line, without string // the line as it is, and as it would be without the guard
	test          string // names, perhaps of subtests, with | between; in the package of file
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
		"a load begun before an invalidation is stored after it", "sidecar/cache/find.go",
		"fence.Load() == raised && d.floors.of(key, began)",
		"(raised >= 0 || fence == nil) && d.floors.of(key, began)",
		"TestLoadBegunBeforeInvalidationIsNotStored",
	},
	{
		"a copy asked for before an invalidation is stored after it", "sidecar/cache/find.go",
		"fence.Load() == raised && d.copiesEnded.Load() == ended && d.floors.of(q.Key, sent).admits(e, e.began)",
		"(raised >= 0 || fence == nil) && ended >= 0",
		"TestCopyIsNotStoredAfterAnInvalidation",
	},
	{
		"a reader after an invalidation joins the load before it", "sidecar/cache/invalidate.go",
		"d.loads.Forget(key)",
		"",
		"TestInvalidationDetachesTheFlight",
	},
	{
		"a caller that missed just before a flight ended loads again", "sidecar/cache/find.go",
		"if !ok || !d.good(key, e, d.now()) ||",
		"if true || !ok || !d.good(key, e, d.now()) ||",
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
		"ok && held.outranks(e) && held.fresh(d.now())",
		"false",
		"TestOlderVersionNeverReplacesNewer",
	},
	{
		"a no-cache read takes the load that began before it", "sidecar/cache/find.go",
		"for range maxRounds {", "for range 1 {",
		"TestNoCacheDoesNotTakeALoadThatBeganBefore",
	},
	{
		"an entry loaded before this member started is fetched three times", "sidecar/cache/find.go",
		"return n == need{} || n.admits",
		"return n.admits",
		"TestEntryOlderThanThisMemberIsOneHop",
	},
	{
		"readers of a stale entry wait for a silent origin, each of them", "sidecar/cache/read.go",
		"retryAt := held.retryAt.Load()", "retryAt := int64(0)",
		"TestFailedRefreshBacksOffAndBlocksNobody",
	},
	{
		"each stale read is a hop", "sidecar/cache/find.go",
		"e.retryAt.Store(said + int64(p.LocalTTL))", "",
		"TestStaleAnswerOfTheOwnerIsCopied",
	},
	{
		"expired entries hold memory for ever", "sidecar/cache/dataset.go",
		"if !e.dead(now) {", "if now > 0 {",
		"TestSweepDropsOnlyWhatNobodyCanUse",
	},
	{
		"a key in memory that its caller reuses", "sidecar/cache/read.go",
		"d.miss(ctx, strings.Clone(key), d.readFor(o, now))",
		"d.miss(ctx, key, d.readFor(o, now))",
		"TestKeyMayBeReusedByItsCaller",
	},
	{
		"a key that moved is loaded for ever by all who ever owned it", "sidecar/cache/find.go",
		"if d.peers.Route(d.name, key).Owner == nil {", "if true {",
		"TestFormerOwnerDoesNotRefreshEarly",
	},
	{
		"a peek brings back what is older than what readers have seen", "sidecar/cache/find.go",
		"!e.fresh(now) || !d.known(key, now).admits(e, e.began) {",
		"!e.fresh(now) {",
		"TestPeekBringsNothingOlderThanWhatWasHeld",
	},
	{
		"the longest durations end in the past", "sidecar/cache/dataset.go",
		"p = p.bounded()", "",
		"TestLongestDurationsDoNotOverflow",
	},
	{
		"a full sidecar refuses where it has a stale value", "sidecar/cache/errors.go",
		", errors.Is(err, flight.ErrFull):", ", false && errors.Is(err, flight.ErrFull):",
		"TestStaleValueComesBeforeTheBoundOfFlights",
	},
	{
		"the panic of a driver ends the process", "origin/guard/batch.go",
		"if p := recover(); p != nil {", "if p := any(nil); p != nil {",
		"TestPanicOfAnOriginIsItsCallers",
	},
	{
		"a batch that all left is joined", "origin/guard/batch.go",
		"b.open = nil // whoever comes next must not share its context", "",
		"TestBatchThatAllLeftBeforeItBeganIsNotJoined",
	},
	{
		"loads wait in a queue without bound", "origin/guard/limit.go",
		"if l.queued.Add(1) > l.maxQueue {", "if l.queued.Add(1) < 0 {",
		"TestLimitGivesTurnsAndRefusesAtOnceWhenTheQueueIsFull",
	},
	{
		"callers that leave open the breaker", "origin/guard/breaker.go",
		"return errors.Is(err, context.Canceled) || errors.Is(err, origin.ErrOverloaded)",
		"return err == context.Canceled && false || errors.Is(err, origin.ErrOverloaded)",
		"TestBreakerStaysClosedThroughWhatIsNoFailure",
	},
	{
		"a member that leaves still owns keys", "ring/member.go",
		"if !m.Leaving {", "if true {",
		"TestLeavingMembersAreOffTheRing",
	},
	{
		"two sets of members have one ring id", "ring/build.go",
		"append(binary.AppendUvarint(buf, uint64(len(s))), s...)", "append(buf, s...)",
		"TestIDIsOfMembersAndSize",
	},
	{
		"an absurd address is dialled", "ring/etcd/record.go",
		"ip.IsUnspecified() || ip.IsMulticast()", "ip.IsMulticast()",
		"TestParse",
	},
	{
		"a directory without bound", "ring/etcd/table.go",
		"len(t.listed) >= maxMembers", "false",
		"TestTableIsBounded",
	},
	{
		"all that is wrong with an etcd endpoint is that time is over", "ring/etcd/client.go",
		"append(opts, grpc.WaitForReady(false))", "opts",
		"TestErrorsNameTheEndpointAndTheCause",
	},
	{
		"reasons that are never the same twice fill the log", "ring/etcd/loop.go",
		"|| len(r) >= maxReasons", "",
		"TestEachReasonOfAnOutageIsToldOnce",
	},
	{
		"members come back to etcd in step", "ring/etcd/loop.go",
		"return wait/2 + rand.N(wait/2+1)", "return wait + 0*rand.N(wait/2+1)",
		"TestRetriesSpreadOut",
	},
	{
		"an entry holds on to the buffer of a request", "sidecar/internal/lru/lru.go",
		"key = strings.Clone(key)", "_ = strings.Clone(key)",
		"TestKeyInReusedMemory",
	},
	{
		"the largest value of a database is loaded for each read", "sidecar/internal/lru/shards.go",
		"minShare = 2 << 20", "minShare = 1 << 20",
		"TestLargestValueOfADatabaseFits",
	},
	{
		"the leases of all expire, and the ring is empty", "sidecar/internal/roster/decide.go",
		"for _, m := range kept {", "for _, m := range kept[:0] {",
		"TestMassLeaseExpiryChangesNothing",
	},
	{
		"a member is taken off at the first probe that fails", "sidecar/internal/roster/roster.go",
		"case time.Since(d.failed) >= r.config.HoldDown:", "case true:",
		"TestFlappingMemberStays|TestDeadMemberGoesAfterTheHoldDown",
	},
	{
		"another member takes the place of self", "sidecar/internal/roster/decide.go",
		"case m.Leaving || m.ID == self.ID:", "case m.Leaving:",
		"TestNobodyTakesThePlaceOfSelf",
	},
	{
		"any certificate of the CA reads the cache", "sidecar/peer/tls.go",
		"VerifyConnection: t.verifyName,", "",
		"TestServerRefusesBadCallers",
	},
	{
		"fetches to one member without bound", "sidecar/peer/peer.go",
		"if p.calls.Add(1) > p.pool.config.MaxCalls {", "if p.calls.Add(1) < 0 {",
		"TestFetchesToOneMemberAreBounded",
	},
	{
		"fetches of all callers without bound", "sidecar/peer/service.go",
		"if s.inFlight.Add(1) > s.config.MaxInFlight {", "if s.inFlight.Add(1) < 0 {",
		"TestFetchesInFlightAreBoundedForAllCallers",
	},
	{
		"connections of members without bound", "sidecar/peer/server.go",
		"if len(cs.open) >= cs.max {", "if false {",
		"TestConnectionBeyondTheBoundIsClosedAtOnce",
	},
	{
		"a want of file descriptors ends the sidecar by way of the peer listener", "sidecar/peer/server.go",
		"split.Accept(l.Listener, l.stopped, func() {})", "l.Listener.Accept()",
		"TestServerOutlivesAWantOfFileDescriptors",
	},
	{
		"a listener ends for what passes", "sidecar/internal/split/accept.go",
		"if err == nil || !passes(err) {", "if err == nil || true {",
		"TestAcceptOutlivesWhatPasses",
	},
	{
		"idle clients take every file that a probe needs", "sidecar/listen.go",
		"min(max(files/(n+1), 1), local.DefaultMaxConns)", "min(max(files, 1), local.DefaultMaxConns)",
		"TestListenersShareTheFilesThatAreNotReserved",
	},
	{
		"a slow database is asked by the successor, too", "sidecar/peer/errors.go",
		"case cause != nil && alive:", "case cause != nil && alive && false:",
		"TestDeadlineAtAnOwnerThatIsAliveIsAnAnswer",
	},
	{
		"the successor of a dead member is dead, too", "sidecar/peer/route.go",
		"if !next.broken.Load() {", "if true {",
		"TestDeadSuccessorIsPassedOver",
	},
	{
		"a page whose name points at loopback reads the console", "sidecar/admin/admin.go",
		"case !allowHost(r.Host, hosts):", "case false:",
		"TestForeignHostIsRefused",
	},
	{
		"a page whose name points at loopback reads the cache", "sidecar/local/http.go",
		`case !e.anyHost && authority != "" && !e.hosts.allow(authority):`, "case false:",
		"TestRawHTTP",
	},
	{
		"a database is made where there is none", "origin/sqldb/sqlite.go",
		`values.Set("mode", "ro")`, `values.Set("mode", "rwc")`,
		"TestSQLiteIsNotMadeWhereThereIsNone",
	},
	{
		"a printer shows a secret", "sidecar/secret.go",
		"func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }",
		"func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Reveal()) }",
		"TestNoPrinterShowsASecret",
	},
	{
		"an error shows the line of a secret", "sidecar/problem.go",
		"|| mayHoldSecret(lines[:p.line]) {", "|| false && mayHoldSecret(lines[:p.line]) {",
		"TestNoErrorShowsASecret",
	},
	{
		"a longer load_timeout doubles the loads", "sidecar/reload.go",
		"next.attemptTimeout() > most {", "false {",
		"TestReload",
	},
	{
		"every member lists the directory again and again", "sidecar/relist.go",
		"if s.inRow < 2 || s.answered == ring {", "if s.inRow < 2 {",
		"TestMembersAreListedAgainOncePerRingThatOthersDoNotShare",
	},
	{
		"a scrape reads what is still being made", "sidecar/metrics/handler.go",
		"if err := started(); err != nil {", "if err := started(); false {",
		"TestNothingIsReadBeforeTheStart",
	},
	{
		"a second call of the webhook injects again", "deploy/inject/inject.go",
		"case !wanted, present(pod), mirrors(pod):", "case !wanted, mirrors(pod):",
		"TestASecondPatchIsEmpty",
	},
	{
		"a pod that declines gets the sidecar", "deploy/inject/inject.go",
		"return wanted && !declined, nil", "_ = declined\n\treturn wanted, nil",
		"TestWhoAsks",
	},
	{
		"an agent of the node is kept from starting", "deploy/inject/inject.go",
		"case unfit(pod) != nil && !asksItself(pod):", "case false:",
		"TestPodsThatCannotHaveItAreLeftOutOfANamespace",
	},
	{
		"a Guaranteed pod loses its CPUs", "deploy/inject/patch.go",
		"c.requests = maps.Clone(c.limits)", "_ = maps.Clone(c.limits)",
		"TestGoldenPatches",
	},
	{
		"a certificate is served before the API server knows it", "deploy/inject/cert/rotator.go",
		"if err := r.publish(ctx, bundle); err != nil {", "r.current.Store(pair)\n\tif err := r.publish(ctx, bundle); err != nil {",
		"TestTheOldCertificateServesUntilTheNewOneIsKnown",
	},
	{
		"the API server forgets the certificate that a replica still serves", "deploy/inject/cert/cert.go",
		"if err == nil && now.Before(old.NotAfter) {", "if err == nil && now.After(old.NotAfter) {",
		"TestRenewalIsNeverSeen",
	},
	{
		"SIGTERM is taken for a failure", "deploy/cmd/ringside-injector/serve.go",
		"if asked.Err() == nil {", "if context.Cause(ctx) != ctx.Err() {",
		"TestServe",
	},
	{
		"of two writes at once the earlier one is kept", "sidecar/cache/write.go",
		"alone := raised == mark+1",
		"alone := raised > mark",
		"TestTwoWritesAtOnceLeaveTheLaterOneOrNothing",
	},
	{
		"a writer reads what was there before its write", "sidecar/cache/write.go",
		"d.drop(c.Key, e.floor())",
		"",
		"TestReadYourWritesWhenNobodyIsTold",
	},
	{
		"each hop for an unchanged value is a load", "sidecar/cache/find.go",
		"q.MinVersion, q.Tag = f.version, f.tag",
		"",
		"TestHopForWhatIsUnchangedIsNoLoad",
	},
	{
		"an old owner answers with an older row without a version", "sidecar/cache/find.go",
		"q.MaxAge = time.Duration(max(d.now()-after, 1))",
		"",
		"TestMonotonicReadsOverAChangeOfOwner",
	},
	{
		"what had to make room is read as it was before", "sidecar/cache/invalidate.go",
		"if d.now() < e.began+d.staleLife.Load() && (",
		"if false && (",
		"TestMonotonicReadsOfWhatHadToMakeRoom",
	},
	{
		"a write that ends late is not told", "sidecar/cache/write.go",
		"d.teller.tell(i, running)",
		"",
		"TestWriteThatEndsAfterItsOutcomeWasGivenUp",
	},
	{
		"nobody is told of a write in the owner's stead", "sidecar/cache/write.go",
		"if c.Gutter || d.peers.Route",
		"if false && d.peers.Route",
		"TestWriteGoesAroundAnOwnerThatIsAway",
	},
	{
		"a write of memory that its caller reuses", "sidecar/cache/write.go",
		"bytes.Clone(c.Value)",
		"bytes.TrimSpace(c.Value)",
		"TestCallerThatGivesUpLeavesItsWriteAlone",
	},
	{
		"a write that is sent again happens again", "sidecar/cache/write.go",
		"d.done.remember(c, f, d.now())",
		"",
		"TestSameIDWritesOnce",
	},
	{
		"an id answers for another write", "sidecar/cache/write.go",
		"case (err == nil || f.digest != 0) && f.digest != digestOf(c):",
		"case false:",
		"TestSameIDWritesOnce",
	},
	{
		"ids are remembered without bound", "sidecar/cache/done.go",
		"len(d.young) >= maxDone",
		"false",
		"TestIDsThatAreRememberedAreBounded",
	},
	{
		"a former owner answers from what it loaded", "sidecar/cache/invalidate.go",
		"return d.peers.Route(d.name, key).Owner != nil",
		"return false",
		"TestEntryOfAFormerOwnerIsNoBetterThanACopy",
	},
	{
		"entries outlive a gap in the feed", "sidecar/cache/invalidate.go",
		"if gap && now >=",
		"if false && now >=",
		"TestGapInTheFeed",
	},
	{
		"a hit is older than the version that is asked for", "sidecar/cache/read.go",
		"!o.NoCache && o.admits(e.version) {",
		"!o.NoCache {",
		"TestMinVersion",
	},
	{
		"a stale answer is older than the version that is asked for", "sidecar/cache/read.go",
		"n.met(held, held.began) &&",
		"",
		"TestMinVersionIsNeverAnsweredStale",
	},
	{
		"an answer is staler than is asked for", "sidecar/cache/read.go",
		"(!r.limitStale || !held.ended.Load() && now-held.freshUntil <= r.maxStale)",
		"true",
		"TestMaxStale",
	},
	{
		"floors without bound", "sidecar/cache/floor.go",
		"case len(g.young) >= g.max ||",
		"case",
		"TestFloorsAreBounded",
	},
	{
		"a watch is not told of an invalidation", "sidecar/cache/invalidate.go",
		"d.watches.note(key)",
		"",
		"TestWatchNotesWhatMayHaveChanged",
	},
	{
		"invalidations wait without bound", "sidecar/cache/tell.go",
		"if len(t.waiting) >= maxTold {",
		"if false {",
		"TestTellerThatFallsBehindTellsToDropEverything",
	},
	{
		"after a conflict the same entry is read again", "sidecar/cache/write.go",
		"d.drop(key, floor{anew: d.now() + 1})",
		"",
		"TestAfterAConflictWhatIsThereIsRead",
	},
	{
		"an ETag is compared with an entry that is outdated", "sidecar/cache/write.go",
		"n := need{floor{anew: d.now()}}",
		"n := need{}",
		"TestETagOfTheRowWhileAnOlderEntryIsHeld",
	},
	{
		"the origin has no time to say that nothing was written", "sidecar/cache/write.go",
		"ctx, cancel := context.WithTimeout(ctx, d.Policy().WriteTimeout)",
		"ctx, cancel := context.WithCancel(ctx)",
		"TestWritesThatTheOriginRefusesAreDefinite",
	},
	{
		"an owner that has not heard answers with what is invalid", "sidecar/cache/invalidate.go",
		"d.forgot(d.floors.tell(key, f, d.now(), d.freshLife.Load()))",
		"",
		"TestOlderAnswerIsNotTakenWhileTheOwnerHasNotHeard",
	},
	{
		"a reader joins a flight that began before what was seen", "sidecar/cache/read.go",
		"n = d.needOf(key, r, r.began)",
		"",
		"TestReaderThatJoinsAFlightThatBeganBeforeWhatWasSeen",
	},
	{
		"what was read but not stored is not known", "sidecar/cache/find.go",
		"d.see(key, f)",
		"",
		"TestReaderThatJoinsAFlightThatBeganBeforeWhatWasSeen",
	},
	{
		"invalidations of a broken stream are missed", "sidecar/peer/follow.go",
		"f.tellLive(nil)\n\tf.peer.pool.config.Sink.Missed(f.peer.member.ID)",
		"f.tellLive(nil)",
		"TestLostStreamIsMissedBeforeAnythingNewer",
	},
	{
		"a gap in a stream is passed over", "sidecar/peer/follow.go",
		"&& r.GetSequence() == f.sequence+uint64(len(list))",
		"",
		"TestGapIsMissedBeforeWhatFollows",
	},
	{
		"sequences of two runs compare", "sidecar/peer/follow.go",
		"r.GetEpoch() == f.epoch &&",
		"",
		"TestGapIsMissedBeforeWhatFollows",
	},
	{
		"a frozen member's stream counts as alive", "sidecar/peer/follow.go",
		"followSilence = 5 * heartbeat / 2",
		"followSilence = time.Hour",
		"TestSilentStreamIsMissed",
	},
	{
		"a follower that reads nothing holds its stream", "sidecar/peer/stream.go",
		"slowAfter = followSilence",
		"slowAfter = time.Hour",
		"TestFollowerThatTakesInNothingIsCutOff",
	},
	{
		"overwritten invalidations are read", "sidecar/peer/log.go",
		"if !l.keptLocked(*at) {",
		"if false {",
		"TestLogKeepsTheLatest",
	},
	{
		"a short interruption of a feed is hidden", "sidecar/peer/log.go",
		"interrupted: l.edition > at.edition+1",
		"interrupted: false",
		"TestInterruptedFeedIsToldThoughItIsLiveAgain",
	},
	{
		"followers without bound", "sidecar/peer/stream.go",
		"if s.followers.Add(1) > s.config.MaxFollowers {",
		"if s.followers.Add(1) < 0 {",
		"TestFollowersAreBounded",
	},
	{
		"a write that was sent is made elsewhere, too", "sidecar/peer/write.go",
		"if !sent || s.Code() == codes.NotFound {",
		"if true {",
		"TestWriteWithoutAnswerIsUnknown",
	},
	{
		"gRPC's own RESOURCE_EXHAUSTED says that nothing was written", "sidecar/peer/errors.go",
		"case call == toWrite && s.Code() == codes.ResourceExhausted && retryDelay(s) == 0:",
		"case false:",
		"TestWhatOthersAnswerToAWriteIsUnknown",
	},
	{
		"writes of all callers without bound", "sidecar/peer/write.go",
		"if s.writing.Add(1) > s.config.MaxWrites {",
		"if s.writing.Add(1) < 0 {",
		"TestWritesAreBoundedForAllCallers",
	},
	{
		"everybody is told at once", "sidecar/peer/tell.go",
		"group.SetLimit(maxTells)",
		"",
		"TestTellAllIsBounded",
	},
	{
		"a member that left is still followed", "sidecar/peer/pool.go",
		"left.leave()",
		"",
		"TestMemberThatLeftIsNotFollowed",
	},
	{
		"the lost answer to a COMMIT is told as certain (PostgreSQL)", "origin/sqldb/write_postgres.go",
		"return unknown(err)",
		"return driver.ErrBadConn",
		"TestTheOutcomeOfAWriteWhereverTheConnectionIsCut",
	},
	{
		"the lost answer to a COMMIT is told as certain (MariaDB)", "origin/sqldb/write_mysql.go",
		"return unknown(err)",
		"return driver.ErrBadConn",
		"TestTheOutcomeOfAWriteWhereverTheConnectionIsCut",
	},
	{
		"a session that dies in its COMMIT is thought to have rolled back", "origin/sqldb/write_postgres.go",
		"e.SeverityUnlocalized == \"ERROR\" && !strings.HasPrefix(e.Code, \"08\") && !strings.HasPrefix(e.Code, \"57P\")",
		"e.SeverityUnlocalized != \"\" && !strings.HasPrefix(e.Code, \"08\")",
		"TestWhatEndsACommit",
	},
	{
		"a write to one key changes the row of another that the collation holds equal", "origin/sqldb/write.go",
		"switch other := e.rows.seen[e.change.Key] == 0; {",
		"switch other := false; {",
		"TestDatabases/.*/WritesThatCouldNotBeReadBack",
	},
	{
		"a write changes several rows", "origin/sqldb/write.go",
		"case n > 1:",
		"case false:",
		"TestDatabases/.*/AKeyThatIsNotUnique",
	},
	{
		"a row is written that is too large to be read", "origin/sqldb/write.go",
		"case result.Err != nil:",
		"case false:",
		"TestDatabases/.*/WritesThatCouldNotBeReadBack",
	},
	{
		"a part of a row is refused for what it leaves out", "origin/sqldb/edit.go",
		"case p.whole && p.dialect.upserts():",
		"case p.dialect.upserts():",
		"TestDatabases/.*/WritesOfAPart",
	},
	{
		"a row that comes back is older than before it was deleted", "origin/sqldb/edit.go",
		"marks += \", \" + p.dialect.firstVersion(d)",
		"marks += \", 1\"",
		"TestDatabases/.*/ConformanceWriter",
	},
	{
		"a row that comes back within a millisecond is older than before", "origin/sqldb/write_sqlite.go",
		"return d.value(assignment{\"\", clock{}})",
		"return \"CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)\"",
		"TestDatabases/sqlite/RegressionARowThatComesBackHasAVersionOfBefore",
	},
	{
		"a row whose value is NULL is there to writers and absent to readers", "origin/sqldb/edit.go",
		"case p.dataset.Value != \"\" && cond != origin.Condition{}:",
		"case false:",
		"TestDatabases/.*/ConditionsOnANullValue",
	},
	{
		"a write that changes nothing meets no row", "origin/sqldb/mysql.go",
		"config.ClientFoundRows = true // an",
		"_ = true // an",
		"TestDatabases/mysql/WritesOfEachType",
	},
	{
		"a server that is not strict cuts values off", "origin/sqldb/mysql.go",
		"\", ',STRICT_ALL_TABLES')\"",
		"\")\"",
		"TestDatabases/mysql/Refusals",
	},
	{
		"SQLite ignores foreign keys", "origin/sqldb/sqlite.go",
		"\"foreign_keys(1)\"",
		"\"foreign_keys(0)\"",
		"TestDatabases/sqlite/Refusals",
	},
	{
		"the last of two members of one name is written", "origin/sqldb/given.go",
		"if seen[m.name] {",
		"if false {",
		"TestDatabases/sqlite/Refusals",
	},
	{
		"half a surrogate pair is written as U+FFFD", "origin/sqldb/given.go",
		"if !origin.WholeSurrogates(raw) {",
		"if false {",
		"TestDatabases/sqlite/Refusals",
	},
	{
		"the zone of a time is ignored", "origin/sqldb/take.go",
		"err == nil && c.form == formTimestamp {",
		"err == nil && false {",
		"TestDatabases/.*/WritesInOtherForms",
	},
	{
		"an empty text is written as NULL", "origin/sqldb/write_postgres.go",
		"return []byte(v)",
		"return fmt.Append(nil, v)",
		"TestWhatALoadGivesAWriteTakes",
	},
	{
		"a table that is missing is the client's fault", "origin/sqldb/table.go",
		"err == nil && len(t.columns) == 0", "false",
		"TestDatabases/sqlite/RegressionAMissingTableIsTheClientsFault",
	},
	{
		"a table that was altered can not be written for a minute", "origin/sqldb/table.go",
		"\tdefault:\n\t\tk.held.Store(nil)",
		"",
		"TestDatabases/.*/WritesToATableThatWasAltered",
	},
	{
		"a page fills the memory", "origin/sqldb/list.go",
		"if c.page.bytes > maxPageBytes {",
		"if false {",
		"TestDatabases/.*/ListOfLargeRows",
	},
	{
		"a filter takes 'CPU' for 'cpu'", "origin/sqldb/list.go",
		"exactly != \"\" && column.form == formText",
		"exactly == \"never\" && column.form == formText",
		"TestDatabases/mysql/List$",
	},
	{
		"validate accepts a query that writes", "origin/sqldb/postgres.go",
		"if sqlState(err) == \"25006\" { // read-only transaction",
		"if false {",
		"TestDatabases/postgres/RegressionCheckAcceptsAQueryThatWrites",
	},
	{
		"the rows of a key that is not unique are thought writable", "origin/sqldb/check_writable.go",
		"if !unique {",
		"if false {",
		"TestDatabases/.*/CheckWritable$",
	},
	{
		"the version of a new row does not fit its column", "origin/sqldb/check_writable.go",
		"c.bits < 64:",
		"c.bits < 32:",
		"TestDatabases/.*/CheckWritable$",
	},
	{
		"writes exceed the budget of their origin", "origin/guard/limit.go",
		"return limitedWriter{l, next}",
		"return limitedWriter{nil, next}",
		"TestLimitGivesTurnsAndRefusesAtOnceWhenTheQueueIsFull",
	},
	{
		"lists exceed the budget of their origin", "origin/guard/limit.go",
		"return limitedLister{l, next}",
		"return limitedLister{nil, next}",
		"TestLimitGivesTurnsAndRefusesAtOnceWhenTheQueueIsFull",
	},
	{
		"another database's DSN is printed as the path of a file", "origin/sqldb/sqlite.go",
		"foreign.MatchString(dsn) &&", "false &&",
		"TestNoErrorHoldsASecret",
	},
	{
		"a rotated password is never picked up (PostgreSQL)", "origin/sqldb/postgres.go",
		"\t\tp.renew(&c.Config)\n", "",
		"TestDatabases/postgres/ARotatedPassword",
	},
	{
		"a rotated password is never picked up (NOTIFY)", "origin/sqldb/feed_notify.go",
		"\tf.postgres.renew(config)\n", "",
		"TestDatabases/postgres/ARotatedPassword",
	},
	{
		"a rotated password is never picked up (MariaDB)", "origin/sqldb/mysql.go",
		"c.User, c.Passwd = now.user, now.password", "_, _ = c, now",
		"TestDatabases/mysql/ARotatedPassword",
	},
	{
		"another database's password is sent to this one", "origin/sqldb/login.go",
		"err == nil && a.address == l.latest.Load().address", "err == nil",
		"TestDatabases/postgres/ARotatedPassword",
	},
	{
		"a reload is well although a database has moved", "sidecar/reload.go",
		"errors.Join(p.config.changeable(next), p.moved())", "p.config.changeable(next)",
		"TestReloadSaysThatADSNFileIsOfAnotherDatabase",
	},
	{
		"a failed connection is told over several lines", "origin/sqldb/postgres.go",
		"return nil, plainConnect(err)",
		"return nil, err",
		"TestAPostgresThatIsAwayIsToldInOneLine",
	},
	{
		"a poll goes by numbers and misses the transaction that ends last", "origin/sqldb/feed_postgres.go",
		"\"OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(\" + before + \"))) OR seq > $2 LIMIT \"",
		"\"OR seq > $2 LIMIT \"",
		"TestFeeds/postgres/TransactionsThatOverlap",
	},
	{
		"an xid that a crash gave out again is passed over", "origin/sqldb/feed_postgres.go",
		"OR seq > $2 LIMIT \"",
		"OR seq > $2 + 1000000 LIMIT \"",
		"TestRegressionAnXidThatWasAnotherTransactions",
	},
	{
		"a promoted standby is gone on with", "origin/sqldb/feed_postgres.go",
		"lost = rewound || timeline != l.timeline || b.lost(l.high)",
		"lost = b.lost(l.high)",
		"TestRegressionAnotherHistoryIsNotGoneOnWith",
	},
	{
		"a number that was passed over is forgotten", "origin/sqldb/feed_mysql.go",
		"gaps = append(gaps, gap{l.high + 1, row.seq - 1, time.Now()})",
		"_ = gaps",
		"TestFeeds/mysql/TransactionsThatOverlap",
	},
	{
		"a transaction from before the feed began is missed", "origin/sqldb/feed_mysql.go",
		"l.server, l.high, l.gaps = server, b.high, joinGaps(gaps, maxGaps)",
		"l.server, l.high, l.gaps = server, b.high, gaps[:0]",
		"TestFeeds/mysql/TransactionsThatOverlap",
	},
	{
		"a gap is given up while its row is under way", "origin/sqldb/feed_mysql.go",
		"gaps = append(gaps, gap{g.from, g.to, time.Now()})",
		"",
		"TestGapsInMariaDB",
	},
	{
		"gaps of rolled back transactions stay for ever", "origin/sqldb/feed_mysql.go",
		"if time.Since(g.since) < l.grace || probes == maxProbes {",
		"if true {",
		"TestGapsInMariaDB",
	},
	{
		"a feed behind a transaction pooler hears nothing and seems well", "origin/sqldb/feed_notify.go",
		"if l.awaited {",
		"if false {",
		"TestFeedThatHearsNothingSaysSo",
	},
	{
		"a silent connection is listened to for ever", "origin/sqldb/feed_notify.go",
		"return l.beat(ctx)",
		"l.beatAgain = time.Now().Add(beatEvery)\n\t\treturn nil",
		"TestFeedOfASilentNetworkBreaks",
	},
	{
		"what was not heard before LISTEN is not told as missed", "origin/sqldb/feed_notify.go",
		"l.heard.miss()\n\tfor {",
		"for {",
		"TestFeeds/postgres/GoesOnWhereItWas/notify",
	},
	{
		"a payload that was cut is taken", "origin/sqldb/feed_notify.go",
		"return message{}, false",
		"return message{Key: new(string)}, true",
		"TestNotifications|FuzzParseMessage",
	},
	{
		"another dataset's keys are taken", "origin/sqldb/feed_notify.go",
		"case m.Dataset != \"\" && m.Dataset != l.dataset:",
		"case false:",
		"TestNotifications|TestFeeds/postgres/TwoDatasets",
	},
	{
		"changes that were pruned are missed in silence", "origin/sqldb/feed_poll.go",
		"return b.high < seq || b.low > seq+1",
		"return b.high < seq",
		"TestFeeds/postgres/Pruned",
	},
	{
		"loads of a slow database end its feed", "origin/sqldb/feed_poll.go",
		"f.pool = openPool(f.db.reads, 1)\n\tdefer f.pool.Close()", "f.pool = f.db.pool\n\t",
		"TestFeeds/mysql/LoadsThatHoldEveryConnection",
	},
	{
		"a dropped table of changes fails the application's writes (PostgreSQL)", "origin/sqldb/changes/postgres.sql",
		"IS NULL THEN", "= 0 THEN",
		"TestFeeds/postgres/RegressionWritesFailWithoutTheTableOfChanges",
	},
	{
		"a dropped table of changes fails the application's writes (MariaDB)", "origin/sqldb/changes/mysql.sql",
		"FOR 1146", "FOR 1147",
		"TestFeeds/mysql/RegressionWritesFailWithoutTheTableOfChanges",
	},
	{
		"nobody hears that a poll with nothing new is live", "origin/sqldb/feed_poll.go",
		"handle(origin.Changes{}) // from here on nothing is missed",
		"",
		"TestFeeds/postgres/GoesOnWhereItWas/poll",
	},
	{
		"a version from before a deletion", "origin/sqldb/feed.go",
		"known, version = 0, 0",
		"",
		"TestRegressionAVersionFromBeforeADeletion",
	},
	{
		"keys of changes wait without bound", "origin/sqldb/feed.go",
		"case !ok && len(g.versions) == maxGathered:",
		"case false:",
		"TestGatheredIsBoundedAndTellsEachKeyOnce",
	},
	{
		"a writer that leaves the version alone drops nothing", "origin/sqldb/changes/postgres.sql",
		"CASE WHEN now.v > before.v THEN now.v ELSE 0 END",
		"COALESCE(now.v, 0)",
		"TestFeeds/postgres/Conformance",
	},
	{
		"a writer needs rights on the changes", "origin/sqldb/changes/postgres.sql",
		"SECURITY DEFINER -- who",
		"-- who",
		"TestFeeds/postgres/WritersNeedNoRights",
	},
	{
		"a key is printed as the writer's session has it", "origin/sqldb/changes/postgres.sql",
		"SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET",
		"SET",
		"TestFeeds/postgres/KeysAreThoseOfLoad",
	},
	{
		"a long key makes the application's write fail", "origin/sqldb/changes/postgres.sql",
		"WHERE octet_length(k) <= {{.MaxKey}};",
		";",
		"TestRegressionANotificationThatIsTooLong",
	},
	{
		"MySQL: a writer that leaves the version alone drops nothing", "origin/sqldb/changes/mysql.sql",
		"IF(NOT moved AND {{.Version \"NEW\"}} > {{.Version \"OLD\"}}, LEAST({{.Version \"NEW\"}}, 9223372036854775807), 0)",
		"{{.Version \"NEW\"}}",
		"TestFeeds/mysql/Conformance",
	},
	{
		"SQLite: the old key of a row is not told", "origin/sqldb/changes/sqlite.sql",
		"WHERE {{.Key \"NEW\"}} IS NOT {{.Key \"OLD\"}} AND",
		"WHERE 0 AND",
		"TestFeeds/sqlite/Conformance",
	},
	{
		"a key of bytes is told as '?'", "origin/sqldb/changes_mysql.go",
		"strings.HasSuffix(keyType, \"binary\") || strings.HasSuffix(keyType, \"blob\")",
		"false",
		"TestFeeds/mysql/RegressionAKeyThatIsNoText",
	},
	{
		"a trigger of a column that is not there", "origin/sqldb/changes.go",
		"if err := db.Check(ctx, ds); err != nil {\n\t\treturn \"\", \"\", err\n\t}",
		"",
		"TestFeeds/.*/RegressionATriggerOfAColumnThatIsNotThere",
	},
	{
		"the first read after an outage is stale", "sidecar/cache/read.go",
		"now < retryAt || !held.retryAt.CompareAndSwap(retryAt, now+int64(staleRetry))",
		"true",
		"TestFirstReadAfterAnOutageIsFresh",
	},
	{
		"in an outage what was deleted comes back", "sidecar/cache/dataset.go",
		"stale := fresh + max(p.StaleIfError, p.StaleWhileRevalidate)",
		"stale := fresh",
		"TestStaleAnswerIsNotOlderThanWhatWasWrittenHere",
	},
	{
		"copies are lost with their owner", "sidecar/cache/invalidate.go",
		"held.ended.Store(true)\n\t\t}\n\t\treturn false",
		"return true\n\t\t}\n\t\treturn false",
		"TestCopyThatHasEndedIsBetterThanNothing",
	},
	{
		"copies of a member that is not heard are fresh", "sidecar/cache/entry.go",
		"return now < e.freshUntil && !e.ended.Load()",
		"return now < e.freshUntil",
		"TestCopiesOfAMemberThatIsNotFollowedAreDropped",
	},
	{
		"a copy that has ended is taken for one that is hardly stale", "sidecar/cache/read.go",
		"!held.ended.Load() && now-held.freshUntil",
		"now-held.freshUntil",
		"TestCopyThatHasEndedIsBetterThanNothing",
	},
	{
		"a metric that is no number is written", "sidecar/cnfmetrics/check.go",
		"if math.IsNaN(v) || math.IsInf(v, 0) {",
		"if false && math.IsNaN(v) {",
		"TestRulesThatOnlyProtobufCanBreak",
	},
	{
		"two ids that one database takes for one", "sidecar/cnfmetrics/check.go",
		"strings.Trim(id, \" \") != id",
		"false",
		"TestRules",
	},
	{
		"one fault is told twice", "sidecar/cnfmetrics/input.go",
		"if !in.wrong.has(v.Field) {",
		"if true {",
		"TestAllThatIsWrongIsNamedAtOnce|TestHTTP",
	},
	{
		"a create replaces what is there", "sidecar/cnfmetrics/cnfmetrics.go",
		"cache.Condition{Absent: true}",
		"cache.Condition{}",
		"TestHTTP",
	},
	{
		"an update makes what somebody deleted", "sidecar/cnfmetrics/cnfmetrics.go",
		"return cache.Condition{Present: true}, absent",
		"return cache.Condition{}, absent",
		"TestHTTP",
	},
	{
		"an update undoes what somebody else did", "sidecar/cnfmetrics/cnfmetrics.go",
		"return cache.Condition{Version: version}, conflict",
		"return cache.Condition{Present: true}, conflict",
		"TestHTTP",
	},
	{
		"one bad row hides a list", "sidecar/cnfmetrics/list.go",
		"page.Unreadable = append(page.Unreadable, s.unreadableRow(row.Key, err))\n\t\t\tcontinue",
		"return nil, err",
		"TestRowThatIsNoMetricNamesItsColumn",
	},
	{
		"a page goes on in another list", "sidecar/cnfmetrics/list.go",
		"case token.MetricType != q.GetMetricType() || token.Status != q.GetStatus():",
		"case false:",
		"TestPageTokens",
	},
	{
		"a list without the database is a defect", "sidecar/cnfmetrics/list.go",
		"case cache.KindOf(err) == cache.KindInternal:",
		"case false && cache.KindOf(err) == cache.KindInternal:",
		"TestFailuresOfAList",
	},
	{
		"a panic of a batch of metrics ends the process", "sidecar/cnfmetrics/batch.go",
		"if p := recover(); p != nil {",
		"if p := any(nil); p != nil {",
		"TestPanicFailsItsIDAndNotTheProcess",
	},
	{
		"goroutines of batches of metrics without bound", "sidecar/cnfmetrics/batch.go",
		"if s.stats.BatchReaders.Add(1) > int64(s.maxReaders) {",
		"if s.stats.BatchReaders.Add(1) < 0 {",
		"TestBatchesShareTheBoundOfTheirReaders",
	},
	{
		"an unchecked error is shown", "sidecar/cnfmetrics/fault.go",
		"if !known {\n\t\treturn s.broken(err)",
		"if !known {\n\t\treturn &fault{reason: internal, message: err.Error()}",
		"TestEachFailureHasItsCode",
	},
	{
		"the second of two values is taken", "sidecar/cnfmetrics/row.go",
		"if _, twice := o.members[name]; twice {",
		"if _, twice := o.members[name]; false && twice {",
		"TestHTTP",
	},
	{
		"an escape that is no character becomes another metric", "sidecar/cnfmetrics/row.go",
		"case !origin.WholeSurrogates(raw):",
		"case false && !origin.WholeSurrogates(raw):",
		"TestHTTP",
	},
	{
		"an answer no client takes", "sidecar/cnfmetrics/row.go",
		"&& len(s) > maxColumnBytes {",
		"&& false {",
		"TestRowThatIsNoMetricNamesItsColumn",
	},
	{
		"a row of NULLs is zeros", "sidecar/cnfmetrics/row.go",
		"case string(raw) == \"null\" || json.Unmarshal(raw, to) != nil:",
		"case json.Unmarshal(raw, to) != nil:",
		"TestRowThatIsNoMetricNamesItsColumn|TestHTTP",
	},
	{
		"a time no client can parse", "sidecar/cnfmetrics/row.go",
		"if !at.IsValid() {",
		"if false {",
		"TestRowThatIsNoMetricNamesItsColumn",
	},
	{
		"packed bytes are read as a metric", "sidecar/cnfmetrics/input.go",
		"if in.media = checkMedia(in.request.Header); in.media != nil {",
		"if false {",
		"TestBodyThatIsNoJSONByItsHeader",
	},
	{
		"a header that asks for a version is ignored", "sidecar/cnfmetrics/input.go",
		"in.refuseHeaders(asking)",
		"_ = asking",
		"TestHeadersOfARead",
	},
	{
		"a misspelled field is ignored", "sidecar/cnfmetrics/input.go",
		"o.wrong.add(name, \"is no field of this message\")",
		"_ = name",
		"TestHTTP",
	},
	{
		"a misspelled parameter is ignored", "sidecar/cnfmetrics/input.go",
		"in.wrong.add(name, \"is no parameter of this resource\")",
		"_ = name",
		"TestHTTP",
	},
	{
		"the path's metric takes another's place", "sidecar/cnfmetrics/http.go",
		"in.wrong.add(\"cnf_id\", \"is not the one in the path\")",
		"",
		"TestHTTP",
	},
	{
		"a 405 without Allow", "sidecar/cnfmetrics/http.go",
		"if f.reason == readOnly {",
		"if false {",
		"TestReadOnlyDatasetSaysWhatItAnswers",
	},
	{
		"another site's page changes metrics", "sidecar/local/mount.go",
		"if c.method != http.MethodGet && c.method != http.MethodHead && !e.sameSite(c) {",
		"if false {",
		"TestMountIsBehindTheEntrance",
	},
	{
		"a routed request is cut off by the time for its arrival", "sidecar/local/routed.go",
		"if r.ContentLength == 0 {",
		"_ = control.SetReadDeadline(now.Add(config.ReadTimeout))\n\tif r.ContentLength == 0 {",
		"TestRoutedRequestsAreNotCutOffByTheTimeForTheirArrival",
	},
	{
		"a mounted panic ends the process", "sidecar/local/mount.go",
		"defer g.finish(time.Now(), &err)",
		"_ = time.Now",
		"TestMountedCallsAreBoundedCountedAndSurvived",
	},
	{
		"mounted calls without end", "sidecar/local/mount.go",
		"context.WithTimeout(ctx, g.server.config.RequestTimeout)",
		"context.WithCancel(ctx)",
		"TestMountedCallsAreBoundedCountedAndSurvived",
	},
	{
		"an id cut off at a #", "sidecar/local/mount.go",
		"|| strings.Contains(path, \"#\") {",
		"{",
		"TestMountIsBehindTheEntrance",
	},
	{
		"the checker: a value outlives its successor", "e2e/history/check.go",
		"s.end = min(s.end, op.End)",
		"_ = 0",
		"TestFaultsAreFound",
	},
	{
		"the checker: own writes are not looked for", "e2e/history/check.go",
		"{r.wrote[who], OwnWrite}, ",
		"",
		"TestFaultsAreFound",
	},
	{
		"the checker: reads may go back", "e2e/history/check.go",
		"{r.read[who], Backwards}, ",
		"",
		"TestFaultsAreFound",
	},
	{
		"the checker: any age will do", "e2e/history/check.go",
		"if age > limit {",
		"if false {",
		"TestFaultsAreFound",
	},
	{
		"the checker: an unknown write is sure", "e2e/history/check.go",
		"s.end, s.not = never, false",
		"s.not = false",
		"TestGoodHistoriesPass",
	},
	{
		"what was missed before the start is published", "sidecar/internal/changes/changes.go",
		"if c.Missed && f.Reading(name) {",
		"if c.Missed {",
		"TestWhatWasMissedBeforeTheStartIsNotPublished",
	},
	{
		"after a gap what was held from before is used", "sidecar/internal/changes/changes.go",
		"one.Dataset.EndAll()",
		"",
		"TestFeedIsLiveWhileAnyMemberReadsIt",
	},
	{
		"own reading of a feed does not count", "sidecar/internal/changes/changes.go",
		"live := one.reading || len(one.members) > 0",
		"live := len(one.members) > 0",
		"TestOwnReadingCountsLikeThatOfOthers",
	},
	{
		"a reader that is not elected any more leaves a gap", "sidecar/internal/changes/reader.go",
		"!pause(ctx, handover) ||",
		"",
		"TestReaderThatIsNotElectedAnyMoreHandsOver",
	},
	{
		"a feed that flaps fills the log", "sidecar/internal/changes/reader.go",
		"time.Since(live) >= steady", "steady > 0",
		"TestFeedThatFlapsIsFollowedEverMoreSlowly",
	},
	{
		"a broken feed is followed in a tight loop", "sidecar/internal/changes/reader.go",
		"wait = min(2*wait, longestPause)",
		"wait = 0",
		"TestBrokenFeedIsFollowedAgainEverMoreSlowly",
	},
	{
		"hops end before writes do", "sidecar/cluster.go",
		"longest = max(longest, d.policy().WriteTimeout+wayTime)",
		"",
		"TestHopsLastAsLongAsWrites",
	},
	{
		"the datasets are not told of a new ring", "sidecar/cluster.go",
		"d.RingChanged()",
		"_ = d",
		"TestFormerOwnerSeesWhatTheNewOneWrites",
	},
	{
		"what a member has missed stays fresh", "sidecar/changes.go",
		"d.EndCopies(member)",
		"_ = d",
		"TestMissedInvalidationsEndTheCopiesOfThatMember",
	},
	{
		"nobody takes in what members publish", "sidecar/cluster.go",
		"Sink: sink{p}, ",
		"",
		"TestWriteThroughOneMemberIsReadThroughAll",
	},
	{
		"an invalidation of another member is not heard", "sidecar/serve.go",
		"Invalidate: sink{p}.Invalidate",
		"Invalidate: func([]cache.Invalidation) {}",
		"TestInvalidationDropsWhatAllMembersHold",
	},
	{
		"a member that the others do not list runs for a moment", "sidecar/check.go",
		"&& !slices.Contains(static, k.config.Node.Advertise)", "&& false",
		"TestProblems",
	},
	{
		"a template without members makes sidecars that are alone", "sidecar/check.go",
		"if list != nil && len(list) == 0 {", "if false {",
		"TestProblems",
	},
	{
		"what the database contradicts has no place in the file", "sidecar/origins.go",
		"wrong := fieldErrors(err)", "wrong := fieldErrors(nil)",
		"TestFieldsThatTheDatabaseContradictHaveAPlace",
	},
	{
		"a secret in the place of its file is printed", "sidecar/secret.go",
		"failed.Err, what)", "error(failed), what)",
		"TestNoErrorShowsASecret",
	},
	{
		"a secret that YAML takes for an alias is printed", "sidecar/decode.go",
		"case anchor == nil && d.maybeSecret(place(n)):", "case false:",
		"TestNoErrorShowsASecret",
	},
	{
		"a connection string in the place of a driver is printed", "sidecar/check.go",
		"\"%swant one of %s\", missing, strings.Join(driverNames, \", \"))",
		"\"%swant one of %s; got %q\", missing, strings.Join(driverNames, \", \"), driver)",
		"TestNoErrorShowsASecret",
	},
	{
		"values that callers send fill the log", "sidecar/origins.go",
		"&& !isCallersFault(err)",
		"",
		"TestWritesThatTheDatabaseRefusesAreLogged",
	},
	{
		"a watch begins anew after each lost connection", "sidecar/cmd/ringside/watch.go",
		"Last-Event-ID",
		"X-Nothing",
		"TestWatchPrintsChangesAndOutlivesTheSidecar",
	},
	{
		"a read under a condition that is not so", "sidecar/local/http.go",
		"case c.ifMatch != \"\" && !strongMatch(c.ifMatch, a.ETag):",
		"case false && !strongMatch(c.ifMatch, a.ETag):",
		"TestIfMatchOfARead",
	},
	{
		"a write without the condition that a script has meant", "sidecar/cmd/ringside/write.go",
		"f.Changed && f.Value.String() == \"\"",
		"false",
		"TestWritingCommandLines",
	},
	{
		"another origin's page writes", "sidecar/local/http.go",
		"if e.sameSite(c) {\n\t\t\te.write(c, name, key)",
		"if true {\n\t\t\te.write(c, name, key)",
		"TestPageOfAnotherOriginCannotWrite",
	},
	{
		"another origin's page drops entries", "sidecar/local/http.go",
		"e.allow(c, http.MethodPost, http.MethodPost) && e.sameSite(c) {",
		"e.allow(c, http.MethodPost, http.MethodPost) {",
		"TestPageOfAnotherOriginCannotWrite",
	},
	{
		"a page of another local port writes", "sidecar/local/fields.go",
		"h.allow(host) && strings.EqualFold(host, authority))",
		"h.allow(host))",
		"TestPageOfAnotherOriginCannotWrite",
	},
	{
		"a rebound name writes where any Host is taken", "sidecar/local/fields.go",
		"h.allow(host) && strings.EqualFold(host, authority))",
		"strings.EqualFold(host, authority))",
		"TestReboundNameCannotWriteWhereAnyHostIsTaken",
	},
	{
		"a refusal is lost to a reset", "sidecar/local/fasthttp.go",
		"if f.problem != problemReadTimeout {",
		"if false {",
		"TestRefusedRequestIsAnsweredToTheEnd|TestRefusedHeaderIsAnsweredToTheEnd",
	},
	{
		"who goes on sending after a refusal holds its connection", "sidecar/local/linger.go",
		"c.SetReadDeadline(time.Now().Add(lingerTime)) == nil",
		"true",
		"TestClientThatGoesOnSendingIsCutOff",
	},
	{
		"a trailer says what a header must", "sidecar/local/fasthttp.go",
		"if len(h.PeekTrailerKeys()) == 0 {",
		"if true {",
		"TestTrailerFieldsMeanNothing",
	},
	{
		"who asks first sends what is too large", "sidecar/local/fasthttp.go",
		"if h.ContentLength() > s.MaxRequestBodySize {",
		"if false {",
		"TestExpectContinueIsRefusedAtOnce",
	},
	{
		"who asks first sends what nobody takes", "sidecar/local/fasthttp.go",
		"if c.readHeader(h) && !s.entrance.refuseEarly(c) {",
		"if c.readHeader(h) {",
		"TestExpectContinueIsRefusedAtOnce",
	},
	{
		"an empty If-Match writes unconditionally", "sidecar/local/fasthttp.go",
		"return \" \"",
		"return \"\"",
		"TestRawHTTPWrites",
	},
	{
		"an escape that is no character becomes another key", "sidecar/local/object.go",
		"case !origin.WholeSurrogates(body):",
		"case false && !origin.WholeSurrogates(body):",
		"TestParseBatch|TestParseScope",
	},
	{
		"an empty list drops everything", "sidecar/local/invalidate.go",
		"case len(keys) == 0:",
		"case false:",
		"TestParseScope",
	},
	{
		"packed bytes become a row", "sidecar/local/write.go",
		"if r.contentCoding != \"\" && !strings.EqualFold(r.contentCoding, \"identity\") {",
		"if false {",
		"TestRawHTTPWrites",
	},
	{
		"a part becomes the whole", "sidecar/local/write.go",
		"if r.contentRange != \"\" {",
		"if false {",
		"TestRawHTTPWrites",
	},
	{
		"an absent row is deleted", "sidecar/local/write.go",
		"if c.Delete && c.If.Absent {",
		"if false {",
		"TestRawHTTPWrites",
	},
	{
		"the largest value fails over gRPC", "sidecar/local/grpc.go",
		"s.config.MaxBodyBytes+envelopeBytes",
		"s.config.MaxBodyBytes",
		"TestGRPCWrites",
	},
	{
		"an error is told at each retry of a watch", "sidecar/local/watch.go",
		"news := !k.failing",
		"news := true",
		"TestWatchTellsAnErrorOnceAndThenTheState",
	},
	{
		"a watch does not tell that a key is back", "sidecar/local/watch.go",
		"news = w.update(key, o) || k.failing",
		"news = w.update(key, o)",
		"TestWatchTellsAnErrorOnceAndThenTheState",
	},
	{
		"the token of a watch stays", "sidecar/local/watch.go",
		"w.sum.swap(k.state, now)",
		"",
		"TestWatchResumes",
	},
	{
		"a watch rereads without bound", "sidecar/local/watch.go",
		"wait := max(o.answer.Fresh, soonestReread)",
		"wait := o.answer.Fresh",
		"TestWatchReadsNoMoreOftenThanItsBound",
	},
	{
		"a watch of stale answers spins", "sidecar/local/watch.go",
		"case o.err != nil || o.answer.Stale:",
		"case o.err != nil:",
		"TestWatchOfStaleAnswersDoesNotSpin",
	},
	{
		"a watch never sees an untold change", "sidecar/local/watch.go",
		"err = w.refresh(ctx, to, w.dueKeys())",
		"",
		"TestWatchSeesAnUntoldChangeWithinTTL",
	},
	{
		"a hot key's watch takes a processor", "sidecar/local/watch.go",
		"err = pause(ctx, breath)",
		"err = ctx.Err()",
		"TestWatchOfAHotKeyTakesBreath",
	},
	{
		"watches without bound", "sidecar/local/watch.go",
		"n >= int64(s.config.MaxWatches) {",
		"n < 0 {",
		"TestWatchesAreBounded",
	},
	{
		"a slow client holds its watch (gRPC)", "sidecar/local/grpcwatch.go",
		"time.AfterFunc(w.service.server.config.WriteTimeout, w.slow)",
		"time.AfterFunc(time.Hour, w.slow)",
		"TestSlowClientsAreCutOff",
	},
	{
		"a watch outlives its client", "sidecar/local/sse.go",
		"defer closed()",
		"",
		"TestWatchOverHTTP",
	},
	{
		"a panic in a watch ends the process", "sidecar/local/sse.go",
		"if p := recover(); p != nil {",
		"if p := any(nil); p != nil {",
		"TestPanicInAWatchEndsThatWatchAlone",
	},
	{
		"a load replaces what was read while it was under way", "sidecar/cache/find.go",
		"if ok && !(need{held.floor()}).met(e, e.began) {",
		"if false {",
		"TestLoadDoesNotReplaceWhatWasReadWhileItWasUnderWay",
	},
	{
		"the same, when what was read had to make room", "sidecar/cache/floor.go",
		"&& need{f}.met(e, e.began)",
		"",
		"TestLoadDoesNotReplaceWhatWasReadWhileItWasUnderWay",
	},
	{
		"a write replaces what was read while it was under way", "sidecar/cache/write.go",
		"alone = alone && (held.began <= e.began || held.version != 0 && e.version != 0)",
		"",
		"TestWriteDoesNotReplaceWhatWasReadWhileItWasUnderWay",
	},
	{
		"the tag of one of two values loaded at once is a floor", "sidecar/cache/floor.go",
		"(same || max(other.asOf, other.gone) <= f.since)",
		"(same || max(other.asOf, other.gone) <= f.asOf)",
		"TestTagOfWhatWasLoadedAtTheSameTimeIsNoFloor",
	},
	{
		"a row that was gone comes back after a sweep", "sidecar/cache/find.go",
		"if e.absent && (ok && !held.absent || d.floors.seenBefore(key, d.now())) {",
		"if false {",
		"TestRowThatWasGoneDoesNotComeBackAfterASweep",
	},
	{
		"a row that was gone comes back after a prefix was dropped", "sidecar/cache/floor.go",
		"now < fs.allUntil || fs.seen.of(key) != floor{}",
		"fs.seen.of(key) != floor{}",
		"TestRowThatWasGoneDoesNotComeBackAfterAPrefixWasDropped",
	},
	{
		"a row that was seen to be gone, by a load that is not kept, is stored by one on its way", "sidecar/cache/find.go",
		"d.fences.of(key).Add(1)",
		"",
		"TestRowThatWasSeenToBeGoneByALoadThatIsNotKeptDoesNotComeBack",
	},
	{
		"a row comes back to who deleted it, where nothing was held of it before", "sidecar/cache/find.go",
		"top.gone = max(top.gone, f.gone)",
		"",
		"TestAbsentCopyDoesNotHideThatTheRowWasDeletedLater",
	},
	{
		"who asks for keys that never were makes others be forgotten", "sidecar/cache/find.go",
		"if e.absent && (ok && !held.absent || d.floors.seenBefore(key, d.now())) {",
		"if e.absent {",
		"TestKeysThatNeverWereHaveNoFloors",
	},
	{
		"what was deleted is read by who deleted it", "sidecar/cache/write.go",
		"if e.floor().admits(held, held.began) {",
		"if e.version == 0 || e.floor().admits(held, held.began) {",
		"TestDeletionOfNothingDropsWhatIsHeld",
	},
	{
		"floors are forgotten before what was loaded under a longer ttl", "sidecar/cache/dataset.go",
		"d.staleLife.Store(max(d.staleLife.Load(), int64(stale)))",
		"d.staleLife.Store(int64(stale))",
		"TestFloorsOutliveALowerTTL",
	},
	{
		"two members wait for each other's writes of one id", "sidecar/cache/write.go",
		"return d.write(ctx, d.commits, c,",
		"return d.write(ctx, d.writes, c,",
		"TestWritesWithOneIDOnRingsThatDisagreeDoNotWaitForEachOther",
	},
	{
		"outcomes of writes are remembered without bound", "sidecar/cache/done.go",
		"|| d.bytes+size > d.maxBytes",
		"",
		"TestOutcomesThatAreRememberedAreBoundedInBytes",
	},
	{
		"a teller that falls behind forgets what is still to come", "sidecar/cache/tell.go",
		"return []due{{first, all}, {last, all}}",
		"return []due{{first, all}}",
		"TestTellerThatFallsBehindTellsOfWhatIsStillToCome",
	},
	{
		"an unknown write with a condition is told too early", "sidecar/cache/write.go",
		"d.doubt(c.Key, KindOf(err), d.commitTimeout())",
		"d.doubt(c.Key, KindOf(err), d.Policy().WriteTimeout)",
		"TestUnknownWriteWithAConditionIsToldOnceItMustHaveEnded",
	},
	{
		"each member's first read after an invalidation is a load", "sidecar/cache/find.go",
		"q.NoCache = r.need.anew != 0",
		"q.NoCache = n.anew != 0",
		"TestInvalidatedKeyIsNotLoadedForEachMember",
	},
	{
		"a reader who takes nothing stale is refused for a stale copy", "sidecar/cache/find.go",
		"ok && r.takes(held, d.needOf(key, r, d.now()), d.now()) {",
		"ok && held.usable(d.now()) && !q.NoCache {",
		"TestReaderWhoTakesNothingStaleIsServedWhenOwnerAndSuccessorAreAway",
	},
	{
		"a copy that was ended is explained as fresh", "sidecar/cache/explain.go",
		"fresh = min(fresh, 0)",
		"",
		"TestCopyThatWasEndedIsNotExplainedAsFresh",
	},
	{
		"a feed that stays live over a gap is never live again", "sidecar/peer/follow.go",
		"f.tellLive(nil) // changes were missed",
		"// ",
		"TestGapIsMissedBeforeWhatFollows",
	},
	{
		"a feed without its triggers seems live", "sidecar/internal/changes/checked.go",
		"if err := c.look(ctx); err != nil {\n\t\treturn err\n\t}\n\tfollowing",
		"following",
		"TestFeedThatNobodyWritesToBreaks",
	},
	{
		"a look that comes too late ends a feed that is well", "sidecar/internal/changes/checked.go",
		"errors.Is(err, origin.ErrUntold)", "err != nil || errors.Is(err, origin.ErrUntold)",
		"TestLookThatFailsLeavesTheFeedAlone",
	},
	{
		"a feed whose triggers are gone seems live", "sidecar/internal/changes/checked.go",
		"c.watch(following, stop)",
		"<-following.Done()",
		"TestFeedThatNobodyWritesToBreaks",
	},
	{
		"a write is made that its caller gave up long ago", "sidecar/cache/write.go",
		"if err := ctx.Err(); err != nil {",
		"if err := ctx.Err(); false {",
		"TestWriteThatComesTooLateIsNotMade",
	},
	{
		"a stale answer that comes late brings back what is gone", "sidecar/cache/find.go",
		"f = floor{anew: now + 1}",
		"",
		"TestStaleAnswerThatComesLateDoesNotBringBackWhatWasSeenToBeGone",
	},
	{
		"what was seen to be gone is admitted by the version it had", "sidecar/cache/floor.go",
		"case asOf < f.anew, asOf < f.gone && !e.absent:",
		"case asOf < f.anew:",
		"TestDeletionOfNothingIsNotUndoneByANewOwner",
	},
	{
		"a copy that is on its way when copies end is held", "sidecar/cache/invalidate.go",
		"d.copiesEnded.Add(1) // what is on its way, too",
		"",
		"TestCopyThatIsOnItsWayWhenCopiesEnd",
	},
	{
		"many keys of one owner are as many hops", "sidecar/cache/batch.go",
		"if t != nil && t.places < MaxBatchKeys {",
		"if false {",
		"TestKeysOfOneOwnerAreOneHop",
	},
	{
		"many keys of this member are as many queries", "sidecar/cache/batch.go",
		"if result, ok := place.ask(ctx, key); ok {",
		"if result, ok := (origin.Result{}), place == nil; ok {",
		"TestOwnKeysOfABatchAreLoadedAtOnce",
	},
	{
		"the loads of a member's batch are one by one", "sidecar/cache/batch.go",
		"if !q.NoCache && !q.MemoryOnly && d.wanting(q.Key, r) {",
		"if false {",
		"TestServedKeysOfABatchAreLoadedAtOnce",
	},
	{
		"a batch asks an origin that was just seen to fail", "sidecar/cache/batch.go",
		"return !held.usable(r.began) || held.retryAt.Load() == 0",
		"return true",
		"TestPrefetchLeavesAFailedRefreshAlone",
	},
	{
		"large values of a batch are fetched all at once", "sidecar/cache/batch.go",
		"make(chan struct{}, maxAlone)",
		"make(chan struct{}, 1000)",
		"TestWhatDoesNotFitIntoABatchIsFetchedAloneAndFewAtATime",
	},
	{
		"the answer to a batch outgrows what a member takes", "sidecar/peer/batch.go",
		"if bytes.Add(size)-size > maxBatchAnswerBytes {",
		"if bytes.Add(size) < 0 {",
		"TestBatchBeyondTheBoundOfAnAnswerIsAskedForAlone",
	},
	{
		"a member of an older release is taken for dead", "sidecar/peer/batch.go",
		"Alone: status.Code(err) == codes.Unimplemented",
		"Alone: false && codes.OK == codes.Unimplemented && status.Code(nil) == codes.OK",
		"TestMemberWithoutBatchesIsAskedForEachKeyAlone",
	},
	{
		"an older \"absent\" is asked for again and again", "sidecar/cache/floor.go",
		"f.tag != \"\" && f.tag == e.tag()",
		"f.tag != \"\" && f.tag == e.etag",
		"TestOlderAbsenceIsNoWorseThanTheOneThatWasSeen",
	},
	{
		"what is due now waits for what is due later", "sidecar/cache/tell.go",
		"case <-t.wake: // what is new may be due before",
		"",
		"TestWhatIsDueNowDoesNotWaitForWhatIsDueLater",
	},
	{
		"a feed that is back leaves no stale answer for the next outage", "sidecar/internal/changes/changes.go",
		"one.Dataset.EndAll()",
		"one.Dataset.Drop(everything(one.Dataset.Name()))",
		"TestFeedIsLiveWhileAnyMemberReadsIt",
	},
	{
		"what may have changed untold is given once more, as if it were revalidated", "sidecar/cache/read.go",
		"(!held.ended.Load() && now < held.swrUntil || r.limitStale)",
		"(now < held.swrUntil || r.limitStale)",
		"TestWhatMayHaveChangedUntoldIsLoadedAnew",
	},
	{
		"a load on its way through a gap in the feed is kept", "sidecar/cache/invalidate.go",
		"d.fences.raiseAll() // what is on its way, too",
		"",
		"TestLoadOnItsWayWhenAllEndsIsNotKept",
	},
	{
		"an idempotency id is remembered for hours, when few write", "sidecar/cache/done.go",
		"case d.young == nil || now >= d.turn+doneLife:",
		"case d.young == nil:",
		"TestOutcomeIsForgottenAfterItsTimeAlsoWhenNobodyWrites",
	},
	{
		"a write is told the failure of another one with its id", "sidecar/cache/write.go",
		"case (err == nil || f.digest != 0) && f.digest != digestOf(c):",
		"case err == nil && f.digest != digestOf(c):",
		"TestOtherWriteWithTheIDOfOneThatFailsIsToldSo",
	},
	{
		"floors of long keys take memory that nobody counts", "sidecar/cache/floor.go",
		"|| g.bytes >= g.max*floorKeyBytes",
		"",
		"TestFloorsOfLongKeysAreFewer",
	},
}

// F1: each guard is removed, one at a time, and its test must fail.
func TestPromiseF1EachGuardHasATestThatMissesIt(t *testing.T) {
	var red atomic.Int64
	t.Run("without", func(t *testing.T) { // it ends when all that is parallel in it has
		for _, g := range guards {
			t.Run(g.fault, func(t *testing.T) {
				t.Parallel()
				if err := g.notice(t.TempDir()); err != nil {
					t.Error(err)
					return
				}
				red.Add(1)
			})
		}
	})
	report(t, promise{
		number: "F1", n: len(guards), held: int(red.Load()) == len(guards),
		done:   "each guard removed, one at a time",
		figure: fmt.Sprintf("%d of %d tests went red", red.Load(), len(guards)),
	})
}

// notice runs the guard's test against a tree without the guard.
func (g guard) notice(dir string) error {
	overlay, err := g.overlay(dir)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-timeout=60s", "-run", g.pattern(),
		"./"+g.pkg())
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s: without %q the test %s passes:\n%s", g.file, g.line, g.test, out)
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "no tests to run"):
		return fmt.Errorf("%s: the tree without %q does not build or has no such test:\n%s", g.file, g.line, out)
	case !strings.Contains(string(out), "--- FAIL: ") && !strings.Contains(string(out), "panic: "):
		return fmt.Errorf("%s: without %q something else than a test failed:\n%s", g.file, g.line, out)
	}
	return nil
}

// pkg is the folder of the package that file belongs to: what it embeds lies in one of its own.
func (g guard) pkg() string {
	dir := filepath.Dir(g.file)
	if filepath.Ext(g.file) != ".go" {
		dir = filepath.Dir(dir)
	}
	return dir
}

// pattern is what go test runs: each of the guard's tests and, behind a slash, their subtests, by their whole names.
func (g guard) pattern() string {
	var whole []string
	for test := range strings.SplitSeq(g.test, "|") {
		whole = append(whole, "^"+strings.ReplaceAll(test, "/", "$/^")+"$")
	}
	return strings.Join(whole, "|")
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
