package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
)

// Each member holds a slot, PREFIX/slots/NUMBER, on the lease of its keys. A transaction takes a free one, so that of any number of
// sidecars that try exactly one gets it, and nobody coordinates them.

const (
	// claimTTL is the lease of a slot between Claim and Register, in seconds: a start takes less, with the drain of the process
	// before it.
	claimTTL = 60
	// slotTries is how often a slot is looked for that another sidecar takes first.
	slotTries = 3
	// seedCount is half the number of members that Claim returns at most: enough that one of them answers, in a response of about
	// 1 KiB.
	seedCount = 8
)

func (d *Directory) slotsPrefix() string { return d.cfg.Prefix + "/slots/" }

func (d *Directory) slotKey(number int64) string {
	return fmt.Sprintf("%s%05d", d.slotsPrefix(), number)
}

// Claim tries to take a slot for self, which then is a member and must Register within a minute. Without a free slot, it returns
// addresses of members. A sidecar whose slot is still there, because it was restarted, takes that one.
func (d *Directory) Claim(ctx context.Context, self ring.Member) (member bool, seeds []string, err error) {
	err = d.once(ctx, func(ctx context.Context, c *clientv3.Client) error {
		full, known, sample, err := d.look(ctx, c, self.ID)
		if err != nil {
			return err
		}
		if full && !known { //guard:restarted-member-becomes-a-client
			seeds = sample
			return nil
		}
		if member, err = d.claim(ctx, c, self); err == nil && !member {
			_, _, seeds, err = d.look(ctx, c, self.ID)
		}
		return err
	})
	return member, seeds, err
}

// Seeds returns addresses of members, at most twice seedCount.
func (d *Directory) Seeds(ctx context.Context) (seeds []string, err error) {
	err = d.once(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
		_, _, seeds, err = d.look(ctx, c, "")
		return err
	})
	return seeds, err
}

// once sends requests with a client of a random endpoint, within timing.request.
func (d *Directory) once(ctx context.Context, requests session) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	turn := d.randomTurn()
	c, err := d.dial(ctx, turn)
	if err == nil {
		defer c.Close() // nobody uses the connection again, so its error does not matter
		err = requests(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.endpoint(turn), err)
	}
	d.recordContact()
	return nil
}

// look reports whether all slots are taken, and whether etcd has a record of the sidecar, and returns the addresses of members
// beginning at a random slot. The response has the same size for any number of members, because thousands of clients ask.
func (d *Directory) look(ctx context.Context, c *clientv3.Client, id string) (full, known bool, seeds []string, err error) {
	prefix, end := d.slotsPrefix(), clientv3.GetPrefixRangeEnd(d.slotsPrefix())
	from := d.slotKey(rand.Int64N(int64(max(d.cfg.MaxMembers, 1))))
	some := clientv3.WithLimit(seedCount)
	r, err := c.Txn(ctx).Then(
		clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()),
		clientv3.OpGet(d.membersPrefix()+id, clientv3.WithCountOnly()),
		clientv3.OpGet(from, clientv3.WithRange(end), some), clientv3.OpGet(prefix, clientv3.WithPrefix(), some),
	).Commit()
	if err != nil {
		return false, false, nil, fmt.Errorf("look for a free slot: %w", err)
	}
	for _, part := range r.Responses[2:] {
		for _, kv := range part.GetResponseRange().GetKvs() {
			if s, err := record.ParseSlot(kv.GetValue()); err == nil && s.ID != id && !slices.Contains(seeds, s.Addr) {
				seeds = append(seeds, s.Addr)
			}
		}
	}
	if len(seeds) == 0 { // the members are of a release without slots
		seeds, err = d.someMembers(ctx, c, id)
	}
	return r.Responses[0].GetResponseRange().GetCount() >= int64(d.cfg.MaxMembers), r.Responses[1].GetResponseRange().GetCount() > 0, seeds, err
}

func (d *Directory) someMembers(ctx context.Context, c *clientv3.Client, self string) (addrs []string, err error) {
	r, err := c.Get(ctx, d.membersPrefix(), clientv3.WithPrefix(), clientv3.WithLimit(seedCount))
	if err != nil {
		return nil, fmt.Errorf("list some members: %w", err)
	}
	for _, kv := range r.Kvs {
		id := strings.TrimPrefix(string(kv.Key), d.membersPrefix())
		if m, err := record.Parse(id, kv.Value); err == nil && id != self {
			addrs = append(addrs, m.Addr)
		}
	}
	return addrs, nil
}

