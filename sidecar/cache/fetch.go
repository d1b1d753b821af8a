package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/batch"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/internal/silence"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// maxFailoverLoads bounds the loads at once, per dataset, of keys whose owner and successor cannot be reached: the
	// database must not get a query from every pod.
	maxFailoverLoads = 4
	// handoverTimeout bounds the request to the previous owner. A load must not wait longer for a mere chance.
	handoverTimeout = 20 * time.Millisecond
	// peerGrace is what an owner gets beyond its load timeout to report that its load has failed.
	peerGrace = 250 * time.Millisecond
	// maxAlone bounds the requests at once, per batch, for values that did not fit into the answer to a batch: they are
	// large, and each needs twice its size.
	maxAlone = 4
)

// result is what a flight gives to those who wait for it.
type result struct {
	entry  *entries.Entry
	source kv.Source
	// asOf is a time at which the origin is known to have had the value, at the earliest.
	asOf int64
	// stale and detail are what the owner said of its answer.
	stale  bool
	detail string
	digest uint64 // of the write that had this outcome
	key    string // that an append has got
}

func (r result) answer(asked, now int64) kv.Answer {
	a := r.entry.Answer(now, r.source)
	a.Stale, a.Detail, a.Took = r.stale, r.detail, time.Duration(now-asked)
	if r.entry.Expired() { // or not stored
		a.Fresh = 0
	}
	return a
}

type call = flight.Call[result]

// fetcher brings the results of keys: from the origin for the keys that this member owns, from the owner for others. Loads
// and peer fetches have separate flights: with one map, two members whose rings disagree would wait for each other.
type fetcher struct {
	*core
	origin         origin.Origin
	loads, fetches *flight.Group[result]
	// through are fetches through a member that makes one more. Those wait for the fetches of other members, which wait for loads;
	// nothing waits for through. In one group, members whose rings disagree would wait for each other.
	through *flight.Group[result]
	// relays are fetches for other members. One that joined a fetch of this member's own might wait for itself: that may be on its
	// way through another member.
	relays *flight.Group[result]
	// failovers has room for one token per load that is made here because neither owner nor successor can be reached.
	failovers chan struct{}
	// silent has the members, and the origin, that readers with a stale answer do not wait for.
	silent silence.Set
	// failures has the keys whose latest load or peer fetch failed, for explanations.
	failures *failures
}

func newFetcher(shared *core, c Config) *fetcher {
	return &fetcher{
		core: shared, origin: c.Origin,
		loads: flight.New[result](c.Policy.MaxFlights, c.Calls), fetches: flight.New[result](c.Policy.MaxFlights, c.Calls),
		through:   flight.New[result](c.Policy.MaxFlights, c.Calls),
		relays:    flight.New[result](c.Policy.MaxFlights, c.Calls),
		failovers: make(chan struct{}, maxFailoverLoads), //guard:failover-loads-without-bound
		failures:  newFailures(),
	}
}

// forget detaches the flights of key: later readers start new ones.
func (f *fetcher) forget(key string) {
	f.loads.Forget(key)
	f.fetches.Forget(key)
	f.through.Forget(key)
	f.relays.Forget(key)
}

// job is a copy of a read for which a flight runs.
type job struct {
	read
	finish func(result, error)
	err    error // why the attempts so far had no answer
}

// start routes reads and gives each its flight. Reads that ask the same member first and start flights share one run.
func (f *fetcher) start(reads []*read) {
	var direct, throughZone, throughRelay, forOthers []*read // attempts of one run differ in the members only
	for _, r := range reads {
		r.route = f.route(r)
		switch {
		case r.relay:
			forOthers = append(forOthers, r)
		case r.route.Relay != nil:
			throughRelay = append(throughRelay, r)
		case r.route.Zone != nil:
			throughZone = append(throughZone, r)
		default:
			direct = append(direct, r)
		}
	}
	for _, list := range [][]*read{direct, throughZone, throughRelay, forOthers} {
		for _, same := range batch.ByPeer(list, (*read).first) {
			most := len(same)
			if same[0].owner() != nil {
				most = kv.MaxBatchKeys //guard:keys-of-one-owner-are-many-requests
			}
			for part := range slices.Chunk(same, most) {
				f.startRun(part)
			}
		}
	}
}

