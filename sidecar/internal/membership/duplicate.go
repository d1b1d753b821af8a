package membership

import (
	"slices"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
)

// duplicates logs members with the id or address of this one. One of the two then owns no keys, and nothing else reports
// why. It is not safe for concurrent use.
type duplicates struct {
	self   ring.Member
	log    *zap.Logger
	logged ring.Member // the last one
}

// look searches a list of members. A duplicate that started before this member is its own record from before a restart.
func (d *duplicates) look(members []ring.Member) {
	i := slices.IndexFunc(members, func(m ring.Member) bool {
		return (m.ID == d.self.ID) != (m.Addr == d.self.Addr) && m.Started.After(d.self.Started)
	})
	if i < 0 || members[i] == d.logged {
		return
	}
	d.logged = members[i]
	d.log.Warn("another member has the id or address of this one: give each its own node.id and node.advertise",
		zap.String("id", d.logged.ID), zap.String("address", d.logged.Addr), zap.Time("started", d.logged.Started))
}
