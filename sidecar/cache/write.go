package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
)

// Bounds of a Change.
const (
	// MaxValueBytes bounds a value that is written.
	MaxValueBytes = 1 << 20
	// MaxIDBytes bounds Change.ID.
	MaxIDBytes = 128
)

// Write makes a change for an application: through the member that owns the key. nil means committed; the answer is the
// row as it is now, and after it this member answers with nothing older. The write goes on when its caller gives up.
// Every error has a Kind.
func (d *Dataset) Write(ctx context.Context, c Change) (Answer, error) {
	began := d.now()
	//guard:write-memory-caller-reuses
	c.Dataset, c.Key, c.Value, c.ID = d.name, strings.Clone(c.Key), bytes.Clone(c.Value), strings.Clone(c.ID) // it may outlive the call
	c.If.ETag = strings.Clone(c.If.ETag)
	// Time for the owner, and when that cannot be asked for its successor.
	f, err := d.write(ctx, d.writes, c, 2*(d.commitTimeout()+hopGrace), d.send)
	d.countWrite(err)
	if err != nil {
		return Answer{}, err
	}
	return f.answer(began, d.now()), nil
}

// ServeWrite makes a change for another member, in this one, and tells those who follow this member.
func (d *Dataset) ServeWrite(ctx context.Context, c Change) (Answer, error) {
	d.stats.WritesServed.Add(1)
	//guard:write-made-caller-gave-up-long
	if err := ctx.Err(); err != nil { // this member was frozen: its caller has told everybody that nobody knows
		return Answer{}, d.unavailable(fmt.Errorf("the write came too late, and was not made: %w", err))
	}
	began := d.now()
	f, err := d.commitAlone(ctx, c)
	if err != nil {
		return Answer{}, err
	}
	return f.answer(began, d.now()), nil
}

// commitAlone makes a change here, once for all who ask for it with the same ID.
func (d *Dataset) commitAlone(ctx context.Context, c Change) (found, error) {
	return d.write(ctx, d.commits, c, d.commitTimeout(), d.commit) //guard:two-members-wait-each-others-writes
}

// commitTimeout is the time for the load that a condition may need, for the write, and for its error: while the origin
// says what came of it, it is known.
func (d *Dataset) commitTimeout() time.Duration {
	p := d.Policy()
	return p.LoadTimeout + p.WriteTimeout + hopGrace
}

// write makes a change in a flight: it must not be cut off in the middle because its caller leaves.
func (d *Dataset) write(ctx context.Context, flights *flight.Group[found], c Change, timeout time.Duration,
	do func(context.Context, Change) (found, error)) (found, error) {
	if err := d.checkChange(c); err != nil {
		return found{}, err
	}
	f, err := flights.Do(ctx, d.flightOf(c), timeout, func(ctx context.Context) (found, error) {
		f, err := do(ctx, c)
		if err != nil {
			f.digest = digestOf(c)
		}
		return f, d.classifyWrite(err)
	})
	var known *Error
	switch {
	//guard:id-answers-another-write guard:write-told-failure-another-one-id
	case (err == nil || f.digest != 0) && f.digest != digestOf(c): // the flight was that of another write
		return found{}, &Error{Kind: KindIDReused, Err: fmt.Errorf("dataset %s: %w", d.name, errOtherWrite)}
	case err == nil:
		return f, nil
	case errors.As(err, &known):
		return found{}, err
	case errors.Is(err, flight.ErrFull), errors.Is(err, flight.ErrClosed):
		return found{}, d.classify(err)
	case ctx.Err() == nil: // it was the flight that did not end in its time
		d.forget(c.Key, d.commitTimeout())
	}
	return found{}, d.unknown(err)
}

func (d *Dataset) checkChange(c Change) error {
	switch {
	case d.writer == nil:
		return &Error{Kind: KindReadOnly, Err: fmt.Errorf("dataset %s: %w", d.name, errReadOnly)}
	case len(c.Value) > MaxValueBytes:
		return d.invalidValue(fmt.Errorf("the value has %d bytes; at most %d are allowed", len(c.Value), MaxValueBytes))
	case len(c.ID) > MaxIDBytes:
		return d.invalidValue(fmt.Errorf("the idempotency id has %d bytes; at most %d are allowed", len(c.ID), MaxIDBytes))
	case c.Delete && (c.If.Absent || len(c.Value) > 0):
		return d.invalidValue(errors.New("a deletion has no value, and is not of a row that is absent"))
	case c.If.fields() > 1:
		return d.invalidValue(errors.New("a write has at most one condition"))
	}
	return CheckKey(c.Key)
}