// route returns the route of r. Fetches from another zone, and of hot keys, go through another member, except where only the owner
// can answer.
func (f *fetcher) route(r *read) kv.Route {
	route := f.peers.Route(f.name, r.key)
	switch {
	case route.Owner == nil:
	case r.zone:
		route.InZone, route.Once = true, true //guard:zone-owner-forwards-twice
	case !r.served:
		route.Zone, route.InZone = f.peers.ZoneOwner(f.name, r.key)
		switch {
		case r.need.MinLoadTime != 0:
			route.Zone = nil
		case route.Zone == nil && !route.InZone && f.reported.Hot(r.key, f.now()):
			route.Relay = f.peers.Relay(f.name, r.key)
		}
	}
	return route
}

// startRun gives each of reads, which have the same owner, its flight.
func (f *fetcher) startRun(reads []*read) {
	flights, timeout, run := f.loads, f.Policy().LoadTimeout, f.load
	switch {
	case reads[0].owner() == nil:
	case reads[0].relay:
		flights, timeout, run = f.relays, timeout+peerGrace, f.fetchForOthers //guard:relay-waits-for-itself
	default:
		flights, timeout, run = f.fetches, 2*(timeout+peerGrace), f.fetchFirst // to ask the owner and then the successor
		if reads[0].route.Relay != nil || reads[0].route.Zone != nil {
			flights = f.through //guard:zone-owners-wait-for-each-other
		}
	}
	keys, jobs := make([]string, len(reads)), make([]job, len(reads))
	for i, r := range reads {
		keys[i], jobs[i].read = r.key, *r
		jobs[i].done = nil // a flight may outlive the batch of the read
	}
	span := f.flightSpan(reads[0].span, reads[0].owner() != nil, len(reads))
	for i, call := range flights.Start(span, keys, timeout, f.runner(span, jobs, run)) {
		joined(reads[i].span, span, call)
		if !reads[i].background {
			reads[i].call = call
		}
	}
}

// runner returns the function of a flight that runs those of jobs that it has started.
func (f *fetcher) runner(span *tracing.Span, jobs []job, run func(context.Context, []*job)) flight.Func[result] {
	return func(ctx context.Context, started []int, finish func(int, result, error)) {
		defer span.End()
		mine, began := make([]*job, len(started)), f.now()
		for i, n := range started {
			mine[i] = &jobs[n]
			mine[i].finish = func(res result, err error) {
				err = f.classify(err)
				f.learn(&jobs[n].read, began, err)
				if err != nil {
					f.failures.note(jobs[n].key, err, f.now())
				}
				fail(span, err)
				finish(n, res, err)
			}
		}
		run(span.Into(ctx), mine)
	}
}

// learn remembers what the end of a flight says of the party that it asked, and of the stale entry that was sent meanwhile.
func (f *fetcher) learn(r *read, began int64, err error) {
	now := f.now()
	soon, failed := now-began < int64(staleWait), err != nil && kv.KindOf(err).Excusable()
	switch {
	case failed && !soon:
		f.silent.Mark(r.party(), now)
	case !failed && soon:
		f.silent.Clear(r.party()) //guard:stale-answers-after-an-outage
	}
	if failed && r.background && r.stale != nil {
		r.stale.BackOff(now+int64(staleRetry), kv.StaleDetail(err)) //guard:failed-revalidation-is-repeated-by-each-reader
	}
}

// isSilent reports whether the party that r must ask did not answer in time of late.
func (f *fetcher) isSilent(r *read, now int64) bool {
	if !f.silent.Any() { // routes cost more
		return false
	}
	r.route = f.peers.Route(f.name, r.key)
	return f.silent.Has(r.party(), now)
}

// refreshEarly starts the load of an entry that is about to expire, if this member owns its key. If it does not, because it
// made a failover load or the key has moved, the entry expires: else every member that ever had a hot key would load it
// forever.
func (f *fetcher) refreshEarly(key string, e *entries.Entry) {
	if f.peers.Route(f.name, key).Owner != nil { //guard:former-owner-refreshes-forever
		return
	}
	need := entries.Bound{MinLoadTime: e.Began + 1}
	// With too many flights the entry stays in use, and a later read tries again.
	f.start([]*read{{key: key, need: need, bound: need, served: true, early: true, background: true}})
}

