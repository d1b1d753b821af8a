package cache

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

var (
	seed = flag.Uint64("seed", 1, "seed of TestRandomHistories")
	runs = flag.Int("runs", 12, "runs of TestRandomHistories, of some 8000 reads each")
)

// TestRandomHistories runs members whose ring, links, publications and origin fail at random, with clients that read and
// write at random, and holds what each of them saw against what is promised.
func TestRandomHistories(t *testing.T) {
	reads := 0
	for run := range *runs {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, *seed*1000+uint64(run), run%2 == 0, run%6 > 3)
			w.restores = run%4 == 2
			defer func() {
				if t.Failed() {
					t.Logf("run %d of seed %d", run, *seed)
				}
			}()
			w.run(20 * time.Second)
			reads += w.check()
		})
	}
	t.Logf("%d reads in %d runs, seed %d: none was below what its sidecar had seen or written", reads, *runs, *seed)
}

// world is a cluster with its clients.
type world struct {
	t         *testing.T
	rand      *rand.Rand
	versioned bool
	restores  bool // versions become lower at times
	origin    *ordered
	cluster   *cluster
	zones     *rings // nil: none
	stop      chan struct{}
	clients   sync.WaitGroup

	mu       sync.Mutex // guards all below
	owner    int
	seen     []sight
	versions map[string]int64 // :: key → newest that was seen
}

// sight is one answer that a client got.
type sight struct {
	member     int
	key        string
	start, end time.Time
	// order is that of the write that was seen, or made; 0 is what was there at first. least is below it where no row was
	// seen: it is unknown which deletion that was.
	order, least   int
	write          bool
	stale, noCache bool
}

// ordered is an origin that knows the order of its writes.
type ordered struct {
	*origintest.Fake
	mu        sync.Mutex
	order     map[string]int    // :: value → when it was written
	at        []time.Time       // :: order → when
	last      map[string]int    // :: key → order of its latest write
	next      map[int]time.Time // :: order → when it was replaced
	gone      map[string][]int  // :: key → orders of its deletions
	backwards map[string][]step // :: key → writes that made its version lower
	lose      bool
}

// step is a write that made the version of its key lower.
type step struct {
	order int
	at    time.Time
}

func (o *ordered) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	select {
	case <-time.After(rand.N(4 * tick)):
	case <-ctx.Done():
		return origin.Value{}, ctx.Err()
	}
	o.mu.Lock()
	v, err := o.Fake.Write(ctx, c)
	switch {
	case err == nil && c.Delete:
		o.noteGoneLocked(c.Key)
	case err == nil:
		o.noteLocked(c.Key, string(c.Data))
	}
	lose := o.lose
	o.mu.Unlock()
	time.Sleep(rand.N(4 * tick)) // the way back
	if lose && err == nil {
		return origin.Value{}, origin.ErrUnknown
	}
	return v, err
}

func (o *ordered) set(key, value string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Set(key, value)
	o.noteLocked(key, value)
}

func (o *ordered) remove(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Delete(key)
	o.noteGoneLocked(key)
}

func (o *ordered) noteGoneLocked(key string) {
	o.gone[key] = append(o.gone[key], len(o.at))
	o.noteLocked(key, "")
}

// restore sets an older value with an older version, as the restoration of a backup does, or an INSERT after a DELETE.
func (o *ordered) restore(key, value string, version int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.SetVersion(key, value, version)
	o.backwards[key] = append(o.backwards[key], step{len(o.at), time.Now()})
	o.noteLocked(key, value)
}

// misled reports whether versions may mislead a reader between two times to order older of key: the version has become
// lower since, and entries from before that may live on. They may come in any order: what the reader had seen of them was
// forgotten once it saw the lower version.
func (o *ordered) misled(key string, older int, from, to time.Time, life time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.backwards[key], func(s step) bool {
		return older < s.order && !s.at.After(to) && from.Before(s.at.Add(life))
	})
}

// goneBetween returns the earliest and the latest deletion of key that a read may have seen.
func (o *ordered) goneBetween(key string, from, to time.Time) (least, order int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range slices.Backward(o.gone[key]) {
		if o.at[n].After(to) {
			continue
		}
		order = max(order, n)
		if replaced, ok := o.next[n]; ok && replaced.Before(from) {
			break
		}
		least = n
	}
	return least, order
}