var (
	errReadOnly   = errors.New("it takes no writes; see `writable` in the configuration")
	errOtherWrite = errors.New("the idempotency id was used for another write; each write needs its own")
)

func (d *Dataset) invalidValue(err error) error {
	return &Error{Kind: KindInvalidValue, Err: fmt.Errorf("dataset %s: %w", d.name, err)}
}

func (c Condition) fields() (n int) {
	for _, set := range []bool{c.Absent, c.Present, c.Version != 0, c.ETag != ""} {
		if set {
			n++
		}
	}
	return n
}

// flightOf is one for all writes with the same ID, and each one's own otherwise.
func (d *Dataset) flightOf(c Change) string {
	if c.ID == "" {
		return strconv.FormatInt(d.unnamed.Add(1), 10)
	}
	return c.ID + "\x00" + c.Key
}

// digestOf tells writes apart that have the same ID.
func digestOf(c Change) uint64 {
	if c.ID == "" {
		return 0
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %t %q %v", c.Key, c.Delete, c.Value, c.If))
	return binary.LittleEndian.Uint64(sum[:])
}

// send gives a change to the owner of its key; where the owner cannot be asked to the successor, and else makes it
// here: SQL is the only truth, and every member may change it.
func (d *Dataset) send(ctx context.Context, c Change) (found, error) {
	route := d.peers.Route(d.name, c.Key)
	for _, peer := range []Peer{route.Owner, route.Successor} {
		if peer == nil {
			break
		}
		f, err := d.sendTo(ctx, peer, c)
		if !errors.Is(err, ErrUnreachable) {
			return f, err
		}
		c.Failover = true
	}
	return d.commitAlone(ctx, c)
}

func (d *Dataset) sendTo(ctx context.Context, peer Peer, c Change) (found, error) {
	sent := d.now()
	a, err := peer.Write(ctx, c)
	switch {
	case errors.Is(err, ErrUnreachable):
		return found{}, err
	case err != nil:
		d.doubt(c.Key, KindOf(err), d.commitTimeout()) //guard:unknown-write-condition-told-too-early
		return found{}, err
	}
	e := d.copied(a, peer.ID(), sent)
	d.drop(c.Key, e.floor()) //guard:writer-reads-there-before-write
	d.see(c.Key, e.floor())
	return found{entry: e, source: SourceLoad, asOf: e.began, digest: digestOf(c)}, nil
}

// doubt drops what a write that failed has shown to be outdated, or may make so within the given time.
func (d *Dataset) doubt(key string, k Kind, running time.Duration) {
	switch k {
	case KindConflict:
		d.drop(key, floor{anew: d.now() + 1}) //guard:after-conflict-same-entry-read-again
	case KindUnknown:
		d.forget(key, running)
	}
}

// forget drops key everywhere: now, and once more when a write of which nobody knows can no longer be running.
func (d *Dataset) forget(key string, running time.Duration) {
	i := Invalidation{Dataset: d.name, Key: key}
	d.ApplyInvalidation(i)
	d.peers.Publish(i)
	d.teller.tell(i, 0)
	d.teller.tell(i, running) //guard:write-ends-late-told
}

// commit makes a change in the origin, and makes its result what is held of the key.
func (d *Dataset) commit(ctx context.Context, c Change) (found, error) {
	if f, ok := d.done.find(c, d.now()); ok {
		return f, nil
	}
	change, err := d.resolve(ctx, c)
	if err != nil {
		return found{}, err
	}
	fence := d.fences.of(c.Key)
	mark, began := fence.Load(), d.now()
	value, err := d.change(ctx, change)
	if err != nil {
		d.doubt(c.Key, KindOf(d.classifyWrite(err)), d.Policy().WriteTimeout)
		return found{}, err
	}
	e := d.written(c, value, began)
	d.supersede(c.Key, e, mark)
	d.announce(c, e)
	f := found{entry: e, source: SourceLoad, asOf: began, digest: digestOf(c)}
	d.done.remember(c, f, d.now()) //guard:write-sent-again-happens-again
	return f, nil
}

func (d *Dataset) change(ctx context.Context, c origin.Change) (origin.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Policy().WriteTimeout) //guard:origin-no-time-say-nothing-written
	defer cancel()
	began := time.Now()
	value, err := d.writer.Write(ctx, c)
	d.stats.WriteTime.Observe(time.Since(began))
	return value, err
}

