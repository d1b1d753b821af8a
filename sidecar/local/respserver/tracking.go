package respserver

import (
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/resp"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

const (
	// maxTracked is how many keys a connection tracks. For a further one it invalidates another, as Redis does beyond
	// tracking-table-max-keys.
	maxTracked = 10_000
	// trackingBytes is what tracking takes from the budget, and keyBytes what each key takes beside itself: its places in the
	// maps of the connection and of the dataset.
	trackingBytes, keyBytes = 8 << 10, 400
	// minPause is the time between two rounds of invalidations: a key that is written all the time must not occupy a processor.
	minPause = 5 * time.Millisecond
)

// tracking is the keys that a client may have cached (CLIENT TRACKING). Ringside sends once that a key is invalid: when it
// may have changed, or when the time has passed for which its reply was fresh, so that a copy in the client is never older
// than one here. The mu of the connection guards the fields.
type tracking struct {
	conn    *conn
	optIn   bool // only commands after CLIENT CACHING YES are tracked
	optOut  bool // those after CLIENT CACHING NO are not
	caching bool // CLIENT CACHING was said for the next command

	datasets map[string]*tracked // by the names that the client uses
	keys     int
	memory   budget.Loan
	pending  []invalid     // to be sent after the reply of the command, never within it
	ready    chan struct{} // changes were noted, or an earlier time is due
	due      time.Time     // the first time at which a reply is not fresh any more; zero: never
	done     chan struct{}
}

// tracked is the tracked keys of a dataset, by the name that the client uses, and what the client knows of each.
type tracked struct {
	dataset api.Served
	watch   *watches.Watch
	keys    map[string]sent
}

// sent is a reply that the client may keep while it is fresh. The zero value is that of a key that is being read.
type sent struct {
	fresh time.Time // its end
	etag  string
}

// invalid is a key that the client has to drop, and the bytes that it has taken.
type invalid struct {
	name, key string
	bytes     int64
}

// setTracking handles CLIENT TRACKING ON [OPTIN | OPTOUT] [NOLOOP] and OFF.
func (c *conn) setTracking(a arguments) {
	t := &tracking{conn: c, datasets: map[string]*tracked{}, ready: make(chan struct{}, 1), done: make(chan struct{})}
	switch strings.ToUpper(short(a.View(2))) {
	case "OFF":
		c.untrack()
		c.simple("OK")
		return
	case "ON":
	default:
		c.err("syntax error: want ON or OFF")
		return
	}
	for i := 3; i < a.Len(); i++ {
		switch option := strings.ToUpper(short(a.View(i))); option {
		case "OPTIN":
			t.optIn = true
		case "OPTOUT":
			t.optOut = true
		case "NOLOOP": // the client's own writes invalidate, too: it reads once more
		case "BCAST", "PREFIX":
			c.err("BCAST is not supported: Ringside tracks the keys that a connection has read")
			return
		case "REDIRECT":
			c.err("REDIRECT is not supported: use RESP3 (HELLO 3), which has invalidations on the same connection")
			return
		default:
			c.err("syntax error: CLIENT TRACKING supports OPTIN, OPTOUT and NOLOOP")
			return
		}
	}
	switch {
	case c.version != resp.RESP3:
		c.err("tracking needs RESP3: send HELLO 3 first")
		return
	case t.optIn && t.optOut:
		c.err("OPTIN and OPTOUT exclude each other")
		return
	}
	c.untrack()
	if err := c.startTracking(t); err != nil {
		c.fail(c.server.backend.Error(err))
		return
	}
	c.simple("OK")
}

// startTracking takes what tracking needs: it counts as a watch.
func (c *conn) startTracking(t *tracking) error {
	if err := c.server.watches.Open(); err != nil {
		return err
	}
	t.memory = c.server.config.Budget.Loan(budget.Watches)
	if !t.memory.Grow(trackingBytes) {
		c.server.watches.Close()
		c.server.backend.Stats().WatchesRefused.Add(1)
		return kv.ErrNoMemory
	}
	c.tracking = t
	c.helper.Go(t.run)
	return nil
}

// untrack ends tracking, if it is on.
func (c *conn) untrack() {
	t := c.tracking
	if t == nil {
		return
	}
	c.tracking = nil
	for _, of := range t.datasets {
		of.watch.Close()
	}
	t.memory.Close()
	close(t.done)
	c.server.watches.Close()
}

// setCaching handles CLIENT CACHING YES and NO.
func (c *conn) setCaching(a arguments) {
	t, word := c.tracking, strings.ToUpper(short(a.View(2)))
	switch {
	case t == nil || !t.optIn && !t.optOut:
		c.err("CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
	case word == "YES" && t.optIn, word == "NO" && t.optOut:
		t.caching = true
		c.simple("OK")
	default:
		c.err("syntax error: CLIENT CACHING YES is for OPTIN, and NO for OPTOUT")
	}
}

func (c *conn) getRedirection() {
	if c.tracking == nil {
		c.integer(-1)
		return
	}
	c.integer(0)
}

// afterCommand ends what CLIENT CACHING has said, except for the commands of a transaction.
func (t *tracking) afterCommand(d *command) {
	if d.name != "client" && t.conn.transaction == nil {
		t.caching = false
	}
	t.tell()
}

// trackedRead is the read of one key that the client may cache.
type trackedRead struct {
	t         *tracking // nil: it is not tracked
	of        *tracked  // nil: it cannot be tracked
	name, key string
}

// beginTracking begins to note changes of a key before it is read.
func (c *conn) beginTracking(d api.Served, name, key string) trackedRead {
	t := c.tracking
	if t.caching != t.optIn && (t.optIn || t.optOut) {
		return trackedRead{}
	}
	r := trackedRead{t: t, name: strings.Clone(name), key: strings.Clone(key)}
	r.of = t.datasets[name]
	if r.of == nil {
		if c.limitTracking(d) != nil {
			return r
		}
		r.of = &tracked{dataset: d, watch: d.Watch(nil), keys: map[string]sent{}}
		r.of.watch.Notify(t.ready)
		t.datasets[r.name] = r.of
	}
	if _, known := r.of.keys[r.key]; !known && !t.add(r) {
		r.of = nil
	}
	return r
}

// limitTracking limits how often a client begins to watch a dataset, as for a watch.
func (c *conn) limitTracking(d api.Served) error {
	who, err := d.Gate.Authorize(c.caller, access.Read, c.authorization)
	if err == nil {
		err = d.Gate.Limit(&who, access.Watches, 1)
	}
	return err
}

func bytesOf(name, key string) int64 { return keyBytes + 2*int64(len(name)+len(key)) }

// add tracks a key, in the place of another one if there is no memory. It reports false if there is no other one, either.
func (t *tracking) add(r trackedRead) bool {
	bytes := bytesOf(r.name, r.key)
	for t.keys >= maxTracked || !t.memory.Grow(bytes) {
		if !t.evict() {
			return false
		}
	}
	t.keys++
	r.of.keys[r.key] = sent{}
	r.of.watch.Add(r.key) //guard:tracking-misses-a-change-during-the-read
	return true
}

// evict invalidates some key.
func (t *tracking) evict() bool {
	for name, of := range t.datasets {
		for key, held := range of.keys {
			if !held.fresh.IsZero() {
				t.invalidate(name, of, key)
				return true
			}
		}
	}
	return false
}

// end has the answer that was sent. The client may keep it for as long as it is fresh.
func (r trackedRead) end(answer kv.Answer, ok bool) {
	t := r.t
	switch {
	case t == nil:
	case r.of == nil:
		t.pending = append(t.pending, invalid{r.name, r.key, 0})
	case !ok || api.TimeLeft(&answer) == 0: //guard:client-keeps-a-stale-value
		t.invalidate(r.name, r.of, r.key)
	case !r.isTracked(): // another read of the same command has failed
		t.pending = append(t.pending, invalid{r.name, r.key, 0})
	default:
		fresh := time.Now().Add(answer.Fresh)
		r.of.keys[r.key] = sent{fresh, answer.ETag}
		if t.due.IsZero() || fresh.Before(t.due) {
			t.due = fresh
			t.wake()
		}
	}
}

func (r trackedRead) isTracked() bool {
	_, ok := r.of.keys[r.key]
	return ok
}

func (t *tracking) wake() {
	select {
	case t.ready <- struct{}{}:
	default: // it is awake already
	}
}

// invalidate forgets a key that the client has to drop.
func (t *tracking) invalidate(name string, of *tracked, key string) {
	if _, known := of.keys[key]; !known {
		return
	}
	delete(of.keys, key)
	of.watch.Drop(key)
	t.keys--
	t.pending = append(t.pending, invalid{name, key, bytesOf(name, key)})
}

// tell writes the messages that keys are invalid.
func (t *tracking) tell() {
	c := t.conn
	for _, k := range t.pending {
		c.reserve(maxInfo + len(k.name) + len(k.key))
		*c.out = resp.AppendBulk(resp.AppendPush(*c.out, 2), "invalidate")
		*c.out = resp.AppendBulkSize(resp.AppendArray(*c.out, 1), len(k.name)+1+len(k.key))
		*c.out = append(append(append(append(*c.out, k.name...), ':'), k.key...), "\r\n"...)
		c.server.backend.Stats().WatchEvents.Add(1)
		t.memory.Shrink(t.memory.Bytes() - k.bytes)
	}
	t.pending = nil
}

// run sends invalidations until tracking ends.
func (t *tracking) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(t.conn.invalidateChanged(t))
		select {
		case <-t.done:
			return
		case <-t.ready:
		case <-timer.C:
		}
		pause := time.NewTimer(minPause)
		select {
		case <-t.done:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// never is when nothing is due.
const never = time.Hour

// invalidateChanged invalidates the keys that may have changed, or are not fresh any more, and returns when to do that again. It
// holds the mu of the connection, so that an invalidation comes after the reply to the read that it concerns.
func (c *conn) invalidateChanged(t *tracking) (again time.Duration) {
	c.mu.lock()
	defer c.mu.unlock()
	if c.tracking != t {
		return never
	}
	now := time.Now()
	for name, of := range t.datasets {
		if of.watch.Ended() { //guard:tracking-of-a-removed-dataset-goes-on
			t.invalidateAll(name, of)
			continue
		}
		for _, key := range of.watch.Take() {
			if !of.unchanged(key) {
				t.invalidate(name, of, key)
			}
		}
	}
	if !t.due.IsZero() && !t.due.After(now) {
		t.invalidateDue(now)
	}
	t.tell()
	if c.flush() != nil {
		_ = c.net.Close() // its goroutine notices
	}
	if t.due.IsZero() {
		return never
	}
	return time.Until(t.due)
}

// unchanged reports whether the value of a key is the one that the client has: the load of that value is noted, too.
func (of *tracked) unchanged(key string) bool {
	held, known := of.keys[key]
	if !known || held.etag == "" {
		return false
	}
	now, ok := of.dataset.Cached(key, kv.ReadOptions{})
	return ok && now.ETag == held.etag
}

// invalidateDue invalidates the keys whose replies are not fresh any more, and finds the next time.
func (t *tracking) invalidateDue(now time.Time) {
	t.due = time.Time{}
	for name, of := range t.datasets {
		for key, held := range of.keys {
			switch {
			case held.fresh.IsZero():
			case !held.fresh.After(now):
				t.invalidate(name, of, key)
			case t.due.IsZero() || held.fresh.Before(t.due):
				t.due = held.fresh
			}
		}
	}
}

// invalidateAll is for a dataset that the configuration has replaced or removed.
func (t *tracking) invalidateAll(name string, of *tracked) {
	for key := range of.keys {
		t.invalidate(name, of, key)
	}
	of.watch.Close()
	delete(t.datasets, name)
}
