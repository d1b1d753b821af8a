package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/history"
	"github.com/ringside-cache/ringside/e2e/rig"
)

// longLived is a policy under which no entry expires during a test, so that only invalidations change cached values.
var longLived = times{ttl: time.Minute, localTTL: time.Minute, loadTimeout: 2 * time.Second, staleIfError: time.Minute}

// slowReads is a view of the table versioned. A read of a row takes 20 ms; a write takes as long as a write of the table.
var (
	slow      = table{"slow", true}
	slowReads = []string{
		`CREATE FUNCTION pause() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN
			IF current_query() LIKE 'SELECT%' THEN PERFORM pg_sleep(0.02); END IF;
			RETURN '';
		END $$`,
		`CREATE VIEW slow AS SELECT v.*, pause() AS lag FROM versioned v`,
	}
)

// C1: a load that begins before a write and ends after it is not stored.
func TestPromiseNoLoadIsStoredAfterAWrite(t *testing.T) {
	p := longLived
	p.schema = slowReads
	p.origin = ", batch: {max_keys: 1}, max_in_flight: 8"
	p.datasets = "  slow: {origin: db, table: slow, key: id, version: ver, writable: true, ttl: 1m, local_ttl: 1m}\n"
	w := newTraffic(t, engines[0], 5, 0, p)
	var races, stored, late atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(time.Duration(sampleOf(20)) * time.Second)
	for i := range 32 {
		a, b := w.actor(uint64(i)), w.actor(uint64(i))
		all.Go(func() {
			key := "race-" + fmt.Sprint(i)
			a.put(0, slow, key, history.Condition{})
			for time.Now().Before(end) {
				a.race(b, key, &races, &stored, &late)
			}
		})
	}
	all.Wait()
	w.cut()
	report(t, promise{
		number: "C1", n: int(races.Load()), held: stored.Load() == 0 && races.Load() > 0 && w.checker.Violations() == 0,
		done: "a load begins before a write through another sidecar, and ends after it with the old value",
		figure: fmt.Sprintf("stored after the write in %d of %d races (in %d a copy was invalidated late) %v",
			stored.Load(), races.Load(), late.Load(), w.checker.First),
	})
}

// race starts a load of key, writes the key during the load, and reads it through all sidecars afterwards.
func (a *actor) race(b *actor, key string, races, stored, late *atomic.Int64) {
	reader, writer := a.rng.IntN(5), a.rng.IntN(5)
	loaded := make(chan history.Op, 1)
	go func() { loaded <- b.get(reader, slow, key, true, 0) }()
	time.Sleep(time.Duration(2+a.rng.IntN(14)) * time.Millisecond)
	put := a.put(writer, slow, key, history.Condition{})
	load := <-loaded
	if put.Outcome != history.OK || load.Outcome != history.OK || load.Seq == put.Seq {
		return // the write came before the load, or one of them failed
	}
	races.Add(1)
	time.Sleep(20 * time.Millisecond) // the time in which the invalidation reaches every sidecar
	for i := range a.sidecars {
		if a.get(i, slow, key, false, 0).Seq == put.Seq {
			continue
		}
		late.Add(1)
		if a.await(i, slow, key, put.Seq) > a.recorder.Now() { // the stored value would stay for a ttl
			stored.Add(1)
		}
	}
}

