package dns

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/ring/record"
)

// errClient: the sidecar at an address is a client of the ring.
var errClient = errors.New("a client")

// errInvalid: what a member says about itself cannot be on a ring.
var errInvalid = errors.New("invalid description")

// describe asks the member at addr who it is. What it says counts only if the same member, authenticated with that id, also
// answers at the address that it advertises: a member could otherwise claim the keys of another one.
func (d *Directory) describe(ctx context.Context, addr string, known ring.Member) (ring.Member, error) {
	id, text, leaving, err := d.config.Peers.Describe(ctx, addr)
	if err != nil {
		return ring.Member{}, fmt.Errorf("ask %s who it is: %w", addr, err)
	}
	if len(text) == 0 && !leaving { //guard:client-is-asked-like-a-silent-member
		return ring.Member{}, errClient
	}
	m, err := record.Parse(id, text)
	if err != nil {
		return ring.Member{}, fmt.Errorf("%w: %s: %w", errInvalid, addr, err)
	}
	if !address.Reachable(m.Addr, d.config.Self.Addr) { //guard:advertised-loopback-is-dialed
		return ring.Member{}, fmt.Errorf("%w: %s: %q advertises the loopback address %s", errInvalid, addr, m.ID, m.Addr)
	}
	m.Leaving = false
	switch {
	case known.ID != "" && m.ID == known.ID && m.Addr == known.Addr && m.HashKey == known.HashKey:
	case leaving:
		return ring.Member{}, fmt.Errorf("%s: %q is leaving", addr, m.ID)
	default:
		if err := d.config.Peers.Ping(ctx, m); err != nil { //guard:unverified-member-is-listed
			return ring.Member{}, fmt.Errorf("%s says that it is %q at %s: %w", addr, m.ID, m.Addr, err)
		}
	}
	m.Leaving = leaving
	return m, nil
}

// Register implements ring.Directory. DNS is changed by others, such as Kubernetes; Register tells the members of the list
// that this one has joined, and at the end that it is leaving, so that they need not wait for DNS.
func (d *Directory) Register(ctx context.Context, self ring.Member) error {
	d.announce(ctx, self)
	<-ctx.Done()
	d.announce(context.WithoutCancel(ctx), self) //guard:leave-waits-for-dns
	return nil
}

// announce tells all members that self has changed. Those that it does not reach find out from DNS or by pings.
func (d *Directory) announce(ctx context.Context, self ring.Member) {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	var calls errgroup.Group
	calls.SetLimit(concurrency)
	for _, m := range d.list() {
		if m.ID == self.ID {
			continue
		}
		calls.Go(func() error {
			_ = d.config.Peers.Announce(ctx, m, self.Addr)
			return nil
		})
	}
	_ = calls.Wait() // no call returns an error
}
