package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/broadcast"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/internal/idempotency"
	"github.com/ringside-cache/ringside/sidecar/internal/newest"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Write makes a change for an application, through the member that owns the key. A nil error means committed: the answer is
// the row as it is now, and later reads of this member return nothing older. The write goes on if its caller gives up.
// Every error has a Kind.
func (d *Dataset) Write(ctx context.Context, c kv.Change) (kv.Answer, error) {
	began := d.now()
	//guard:written-memory-that-the-caller-reuses
	c.Dataset, c.Key, c.Value, c.ID = d.name, strings.Clone(c.Key), bytes.Clone(c.Value), strings.Clone(c.ID) // it may outlive the call
	c.If.ETag = strings.Clone(c.If.ETag)
	res, err := d.writer.route(ctx, c)
	d.stats.CountWrite(err)
	if err != nil {
		return kv.Answer{}, traced(ctx, err)
	}
	return res.answer(began, d.now()), nil
}

// ServeWrite makes a change for another member, in this one, and publishes the invalidation.
func (d *Dataset) ServeWrite(ctx context.Context, c kv.Change) (kv.Answer, error) {
	d.stats.WritesServed.Add(1)
	//guard:write-is-made-after-its-caller-gave-up
	if err := ctx.Err(); err != nil { // this member was frozen, and its caller has reported an unknown outcome
		return kv.Answer{}, d.lateWrite(err)
	}
	began := d.now()
	res, err := d.writer.commit(ctx, c)
	if err != nil {
		return kv.Answer{}, err
	}
	return res.answer(began, d.now()), nil
}

func (d *Dataset) lateWrite(err error) error {
	return d.unavailable(fmt.Errorf("the write arrived after its deadline and was not made: %w", err))
}

// writer makes changes: through the owner of the key, or here. The writes of applications, which may be sent to other
// members, and the commits made here have separate flights: with one map, two members whose rings disagree would wait for
// each other.
type writer struct {
	*invalidator
	origin          origin.Writer // nil: read-only
	writes, commits *flight.Group[result]
	unnamed         atomic.Int64 // writes without an ID
	outcomes        *idempotency.Cache[result]
	observations    *observations
	observed        *newest.Queue[attempted] // observations that wait to be written here
	// broadcaster sends invalidations that not only the subscribers of this member must receive.
	broadcaster *broadcast.Broadcaster[kv.Invalidation]
}

func newWriter(v *invalidator, outcomes *idempotency.Cache[result], seen *observations, c Config) *writer {
	w := &writer{
		invalidator: v, origin: c.Writer, outcomes: outcomes, observations: seen,
		writes: flight.New[result](c.Policy.MaxFlights, c.Calls), commits: flight.New[result](c.Policy.MaxFlights, c.Calls),
	}
	w.observed = newest.New(w.writeObserved, c.Calls, &w.stats.Superseded)
	w.broadcaster = broadcast.New(kv.Invalidation{Dataset: c.Name, Prefix: true}, w.applyEverywhere)
	return w
}

// route makes a change through the first of the attempts for its key that can be reached; in this member at last: SQL is
// the only truth, and every member may change it.
func (w *writer) route(ctx context.Context, c kv.Change) (result, error) {
	if err := w.check(c); err != nil {
		return result{}, err
	}
	timeout := 2 * (w.commitTimeout() + peerGrace) // for the owner and then the successor
	return w.fly(ctx, w.writes, c, timeout, func(ctx context.Context, c kv.Change) (res result, err error) {
		for _, a := range w.peers.Route(w.name, c.Key).Attempts() {
			c.Failover = a.Failover
			if a.Peer == nil {
				return w.commit(ctx, c)
			}
			if res, err = w.send(ctx, a.Peer, c); !errors.Is(err, kv.ErrUnreachable) {
				break
			}
		}
		return res, err
	})
}

// commit makes a change here, once for all concurrent writes with the same ID.
func (w *writer) commit(ctx context.Context, c kv.Change) (result, error) {
	if err := w.check(c); err != nil {
		return result{}, err
	}
	return w.fly(ctx, w.commits, c, w.commitTimeout(), w.apply) //guard:two-members-wait-for-each-others-writes
}

// commitTimeout is the time for the load that a condition may need, for the write, and for its error: as long as the origin
// reports the outcome, it is known.
func (w *writer) commitTimeout() time.Duration {
	p := w.Policy()
	return p.LoadTimeout + p.WriteTimeout + peerGrace
}

// fly makes a change in a flight: it must not be canceled halfway because its caller leaves.
func (w *writer) fly(ctx context.Context, flights *flight.Group[result], c kv.Change, timeout time.Duration,
	do func(context.Context, kv.Change) (result, error)) (result, error) {
	span := tracing.From(ctx)
	res, err := flights.Do(ctx, w.flightKey(c), int64(len(c.Value)), timeout, func(ctx context.Context) (result, error) {
		res, err := do(span.Into(ctx), c)
		if err != nil {
			res.digest = c.Digest()
		}
		return res, w.classifyWrite(err)
	})
	return w.outcome(ctx, c, res, err)
}