func (o *ordered) noteLocked(key, value string) {
	n := len(o.at)
	o.at = append(o.at, time.Now())
	o.order[value] = n
	o.next[o.last[key]] = time.Now()
	o.last[key] = n
}

func (o *ordered) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	time.Sleep(rand.N(3 * tick))
	results, err := o.Fake.Load(ctx, keys)
	time.Sleep(rand.N(3 * tick))
	return results, err
}

func newWorld(t *testing.T, seed uint64, versioned, zoned bool) *world {
	rows := map[string]string{}
	o := &ordered{
		order: map[string]int{}, last: map[string]int{}, next: map[int]time.Time{}, gone: map[string][]int{},
		backwards: map[string][]step{}, at: []time.Time{time.Now()},
	}
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), versioned: versioned, origin: o, stop: make(chan struct{}),
		versions: map[string]int64{},
	}
	o.Fake = origintest.New(rows)
	if !versioned {
		o.Unversioned()
	}
	for _, key := range []string{"a", "b", "c"} {
		o.set(key, key+" at first")
	}
	p := testPolicy()
	p.TTL, p.LocalTTL, p.GapTTL = 3*time.Second, 300*time.Millisecond, time.Second
	p.StaleIfError, p.NegativeStaleIfError = 10*time.Second, 10*time.Second
	if zoned {
		w.zones = w.newZones(zonesOf(t, 6, o, p))
		w.cluster = w.zones.cluster
	} else {
		w.cluster = newCluster(t, 4, o, p)
		w.oneRing(seed%5 > 1)
	}
	w.cluster.lag = 5 * tick
	for _, d := range w.cluster.members {
		d.SetFeedLive(true)
	}
	return w
}

// oneRing has all members know the ring at once.
func (w *world) oneRing(hot bool) {
	w.cluster.order = func(int) (int, int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.owner, (w.owner + 1) % 4
	}
	if w.cluster.allHot = hot; hot { // readers ask a third member, which asks the owner
		w.cluster.relay = func(from int) int {
			if owner, _ := w.cluster.order(from); (from+2)%4 != owner {
				return (from + 2) % 4
			}
			return (from + 1) % 4
		}
	}
}

// rings are what members in zones think of who owns the keys. For a moment they differ.
type rings struct {
	*zones
	views     []ringView      // :: member
	streaming [][]atomic.Bool // :: subscriber, member → its invalidations arrive
}

type ringView struct {
	owner, previous int
	zoneOwners      int // bit z is the place of the zone owner in zone z
}

// newZones has two members in each of three zones.
func (w *world) newZones(z *zones) *rings {
	n := len(z.members)
	r := &rings{zones: z, views: make([]ringView, n), streaming: make([][]atomic.Bool, n)}
	view := func(from int) ringView {
		w.mu.Lock()
		defer w.mu.Unlock()
		return r.views[from]
	}
	z.owner = func(from int, _ string) int { return view(from).owner }
	z.successor = func(from int, _ string) int { return (view(from).owner + 1) % n }
	z.zoneOwner = func(from int, _ string) int { return from/2*2 + view(from).zoneOwners>>(from/2)&1 }
	z.previous = func(from int) int { return view(from).previous }
	for i := range n {
		r.streaming[i] = make([]atomic.Bool, n)
		for j := range n {
			r.streaming[i][j].Store(true)
		}
	}
	z.streams = func(from, to int) bool { return r.streaming[from][to].Load() }
	return r
}

// fault makes one that is possible with zones only.
func (r *rings) fault(w *world, random *rand.Rand) {
	n := len(r.members)
	from, to := random.IntN(n), random.IntN(n)
	switch random.IntN(4) {
	case 0: // the ring changes, and members learn it one after the other
		next := ringView{owner: random.IntN(n), zoneOwners: random.IntN(8)}
		for _, i := range random.Perm(n) {
			w.mu.Lock()
			next.previous = r.views[i].owner
			r.views[i] = next
			w.mu.Unlock()
			r.members[i].RingChanged()
			time.Sleep(time.Duration(random.IntN(30)) * tick)
		}
	case 1:
		if r.streaming[from][to].Swap(false) {
			r.members[from].ExpireFrom(fmt.Sprint("member-", to))
		}
	case 2:
		if !r.streaming[from][to].Swap(true) {
			r.members[from].ExpireFrom(fmt.Sprint("member-", to))
		}
	case 3:
		r.frozen[to].Store(true)
		time.Sleep(time.Duration(random.IntN(1000)) * tick)
		r.frozen[to].Store(false)
	}
}

