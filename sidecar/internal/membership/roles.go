package membership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
)

const (
	// vacancyHold is how long there must be fewer members than max_members before a client tries to become one: a member that is
	// restarted takes its slot back.
	vacancyHold = 5 * time.Second
	// vacancyShare, times the clients of the cluster, is the time over which they spread their attempts, from vacancyLeast to
	// vacancyMost: the directory gets 200 attempts a second, until all clients know the new member.
	vacancyShare, vacancyLeast, vacancyMost = 5 * time.Millisecond, time.Second, time.Minute
	// askFirst and askMost limit the wait before a sidecar asks the directory again for its role and for members, if no member
	// sends it a list; it doubles, and half of it is random.
	askFirst, askMost = 200 * time.Millisecond, 10 * time.Second
	// maxSeeds is how many members a client asks for their list, one after the other, before it asks the directory.
	maxSeeds = 8
)

// resolve keeps the list of members up to date: from the directory for a member, and from members for a client, which becomes a
// member where one is missing.
func (m *Members) resolve(ctx context.Context, apply func([]ring.Member)) error {
	if m.config.Role == config.RoleAuto || m.config.Role == config.RoleClient {
		f := follower{Members: m, apply: apply, wait: backoff.Backoff{First: askFirst, Longest: askMost}}
		if !f.run(ctx) {
			return nil
		}
		m.join(f.following)
	}
	return m.directory.Resolve(ctx, func(members []ring.Member) {
		apply(members)
		m.ready.open() // a registration may announce itself to the members of the list
	})
}

// join makes this sidecar a member.
func (m *Members) join(promoted bool) {
	m.client.Store(false)
	if promoted {
		m.promotions.Add(1)
		m.log.Info("this client becomes a member: there were fewer than membership.max_members")
		m.view.Join()
	}
	if m.leaving.Load() { // meanwhile
		m.view.Leave()
	}
	if !promoted || m.directory.dns == nil {
		m.ready.open()
	}
}

// follower receives the members from members. Its goroutine is the one that resolves them.
type follower struct {
	*Members
	apply     func([]ring.Member)
	wait      backoff.Backoff
	following bool          // this sidecar is a client
	seeds     []ring.Member // members to ask; without ids until one has sent a list
	due       time.Time     // of the next attempt to become a member; zero while none is missing
	spread    time.Duration // of the attempts of all clients
}

// run returns true when this sidecar is to be a member, and false when ctx is done.
func (f *follower) run(ctx context.Context) (member bool) {
	for ctx.Err() == nil {
		member, err := f.ask(ctx)
		if member {
			return true
		}
		if err != nil {
			f.lost(err)
		} else if f.receiveAll(ctx) {
			return true
		}
		f.wait.Wait(ctx)
	}
	return false
}

var errNoSeeds = errors.New("the directory lists no member that this client may ask for the ring")

// ask asks the directory whether this sidecar is a member, and for the addresses of some members.
func (f *follower) ask(ctx context.Context) (member bool, err error) {
	member, seeds, err := f.directory.claim(ctx, f.config.Self, f.config.Role)
	if err != nil || member {
		return member, err
	}
	if !f.following {
		f.following = true
		f.client.Store(true)
		f.view.Leave()
		f.log.Info("this sidecar is a client of the ring: it owns no keys")
	}
	f.seeds = f.seeds[:0]
	for _, addr := range seeds {
		if f.dialable.allows(addr) {
			f.seeds = append(f.seeds, ring.Member{Addr: addr})
		}
	}
	if len(f.seeds) == 0 {
		return false, errNoSeeds
	}
	return false, nil
}

// receiveAll receives lists, from one member after the other, until none of some members answers, or this client is to be a member.
func (f *follower) receiveAll(ctx context.Context) (member bool) {
	rand.Shuffle(len(f.seeds), func(i, j int) { f.seeds[i], f.seeds[j] = f.seeds[j], f.seeds[i] })
	for failed := 0; failed < min(len(f.seeds), maxSeeds) && ctx.Err() == nil; {
		member, listed, err := f.receive(ctx, f.seeds[failed])
		if member {
			return true
		}
		f.lost(err)
		failed++
		if listed { // f.seeds are the members of its list now
			failed = 0
			f.wait.Reset()
			f.wait.Wait(ctx)
		}
	}
	return false
}

