package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

const (
	// memberBytes is what a key of a set takes in addition to itself: its state, and its places in the map and in the log. Measured
	// with 100 000 keys, and rounded up.
	memberBytes = 320
	// maxDeleted is how many deleted keys a set remembers, for watches that do not know of the deletion yet. A watch that is behind
	// those that are forgotten begins again.
	maxDeleted = 10_000
	// setChunk is how many keys of a set are read at a time, between which changes are looked at.
	setChunk = 500
	// listCost is how many bytes the keys of a list take for each byte of it, with their headers and the map that finds deleted ones.
	listCost = 6
	// listBytes is the size of the lists of keys that are read at once.
	listBytes = 4 << 20
	// unusedFor is how long a set stays in memory without a watch, for clients that resume.
	unusedFor = time.Minute
	// sweepWithFeed is the least time between two complete reads of a set whose changes a feed reports, and sweepWithout between
	// those of another one.
	sweepWithFeed, sweepWithout = time.Minute, time.Second
	// setTick is how often a set looks whether anything is due.
	setTick = time.Second
)

// setName identifies a set: the keys of a dataset that begin with a prefix.
type setName struct{ dataset, prefix string }

// set is what this process knows of the keys of one dataset that begin with a prefix, for all watches of them: a fingerprint of the
// state of each, and the order in which the keys last changed. It holds no values. Its goroutine lists and reads the keys; each
// watch follows the order from its own position, and reads the values that it sends.
type set struct {
	reader // of the goroutine
	engine *Engine
	name   setName
	epoch  uint64      // identifies the order
	parts  int         // of the list of keys; used by the goroutine alone, as is lists
	lists  budget.Loan // of the keys that are still to be read
	stop   context.CancelFunc
	done   chan struct{} // closed when err is final
	err    error         // why it ended

	watches  int       // guarded by engine.mu
	unusedAt time.Time // when watches became 0; guarded by engine.mu

	mu       sync.Mutex // guards the fields below
	memory   budget.Loan
	members  map[string]*member
	log      []logged // by seq; a member is at its last change, and perhaps at earlier ones that do not count any more
	seq      uint64   // of the last change
	deleted  int      // members that are deleted
	forgot   uint64   // the last change that was a deletion and is forgotten
	sum      fingerprint
	again    map[string]struct{} // keys that could not be read, or only stale values
	listed   bool                // the keys are known
	complete bool                // the states of all keys are known
	news     chan struct{}       // closed and replaced at each change
}

// member is one key of a set.
type member struct {
	key   string
	state fingerprint // zero: deleted
	at    uint64      // its place in the log
}

type logged struct {
	seq uint64
	of  *member
}

// errUnused ends a set without watches.
var errUnused = errors.New("nobody watches the set")

// join returns the set of a name, for one more watch; leave it.
func (e *Engine) join(d api.Served, prefix string) (*set, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := setName{d.Name(), prefix}
	if s := e.sets[name]; s != nil {
		s.watches++
		return s, nil
	}
	if e.stopped {
		return nil, errStopping
	}
	if !e.hasRoomLocked() {
		e.backend.Stats().SetsRefused.Add(1)
		return nil, &kv.Error{Kind: kv.KindOverloaded, RetryAfter: maxRetry, Err: fmt.Errorf(
			"%d different prefixes and datasets are watched, which is the limit; watch a common prefix", len(e.sets))}
	}
	s := &set{
		reader: reader{backend: e.backend, dataset: d}, engine: e, name: name, epoch: rand.Uint64(), parts: 1, done: make(chan struct{}), watches: 1,
		lists: e.backend.Config().Budget.Loan(budget.Watches), memory: e.backend.Config().Budget.Loan(budget.Watches), members: map[string]*member{}, again: map[string]struct{}{},
		news: make(chan struct{}),
	}
	ctx, stop := context.WithCancel(e.backend.Stopping())
	s.stop = stop
	e.sets[name] = s
	e.backend.Stats().WatchedSets.Add(1)
	e.open.Add(1)
	go s.run(ctx)
	return s, nil
}

