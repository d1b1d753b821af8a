package cache

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Append inserts a row whose key the database generates. A key that is not known has no owner, so that this member does it. A nil
// error means committed; later reads of this member return nothing older, "not found" included. It goes on if its caller gives
// up. Every error has a Kind. id is as in kv.Change, except that this member remembers it: the same id inserts no second row here,
// also if the outcome is unknown.
func (d *Dataset) Append(ctx context.Context, value []byte, id string) (kv.Appended, error) {
	began := d.now()
	c := kv.Change{Dataset: d.name, Value: bytes.Clone(value), ID: strings.Clone(id)} // it may outlive the call
	err := d.writer.checkValue(c)
	var res result
	if err == nil {
		res, err = d.writer.fly(ctx, d.writer.commits, c, d.Policy().WriteTimeout+peerGrace, d.writer.append)
	}
	d.stats.CountWrite(err)
	if err != nil {
		return kv.Appended{}, traced(ctx, err)
	}
	return kv.Appended{Key: res.key, Answer: res.answer(began, d.now())}, nil
}

var errUnknownBefore = errors.New("an append with this idempotency id has an unknown outcome; look for its row in the database")

// append inserts a row in the origin, and makes it what is known of its key.
func (w *writer) append(ctx context.Context, c kv.Change) (result, error) {
	if res, ok := w.outcomes.Get(c.ID, w.now()); ok {
		if res.entry == nil && res.digest == c.Digest() { // another write with the id gets KindIDReused
			return res, w.unknown(errUnknownBefore)
		}
		return res, nil
	}
	began := w.now()
	row, err := w.insert(ctx, c.Value)
	if err != nil {
		if kv.KindOf(w.classifyWrite(err)) == kv.KindUnknown {
			w.outcomes.Put(c.ID, result{digest: c.Digest()}, 0, w.now()) //guard:append-of-unknown-outcome-is-made-again
		}
		return result{}, err
	}
	e := w.written(c, row.Value, began)
	// An invalidation of the key may have come before it was known here, so that the row is not stored, as if another
	// member had written it. But nothing older is read any more.
	w.store.Begin(row.Key, entries.RemoteCommit).Put(e) //guard:appended-row-stays-not-found
	w.fetcher.forget(row.Key)
	w.warm.Changed(row.Key)
	w.announce(kv.Change{Key: row.Key}, e) //guard:owner-keeps-not-found-after-an-append
	res := result{key: row.Key, entry: e, source: kv.SourceLoad, asOf: e.Seen, digest: c.Digest()}
	w.outcomes.Put(c.ID, res, len(e.Value), w.now()) //guard:retried-append-is-made-again
	return res, nil
}

func (w *writer) insert(ctx context.Context, value []byte) (origin.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, w.Policy().WriteTimeout)
	defer cancel()
	ctx, end := w.measure(ctx)
	row, err := w.origin.Append(ctx, value)
	end(err)
	return row, err
}
