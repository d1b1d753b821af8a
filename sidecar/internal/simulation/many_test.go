//go:build !race

package simulation

import (
	"testing"
	"time"
)

// The race detector itself fails with as many goroutines as these tests have.

// With more subscribers than the memory for them, a member refuses the rest, and the others still get each invalidation in time.
func TestInvalidationsOfAMember(t *testing.T) {
	few, many := stream(t, 100, 10), stream(t, 1300, 10)
	if few.Admitted != 99 || many.Admitted >= many.Wanted {
		t.Errorf("got %d of 99 and %d of %d subscribers; want all, and fewer than all", few.Admitted, many.Admitted, many.Wanted)
	}
	for _, s := range []streams{few, many} {
		if s.Latest > time.Second || s.Responses < float64(s.Admitted) {
			t.Errorf("%d subscribers: %.0f responses a second, the latest %v after its write", s.Admitted, s.Responses, s.Latest)
		}
	}
}

// A reader of a change feed has as many subscribers as there are members, and some clients; of all pods, it would refuse most.
func TestChangesReachManyPods(t *testing.T) {
	const pods, members = 620, 20
	r := relay(t, pods, members)
	if want := members - 1 + 2*(pods-members)/members; r.Reader != want || r.ReaderAdmitted != want || r.RelayAdmitted != 2*(pods-members)/members {
		t.Errorf("got %+v; want %d streams at the reader, and none refused", r, want)
	}
	if r.Latest > time.Second || r.Responses < float64(r.RelayAdmitted) {
		t.Errorf("%.0f responses a second of the relay, the latest %v after its change", r.Responses, r.Latest)
	}
}