// A3, with writes: each sidecar in turn stops and starts. During this time its clients use the other sidecars.
func TestPromiseA3RollingRestartWithWrites(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		w := newTraffic(t, e, 5, 60, patient)
		var home [5]atomic.Bool // :: whether clients use the sidecar
		for i := range home {
			home[i].Store(true)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var ops [5]sync.RWMutex // held for reading by clients of the sidecar
		for range 10 {
			a := w.actor(1)
			all.Go(func() {
				for ctx.Err() == nil {
					i := a.rng.IntN(5)
					ops[i].RLock()
					if home[i].Load() {
						a.readOrWrite(i)
					}
					ops[i].RUnlock()
				}
			})
		}
		time.Sleep(time.Second)
		for i, s := range w.sidecars {
			ops[i].Lock() // its clients stop before it does, like those in its pod
			home[i].Store(false)
			ops[i].Unlock()
			s.Stop()
			w.restart(i)
			home[i].Store(true)
			w.checkFor(time.Second)
		}
		rig.AwaitRing(t, w.sidecars)
		w.checkFor(time.Second)
		cancel()
		all.Wait()
		w.cut()
		failed, unknown := w.failed.Load(), w.unknown.Load()
		report(t, promise{
			number: "A3", n: w.checker.Reads + w.checker.Writes, held: failed+unknown == 0 && w.checker.Violations() == 0,
			done: e.name + ": SIGTERM and start of all 5 sidecars in turn, reads and writes through the others",
			figure: fmt.Sprintf("%d of %d reads and %d writes failed, %d writes of unknown outcome, %d broken promises %v %s",
				failed, w.checker.Reads, w.checker.Writes, unknown, w.checker.Violations(), w.checker.First, w.failure()),
		})
	})
}

// readOrWrite reads or writes a random key. These operations must succeed while members stop and start.
func (a *actor) readOrWrite(i int) {
	table, key := []table{versioned, unversioned}[a.rng.IntN(2)], a.key(a.rng.IntN(a.keys))
	switch chance := a.rng.IntN(10); {
	case chance < 6:
		a.get(i, table, key, false, 0)
	case chance < 9:
		a.put(i, table, key, history.Condition{})
	default:
		a.delete(i, table, key, history.Condition{})
	}
}

func (w *traffic) failure() string {
	if why := w.lastFailure.Load(); why != nil {
		return *why
	}
	return ""
}

// B2: the queries for a cold key while the ring changes. One herd after the other reads a cold key of the member that stops or
// starts, from before the change until all have the new ring.
func TestPromiseB2OneColdKeyWhileTheRingChanges(t *testing.T) {
	c := newCluster(t, 5)
	c.fill("cold-", 3000)
	last, others := c.sidecars[4], c.sidecars[:4]
	keys := c.keysOf(last, 3000)
	for _, change := range []struct {
		name string
		do   func()
		ring []*rig.Sidecar // after the change
	}{
		{"its owner dies", last.Kill, others},
		{"its new owner joins", last.Start, c.sidecars},
		{"its owner stops", last.Stop, others},
		{"its new owner joins again", last.Start, c.sidecars},
	} {
		h := c.startHerds(keys)
		h.await(t, 2)
		change.do()
		rig.AwaitRing(t, change.ring)
		h.await(t, 2)
		keys = h.stop()
		report(t, promise{
			number: "B2", n: h.herds, held: h.most <= 2 && h.failed == "",
			done:   described(fmt.Sprintf("herds of %d clients read one cold key each while %s", clients, change.name)),
			figure: fmt.Sprintf("at most %d queries per key %s", h.most, h.failed),
		})
	}
}

// keysOf returns those of the first n cold keys that a sidecar owns.
func (c *cluster) keysOf(s *rig.Sidecar, n int) (keys []string) {
	for i := range n {
		if key := fmt.Sprint("cold-", i); c.sidecars[0].Owner("slow-metrics", key) == s.ID {
			keys = append(keys, key)
		}
	}
	return keys
}

// herds reads one cold key after the other, each with a herd of clients of the first four sidecars.
type herds struct {
	done        atomic.Int64
	cancel      context.CancelFunc
	ended       chan struct{}
	left        []string // keys; these and the rest belong to the goroutine until ended is closed
	herds, most int
	failed      string // why a herd failed
}

func (c *cluster) startHerds(keys []string) *herds {
	ctx, cancel := context.WithCancel(c.t.Context())
	h := &herds{cancel: cancel, ended: make(chan struct{}), left: keys}
	few := *c
	few.sidecars = c.sidecars[:4]
	go func() {
		defer close(h.ended)
		for ctx.Err() == nil && len(h.left) > 0 {
			h.readNext(&few)
		}
	}()
	return h
}

