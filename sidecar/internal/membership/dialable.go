package membership

import (
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
)

// dialable filters the lists of a directory: this member must not dial each address that another program wrote there.
type dialable struct {
	self    []string // addresses of this member, or of the publishers from which a client gets its list
	log     *zap.Logger
	logged  ring.Member  // the last one; used by the goroutine that resolves the members
	ignored atomic.Int64 // members, in each list again
}

// of returns the members that this one may dial. It logs each ignored member once in a row.
func (d *dialable) of(members []ring.Member) []ring.Member {
	kept := members[:0:0]
	for _, m := range members {
		if d.allows(m.Addr) {
			kept = append(kept, m)
			continue
		}
		d.ignored.Add(1)
		if m != d.logged {
			d.logged = m
			d.log.Warn("ignored a listed member: its address is loopback, which is that of another program on this host; set "+
				"its node.advertise", zap.String("id", m.ID), zap.String("address", m.Addr))
		}
	}
	return kept
}

func (d *dialable) allows(addr string) bool {
	for _, self := range d.self {
		if address.Reachable(addr, self) {
			return true
		}
	}
	return false
}
