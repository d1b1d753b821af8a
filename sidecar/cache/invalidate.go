package cache

import (
	"context"
	"errors"
)

var errReadOnly = errors.New("the dataset takes no writes; see `writable` in the configuration")

// Invalidate drops what s says on every member, and returns when all that can be reached have done so.
func (d *Dataset) Invalidate(ctx context.Context, s Scope) (Told, error) { return Told{}, nil }

// Drop drops what i says from this member's memory. A load that began before is not stored, later reads do not wait for
// it, and nothing older is taken from another member.
func (d *Dataset) Drop(i Invalidation) {}

// DropCopies drops every local copy of another member's entries: its invalidations may have been missed.
func (d *Dataset) DropCopies(member string) {}

// RingChanged says that keys may have other owners now.
func (d *Dataset) RingChanged() {}

// SetFeedLive says whether all changes are told by a feed. While they are not, entries live for Policy.GapTTL at most.
func (d *Dataset) SetFeedLive(live bool) {}