func (h *herds) readNext(c *cluster) {
	before := c.queries("slow_metrics")
	if failures := c.herd(clients, "slow-metrics", h.left[0], http.StatusOK); len(failures) > 0 {
		h.failed = fmt.Sprintf("%d of %d reads failed, such as: %s", len(failures), clients, failures[0])
	}
	h.most = max(h.most, c.queries("slow_metrics")-before)
	h.left = h.left[1:]
	h.herds++
	h.done.Add(1)
}

// await waits for n more herds.
func (h *herds) await(t *testing.T, n int64) {
	until := h.done.Load() + n
	rig.Eventually(t, time.Minute, func() error {
		if got := h.done.Load(); got < until {
			return fmt.Errorf("%d herds; want %d", got, until)
		}
		return nil
	})
}

func (h *herds) stop() (left []string) {
	h.cancel()
	<-h.ended
	return h.left
}

// visibility measures the time from a write until all sidecars return its value. All of them have the previous value cached.
func (w *traffic) visibility(n int, table table,
	write func(a *actor, i int, key string) history.Op) (last []time.Duration) {
	readers := make([]*actor, len(w.sidecars))
	for i := range readers {
		readers[i] = w.actor(2)
	}
	for round := range n {
		key := w.key(round % 8)
		for i, a := range readers {
			a.get(i, table, key, false, 0)
		}
		op := write(readers[0], round%len(w.sidecars), key)
		if op.Outcome != history.OK {
			w.t.Fatalf("a write failed: %s", w.failure())
		}
		seen := make([]time.Duration, len(readers))
		var all sync.WaitGroup
		for i, a := range readers {
			all.Go(func() { seen[i] = a.await(i, table, key, op.Seq) })
		}
		all.Wait()
		last = append(last, max(0, slices.Max(seen)-op.End))
	}
	slices.Sort(last)
	return last
}

// visibleWithin is a generous bound on the time until an invalidation reaches a sidecar while nothing fails. It is a tenth of the
// ttl, so that the test does not measure expiry.
const visibleWithin = 6 * time.Second

// await polls sidecar i until it returns the value seq or a newer one, and returns the time of that.
func (a *actor) await(i int, table table, key string, seq uint64) time.Duration {
	for limit := time.Now().Add(visibleWithin); time.Now().Before(limit); {
		if op := a.get(i, table, key, false, 0); op.Outcome == history.OK && op.Seq >= seq {
			return op.End
		}
	}
	return a.recorder.Now() + time.Hour
}

func (w *traffic) reportVisibility(number, done string, last []time.Duration) {
	at := func(share int) time.Duration { return last[(len(last)-1)*share/100].Round(10 * time.Microsecond) }
	report(w.t.(*testing.T), promise{
		number: number, n: len(last), held: last[len(last)-1] < visibleWithin && w.checker.Violations() == 0,
		done:   w.engine.name + ": " + done + " → all 5 sidecars return the value",
		figure: fmt.Sprintf("p50 %v, p99 %v, longest %v %v", at(50), at(99), at(100), w.checker.First),
	})
}

// The time from the response to a write until all other sidecars return its value.
func TestPromiseWritesAreVisibleSoon(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, e engine) {
		w := newTraffic(t, e, 5, 8, longLived)
		for _, table := range []table{versioned, unversioned} {
			last := w.visibility(sampleOf(1000), table, func(a *actor, i int, key string) history.Op {
				return a.put(i, table, key, history.Condition{})
			})
			w.cut()
			w.reportVisibility("visible", "response to a PUT, "+table.name+" table", last)
		}
	})
}

