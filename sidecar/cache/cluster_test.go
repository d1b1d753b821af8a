package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// testPolicy has no randomness.
func testPolicy() kv.Policy {
	p := kv.DefaultPolicy()
	p.TTLJitter = 0
	return p
}

func newDataset(t testing.TB, o origin.Origin, peers kv.Peers, p kv.Policy) *Dataset {
	t.Helper()
	writer, _ := o.(origin.Writer)
	d, err := New(Config{Name: "test", Policy: p, Origin: o, Writer: writer, Peers: peers, MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// cluster is a set of datasets that reach each other without a network. order returns the owner and the successor of the keys
// on the ring of a member.
type cluster struct {
	t                testing.TB
	members          []*Dataset
	away             []atomic.Bool // :: member → cannot be reached
	frozen           []atomic.Bool // :: member → accepts requests and does not answer
	order            func(from int) (owner, successor int)
	prev             int // previous owner that hands entries over; -1: none
	publicationsLost atomic.Bool
	awake            func(member int) bool // nil: always
	prove            func(ctx context.Context, member int)
	lag              time.Duration            // each way takes up to so long
	batches          atomic.Int64             // requests for many keys
	relay            func(from int) int       // member that answers for the owner of a hot key; nil: none
	fetched          func(to int, q kv.Query) // called with each query for one key; may be nil
	allHot           bool                     // owners report every key to be hot
}

func newCluster(t testing.TB, n int, o origin.Origin, p kv.Policy) *cluster {
	c := &cluster{t: t, away: make([]atomic.Bool, n), frozen: make([]atomic.Bool, n), order: func(int) (int, int) { return 0, 1 }, prev: -1}
	for i := range n {
		c.members = append(c.members, newDataset(t, o, seenFrom{c, i}, p))
	}
	return c
}

func (c *cluster) travel() {
	if c.lag > 0 {
		time.Sleep(rand.N(c.lag))
	}
}

type seenFrom struct {
	c    *cluster
	self int
}

func (s seenFrom) Route(string, string) kv.Route {
	owner, successor := s.c.order(s.self)
	r := kv.Route{Owner: s.peer(owner), Successor: s.peer(successor)}
	if s.c.prev >= 0 && r.Owner == nil {
		r.Previous = s.peer(s.c.prev)
	}
	return r
}

func (s seenFrom) Relay(string, string) kv.Peer {
	if s.c.relay == nil {
		return nil
	}
	to := s.c.relay(s.self)
	if owner, _ := s.c.order(s.self); to == owner {
		return nil
	}
	return s.peer(to)
}

func (s seenFrom) ZoneOwner(string, string) (kv.Peer, bool) { return nil, false }

// Publish invalidates on all other members at once; subscriptions are part of package peer.
func (s seenFrom) Publish(i kv.Invalidation) {
	for n, d := range s.c.members {
		if n != s.self && !s.c.publicationsLost.Load() {
			d.ApplyInvalidation(i)
		}
	}
}

func (s seenFrom) Broadcast(_ context.Context, list []kv.Invalidation) (told int, unreached []string) {
	for n, d := range s.c.members {
		switch {
		case n == s.self:
		case s.c.away[n].Load():
			unreached = append(unreached, link{s.c, n}.ID())
		default:
			for _, i := range list {
				d.ApplyInvalidation(i)
			}
			told++
		}
	}
	return told, unreached
}

func (s seenFrom) Awake() bool { return s.c.awake == nil || s.c.awake(s.self) }

func (s seenFrom) Prove(ctx context.Context) {
	if s.c.prove != nil {
		s.c.prove(ctx, s.self)
	}
}

func (s seenFrom) peer(i int) kv.Peer {
	if i == s.self {
		return nil
	}
	return link{s.c, i}
}

// link carries one peer fetch, as sidecar/peer does: errors keep their kind, and an answer from memory is marked as such.
type link struct {
	c  *cluster
	to int
}

func (l link) ID() string { return fmt.Sprint("member-", l.to) }

func (l link) Fetch(ctx context.Context, q kv.Query) (kv.Answer, error) {
	if l.c.away[l.to].Load() {
		return kv.Answer{}, fmt.Errorf("%w: %s", kv.ErrUnreachable, l.ID())
	}
	l.c.travel()
	if l.c.frozen[l.to].Load() {
		<-ctx.Done()
		return kv.Answer{}, fmt.Errorf("%w: %w", kv.ErrUnreachable, ctx.Err())
	}
	if l.c.fetched != nil {
		l.c.fetched(l.to, q)
	}
	owner, _ := l.c.order(l.to)
	a, err := l.c.members[l.to].Serve(ctx, q)
	if now, _ := l.c.order(l.to); q.Relay && err == nil && (now != owner || !a.Relayed) { // package peer compares the rings
		return kv.Answer{}, fmt.Errorf("%w: %s has another ring", kv.ErrUnreachable, l.ID())
	}
	l.c.travel()
	return l.sent(q, a), err
}

// sent is what of an answer arrives.
func (l link) sent(q kv.Query, a kv.Answer) kv.Answer {
	a.ETag = "" // it does not travel
	if q.Zone {
		a.Owner = cmp.Or(a.Owner, l.ID())
	}
	if l.c.allHot && !q.MemoryOnly {
		a.HotRate = hotkeys.Threshold
	}
	return a
}

func (l link) FetchBatch(ctx context.Context, qs []kv.Query) []kv.Outcome {
	l.c.batches.Add(1)
	outcomes := make([]kv.Outcome, len(qs))
	failed := func(err error) []kv.Outcome { return slices.Repeat([]kv.Outcome{{Err: err}}, len(qs)) }
	switch {
	case len(qs) > kv.MaxBatchKeys:
		return failed(&kv.Error{Kind: kv.KindInvalidKey, Err: errors.New("too many keys")})
	case l.c.away[l.to].Load():
		return failed(fmt.Errorf("%w: %s", kv.ErrUnreachable, l.ID()))
	case l.c.frozen[l.to].Load():
		<-ctx.Done()
		return failed(fmt.Errorf("%w: %w", kv.ErrUnreachable, ctx.Err()))
	}
	l.c.travel()
	owner, _ := l.c.order(l.to)
	for i, r := range l.c.members[l.to].ServeMany(ctx, qs, kv.BatchLimit{Bytes: kv.DefaultBatchBytes}) {
		outcomes[i] = kv.Outcome{Answer: r.Answer, Err: r.Err, Alone: errors.Is(r.Err, kv.ErrBatchBytes)}
		if now, _ := l.c.order(l.to); qs[i].Relay && r.Err == nil && (now != owner || !r.Answer.Relayed) {
			outcomes[i].Err = fmt.Errorf("%w: %s has another ring", kv.ErrUnreachable, l.ID())
		}
		outcomes[i].Answer = l.sent(qs[i], r.Answer)
	}
	l.c.travel()
	return outcomes
}

func (l link) Write(ctx context.Context, c kv.Change) (kv.Answer, error) {
	if l.c.away[l.to].Load() {
		return kv.Answer{}, fmt.Errorf("%w: %s", kv.ErrUnreachable, l.ID())
	}
	l.c.travel()
	a, err := l.c.members[l.to].ServeWrite(ctx, c)
	l.c.travel()
	a.ETag = ""
	return a, err
}

func (l link) WriteMany(ctx context.Context, cs []kv.Change) []kv.Outcome {
	l.c.batches.Add(1)
	if l.c.away[l.to].Load() {
		return slices.Repeat([]kv.Outcome{{Err: fmt.Errorf("%w: %s", kv.ErrUnreachable, l.ID())}}, len(cs))
	}
	l.c.travel()
	outcomes := make([]kv.Outcome, len(cs))
	for i, r := range l.c.members[l.to].ServeWriteMany(ctx, cs) {
		outcomes[i] = kv.Outcome{Answer: r.Answer, Err: r.Err}
	}
	l.c.travel()
	return outcomes
}

// each makes changes one by one.
func each(write func(context.Context, kv.Change) (kv.Answer, error), cs []kv.Change) []kv.Outcome {
	outcomes := make([]kv.Outcome, len(cs))
	for i, c := range cs {
		outcomes[i].Answer, outcomes[i].Err = write(context.Background(), c)
	}
	return outcomes
}

// get reads and fails the test on an error.
func get(t testing.TB, d *Dataset, key string) kv.Answer {
	t.Helper()
	a, err := d.Get(t.Context(), key, kv.ReadOptions{})
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	return a
}

func expect(t testing.TB, a kv.Answer, value string, source kv.Source) {
	t.Helper()
	if string(a.Value) != value || a.Source != source {
		t.Errorf("got %q from %v; want %q from %v", a.Value, a.Source, value, source)
	}
}

var errDown = errors.New("connection refused")

const tick = time.Millisecond