func (w *world) run(d time.Duration) {
	for member := range w.cluster.members {
		for client := range 3 {
			r := rand.New(rand.NewPCG(w.rand.Uint64(), 0))
			w.clients.Go(func() { w.client(member, client, r) })
		}
	}
	r := rand.New(rand.NewPCG(w.rand.Uint64(), 1))
	w.clients.Go(func() { w.faults(r) })
	time.Sleep(d)
	close(w.stop)
	w.clients.Wait()
}

func (w *world) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

func (w *world) client(member, client int, r *rand.Rand) {
	d := w.cluster.members[member]
	for n := 0; !w.stopped(); n++ {
		key := string("abc"[r.IntN(3)])
		start := time.Now()
		switch {
		case r.IntN(10) > 0:
			w.read(d, member, key, start, r)
		case r.IntN(4) == 0:
			if _, err := d.Write(context.Background(), kv.Change{Key: key, Delete: true}); err == nil {
				w.sawGone(sight{member: member, key: key, start: start, end: time.Now(), write: true}, start)
			}
		default:
			value := fmt.Sprintf("%s by %d.%d, %d", key, member, client, n)
			if _, err := d.Write(context.Background(), kv.Change{Key: key, Value: []byte(value)}); err == nil {
				w.saw(sight{member: member, key: key, start: start, end: time.Now(), write: true}, value)
			}
		}
		time.Sleep(time.Duration(r.IntN(40)) * tick)
	}
}

func (w *world) read(d *Dataset, member int, key string, start time.Time, r *rand.Rand) {
	o := kv.ReadOptions{NoCache: r.IntN(20) == 0}
	if r.IntN(10) == 0 {
		o.MinVersion = w.newest(key)
	}
	if r.IntN(5) > 0 {
		a, err := d.Get(context.Background(), key, o)
		w.sawAnswer(member, key, start, o, kv.Result{Answer: a, Err: err})
		return
	}
	keys := []string{"a", "b", "c"}
	for i, result := range d.GetMany(context.Background(), keys, o, kv.BatchLimit{Bytes: r.IntN(64)}) {
		w.sawAnswer(member, keys[i], start, o, result)
	}
}

func (w *world) sawAnswer(member int, key string, start time.Time, o kv.ReadOptions, r kv.Result) {
	a := r.Answer
	s := sight{member: member, key: key, start: start, end: time.Now(), stale: a.Stale, noCache: o.NoCache}
	switch {
	case r.Err != nil:
	case a.NotFound:
		since := start
		if !o.NoCache {
			since = start.Add(-4 * time.Second)
		}
		w.sawGone(s, since)
	default:
		w.saw(s, string(a.Value))
		w.raise(key, a.Version)
		if a.Version < o.MinVersion { // an error otherwise
			w.t.Errorf("version %d of %q, where %d was required", a.Version, key, o.MinVersion)
		}
	}
}

func (w *world) newest(key string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.versions[key]
}

func (w *world) raise(key string, version int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions[key] = max(w.versions[key], version)
}

func (w *world) saw(s sight, value string) {
	s.order = w.orderOf(value)
	s.least = s.order
	w.note(s)
}

func (w *world) sawGone(s sight, since time.Time) {
	s.least, s.order = w.origin.goneBetween(s.key, since, s.end)
	w.note(s)
}

func (w *world) orderOf(value string) int {
	w.origin.mu.Lock()
	defer w.origin.mu.Unlock()
	n, ok := w.origin.order[value]
	if !ok {
		w.t.Errorf("%q was read, which was not written", value)
	}
	return n
}

func (w *world) note(s sight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
}