// The time from a COMMIT with SQL until all sidecars return its value, with a change feed.
func TestPromiseFeedsMakeOtherWritesVisibleSoon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		engine engine
		feed   string
		n      int
	}{
		{engines[0], "{kind: notify}", 500},
		{engines[0], "{kind: logical}", 500},
		{engines[0], "{kind: poll, interval: 100ms}", 100},
		{engines[1], "{kind: poll, interval: 100ms}", 100},
		{engines[2], "{kind: poll, interval: 100ms}", 100},
	} {
		t.Run(c.engine.name+" "+c.feed, func(t *testing.T) {
			t.Parallel()
			p := longLived
			p.dataset = ", gap_ttl: 1s, feed: " + c.feed
			p.prepare = (*traffic).applyFeeds
			w := newTraffic(t, c.engine, 5, 8, p)
			a := w.actor(0)
			rig.Eventually(t, time.Minute, w.feedsLive)
			for _, table := range []table{versioned, unversioned} {
				a.putDirect(table, w.key(0))
				last := w.visibility(sampleOf(c.n), table, func(a *actor, _ int, key string) history.Op {
					return a.putDirect(table, key)
				})
				w.cut()
				w.reportVisibility("visible", "COMMIT, "+table.name+" table, feed "+c.feed, last)
			}
		})
	}
}

// applyFeeds installs the triggers of the change feeds.
func (w *traffic) applyFeeds(config string) {
	applyFeeds(w.t, config, versioned.name, unversioned.name)
}

// applyFeeds installs the triggers of datasets.
func applyFeeds(t testing.TB, config string, datasets ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ringside.yaml")
	if config = strings.ReplaceAll(config, "{{id}}", "sidecar-1"); !strings.Contains(config, "peer_tls:") {
		config += "\npeer_tls: {insecure: true}\n"
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dataset := range datasets {
		cmd := exec.Command(rig.Binary(t), "changes", "apply", "-c", file, dataset)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("changes apply: %v\n%s", err, out)
		}
	}
}

// feedsLive returns an error that names a sidecar whose change feed is not live.
func (w *traffic) feedsLive() error {
	for _, s := range w.sidecars {
		for _, table := range []table{versioned, unversioned} {
			if s.Metric("ringside_change_feed_gap", `dataset="`+table.name+`"`) != 0 {
				return fmt.Errorf("the change feed of %[2]s on %[1]s is not live", s.ID, table.name)
			}
		}
	}
	return nil
}

// C4, for a key that is first read long after the end of an outage: the outage must not make the response stale.
func TestRegressionFirstReadAfterAnOutageIsStale(t *testing.T) {
	t.Parallel()
	p := times{ttl: time.Second, localTTL: time.Second, loadTimeout: 500 * time.Millisecond, staleIfError: time.Minute}
	const keys = 16
	w := newTraffic(t, engines[0], 2, 2*keys, p) // which has rows of every second key
	a := w.actor(1)
	for n := range keys {
		rig.Eventually(t, time.Minute, func() error { // a first load may take longer than load_timeout, and leaves nothing to return
			if op := a.get(0, versioned, w.key(2*n), false, 0); op.Outcome != history.OK {
				return fmt.Errorf("not cached yet: %v", op)
			}
			return nil
		})
	}
	w.database.Stop()
	rig.Eventually(t, time.Minute, func() error {
		if !a.get(0, versioned, w.key(0), false, 0).Stale {
			return fmt.Errorf("no stale response yet")
		}
		return nil
	})
	w.database.Start()
	var want [keys]uint64
	for n := range keys {
		put := a.putDirect(versioned, w.key(2*n))
		for put.Outcome != history.OK { // the outage has broken the connections of the pool
			put = a.putDirect(versioned, w.key(2*n))
		}
		want[n] = put.Seq
	}
	time.Sleep(p.ttl + p.loadTimeout)
	for i := range w.sidecars { // the owner of a key reconnects, which may take longer than the time after which it returns a stale value
		for n := range 10 {
			a.get(i, versioned, fmt.Sprint("absent-", n), true, 0)
		}
	}
	var op history.Op
	for n := range keys { // a busy machine takes too long for some loads, not for all
		if op = a.get(0, versioned, w.key(2*n), false, 0); !op.Stale && op.Seq == want[n] {
			return
		}
	}
	t.Errorf("%v after the database was back, each of %d keys: such as %v", p.ttl+p.loadTimeout, keys, op)
}

