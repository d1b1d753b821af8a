package explain

import (
	"fmt"
	"slices"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// inWords says what a read of an application through one member would do, as the rest of a sentence about that member.
func inWords(s *adminapi.KeyState) string { return step(s) + otherwise(s) }

// otherwise says what happens if the step fails.
func otherwise(s *adminapi.KeyState) string {
	if s.Memory.Next.Stale {
		return "; if that fails or takes long, it answers with the stale entry"
	}
	return ""
}

func step(s *adminapi.KeyState) string {
	next := s.Memory.Next
	switch next.Action {
	case kv.ActHit:
		return "answers from memory with " + entry(s.Memory)
	case kv.ActStale:
		return "answers at once with the stale entry (" + next.Detail + "), without a load"
	case kv.ActRevalidate:
		return "answers at once with the stale entry (" + next.Detail + "), and loads in the background"
	}
	text := ""
	switch next.Action {
	case kv.ActJoin:
		text = "waits for the load or the fetch of the key that is running"
	case kv.ActFetch:
		text = "fetches from " + next.From
		if next.Zone != "" {
			text = "fetches from " + next.Zone + ", the owner of the key in its zone"
		}
	default:
		text = "loads from the origin " + s.Origin.Name
		if next.Previous != "" {
			text = "asks the previous owner " + next.Previous + ", and if that has nothing fresh, " + text
		}
		if s.Origin.BreakerOpen {
			text += ", which fails at once because its circuit breaker is open"
		}
	}
	return text
}

func entry(m kv.Explanation) string {
	left := fmt.Sprintf(", which is fresh for another %v", m.Fresh.Round(time.Millisecond))
	switch {
	case m.DataError != "":
		return "an error, because the rows of the key cannot be its value"
	case m.Absent:
		return "a negative entry (not found)" + left
	case m.Local:
		return "its copy of the entry of " + m.Owner + left
	}
	return "its entry" + left
}

// throughMembers goes on from what this member does with what the member does that it asks.
func throughMembers(here *adminapi.KeyState, members []adminapi.KeyMember) string {
	return "this member " + step(here) + others(here, members) + otherwise(here)
}

// others says how the members go on that are asked.
func others(here *adminapi.KeyState, members []adminapi.KeyMember) string {
	next := here.Memory.Next
	if next.Action != kv.ActFetch {
		return ""
	}
	if next.Zone != "" {
		return throughZone(here, members)
	}
	owner, ok := find(members, next.From)
	switch {
	case ok && answers(owner):
		return after(owner)
	case !ok:
		return ""
	}
	text := fmt.Sprintf(", which does not answer now (%s); then ", owner.State)
	successor, ok := find(members, next.Successor)
	switch {
	case next.Successor == "":
		return text + "it loads from the origin " + here.Origin.Name + " itself, as the successor"
	case ok && answers(successor):
		return text + "it fetches from the successor " + next.Successor + after(successor)
	}
	return text + "it fetches from the successor " + next.Successor + ", and loads from the origin itself if that does not answer either"
}

// throughZone says how the owner of the key in this zone goes on.
func throughZone(here *adminapi.KeyState, members []adminapi.KeyMember) string {
	next := here.Memory.Next
	text := ""
	switch near, ok := find(members, next.Zone); {
	case !ok || answers(near) && near.Key == nil:
		return ""
	case !answers(near):
		text = fmt.Sprintf(", which does not answer now (%s); then it fetches from the owner %s", near.State, next.From)
	case near.Key.Memory.Next.Action != kv.ActFetch:
		return ", which " + near.Key.NextRead
	default:
		text = ", which fetches from the owner " + near.Key.Memory.Next.From
		next.From = near.Key.Memory.Next.From
	}
	if owner, ok := find(members, next.From); ok && answers(owner) {
		return text + after(owner)
	}
	return text
}

// after says how a member goes on that was asked.
func after(m adminapi.KeyMember) string {
	switch {
	case m.Key == nil:
		return ""
	case m.Key.Memory.Next.Action == kv.ActFetch: // for another member it does not: it loads
		return ", which loads from the origin " + m.Key.Origin.Name
	}
	return ", which " + m.Key.NextRead
}

// answers reports whether reads get an answer of m.
func answers(m adminapi.KeyMember) bool {
	switch m.State {
	case adminapi.StateNoAnswer, adminapi.StateUnreachable, adminapi.StateBreakerOpen, adminapi.StateNoDataset:
		return false
	}
	return true
}

func find(members []adminapi.KeyMember, id string) (adminapi.KeyMember, bool) {
	i := slices.IndexFunc(members, func(m adminapi.KeyMember) bool { return m.ID == id })
	if i < 0 {
		return adminapi.KeyMember{}, false
	}
	return members[i], true
}