// hasRoomLocked reports whether one more set may be watched. One without a watch makes room.
func (e *Engine) hasRoomLocked() bool {
	if len(e.sets) < e.backend.Config().MaxSets { //guard:sets-without-bound
		return true
	}
	for name, s := range e.sets {
		if s.watches == 0 {
			delete(e.sets, name)
			s.stop()
			return true
		}
	}
	return false
}

// leave ends what join began.
func (s *set) leave() {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	s.watches--
	s.unusedAt = time.Now()
}

// dropIfUnused makes the set unknown to later watches if it has had none for a while.
func (s *set) dropIfUnused() bool {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	unused := s.watches == 0 && time.Since(s.unusedAt) >= unusedFor //guard:set-stays-in-memory-without-a-watch
	if unused {
		s.removeLocked()
	}
	return unused
}

// removeLocked makes the set unknown to later watches.
func (s *set) removeLocked() {
	if s.engine.sets[s.name] == s {
		delete(s.engine.sets, s.name)
	}
}

// run keeps the set until ctx is done, nobody watches it, or an error ends it.
func (s *set) run(ctx context.Context) {
	defer s.engine.open.Done()
	defer s.stop()
	err := s.keepSafely(ctx)
	s.lists.Close()
	s.engine.mu.Lock()
	s.removeLocked()
	s.engine.mu.Unlock()
	s.mu.Lock()
	stats := s.backend.Stats()
	stats.WatchedSetKeys.Add(-int64(len(s.members)))
	stats.WatchedSets.Add(-1)
	s.memory.Close()
	s.mu.Unlock()
	s.err = err
	close(s.done)
}

func (s *set) keepSafely(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.backend.Panic("in the set of a watch", p)
		}
	}()
	return s.keep(ctx)
}

// keep follows the changes of the set.
func (s *set) keep(ctx context.Context) error {
	notes := s.dataset.WatchRange(s.name.prefix) // before the list: what changes meanwhile is noted
	defer notes.Close()
	todo, err := s.list(ctx, true)
	if err != nil {
		return err
	}
	s.setListed(todo)
	swept, fresh, retry := time.Now(), false, backoffOf{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(s.pause(todo))
		var changed []string
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-notes.Ready():
			if notes.Ended() {
				return errReplaced
			}
			var all bool
			if changed, all = notes.Take(); all { //guard:set-misses-what-changed-in-a-gap
				swept, fresh = time.Time{}, true
			}
		case <-timer.C:
		}
		if err := s.readAll(ctx, changed); err != nil {
			return err
		}
		n := min(len(todo), setChunk)
		if err := s.readAll(ctx, todo[:n]); err != nil {
			return err
		}
		if todo = todo[n:]; len(todo) == 0 {
			s.lists.Close()
			s.setComplete()
		}
		switch {
		case len(todo) > 0:
		case time.Since(swept) >= s.interval(): //guard:set-misses-unannounced-change
			if todo, err = s.list(ctx, fresh); err != nil {
				if ctx.Err() != nil || !kv.KindOf(err).Excusable() {
					return err
				}
				todo = s.retries(&retry, true) // the list is read again soon
				swept = time.Now().Add(maxRetry - s.interval())
				continue
			}
			swept, fresh = time.Now(), false
			todo = s.withKnown(todo)
		default:
			todo = s.retries(&retry, false)
		}
		if s.dropIfUnused() {
			return errUnused
		}
		if !backoff.Sleep(ctx, minInterval) {
			return ctx.Err()
		}
	}
}

// pause is how long nothing is to be done, unless something changes.
func (s *set) pause(todo []string) time.Duration {
	if len(todo) > 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.complete || len(s.again) > 0 {
		return minReread
	}
	return setTick
}

// interval is the time between two complete reads, which find what nothing has reported.
func (s *set) interval() time.Duration {
	least := sweepWithout
	if live, has := s.dataset.FeedLive(); has && live {
		least = sweepWithFeed
	}
	return max(s.dataset.Policy().TTL, least)
}

// backoffOf is when keys that could not be read are read again: at growing intervals.
type backoffOf struct {
	failures int
	due      time.Time
}