// update is a list that a member has sent.
type update struct {
	members []ring.Member // that are not leaving
	clients int           // of the member
}

var errRelist = errors.New("the rings of other members differ from its list")

// receive receives the lists of one member until the stream ends, for the reason err, or this client is to be a member.
func (f *follower) receive(ctx context.Context, from ring.Member) (member, listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	updates, ended := make(chan update, 1), make(chan error, 1)
	go func() { ended <- f.safely(func() error { return f.stream(ctx, from, updates) }) }()
	defer func() { // the list is applied no longer when this returns
		cancel()
		if err == nil || errors.Is(err, errRelist) {
			<-ended
		}
	}()
	attempt := time.NewTimer(f.untilDue())
	defer attempt.Stop()
	for {
		select {
		case u := <-updates:
			listed = true
			f.use(u)
		case <-attempt.C:
			if f.attempt(ctx) {
				return true, true, nil
			}
		case <-f.relisting:
			return false, listed, errRelist
		case err := <-ended:
			return false, listed, err
		}
		attempt.Reset(f.untilDue())
	}
}

// safely turns a panic, which the list of a member may cause, into an error: it must not end the process.
func (f *follower) safely(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil { //guard:list-of-a-member-ends-process
			err = fmt.Errorf("panic while applying a list of members: %v\n%s", p, debug.Stack())
			f.config.Defect(err)
		}
	}()
	return do()
}

// stream applies the lists of a member. It does not wait for what is done with an update.
func (f *follower) stream(ctx context.Context, from ring.Member, updates chan update) error {
	var table memberlist.Table
	return f.pool.Members(ctx, from, f.config.Self.ID, func(r *peerv1.MembersResponse) error {
		if err := table.Apply(r); err != nil || r.GetMore() {
			return err
		}
		members := table.Members()
		f.received(from.Addr, len(members))
		f.apply(members)
		u := update{clients: int(r.GetClients())}
		for _, m := range members {
			if !m.Leaving {
				u.members = append(u.members, m)
			}
		}
		select {
		case <-updates: // it was not looked at
		default:
		}
		updates <- u
		return nil
	})
}

// use takes the members to ask from now on, and plans an attempt to become a member where one is missing.
func (f *follower) use(u update) {
	f.seeds = u.members
	rand.Shuffle(len(f.seeds), func(i, j int) { f.seeds[i], f.seeds[j] = f.seeds[j], f.seeds[i] })
	switch {
	case f.config.Role != config.RoleAuto || len(u.members) >= f.config.MaxMembers: //guard:client-tries-while-no-member-is-missing
		f.due = time.Time{}
	case f.due.IsZero():
		f.spread = min(max(vacancyShare*time.Duration(u.clients*len(u.members)), vacancyLeast), vacancyMost)
		f.plan()
	}
}

// plan plans the next attempt at a random time, so that few clients ask the directory at once.
func (f *follower) plan() { f.due = time.Now().Add(vacancyHold + rand.N(f.spread)) } //guard:all-clients-ask-at-once

// untilDue returns the time until the next attempt.
func (f *follower) untilDue() time.Duration {
	if f.due.IsZero() {
		return time.Hour // an update plans one
	}
	return time.Until(f.due)
}

// attempt asks the directory whether this client may become a member, if one is missing.
func (f *follower) attempt(ctx context.Context) (member bool) {
	if f.due.IsZero() {
		return false
	}
	member, _, err := f.directory.claim(ctx, f.config.Self, f.config.Role)
	if err != nil {
		f.lost(err)
	}
	f.spread = min(2*f.spread, vacancyMost)
	f.plan()
	return member
}
