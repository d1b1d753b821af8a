package sidecar

import "testing"

func TestMembersAreListedAgainOncePerRingThatOthersDoNotShare(t *testing.T) {
	var s skeptic
	for i, look := range []struct {
		ring  uint64
		count int64
		list  bool
	}{
		{1, 0, false},
		{1, 5, false}, // a change under way
		{1, 5, false}, // that came to its end
		{1, 6, false},
		{1, 7, true},
		{1, 8, false}, // the list left the ring as it is: the others are wrong
		{1, 9, false},
		{2, 10, false},
		{2, 11, false},
		{2, 12, true},
	} {
		if got := s.look(look.ring, look.count); got != look.list {
			t.Errorf("look %d: list %v, want %v", i, got, look.list)
		}
	}
}