// loadNow returns what the origin has of key, by a load that begins after the call.
func (f *fetcher) loadNow(ctx context.Context, key string) (*entries.Entry, error) {
	need := entries.Bound{MinLoadTime: f.now()} //guard:etag-is-compared-with-an-outdated-entry
	for round := 1; ; round++ {
		r := &read{key: key, need: need, bound: need, served: true, span: tracing.From(ctx)}
		f.start([]*read{r})
		res, err := r.call.Wait(ctx)
		if err != nil || need.Allows(res.entry, res.asOf) || round == maxRounds {
			return res.entry, err
		}
	}
}

// load loads keys from the origin, except those that memory or the previous owner has.
func (f *fetcher) load(ctx context.Context, jobs []*job) {
	jobs = f.handOver(ctx, f.fromMemory(jobs))
	if len(jobs) == 0 {
		return
	}
	keys, tickets := make([]string, len(jobs)), make([]entries.Ticket, len(jobs))
	for i, j := range jobs {
		keys[i], tickets[i] = j.key, f.store.Begin(j.key, entries.Load)
	}
	f.query(ctx, keys, func(i int, loaded origin.Result, again bool) {
		if again {
			f.lateResult(keys[i], loaded)
			return
		}
		jobs[i].finish(f.loaded(tickets[i], loaded, jobs[i].reason()))
	})
}

// fromMemory finishes the jobs that memory answers, and returns the others: between a read's miss and its flight, another
// flight may have ended.
func (f *fetcher) fromMemory(jobs []*job) []*job {
	left := jobs[:0]
	for _, j := range jobs {
		if j.background {
			f.stats.Refreshes.Add(1)
		}
		e, ok := f.store.Peek(j.key)
		if !ok || !f.trusts(j.key, e, f.now()) || !j.bound.Allows(e, e.Began) || j.relay && e.Owner != j.party() { //guard:late-miss-loads-again
			left = append(left, j)
			continue
		}
		j.finish(result{entry: e, source: e.Source(), asOf: e.Began}, nil)
	}
	return left
}

// query asks the origin for keys, and passes on one result each, or more. Again says that the key has had one.
func (f *fetcher) query(ctx context.Context, keys []string, yield func(i int, r origin.Result, again bool)) {
	f.stats.LoadsBegun.Add(int64(len(keys)))
	began, answered := time.Now(), make([]bool, len(keys))
	each := func(i int, r origin.Result) {
		f.stats.CountLoaded(keys[i], r.Err)
		again := answered[i]
		answered[i] = true
		yield(i, r, again)
	}
	err := origin.LoadEach(ctx, f.origin, keys, each)
	took := time.Since(began)
	f.stats.LoadTime.Observe(took)
	tracing.From(ctx).Exemplify(&f.stats.LoadTime, took)
	for i := range keys {
		if err != nil && !answered[i] {
			each(i, origin.Result{Err: err})
		}
	}
}

func (f *fetcher) loaded(t entries.Ticket, loaded origin.Result, why entries.Reason) (result, error) {
	if !loaded.IsAnswer() { //guard:outage-is-cached-as-not-found
		return result{}, loaded.Err
	}
	p := f.Policy()
	winner, _ := t.Put(entries.FromLoad(p, loaded, t.Began, f.now(), why, f.settled.InGap(p)))
	return result{entry: winner, source: kv.SourceLoad, asOf: t.Began}, nil
}

// lateResult drops an entry whose row turned out to be one of several after its readers got it.
func (f *fetcher) lateResult(key string, r origin.Result) {
	if r.Err != nil { //guard:one-of-several-rows-stays-cached
		f.store.Invalidate(key, entries.Bound{MinLoadTime: f.now() + 1})
	}
}

func (r *read) reason() entries.Reason {
	switch {
	case r.route.Owner != nil:
		return entries.Failover
	case r.early:
		return entries.EarlyRefresh
	case r.need.MinLoadTime != 0:
		return entries.NoCache
	case r.stale != nil:
		return entries.Expired
	}
	return entries.Miss
}