// C2, for a member that owned a key before another one joined: after the death of that one in an outage, no read may return the
// value that the former owner has cached.
func TestRegressionFormerOwnerReturnsADeletedValue(t *testing.T) {
	t.Parallel()
	p := times{ttl: time.Second, localTTL: time.Second, loadTimeout: 500 * time.Millisecond, staleIfError: time.Minute}
	w := newTraffic(t, engines[0], 5, 120, p)
	a, writer, owner := w.actor(1), 0, 4
	var keys []string
	for n := range w.keys {
		if w.sidecars[0].Owner(versioned.name, w.key(n)) == w.sidecars[owner].ID {
			keys = append(keys, w.key(n))
		}
	}
	w.sidecars[owner].Stop()
	rig.AwaitRing(t, w.sidecars[:owner])
	for i, key := range keys { // one of these sidecars owns each key now
		a.put(1+i%3, versioned, key, history.Condition{})
	}
	w.restart(owner)
	rig.AwaitRing(t, w.sidecars)
	for _, key := range keys {
		a.delete(writer, versioned, key, history.Condition{})
	}
	for range 4 { // entries of before expire, and other writes replace the remembered read bounds
		time.Sleep(p.ttl + p.loadTimeout)
		for i := range 50 {
			a.put(writer, versioned, fmt.Sprint("other-", i), history.Condition{})
		}
	}
	w.database.Stop()
	w.sidecars[owner].Kill()
	for range 200 {
		a.batch(writer, versioned, keys)
		time.Sleep(10 * time.Millisecond)
	}
	w.cut()
	if w.checker.Violations() > 0 {
		t.Errorf("%d keys, %v: %v", len(keys), w.checker.Faults, w.checker.First)
	}
}

// A6, for datasets with a change feed: values that a gap in the feed has made uncertain are still served in the next outage.
func TestPromiseA6RepeatedDatabaseOutagesWithAFeed(t *testing.T) {
	t.Parallel()
	for i, feed := range []string{"{kind: notify}", "{kind: poll, interval: 100ms}", "{kind: poll, interval: 100ms}"} {
		t.Run(engines[i].name+" "+feed, func(t *testing.T) {
			t.Parallel()
			p := times{ttl: time.Second, localTTL: time.Second, loadTimeout: 500 * time.Millisecond, staleIfError: time.Minute}
			p.dataset, p.prepare = ", gap_ttl: 1s, feed: "+feed, (*traffic).applyFeeds
			w := newTraffic(t, engines[i], 3, 40, p)
			a := w.actor(1)
			rig.Eventually(t, time.Minute, w.feedsLive)
			rig.Eventually(t, time.Minute, func() error { // until all rows are cached, and the feed has reported their inserts
				before := w.failed.Load()
				time.Sleep(2 * time.Second)
				if a.readCached(); w.failed.Load() != before {
					return errors.New(w.failure())
				}
				return nil
			})
			failed, reads := w.failed.Load(), w.reads.Load()
			for range 3 {
				w.database.Stop()
				a.readCachedFor(3 * time.Second)
				w.database.Start()
				a.readCachedFor(2500 * time.Millisecond)
			}
			if w.stale.Load() == 0 {
				t.Error("invalid run: no stale response")
			}
			failed, reads = w.failed.Load()-failed, w.reads.Load()-reads
			report(t, promise{
				number: "A6", n: int(reads), held: reads > 0 && failed == 0,
				done:   fmt.Sprintf("%s, feed %s: the database stopped for 3 s and started for 2.5 s, three times", engines[i].name, feed),
				figure: fmt.Sprintf("%d of %d reads of cached keys failed %s", failed, reads, w.failure()),
			})
		})
	}
}

// readCached reads each existing row through each sidecar.
func (a *actor) readCached() {
	for i := range a.sidecars {
		for k := 0; k < a.keys; k += 2 {
			for _, table := range []table{versioned, unversioned} {
				a.get(i, table, a.key(k), false, 0)
			}
		}
	}
}

func (a *actor) readCachedFor(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		a.readCached()
	}
}