// faults makes one at a time.
func (w *world) faults(r *rand.Rand) {
	c := w.cluster
	for n := 0; !w.stopped(); n++ {
		key, d := string("abc"[r.IntN(3)]), c.members[r.IntN(len(c.members))]
		if w.zones != nil && r.IntN(2) == 0 {
			w.zones.fault(w, r)
			continue
		}
		switch r.IntN(18) {
		case 0:
			w.mu.Lock()
			w.owner = r.IntN(4)
			w.mu.Unlock()
			for _, d := range c.members {
				d.RingChanged()
			}
		case 1:
			c.away[r.IntN(len(c.members))].Store(r.IntN(2) == 0)
		case 2:
			c.publicationsLost.Store(r.IntN(2) == 0)
		case 3:
			w.origin.mu.Lock()
			w.origin.lose = r.IntN(3) == 0
			w.origin.mu.Unlock()
		case 4:
			var err error
			if r.IntN(3) == 0 {
				err = errors.New("down")
			}
			w.origin.Fail(err)
		case 5:
			w.origin.set(key, fmt.Sprintf("%s around the cache, %d", key, n))
		case 6:
			w.origin.remove(key)
		case 7:
			d.ExpireFrom(fmt.Sprint("member-", r.IntN(len(c.members))))
		case 8:
			d.store.Resize(0) // everything has to make room
			d.store.Resize(64 << 20)
		case 9:
			d.Sweep()
		case 10:
			prefix := []string{"", key, key[:1], "other"}[r.IntN(4)]
			d.ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: prefix, Prefix: true})
		case 11:
			p := d.Policy()
			p.TTL = time.Duration(1+r.IntN(3)) * time.Second
			d.SetPolicy(p)
		case 12:
			live := r.IntN(3) > 0
			if live {
				d.ExpireAll()
			}
			d.SetFeedLive(live)
		case 13:
			if w.restores {
				w.origin.restore(key, fmt.Sprintf("%s restored, %d", key, n), 1+r.Int64N(5))
			}
		case 14:
			if w.restores {
				w.origin.remove(key)
				w.origin.restore(key, fmt.Sprintf("%s inserted again, %d", key, n), 1)
			}
		case 15: // a feed or a member that is wrong
			d.ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: key, Version: math.MaxInt64 - r.Int64N(2)})
		case 16: // until the key is set or deleted, or its row is what it was
			w.origin.Spoil(key, origin.SeveralRows)
		case 17:
			w.origin.Restore(key)
		}
		time.Sleep(time.Duration(r.IntN(100)) * tick)
	}
}

// misled reports whether versions may mislead the reader of s.
func (w *world) misled(s sight) bool {
	p := w.cluster.members[0].Policy()
	life := 3*time.Second + p.LoadTimeout
	if s.stale {
		life += p.StaleIfError
	}
	return w.origin.misled(s.key, s.order, s.start, s.end, life)
}

// check compares each read with what its member had seen or written before it began, and with the longest life of an entry.
func (w *world) check() (reads int) {
	p := w.cluster.members[0].Policy()
	p.TTL = 3 * time.Second
	byKey := map[string][]sight{}
	for _, s := range w.seen {
		at := fmt.Sprint(s.member, s.key)
		byKey[at] = append(byKey[at], s)
		if s.write {
			continue
		}
		reads++
		limit := p.TTL + p.LoadTimeout
		if s.stale {
			limit += p.StaleIfError
		}
		if s.noCache {
			limit = 0
		}
		if s.noCache && w.misled(s) { // the fresh entry with the higher version is the answer until its ttl has passed
			limit = p.TTL + p.LoadTimeout
		}
		if replaced, ok := w.origin.next[s.order]; ok && s.start.Sub(replaced) > limit {
			w.t.Errorf("versioned %v: member %d read of %q what had been replaced for %v", w.versioned, s.member, s.key,
				s.start.Sub(replaced))
		}
	}
	for _, sights := range byKey {
		slices.SortFunc(sights, func(a, b sight) int { return cmp.Compare(a.start.UnixNano(), b.start.UnixNano()) })
		for i, s := range sights {
			for _, before := range sights[:i] {
				if !s.write && before.end.Before(s.start) && before.least > s.order && !w.misled(s) {
					w.t.Errorf("versioned %v: member %d read of %q write %d (stale: %v) after %d (write: %v) had been seen, %v later",
						w.versioned, s.member, s.key, s.order, s.stale, before.order, before.write, s.start.Sub(before.end))
					return reads
				}
			}
		}
	}
	return reads
}