// outcome turns the result of the flight of a change into that of the change.
func (w *writer) outcome(ctx context.Context, c kv.Change, res result, err error) (result, error) {
	var known *kv.Error
	switch {
	//guard:id-of-another-write-is-accepted guard:write-gets-the-error-of-another-with-its-id
	case (err == nil || res.digest != 0) && res.digest != c.Digest(): // the flight was that of another write
		return result{}, &kv.Error{Kind: kv.KindIDReused, Err: fmt.Errorf(
			"dataset %s: the idempotency id was used for another write; each write needs its own", w.name)}
	case err == nil:
		return res, nil
	case errors.As(err, &known):
		return result{}, err
	case errors.Is(err, flight.ErrFull), errors.Is(err, flight.ErrClosed):
		return result{}, w.classify(err)
	case ctx.Err() == nil && c.Key != "": // the flight timed out, not the caller
		w.invalidateUncertain(c.Key, w.commitTimeout())
	}
	return result{}, w.unknown(err)
}

// check returns what is wrong with a change.
func (w *writer) check(c kv.Change) error {
	if err := w.checkValue(c); err != nil {
		return err
	}
	return kv.CheckKey(c.Key)
}

// checkValue is check for a change without a key.
func (w *writer) checkValue(c kv.Change) error {
	if w.origin == nil {
		return &kv.Error{Kind: kv.KindReadOnly, Err: fmt.Errorf(
			"dataset %s: read-only; set `writable` in the configuration to allow writes", w.name)}
	}
	if err := c.Check(); err != nil {
		return w.invalidValue(err)
	}
	return nil
}

func (w *writer) invalidValue(err error) error {
	return &kv.Error{Kind: kv.KindInvalidValue, Err: fmt.Errorf("dataset %s: %w", w.name, err)}
}

// flightKey is the same for all writes with the same ID, and unique otherwise.
func (w *writer) flightKey(c kv.Change) string {
	if c.ID == "" {
		return strconv.FormatInt(w.unnamed.Add(1), 10)
	}
	return c.ID + "\x00" + c.Key
}

// send has another member make a change.
func (w *writer) send(ctx context.Context, peer kv.Peer, c kv.Change) (result, error) {
	ticket := w.store.Begin(c.Key, entries.RemoteCommit)
	span := w.requestSpan(ctx, "write to", peer)
	a, err := peer.Write(span.Into(ctx), c)
	fail(span, err)
	span.End()
	switch {
	case errors.Is(err, kv.ErrUnreachable):
		return result{}, err
	case err != nil:
		w.failed(c.Key, kv.KindOf(err), w.commitTimeout()) //guard:uncertain-conditional-write-is-invalidated-too-early
		return result{}, err
	}
	e := entries.FromPeer(w.Policy(), a, peer.ID(), w.Policy().LocalTTL, ticket.Began, w.now())
	ticket.Put(e)
	w.fetcher.forget(c.Key)
	return result{entry: e, source: kv.SourceLoad, asOf: e.Began, digest: c.Digest()}, nil
}

// failed invalidates what a failed write has shown to be outdated, or may outdate within the given time.
func (w *writer) failed(key string, k kv.Kind, running time.Duration) {
	switch k {
	case kv.KindConflict:
		w.one(key, entries.Bound{MinLoadTime: w.now() + 1}) //guard:entry-survives-a-conflict
	case kv.KindUnknown:
		w.invalidateUncertain(key, running)
	}
}

// invalidateUncertain invalidates key on every member: now, and again when a write of unknown outcome can no longer be
// running.
func (w *writer) invalidateUncertain(key string, running time.Duration) {
	i := kv.Invalidation{Dataset: w.name, Key: key}
	w.invalidator.apply(i)
	w.peers.Publish(i)
	w.broadcaster.SendAfter(0, i)
	w.broadcaster.SendAfter(running, i) //guard:late-write-is-not-invalidated
}

// applyEverywhere invalidates again here what may have been loaded since, and on all other members. Members that cannot be
// reached have the ttl.
func (w *writer) applyEverywhere(ctx context.Context, list []kv.Invalidation) {
	for _, i := range list {
		w.invalidator.apply(i)
	}
	w.peers.Broadcast(ctx, list)
}

// apply makes a change in the origin, and makes its result what is cached of the key.
func (w *writer) apply(ctx context.Context, c kv.Change) (result, error) {
	if res, ok := w.outcomes.Get(c.ID, w.now()); ok {
		return res, nil
	}
	change, err := w.resolve(ctx, c)
	if err != nil {
		return result{}, err
	}
	ticket := w.store.Begin(c.Key, entries.Commit)
	value, err := w.change(ctx, change)
	return w.applied(c, ticket, value, err)
}

