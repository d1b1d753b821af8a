package membership

import (
	"testing"

	"github.com/ringside-cache/ringside/ring"
)

func mustRing(t *testing.T, members ...ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A sidecar that restarts while the directory is down knows only itself. Its clients still have the whole ring.
func TestNothingIsPublishedBeforeTheFirstList(t *testing.T) {
	var got [][]ring.Member
	p := published{use: func(members []ring.Member) { got = append(got, members) }}
	self, other := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}, ring.Member{ID: "other", Addr: "10.0.0.2:7072"}
	p.useRing(mustRing(t, self))
	p.useRing(mustRing(t, self, other))
	if len(got) != 0 {
		t.Fatalf("got %v, want nothing before the first list", got)
	}
	p.useList([]ring.Member{self, other})
	if len(got) != 1 || len(got[0]) != 2 {
		t.Errorf("got %v, want one list of two members", got)
	}
}

func TestLeavingMembersArePublished(t *testing.T) {
	var got []ring.Member
	p := published{use: func(members []ring.Member) { got = members }}
	self, gone := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}, ring.Member{ID: "gone", Addr: "10.0.0.2:7072", Leaving: true}
	p.useRing(mustRing(t, self))
	p.useList([]ring.Member{self, gone})
	if len(got) != 2 || !got[1].Leaving {
		t.Errorf("got %v, want a member on the ring and one that is leaving", got)
	}
}