// retries returns the keys that are to be read again now.
func (s *set) retries(b *backoffOf, failed bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case len(s.again) == 0 && !failed:
		*b = backoffOf{}
		return nil
	case now.Before(b.due):
		return nil
	}
	b.failures++
	b.due = now.Add(min(minReread<<min(b.failures, 10), maxRetry))
	keys := make([]string, 0, len(s.again))
	for key := range s.again {
		keys = append(keys, key)
	}
	return keys
}

// withKnown adds to a list of keys those that the set has and the list has not: they may be deleted.
func (s *set) withKnown(keys []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		listed[key] = struct{}{}
	}
	for key, m := range s.members {
		if _, ok := listed[key]; !ok && m.state != (fingerprint{}) {
			keys = append(keys, key) //guard:deleted-key-stays-in-the-set
		}
	}
	return keys
}

// list returns the keys of the set. Fresh ones are listed after the call, unless the origin fails and older lists are in memory.
func (s *set) list(ctx context.Context, fresh bool) ([]string, error) {
	for {
		keys, tooLong, err := s.listParts(ctx, fresh)
		switch {
		case err != nil && fresh && kv.KindOf(err).Excusable() && ctx.Err() == nil:
			fresh = false
		case err != nil:
			return nil, err
		case !tooLong:
			return keys, nil
		case s.parts == keylist.MaxParts:
			return nil, s.errTooLarge()
		default:
			s.parts *= 4
		}
	}
}

func (s *set) listParts(ctx context.Context, fresh bool) (keys []string, tooLong bool, err error) {
	s.lists.Close()
	parts := keylist.Parts(s.name.prefix, s.parts)
	err = s.readWith(ctx, parts, kv.ReadOptions{NoCache: fresh}, listBytes, func(_ string, r kv.Result) error {
		switch {
		case r.Answer.DataError == origin.TooLarge:
			tooLong = true
		case r.Err != nil:
			return r.Err
		case !s.lists.Grow(int64(len(r.Answer.Value)) * listCost):
			s.backend.Stats().SetsRefused.Add(1)
			return kv.ErrNoMemory
		default:
			keys = append(keys, keylist.Split(r.Answer.Value)...)
		}
		if len(keys) > s.backend.Config().MaxSetKeys { //guard:set-of-any-size
			return s.errTooLarge()
		}
		return nil
	})
	return keys, tooLong, err
}

func (s *set) errTooLarge() error {
	s.backend.Stats().SetsRefused.Add(1)
	return &kv.Error{Kind: kv.KindInvalidKey, Err: fmt.Errorf(
		"more than %d keys, or too long ones, begin with the prefix; watch longer prefixes", s.backend.Config().MaxSetKeys)}
}