// resolve makes of a condition on the ETag one on the version, which the origin can check.
func (d *Dataset) resolve(ctx context.Context, c Change) (origin.Change, error) {
	change := origin.Change{
		Key: c.Key, Delete: c.Delete, Data: c.Value,
		If: origin.Condition{Absent: c.If.Absent, Present: c.If.Present, Version: c.If.Version},
	}
	if c.If.ETag == "" {
		return change, nil
	}
	n := need{floor{anew: d.now()}} //guard:etag-compared-entry-outdated
	f, err := d.find(ctx, c.Key, read{served: true, need: n}, n)
	switch {
	case err != nil:
		return change, d.classify(err) // nothing was written
	case f.entry.etag != c.If.ETag:
		return change, origin.ErrConflict
	case f.entry.version == 0:
		return change, d.invalidValue(errors.New("a condition on the ETag needs a version column, which the dataset has not"))
	}
	change.If.Version = f.entry.version
	return change, nil
}

// written makes the entry of a write. Its times count from before the write, as those of a load do.
func (d *Dataset) written(c Change, value origin.Value, began int64) *entry {
	why := reasonWrite
	if c.Failover {
		why = reasonGutter
	}
	return d.loaded(value, c.Delete, began, why)
}

// supersede makes e what is held of key, whose fence stood at mark when the write began. Where something else has
// happened to the key since, a load without a version too, nobody knows whether e is the latest, and nothing is held.
func (d *Dataset) supersede(key string, e *entry, mark uint64) {
	d.see(key, e.floor())
	fence := d.fences.of(key)
	raised := fence.Add(1)
	alone := raised == mark+1 //guard:two-writes-once-earlier-one-kept
	d.store.RemoveKeyIf(key, func(held *entry) bool {
		alone = alone && (held.began <= e.began || held.version != 0 && e.version != 0) //guard:write-replaces-read-while-under-way
		if e.floor().admits(held, held.began) {                                         //guard:deleted-read-deleted
			return false
		}
		d.evicted(key, held)
		return true
	})
	d.loads.Forget(key)
	d.hops.Forget(key)
	if alone {
		d.keep(key, e, func() bool { return fence.Load() == raised })
	}
	d.watches.note(key)
}

// announce tells those who may hold something older. Who follows a member expects of it what it owns: what it does in
// another's stead it tells everybody.
func (d *Dataset) announce(c Change, e *entry) {
	i := Invalidation{Dataset: d.name, Key: c.Key, Version: e.version, Age: time.Duration(d.now() - e.seen)}
	d.peers.Publish(i)
	if c.Failover || d.peers.Route(d.name, c.Key).Owner != nil { //guard:nobody-told-write-owners-stead
		d.teller.tell(i, 0)
	}
}

// classifyWrite gives an error of the writer its kind. Errors that have one keep it.
func (d *Dataset) classifyWrite(err error) error {
	var known *Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, origin.ErrUnknown):
		return d.unknown(err)
	case errors.Is(err, origin.ErrConflict):
		return &Error{Kind: KindConflict, Err: fmt.Errorf("dataset %s: %w", d.name, err)}
	case errors.Is(err, origin.ErrInvalidValue):
		return d.invalidValue(err)
	case errors.Is(err, context.DeadlineExceeded):
		return d.unavailable(fmt.Errorf("nothing was written within %v: %w", d.Policy().WriteTimeout, err))
	}
	return d.classify(err)
}

func (d *Dataset) unknown(err error) error {
	return &Error{Kind: KindUnknown, RetryAfter: retryAfter, Err: fmt.Errorf(
		"dataset %s: the write may or may not have happened: %w", d.name, err)}
}

func (d *Dataset) countWrite(err error) {
	if err == nil {
		d.stats.Written.Add(1)
		return
	}
	switch KindOf(err) {
	case KindConflict:
		d.stats.Conflicts.Add(1)
	case KindUnknown:
		d.stats.WritesUnknown.Add(1)
	case KindInvalidKey, KindInvalidValue, KindIDReused, KindReadOnly: // the caller's fault
		d.stats.WritesRefused.Add(1)
	default:
		d.stats.WriteErrors.Add(1)
	}
}