// handOver asks the previous owners of keys that have just become this member's for what they have in memory, and returns
// the jobs that need a load.
func (f *fetcher) handOver(ctx context.Context, jobs []*job) []*job {
	var handed []*job
	left := jobs[:0]
	for _, j := range jobs {
		if j.route.Previous == nil || j.bound.MinLoadTime != 0 {
			left = append(left, j)
		} else {
			handed = append(handed, j)
		}
	}
	var batches [][]*job
	for _, all := range batch.ByPeer(handed, func(j *job) kv.Peer { return j.route.Previous }) {
		batches = slices.AppendSeq(batches, slices.Chunk(all, kv.MaxBatchKeys)) //guard:large-batch-has-no-handover
	}
	notHanded := make([][]*job, len(batches))
	flight.Concurrently(len(batches), len(batches), func(i int) { notHanded[i] = f.handOverFrom(ctx, batches[i]) })
	return append(left, slices.Concat(notHanded...)...)
}

// handOverFrom asks the previous owner of jobs, which is the same for all, and returns the jobs that need a load.
func (f *fetcher) handOverFrom(ctx context.Context, jobs []*job) (left []*job) {
	f.stats.HandoverRequests.Add(int64(len(jobs)))
	outcomes, tickets := f.ask(ctx, jobs[0].route.Previous, jobs, handoverTimeout, func(j *job) kv.Query {
		return kv.Query{Dataset: f.name, Key: j.key, MemoryOnly: true}
	})
	for i, j := range jobs {
		res, ok := f.handedOver(j.key, outcomes[i], tickets[i])
		if !ok || !j.bound.Allows(res.entry, res.asOf) {
			left = append(left, j)
			continue
		}
		j.finish(res, nil)
	}
	return left
}

// handedOver stores what the previous owner of key has, unless readers here know better.
func (f *fetcher) handedOver(key string, o kv.Outcome, t entries.Ticket) (res result, ok bool) {
	if o.Alone || o.Err != nil || o.Answer.Stale {
		return result{}, false
	}
	now := f.now()
	e := entries.FromHandover(f.Policy(), o.Answer, t.Began, now)
	if !e.Fresh(now) || !f.store.BoundOf(key).Allows(e, e.Began) { //guard:handover-restores-what-is-older
		return result{}, false
	}
	f.stats.Handovers.Add(1)
	winner, _ := t.Put(e)
	return result{entry: winner, source: kv.SourcePeerHit, asOf: e.Began}, true
}

// fetchFirst asks the owner of keys, which all have the same one.
func (f *fetcher) fetchFirst(ctx context.Context, jobs []*job) {
	for _, j := range jobs {
		j.bound = j.need.Merge(f.store.BoundOf(j.key))
	}
	f.fetch(ctx, f.fromMemory(jobs), 0)
}

// fetchForOthers asks the owner of hot keys, for which this member answers. It never loads: where it gets no answer, its caller
// asks the owner itself.
func (f *fetcher) fetchForOthers(ctx context.Context, jobs []*job) {
	if jobs = f.fromMemory(jobs); len(jobs) == 0 {
		return
	}
	for _, j := range f.fetchFrom(ctx, kv.Attempt{Peer: jobs[0].owner()}, jobs) {
		j.finish(result{}, &kv.Error{Kind: kv.KindNotCached, Err: fmt.Errorf( //guard:relay-reports-a-failed-origin
			"dataset %s: the owner of a hot key cannot be reached: %v", f.name, j.err)})
	}
}

// fetch makes attempt n for jobs, and the next one for those that had no answer.
func (f *fetcher) fetch(ctx context.Context, jobs []*job, n int) {
	batches := batch.ByPeer(jobs, func(j *job) kv.Peer { return j.route.Attempts()[n].Peer })
	flight.Concurrently(len(batches), len(batches), func(i int) {
		a := batches[i][0].route.Attempts()[n]
		if a.Peer == nil {
			f.failOver(ctx, batches[i], a)
			return
		}
		f.fetch(ctx, f.fetchFrom(ctx, a, batches[i]), n+1)
	})
}