// applied makes what the origin has answered to a change what is cached of the key.
func (w *writer) applied(c kv.Change, ticket entries.Ticket, value origin.Value, err error) (result, error) {
	if err != nil {
		w.failed(c.Key, kv.KindOf(w.classifyWrite(err)), w.Policy().WriteTimeout)
		return result{}, err
	}
	e := w.written(c, value, ticket.Began)
	ticket.Put(e)
	w.fetcher.forget(c.Key)
	w.announce(c, e)
	res := result{entry: e, source: kv.SourceLoad, asOf: ticket.Began, digest: c.Digest()}
	w.outcomes.Put(c.ID, res, len(e.Value), w.now()) //guard:retried-write-is-made-again
	return res, nil
}

func (w *writer) change(ctx context.Context, c origin.Change) (origin.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, w.Policy().WriteTimeout) //guard:origin-has-no-time-to-report-that-nothing-was-written
	defer cancel()
	ctx, end := w.measure(ctx)
	value, err := w.origin.Write(ctx, c)
	end(err)
	return value, err
}

// measure returns the context of a statement that writes, and what to call at its end.
func (w *writer) measure(ctx context.Context) (context.Context, func(error)) {
	began, span := time.Now(), tracing.From(ctx)
	if span != nil {
		span = span.Child(tracing.Client, "write "+w.name)
		span.Set(tracing.Dataset, w.name)
	}
	return span.Into(ctx), func(err error) {
		took := time.Since(began)
		w.stats.WriteTime.Observe(took)
		span.Exemplify(&w.stats.WriteTime, took)
		fail(span, w.classifyWrite(err))
		span.End()
	}
}

// resolve turns a condition on the ETag into one on the version, which the origin can check.
func (w *writer) resolve(ctx context.Context, c kv.Change) (origin.Change, error) {
	change := origin.Change{
		Key: c.Key, Delete: c.Delete, Data: c.Value,
		If: origin.Condition{Absent: c.If.Absent, Present: c.If.Present, Version: c.If.Version},
	}
	if c.If.ETag == "" {
		return change, nil
	}
	e, err := w.fetcher.loadNow(ctx, c.Key)
	switch {
	case err != nil:
		return change, w.classify(err) // nothing was written
	case e.DataError != 0:
		return change, e.Answer(w.now(), e.Source()).Err(w.name)
	case e.ETag != c.If.ETag:
		return change, origin.ErrConflict
	case e.Version == 0:
		return change, w.invalidValue(errors.New("a condition on the ETag needs a version column, which the dataset does not have"))
	}
	change.If.Version = e.Version
	return change, nil
}

// written returns the entry of a write. Its times count from before the write, as those of a load do.
func (w *writer) written(c kv.Change, value origin.Value, began int64) *entries.Entry {
	why := entries.Write
	if c.Failover {
		why = entries.Failover
	}
	p := w.Policy()
	r := origin.Result{Value: value}
	if c.Delete {
		r.Err = origin.ErrNotFound
	}
	return entries.FromLoad(p, r, began, w.now(), why, w.settled.InGap(p))
}

// announce publishes a write to the members that may have something older. Subscribers of a member expect from it what it
// owns: a write of another member's key goes to everybody.
func (w *writer) announce(c kv.Change, e *entries.Entry) {
	i := kv.Invalidation{Dataset: w.name, Key: c.Key, Version: e.Version, Age: time.Duration(w.now() - e.Seen)}
	w.peers.Publish(i)
	if c.Failover || w.peers.Route(w.name, c.Key).Owner != nil { //guard:failover-write-reaches-subscribers-only
		w.broadcaster.SendAfter(0, i)
	}
}

// classifyWrite gives an error of the origin its kind. Errors that have one keep it.
func (w *writer) classifyWrite(err error) error {
	var known *kv.Error
	var cannot *origin.AppendError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, origin.ErrUnknown):
		return w.unknown(err)
	case errors.Is(err, origin.ErrConflict):
		return &kv.Error{Kind: kv.KindConflict, Err: fmt.Errorf("dataset %s: %w", w.name, err)}
	case errors.Is(err, origin.ErrInvalidValue):
		return w.invalidValue(err)
	case errors.As(err, &cannot):
		return &kv.Error{Kind: kv.KindNoAppend, Err: fmt.Errorf("dataset %s: %w", w.name, err)}
	case errors.Is(err, context.DeadlineExceeded):
		return w.unavailable(fmt.Errorf("nothing was written within %v: %w", w.Policy().WriteTimeout, err))
	}
	return w.classify(err)
}

func (w *writer) unknown(err error) error {
	return &kv.Error{Kind: kv.KindUnknown, RetryAfter: retryAfter, Err: fmt.Errorf(
		"dataset %s: the write may or may not have been made: %w", w.name, err)}
}
