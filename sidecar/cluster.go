package sidecar

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/internal/roster"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

func (p *process) openPool(context.Context) error {
	if err := p.identify(); err != nil {
		return err
	}
	if err := p.openTLS(); err != nil {
		return err
	}
	c := peer.Config{
		Self: p.onRing().ID, AttemptTimeout: p.config.attemptTimeout(), SubscriptionIdle: p.config.followIdle(),
		Sink: sink{p}, Feeds: p.config.withFeed(), //guard:nobody-takes-members-publish
	}
	if p.tls != nil {
		c.Credentials = p.tls
	}
	p.pool = peer.NewPool(c)
	return p.openDirectory()
}

// wayTime is what a hop takes at most beside the owner's load.
const wayTime = 500 * time.Millisecond

// attemptTimeout leaves the owner the time of its longest load or write.
func (c Config) attemptTimeout() time.Duration {
	longest := 5 * time.Second
	for _, d := range c.Datasets {
		longest = max(longest, d.policy().LoadTimeout+wayTime)
		if d.Writable {
			longest = max(longest, d.policy().WriteTimeout+wayTime) //guard:hops-end-before-writes-do
		}
	}
	return longest
}

// requestTimeout is what a request of an application may take: time for the owner of a key and, where that cannot be
// asked, for its successor to write. A load has no such second try.
func (c Config) requestTimeout() time.Duration {
	for _, d := range c.Datasets {
		if d.Writable {
			return 2 * c.attemptTimeout()
		}
	}
	return c.attemptTimeout()
}

// followIdle is how long a member is followed of which nothing is asked any more: as long as copies of its entries may
// live. What is left of them then, because local_ttl was raised meanwhile, is dropped.
func (c Config) followIdle() time.Duration {
	longest := 30 * time.Second
	for _, d := range c.Datasets {
		longest = max(longest, d.policy().LocalTTL)
	}
	return longest
}

func (p *process) closePool(context.Context) {
	if p.pool != nil {
		p.pool.Close()
	}
	if p.etcd != nil {
		if err := p.etcd.Close(); err != nil {
			p.log.Warn("leave the directory", zap.Error(err))
		}
	}
}

// follow keeps the ring in step with the directory. It waits a moment for the first list.
func (p *process) follow(ctx context.Context) error {
	var err error
	p.roster, err = roster.New(roster.Config{
		Self: p.onRing(), Size: p.config.Ring.size(), Probe: p.pool.Ping, OnChange: p.useRing,
	})
	if err != nil {
		return err
	}
	listed := make(chan struct{})
	var once sync.Once
	p.following = []*task{
		p.spawn("probe members", func(ctx context.Context) error {
			p.roster.Run(ctx)
			return nil
		}),
		p.spawn("follow members", func(ctx context.Context) error {
			return p.directory.Resolve(ctx, func(members []ring.Member) {
				p.roster.Apply(slices.Clone(members))
				p.xdsPublisher.list(members)
				p.lookForTwin(members)
				once.Do(func() { close(listed) })
			})
		}),
	}
	if p.etcd != nil {
		p.following = append(p.following, p.spawn("doubt the list of members", p.doubtList))
	}
	if p.config.Membership.alone() {
		p.xdsPublisher.list(nil) // nobody else will
		return nil
	}
	p.awaitList(ctx, listed)
	return nil
}

// lookForTwin logs a member that has taken this one's place: then one of the two owns nothing, and nobody else would
// say why. One that began before this one is what was here before a restart.
func (p *process) lookForTwin(members []ring.Member) {
	i := slices.IndexFunc(members, func(m ring.Member) bool {
		return (m.ID == p.self.ID) != (m.Addr == p.self.Addr) && m.Started.After(p.self.Started)
	})
	if i < 0 || p.stopping.Load() || members[i] == p.twin {
		return
	}
	p.twin = members[i]
	p.log.Warn("another member has the id or the address of this one; give each its own node.id and node.advertise",
		zap.String("id", p.twin.ID), zap.String("address", p.twin.Addr), zap.Time("began", p.twin.Started))
}

// firstList is how long a start waits for the first list of members. Reads that came earlier would be loads of keys
// that others hold; but a directory that is away must not keep the sidecar from serving.
const firstList = 2 * time.Second

func (p *process) awaitList(ctx context.Context, listed <-chan struct{}) {
	timer := time.NewTimer(firstList)
	defer timer.Stop()
	select {
	case <-listed:
	case <-ctx.Done():
	case <-timer.C:
		p.log.Warn("no list of members yet: until there is one, every key is loaded here",
			zap.Duration("waited", firstList))
	}
}

func (p *process) unfollow(context.Context) {
	for _, t := range p.following {
		t.stop()
	}
}

func (p *process) useRing(cur, prev *ring.Ring) {
	p.ring.Store(cur)
	p.pool.SetRing(cur, prev)
	for _, d := range p.datasets {
		d.RingChanged() //guard:datasets-told-new-ring
	}
	p.changes.RingChanged()
	p.xdsPublisher.useRing(cur)
	p.log.Info("ring", zap.String("id", admin.FormatRingID(cur.ID())), zap.Int("members", cur.Len()))
}

// register publishes this member, now that it serves.
func (p *process) register(context.Context) error {
	p.registering = p.spawn("register", func(ctx context.Context) error { return p.directory.Register(ctx, p.self) })
	return nil
}

const (
	// quiet is how long no member may have asked before this one believes that none will.
	quiet = time.Second
	// quietPoll is how often that is looked at.
	quietPoll = 50 * time.Millisecond
)

// withdraw takes this member off the others' rings and waits until they have stopped asking, at most the drain timeout.
func (p *process) withdraw(context.Context) {
	if p.service != nil {
		p.service.Leave()
	}
	p.registering.stop()
	p.roster.Leave()
	if p.service == nil || p.config.Membership.alone() {
		return
	}
	p.awaitQuiet()
}

func (p *process) awaitQuiet() {
	deadline := time.Now().Add(p.config.drainTimeout())
	last, since := p.requests(), time.Now()
	for time.Now().Before(deadline) && time.Since(since) < quiet {
		time.Sleep(quietPoll)
		if now := p.requests(); now != last {
			last, since = now, time.Now()
		}
	}
}

// requests counts what was asked from outside of the pod: by members, and by clients that route by the ring.
func (p *process) requests() int64 {
	routed, _, _ := p.local.Stats().Routed.Duration.Snapshot()
	return p.asked.Load() + int64(routed)
}
