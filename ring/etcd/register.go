package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
)

// Register implements ring.Directory. It returns an error only for a record that other members would reject.
func (d *Directory) Register(ctx context.Context, self ring.Member) error {
	self.Leaving = false
	full, stock, err := record.Encode(self)
	if err != nil {
		return fmt.Errorf("etcd: register: %w", err)
	}
	self.Leaving = true
	leaving, _, err := record.Encode(self)
	if err != nil {
		return fmt.Errorf("etcd: register: %w", err)
	}
	keys, err := d.keysOf(self)
	if err != nil {
		return fmt.Errorf("etcd: register: %w", err)
	}
	d.keepTrying(ctx, &d.registration, func(ctx context.Context, c *clientv3.Client) error {
		return d.register(ctx, c, self, keys, full, stock)
	})
	d.deregister(keys, full, leaving)
	return nil
}

// keys are the keys of one member.
type keys struct {
	full, stock string
	legacy      legacy
}

func (d *Directory) keysOf(m ring.Member) (k keys, err error) {
	k = keys{full: d.membersPrefix() + m.ID, stock: d.cfg.Prefix + "/ring/" + m.ID}
	k.legacy, err = d.legacyOf(m.Addr)
	return k, err
}

func (d *Directory) membersPrefix() string { return d.cfg.Prefix + "/members/" }

// register is one registration: lease, keys, keep-alive. It returns the first error.
func (d *Directory) register(ctx context.Context, c *clientv3.Client, self ring.Member, k keys, full, stock string) error {
	lease, ttl, err := d.publish(ctx, c, self, k, full, stock)
	if err != nil {
		return err
	}
	alive, err := c.KeepAlive(ctx, lease)
	if err != nil {
		return fmt.Errorf("keep lease alive: %w", err)
	}
	if d.registrations.Add(1) > 1 {
		d.Relist()
	}
	d.hold(&d.registration)
	return d.keepAlive(ctx, c, self, k, lease, ttl, alive)
}

// publish writes all keys in one transaction under a new lease. Keys of an earlier lease move to the new one, without a
// gap.
func (d *Directory) publish(ctx context.Context, c *clientv3.Client, self ring.Member, k keys, full, stock string) (
	clientv3.LeaseID, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	seconds := (d.cfg.LeaseTTL + time.Second - 1) / time.Second
	granted, err := c.Grant(ctx, int64(seconds))
	if err != nil {
		return 0, 0, fmt.Errorf("grant a lease: %w", err)
	}
	d.lease.Store(int64(granted.ID)) // before the keys are written, so that Close also revokes the lease when the response is lost
	if _, err := d.takeSlot(ctx, c, self, granted.ID); err != nil {
		return 0, 0, fmt.Errorf("take a slot: %w", err)
	}
	puts := append(k.legacy.put(granted.ID),
		clientv3.OpPut(k.full, full, clientv3.WithLease(granted.ID)),
		clientv3.OpPut(k.stock, stock, clientv3.WithLease(granted.ID)))
	if _, err := c.Txn(ctx).Then(puts...).Commit(); err != nil {
		return 0, 0, fmt.Errorf("put %s and %s: %w", k.full, k.stock, err)
	}
	d.recordContact()
	return granted.ID, time.Duration(granted.TTL) * time.Second, nil
}

// keepAlive supervises a registration until it is lost, and returns why.
func (d *Directory) keepAlive(ctx context.Context, c *clientv3.Client, self ring.Member, k keys, lease clientv3.LeaseID, ttl time.Duration,
	alive <-chan *clientv3.LeaseKeepAliveResponse) error {
	// The client renews the lease every third of its ttl, up to half a second late (retryConnWait of clientv3's lease.go).
	// The rest of the ttl is the time to register again, with another member of etcd, before the keys expire.
	limit := ttl/3 + time.Second
	overdue := time.NewTimer(limit)
	defer overdue.Stop()
	verify := time.NewTicker(d.timing.verify)
	defer verify.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-alive:
			if !ok {
				return fmt.Errorf("lease %x has expired or was revoked", lease)
			}
			d.recordContact()
			overdue.Reset(limit)
		case <-overdue.C:
			return fmt.Errorf("lease %x: etcd did not answer for %v", lease, limit)
		case <-verify.C:
			d.takeMissingSlot(ctx, c, self, lease)
			if d.displaced(ctx, c, k, lease) {
				return fmt.Errorf("%s or %s was deleted, or written by another process", k.full, k.stock)
			}
		}
	}
}

// displaced reports whether a key was deleted or is on another lease, which the keep-alive does not show. When etcd does
// not answer, the keep-alive fails, too.
func (d *Directory) displaced(ctx context.Context, c *clientv3.Client, k keys, lease clientv3.LeaseID) bool {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	held, err := c.Txn(ctx).If(append(append(k.legacy.published(), d.slotHeld(lease)...),
		heldBy(k.full, lease), heldBy(k.stock, lease))...).Commit()
	return err == nil && !held.Succeeded
}

func heldBy(key string, lease clientv3.LeaseID) clientv3.Cmp {
	return clientv3.Compare(clientv3.LeaseValue(key), "=", lease)
}

// deregister deletes the stock and the legacy key, and marks the record as leaving, if it is still the one that this
// process wrote: another process may have the id by now.
func (d *Directory) deregister(k keys, full, leaving string) {
	lease := clientv3.LeaseID(d.lease.Load())
	if lease == clientv3.NoLease {
		return
	}
	d.withdraw(func(ctx context.Context, c *clientv3.Client) error {
		steps := append(append(k.legacy.remove(lease), d.freeSlot(lease)...),
			clientv3.OpDelete(k.stock),
			clientv3.OpPut(k.full, leaving, clientv3.WithIgnoreLease())) // it stays on its lease
		_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(k.full), "=", full)).Then(steps...).Commit()
		return err
	})
}

// revoke deletes the remaining keys.
func (d *Directory) revoke() {
	lease := clientv3.LeaseID(d.lease.Swap(0))
	if lease == clientv3.NoLease {
		return
	}
	d.withdraw(func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, lease)
		return err
	})
}

var errNotDeregistered = errors.New("etcd did not answer; the lease will expire")

// withdraw tries a request twice within timing.withdraw, each time with another member of etcd.
func (d *Directory) withdraw(request session) {
	const members = 2
	turn := d.randomTurn()
	for try := range members {
		if d.tryOnce(d.timing.withdraw/members, turn+try, request) == nil {
			return
		}
	}
	d.event("deregistration failed", errNotDeregistered)
}

func (d *Directory) tryOnce(limit time.Duration, turn int, request session) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := d.dial(ctx, turn)
	if err != nil {
		return err
	}
	defer c.Close()
	return request(ctx, c)
}
