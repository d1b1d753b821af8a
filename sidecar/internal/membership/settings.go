package membership

import (
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
)

// settings finds listed members whose ring has other sizes. They route keys to other owners for as long as the configurations
// differ; the ids of the rings show that there is a difference, and only the records show which.
type settings struct {
	self    ring.Member
	log     *zap.Logger
	members atomic.Int64 // with other settings, in the last list
	text    atomic.Pointer[string]
	logged  string // used by the goroutine that resolves the members
}

// look searches a list of members. Members of older releases, static lists and xDS lists do not have the settings.
func (s *settings) look(members []ring.Member) {
	count, text := int64(0), ""
	for _, m := range members {
		if m.ID == s.self.ID || m.Leaving || m.Ring == (ring.Size{}) || m.Ring == s.self.Ring { //guard:older-member-has-other-settings
			continue
		}
		if count++; count == 1 {
			text = s.describe(m)
		}
	}
	s.members.Store(count)
	s.text.Store(&text)
	if text != s.logged && text != "" {
		s.log.Warn("a member builds another ring: keys have two owners until all members have the same settings",
			zap.String("difference", text), zap.Int64("members", count))
	}
	s.logged = text
}

func (s *settings) describe(m ring.Member) string {
	if m.Ring.Min != s.self.Ring.Min {
		return fmt.Sprintf("ring.min is %d on %s and %d on %s", m.Ring.Min, m.ID, s.self.Ring.Min, s.self.ID)
	}
	return fmt.Sprintf("ring.max is %d on %s and %d on %s", m.Ring.Max, m.ID, s.self.Ring.Max, s.self.ID)
}

// example describes one difference; empty if there is none.
func (s *settings) example() string {
	if text := s.text.Load(); text != nil {
		return *text
	}
	return ""
}