// fetchFrom asks another member, and returns the jobs that it did not answer.
func (f *fetcher) fetchFrom(ctx context.Context, a kv.Attempt, jobs []*job) (unanswered []*job) {
	f.stats.PeerFetches.Add(int64(len(jobs)))
	if a.Failover {
		f.stats.Successor.Add(int64(len(jobs)))
	}
	began := time.Now()
	outcomes, tickets := f.ask(ctx, a.Peer, jobs, f.Policy().LoadTimeout+peerGrace, func(j *job) kv.Query {
		return f.queryFor(j, a)
	})
	took := time.Since(began)
	f.stats.PeerFetchTime.Observe(took)
	tracing.From(ctx).Exemplify(&f.stats.PeerFetchTime, took)
	var alone []*job
	for i, j := range jobs {
		switch o := outcomes[i]; {
		case o.Alone:
			alone = append(alone, j)
		case errors.Is(o.Err, kv.ErrUnreachable), (a.Relay || a.Zone) && o.Err != nil && kv.KindOf(o.Err) == kv.KindNotCached: //guard:origin-failure-at-the-owner-leads-to-the-successor
			f.stats.PeerFetchErrors.Add(1)
			f.stats.LastPeerFetchError.Store(&o.Err)
			j.err = o.Err
			unanswered = append(unanswered, j)
		default:
			j.finish(f.copied(j, a, tickets[i], o))
		}
		outcomes[i] = kv.Outcome{} // the values must not stay until those that are fetched alone have arrived
	}
	var mu sync.Mutex                                       // guards unanswered
	flight.Concurrently(len(alone), maxAlone, func(i int) { //guard:large-values-of-a-batch-are-fetched-all-at-once
		left := f.fetchFrom(ctx, a, alone[i:i+1])
		mu.Lock()
		defer mu.Unlock()
		unanswered = append(unanswered, left...)
	})
	return unanswered
}

// queryFor asks another member for nothing that the bound of the read does not allow.
func (f *fetcher) queryFor(j *job, a kv.Attempt) kv.Query {
	q := kv.Query{Dataset: f.name, Key: j.key, Failover: a.Failover, Relay: a.Relay, Zone: a.Zone}
	if !a.Relay && !a.Zone && !a.Failover {
		q.Relayed = f.reported.TakeRelayed(j.key, f.now())
	}
	//guard:invalidated-key-is-loaded-for-each-member
	q.NoCache = j.need.MinLoadTime != 0 // after an invalidation its age decides: the owner may have loaded it since
	q.MinVersion, q.MaxAge, q.Tag = j.bound.ForQuery(f.now())
	return q
}

// ask sends one request for all jobs, and returns what came of each, with the ticket to store it.
func (f *fetcher) ask(
	ctx context.Context, peer kv.Peer, jobs []*job, timeout time.Duration, query func(*job) kv.Query,
) ([]kv.Outcome, []entries.Ticket) {
	queries, tickets := make([]kv.Query, len(jobs)), make([]entries.Ticket, len(jobs))
	for i, j := range jobs {
		queries[i], tickets[i] = query(j), f.store.Begin(j.key, entries.Copy)
	}
	span := f.requestSpan(ctx, "fetch from", peer)
	defer span.End()
	limited, cancel := context.WithTimeout(span.Into(ctx), timeout)
	defer cancel()
	outcomes := kv.FetchAll(limited, peer, queries)
	for i := range outcomes {
		outcomes[i].Err = noAnswer(ctx, outcomes[i].Err)
		fail(span, outcomes[i].Err)
	}
	return outcomes, tickets
}

// noAnswer makes a deadline that passed at the other member, or in the request to it, the lack of an answer while the
// flight still has time: a member that was frozen and resumes reports that its deadline has passed. The end of the flight
// is never that of its readers' own time.
func noAnswer(ctx context.Context, err error) error {
	switch k := kv.KindOf(err); {
	case k != kv.KindDeadline && k != kv.KindCanceled:
		return err
	case ctx.Err() != nil: //guard:end-of-a-flight-is-a-readers-deadline
		return ctx.Err()
	case k == kv.KindDeadline: //guard:deadline-of-a-frozen-member-is-an-answer
		return fmt.Errorf("%w: %w", kv.ErrUnreachable, err)
	}
	return err
}

