package membership

import "testing"

func TestDisagreementListsTheMembersOncePerRing(t *testing.T) {
	var d disagreements
	for i, check := range []struct {
		ring  uint64
		count int64
		list  bool
	}{
		{1, 0, false},
		{1, 5, false}, // a change in progress
		{1, 5, false}, // it is complete
		{1, 6, false},
		{1, 7, true},
		{1, 8, false}, // the list left the ring unchanged: the others are wrong
		{1, 9, false},
		{2, 10, false},
		{2, 11, false},
		{2, 12, true},
	} {
		if got := d.shouldList(check.ring, check.count); got != check.list {
			t.Errorf("check %d: got %v, want %v", i, got, check.list)
		}
	}
}
