package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/ring"
)

// Register implements ring.Directory. It returns an error only for a self that no member would accept.
func (d *Directory) Register(ctx context.Context, self ring.Member) error {
	self.Leaving = false
	full, stock, err := encode(self)
	if err != nil {
		return fmt.Errorf("etcd: register: %w", err)
	}
	self.Leaving = true
	goodbye, _, err := encode(self)
	if err != nil {
		return fmt.Errorf("etcd: register: %w", err)
	}
	keys, err := d.keysOf(self)
	if err != nil {
		return fmt.Errorf("etcd: register: %w", err)
	}
	d.forever(ctx, &d.registration, func(ctx context.Context, c *clientv3.Client) error {
		return d.stayIn(ctx, c, keys, full, stock)
	})
	d.sayGoodbye(keys, full, goodbye)
	return nil
}

// keys are those of one member.
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

// stayIn is one registration: lease, keys, keep-alive. It returns as soon as anything is odd.
func (d *Directory) stayIn(ctx context.Context, c *clientv3.Client, k keys, full, stock string) error {
	lease, ttl, err := d.publish(ctx, c, k, full, stock)
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
	return d.attend(ctx, c, k, lease, ttl, alive)
}

// publish writes all keys in one transaction under a new lease. Keys of an earlier lease move to the new one, so that
// nobody sees a gap.
func (d *Directory) publish(ctx context.Context, c *clientv3.Client, k keys, full, stock string) (
	clientv3.LeaseID, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	seconds := (d.cfg.LeaseTTL + time.Second - 1) / time.Second
	granted, err := c.Grant(ctx, int64(seconds))
	if err != nil {
		return 0, 0, fmt.Errorf("grant a lease: %w", err)
	}
	d.lease.Store(int64(granted.ID)) // before the keys are written, so that Close covers a write whose answer is lost
	puts := append(k.legacy.put(granted.ID),
		clientv3.OpPut(k.full, full, clientv3.WithLease(granted.ID)),
		clientv3.OpPut(k.stock, stock, clientv3.WithLease(granted.ID)))
	put, err := c.Txn(ctx).Then(puts...).Commit()
	if err != nil {
		return 0, 0, fmt.Errorf("put %s and %s: %w", k.full, k.stock, err)
	}
	d.heard(put.Header.Revision)
	return granted.ID, time.Duration(granted.TTL) * time.Second, nil
}

// attend watches a registration and says what went wrong with it.
func (d *Directory) attend(ctx context.Context, c *clientv3.Client, k keys, lease clientv3.LeaseID, ttl time.Duration,
	alive <-chan *clientv3.LeaseKeepAliveResponse) error {
	// The client asks every third of the ttl, up to half a second late (retryConnWait of clientv3's lease.go). What is
	// left of the ttl then is for registering anew, with another member of etcd, before anybody notices.
	limit := ttl/3 + time.Second
	silence := time.NewTimer(limit)
	defer silence.Stop()
	verify := time.NewTicker(d.timing.verify)
	defer verify.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case answer, ok := <-alive:
			if !ok {
				return fmt.Errorf("lease %x is gone", lease)
			}
			d.heard(answer.Revision)
			silence.Reset(limit)
		case <-silence.C:
			return fmt.Errorf("lease %x: etcd did not answer for %v", lease, limit)
		case <-verify.C:
			if d.displaced(ctx, c, k, lease) {
				return fmt.Errorf("%s or %s was deleted, or written by another process", k.full, k.stock)
			}
		}
	}
}

// displaced reports whether a key is not ours any more, which the lease does not tell. When etcd does not answer, the
// keep-alive will notice.
func (d *Directory) displaced(ctx context.Context, c *clientv3.Client, k keys, lease clientv3.LeaseID) bool {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	held, err := c.Txn(ctx).If(append(k.legacy.published(), heldBy(k.full, lease), heldBy(k.stock, lease))...).Commit()
	return err == nil && !held.Succeeded
}

func heldBy(key string, lease clientv3.LeaseID) clientv3.Cmp {
	return clientv3.Compare(clientv3.LeaseValue(key), "=", lease)
}

// sayGoodbye takes the member off the stock ring and from where old clients look, and marks its record as leaving, if
// the record is still the one that this process wrote: another may have the id by now.
func (d *Directory) sayGoodbye(k keys, full, goodbye string) {
	lease := clientv3.LeaseID(d.lease.Load())
	if lease == clientv3.NoLease {
		return
	}
	d.onTheWayOut(func(ctx context.Context, c *clientv3.Client) error {
		steps := append(k.legacy.remove(lease),
			clientv3.OpDelete(k.stock),
			clientv3.OpPut(k.full, goodbye, clientv3.WithIgnoreLease())) // it stays on the lease that it has
		_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(k.full), "=", full)).Then(steps...).Commit()
		return err
	})
}

// revoke deletes what is left of the keys.
func (d *Directory) revoke() {
	lease := clientv3.LeaseID(d.lease.Swap(0))
	if lease == clientv3.NoLease {
		return
	}
	d.onTheWayOut(func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, lease)
		return err
	})
}

var errNotSaid = errors.New("etcd did not answer; the lease will expire")

// onTheWayOut tries a request twice within timing.goodbye, with another member of etcd each time.
func (d *Directory) onTheWayOut(request session) {
	const members = 2
	turn := d.anyTurn()
	for try := range members {
		if d.once(d.timing.goodbye/members, turn+try, request) == nil {
			return
		}
	}
	d.event("withdrawal", errNotSaid)
}

func (d *Directory) once(limit time.Duration, turn int, request session) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := d.dial(ctx, turn)
	if err != nil {
		return err
	}
	defer c.Close()
	return request(ctx, c)
}