// copied stores the copy of another member's answer.
func (f *fetcher) copied(j *job, a kv.Attempt, t entries.Ticket, o kv.Outcome) (result, error) {
	if o.Err != nil {
		return result{}, o.Err
	}
	owner := a.Peer.ID()
	switch { // whose invalidations concern the copy
	case a.Relay:
		owner = j.route.Owner.ID() //guard:relayed-copy-outlives-the-loss-of-its-owner
	case a.Zone:
		owner = o.Answer.Owner //guard:copy-of-another-zone-outlives-the-loss-of-its-owner
	}
	p := f.Policy()
	life := p.CopyTTL(o.Answer.HotRate > 0)
	if j.route.InZone {
		life = p.TTLOf(o.Answer.NotFound || o.Answer.DataError != 0) //guard:key-crosses-into-a-zone-once-per-local-ttl
	}
	e := entries.FromPeer(p, o.Answer, owner, life, t.Began, f.now())
	f.reported.Learn(j.key, o.Answer.HotRate, f.now())
	res := result{source: kv.SourcePeerHit, asOf: e.Began, stale: o.Answer.Stale, detail: o.Answer.Detail}
	if o.Answer.Source == kv.SourceLoad {
		res.source = kv.SourceLoad
	}
	if j.need.MinLoadTime != 0 {
		res.asOf = t.Began // the member promises that its load began after the request
	}
	res.entry, _ = t.Put(e)
	if res.entry.Fresh(f.now()) { // the entry here may be better than the member's
		res.stale, res.detail = false, ""
	}
	if a.Failover {
		res.detail = kv.DetailOwnerUnreachable
	}
	return res, nil
}

// failOver loads keys of another member here. Where the successor could not be reached either, every member may do so:
// readers with a stale answer get that, and the others wait for one of few slots.
func (f *fetcher) failOver(ctx context.Context, jobs []*job, a kv.Attempt) {
	if a.Last {
		jobs = slices.DeleteFunc(jobs, f.hasStale)
		if len(jobs) == 0 {
			return
		}
		if err := f.takeFailoverSlot(ctx, jobs[0].err); err != nil {
			for _, j := range jobs {
				j.finish(result{}, err)
			}
			return
		}
		defer func() { <-f.failovers }()
		f.stats.FailoverLoads.Add(int64(len(jobs)))
	}
	keys, loads := make([]string, len(jobs)), make([]job, len(jobs))
	for i, j := range jobs {
		keys[i], loads[i].read = j.key, j.read
		loads[i].route.Previous, loads[i].background = nil, false
	}
	mine := tracing.From(ctx)
	span := f.flightSpan(mine, false, len(jobs))
	calls := f.loads.Start(span, keys, f.Policy().LoadTimeout, f.runner(span, loads, f.load))
	for _, call := range calls {
		joined(mine, span, call)
	}
	flight.Each(calls, func(i int, res result, err error) {
		res.detail = kv.DetailOwnerUnreachable
		jobs[i].finish(res, err)
	}).Wait(ctx, nil)
}

// hasStale finishes a job whose read has a stale answer.
func (f *fetcher) hasStale(j *job) bool {
	held, ok := f.store.Peek(j.key)
	now := f.now()
	if !ok || !j.accepts(held, j.need.Merge(f.store.BoundOf(j.key)), now) { //guard:reader-that-takes-nothing-stale-is-refused
		return false
	}
	j.finish(result{}, f.unavailable(fmt.Errorf("owner and successor cannot be reached: %w", j.err)))
	return true
}

func (f *fetcher) takeFailoverSlot(ctx context.Context, cause error) error {
	turn, cancel := context.WithTimeout(ctx, f.Policy().LoadTimeout)
	defer cancel()
	select {
	case f.failovers <- struct{}{}:
		return nil
	case <-turn.Done():
		return &kv.Error{Kind: kv.KindOverloaded, RetryAfter: retryAfter, Err: fmt.Errorf(
			"dataset %s: owner and successor cannot be reached, and %d failover loads are running here: %w",
			f.name, maxFailoverLoads, cause)}
	}
}
