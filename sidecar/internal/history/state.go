package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

// State is what a member depends on, at one moment.
type State struct {
	Ring      []string // node ids
	Connected bool     // the member directory is known and up to date
	Listed    bool     // this member is registered in it
	Feeds     map[string]Feed
	Origins   map[string]bool // :: origin → the breaker is open
	// BreakersOpen are the members that get no requests because they did not respond.
	BreakersOpen      []string
	Reloads, Rejected int64 // configurations
}

// Feed is the state of the change feed of a dataset.
type Feed struct {
	Live bool
	Gaps int64 // since the start
}

// changes returns what has happened between two looks.
func (s State) changes(next State) (list []adminapi.Event) {
	add := func(kind string, bad bool, format string, args ...any) {
		list = append(list, adminapi.Event{Kind: kind, Bad: bad, Text: fmt.Sprintf(format, args...)})
	}
	if joined := missing(next.Ring, s.Ring); len(joined) > 0 {
		add(adminapi.EventRing, false, "%s joined the ring", names(joined))
	}
	if left := missing(s.Ring, next.Ring); len(left) > 0 {
		add(adminapi.EventRing, true, "%s left the ring", names(left))
	}
	if s.Connected != next.Connected {
		add(adminapi.EventDirectory, !next.Connected, "member directory %s", either(next.Connected, "connected", "lost; the ring stays as it is"))
	}
	if s.Listed != next.Listed {
		add(adminapi.EventDirectory, !next.Listed, "registration %s", either(next.Listed, "made", "lost or withdrawn"))
	}
	if n := next.Reloads - s.Reloads; n > 0 {
		add(adminapi.EventReload, false, "configuration reloaded")
	}
	if n := next.Rejected - s.Rejected; n > 0 {
		add(adminapi.EventReload, true, "changed configuration rejected; the old one stays in use")
	}
	for _, name := range slices.Sorted(maps.Keys(next.Feeds)) {
		before, known := s.Feeds[name]
		switch after := next.Feeds[name]; {
		case !known:
		case before.Live && !after.Live:
			add(adminapi.EventFeed, true, "change feed of %s interrupted; entries expire earlier", name)
		case !before.Live && after.Live:
			add(adminapi.EventFeed, false, "change feed of %s live", name)
		case before.Gaps < after.Gaps && after.Live:
			add(adminapi.EventFeed, true, "change feed of %s interrupted and live again", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next.Origins)) {
		if before, known := s.Origins[name]; known && before != next.Origins[name] {
			add(adminapi.EventBreaker, !before, "circuit breaker of origin %s %s", name,
				either(before, "closed: it answers again", "opened: it failed repeatedly"))
		}
	}
	if opened := missing(next.BreakersOpen, s.BreakersOpen); len(opened) > 0 {
		add(adminapi.EventBreaker, true, "%s not responding: requests go to successors", names(opened))
	}
	if closed := missing(s.BreakersOpen, next.BreakersOpen); len(closed) > 0 {
		if back := slices.DeleteFunc(closed, func(id string) bool { return !slices.Contains(next.Ring, id) }); len(back) > 0 {
			add(adminapi.EventBreaker, false, "%s responding again", names(back))
		}
	}
	return list
}

// missing returns what is in a but not in b.
func missing(a, b []string) (list []string) {
	in := make(map[string]bool, len(b))
	for _, id := range b {
		in[id] = true
	}
	for _, id := range a {
		if !in[id] {
			list = append(list, id)
		}
	}
	return list
}

// maxNames limits the members that an event names: a rolling restart of a thousand is one line.
const maxNames = 3

func names(ids []string) string {
	if len(ids) > maxNames {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:maxNames], ", "), len(ids)-maxNames)
	}
	return strings.Join(ids, ", ")
}

func either(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}