// readAll reads keys and records their states.
func (s *set) readAll(ctx context.Context, keys []string) error {
	keys = slices.DeleteFunc(keys, keylist.IsPart)
	for chunk := range slices.Chunk(keys, setChunk) {
		err := s.read(ctx, chunk, func(key string, r kv.Result) error {
			_, err := s.settle(key, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle records the state of a key that was read, by the set or by one of its watches: both must agree on what was read last, so
// that a watch never keeps a state that the set has not seen. It reports whether the state is another one than before.
func (s *set) settle(key string, r kv.Result) (changed bool, err error) {
	state := fingerprint{}
	switch {
	case !isState(r):
		state = newFingerprint(s.name.dataset, key, "failing")
	case !r.Answer.NotFound:
		state = fingerprintOf(s.name.dataset, key, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.again, key); !isState(r) || r.Answer.Stale { //guard:set-keeps-a-stale-state
		s.again[key] = struct{}{}
	}
	m := s.members[key]
	if m == nil && state == (fingerprint{}) || m != nil && m.state == state {
		return false, nil
	}
	if m == nil {
		if m, err = s.addLocked(key); err != nil {
			return false, err
		}
	}
	switch (fingerprint{}) {
	case state:
		s.deleted++
	case m.state:
		s.deleted--
	}
	s.sum.replace(m.state, state)
	s.seq++
	m.state, m.at = state, s.seq
	s.log = append(s.log, logged{s.seq, m})
	s.compactLocked()
	s.wakeLocked()
	return true, nil
}

// addLocked adds a key, which counts as deleted until it has a state.
func (s *set) addLocked(key string) (*member, error) {
	if len(s.members)-s.deleted >= s.backend.Config().MaxSetKeys { //guard:set-grows-beyond-its-limit
		return nil, s.errTooLarge()
	}
	if !s.memory.Grow(memberBytes + int64(len(key))) { //guard:sets-take-no-memory
		s.backend.Stats().SetsRefused.Add(1)
		return nil, kv.ErrNoMemory
	}
	m := &member{key: strings.Clone(key)}
	s.members[m.key] = m
	s.deleted++
	s.backend.Stats().WatchedSetKeys.Add(1)
	return m, nil
}

// compactLocked drops what does not count from the log when it is long, and the oldest deletions when there are many.
func (s *set) compactLocked() {
	if len(s.log) <= 2*len(s.members)+setChunk && s.deleted <= s.engine.maxDeleted {
		return
	}
	forget := 0
	if s.deleted > s.engine.maxDeleted { //guard:deleted-keys-stay-in-memory
		forget = s.deleted - s.engine.maxDeleted/2
	}
	kept := s.log[:0]
	for _, c := range s.log {
		switch {
		case c.of.at != c.seq:
		case forget > 0 && c.of.state == (fingerprint{}):
			forget--
			s.forgetLocked(c.of)
		default:
			kept = append(kept, c)
		}
	}
	clear(s.log[len(kept):])
	s.log = kept
}

func (s *set) forgetLocked(m *member) {
	s.forgot = m.at
	s.deleted--
	delete(s.members, m.key)
	s.memory.Shrink(s.memory.Bytes() - memberBytes - int64(len(m.key)))
	s.backend.Stats().WatchedSetKeys.Add(-1)
}

func (s *set) wakeLocked() {
	close(s.news)
	s.news = make(chan struct{})
}

func (s *set) setListed(todo []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed, s.complete = true, len(todo) == 0
	s.wakeLocked()
}

func (s *set) setComplete() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.complete {
		s.complete = true
		s.wakeLocked()
	}
}

// await waits until the condition, which the lock guards, holds.
func (s *set) await(ctx context.Context, holds func() bool) error {
	for {
		s.mu.Lock()
		ok, news := holds(), s.news
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// position is how far a watch has followed the order of a set.
type position struct {
	at   uint64 // the last change that was sent
	from uint64 // the last one at the beginning: deletions before it concern nothing that was sent
}

// next returns at most n keys that changed after a position, and the position after them. Lost says that deletions are forgotten
// of which the watch does not know: it must begin again. Without keys, news is closed at the next change.
func (s *set) next(p position, n int) (keys []string, after uint64, complete, lost bool, news chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgot > max(p.at, p.from) { //guard:slow-watch-misses-a-deletion
		return nil, p.at, s.complete, true, s.news
	}
	after = p.at
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].seq > p.at })
	for ; i < len(s.log) && len(keys) < n; i++ {
		c := s.log[i]
		after = c.seq
		if c.of.at == c.seq && (c.of.state != (fingerprint{}) || c.seq > p.from) {
			keys = append(keys, c.of.key)
		}
	}
	return keys, after, s.complete, false, s.news
}

// latest is the position of a watch that begins now.
func (s *set) latest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// token identifies the position in the order, and the states of all keys if the client knows them: every sidecar knows these.
func (s *set) token(at uint64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.epoch), at)
	if at == s.seq && s.complete {
		b = append(b, s.sum[:]...)
	}
	return b
}

// resume returns the position of a token, or false if the client must begin again. It waits until the set is complete where the
// token is from another order.
func (s *set) resume(ctx context.Context, token []byte) (p position, ok bool, err error) {
	if len(token) != 16 && len(token) != 32 {
		return position{}, false, nil
	}
	epoch, at := binary.BigEndian.Uint64(token), binary.BigEndian.Uint64(token[8:])
	if epoch == s.epoch && at <= s.latest() {
		return position{at: at}, true, nil
	}
	if len(token) == 16 {
		return position{}, false, nil
	}
	if err := s.await(ctx, func() bool { return s.complete }); err != nil {
		return position{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return position{at: s.seq, from: s.seq}, fingerprint(token[16:]) == s.sum, nil //guard:token-of-other-states-resumes
}