// claim takes a slot on a lease of its own, which the registration replaces.
func (d *Directory) claim(ctx context.Context, c *clientv3.Client, self ring.Member) (bool, error) {
	granted, err := c.Grant(ctx, claimTTL)
	if err != nil {
		return false, fmt.Errorf("grant a lease: %w", err)
	}
	taken, err := d.takeSlot(ctx, c, self, granted.ID)
	if err != nil || !taken {
		_, _ = c.Revoke(context.WithoutCancel(ctx), granted.ID) // or it expires, with what was taken
		return false, err
	}
	d.lease.Store(int64(granted.ID))
	return true, nil
}

// takeSlot puts a slot on a lease: the one that this sidecar has already, or a free one. It reports false if there is none; a
// member that has lost its slot in an outage stays a member, because a change of many roles at once costs more than some members
// too many.
func (d *Directory) takeSlot(ctx context.Context, c *clientv3.Client, self ring.Member, lease clientv3.LeaseID) (bool, error) {
	if d.cfg.MaxMembers == 0 {
		return false, nil
	}
	value, err := record.EncodeSlot(record.Slot{ID: self.ID, Addr: self.Addr})
	if err != nil {
		return false, err
	}
	for range slotTries {
		number, revision, err := d.findSlot(ctx, c, self.ID)
		if err != nil || number < 0 {
			d.slot.Store(0)
			return false, err
		}
		key := d.slotKey(number)
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)). //guard:two-sidecars-take-one-slot
													Then(clientv3.OpPut(key, value, clientv3.WithLease(lease))).Commit()
		if err != nil {
			return false, fmt.Errorf("put %s: %w", key, err)
		}
		if r.Succeeded {
			d.slot.Store(number + 1)
			return true, nil
		}
	}
	d.slot.Store(0)
	return false, nil
}

// findSlot returns the slot of the sidecar id, or else a random free one, and its revision, 0 if it is free; -1 if there is none.
func (d *Directory) findSlot(ctx context.Context, c *clientv3.Client, id string) (number, revision int64, err error) {
	r, err := c.Get(ctx, d.slotsPrefix(), clientv3.WithPrefix(), clientv3.WithLimit(record.MaxMembers))
	if err != nil {
		return 0, 0, fmt.Errorf("list the slots: %w", err)
	}
	taken := make(map[int64]bool, len(r.Kvs))
	for _, kv := range r.Kvs {
		number, err := strconv.ParseInt(strings.TrimPrefix(string(kv.Key), d.slotsPrefix()), 10, 64)
		if err != nil {
			continue // not a slot
		}
		if s, err := record.ParseSlot(kv.Value); err == nil && s.ID == id {
			return number, kv.ModRevision, nil
		}
		taken[number] = true
	}
	var free []int64
	for n := range int64(d.cfg.MaxMembers) {
		if !taken[n] {
			free = append(free, n)
		}
	}
	if len(free) == 0 {
		return -1, 0, nil
	}
	return free[rand.IntN(len(free))], 0, nil
}

// takeMissingSlot takes a slot for a registered member without one, so that no client does: there was none when it registered.
func (d *Directory) takeMissingSlot(ctx context.Context, c *clientv3.Client, self ring.Member, lease clientv3.LeaseID) {
	if d.slot.Load() != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	_, _ = d.takeSlot(ctx, c, self, lease) // the next check tries again
}

// slotHeld is the condition that the slot of this member is on its lease.
func (d *Directory) slotHeld(lease clientv3.LeaseID) []clientv3.Cmp {
	if n := d.slot.Load(); n > 0 {
		return []clientv3.Cmp{heldBy(d.slotKey(n-1), lease)}
	}
	return nil
}

// freeSlot deletes the slot, unless it is on the lease of the next process of this sidecar.
func (d *Directory) freeSlot(lease clientv3.LeaseID) []clientv3.Op {
	held := d.slotHeld(lease)
	if held == nil {
		return nil
	}
	return []clientv3.Op{clientv3.OpTxn(held, []clientv3.Op{clientv3.OpDelete(d.slotKey(d.slot.Load() - 1))}, nil)}
}
